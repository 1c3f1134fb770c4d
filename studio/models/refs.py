"""What a model's name means: a built-in, a diffusers folder, or a repository on the hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.errors import ModelNotFoundError, UnknownNameError, shortened

BUILTIN = "builtin:"
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")


@dataclass(frozen=True)
class Ref:
    """A resolved name. ``path`` is the folder for built-ins and folders, None for the hub."""

    name: str
    kind: Literal["builtin", "folder", "hub"]
    path: Path | None


@dataclass(frozen=True)
class ModelChoice:
    """One line of the model picker."""

    name: str
    title: str
    family: str
    about: str


def resolve(name: str, assets: Path, models_dir: Path | None = None) -> Ref:
    """The model ``name`` means: ``builtin:x``, a name inside the models folder, a folder's path, or ``owner/name``."""
    if name.startswith(BUILTIN):
        return _builtin(name, assets)
    inside = _inside(name, models_dir)
    if inside is not None:
        return Ref(name, "folder", inside)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Ref(name, "folder", folder.resolve())
    if HUB_ID.match(name) and not folder.exists():
        return Ref(name, "hub", None)
    raise ModelNotFoundError(
        f"There is no model at {shortened(name, 120)!r}: name a built-in, a diffusers folder or owner/name.",
        field="model",
    )


def list_models(assets: Path, models_dir: Path | None = None) -> tuple[ModelChoice, ...]:
    """Every text-to-image model that can be offered without a network: built-ins first, then the models folder."""
    return tuple(_choices(assets / "models", BUILTIN)) + tuple(_choices(models_dir, "") if models_dir else ())


def drawable(name: str, assets: Path) -> tuple[str, ...]:
    """The things a built-in model can draw, in its list's order; empty for a model that keeps no such list."""
    if not name.startswith(BUILTIN):
        return ()
    listed = assets / "models" / name.removeprefix(BUILTIN) / "things.json"
    return tuple(entry["name"] for entry in json.loads(listed.read_text(encoding="utf-8"))) if listed.exists() else ()


def _builtin(name: str, assets: Path) -> Ref:
    path = assets / "models" / name.removeprefix(BUILTIN)
    known = sorted(BUILTIN + folder.name for folder in (assets / "models").glob("*") if folder.is_dir())
    if name not in known:
        raise UnknownNameError("built-in model", name, known, field="model")
    return Ref(name, "builtin", path)


def _inside(name: str, models_dir: Path | None) -> Path | None:
    """The folder ``name`` inside the models folder, never one outside of it."""
    if models_dir is None:
        return None
    candidate = (models_dir / name).resolve()
    return candidate if candidate.is_relative_to(models_dir.resolve()) and candidate.is_dir() else None


def _choices(root: Path, prefix: str) -> list[ModelChoice]:
    choices = []
    for index in sorted(root.glob("*/model_index.json")):
        about_file = index.with_name("about.json")
        about = json.loads(about_file.read_text(encoding="utf-8")) if about_file.exists() else {}
        pipeline = json.loads(index.read_text(encoding="utf-8")).get("_class_name", "")
        choices.append(
            ModelChoice(
                name=prefix + index.parent.name,
                title=about.get("title", index.parent.name),
                family=about.get("family", FAMILIES.get(pipeline, pipeline)),
                about=about.get("about", ""),
            )
        )
    return choices


FAMILIES = {"StableDiffusionPipeline": "Stable Diffusion 1/2"}
