"""What a model's name means: a built-in, a file or a diffusers folder, or a repository on the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from studio.errors import ModelError, ModelFileError, ModelNotFoundError, UnknownNameError, shortened
from studio.models import files, headers

BUILTIN, LORA = "builtin:", "LoRA"
FILE_FAMILIES = {"sd1": "Stable Diffusion 1", "sd2": "Stable Diffusion 2", "sdxl": "SDXL"}
HUB_ID = re.compile(r"[A-Za-z0-9]([\w.-]*\w)?/[A-Za-z0-9]([\w.-]*\w)?")
HUB_ID_LENGTH = 96  # characters


@dataclass(frozen=True)
class Ref:
    """A resolved name. ``path`` is None for the hub."""

    name: str
    kind: Literal["builtin", "folder", "file", "hub"]
    path: Path | None


@dataclass(frozen=True)
class ModelChoice:
    """One line of the model picker."""

    name: str
    title: str
    family: str
    about: str


def resolve(name: str, assets: Path, models_dir: Path | None = None) -> Ref:
    """The model ``name`` means: ``builtin:x``, a name inside the models folder, a path, or ``owner/name``."""
    if name.startswith(BUILTIN):
        return _builtin(name, assets)
    if not name.strip():
        raise ModelNotFoundError(
            "model: none is named; name a built-in, a .safetensors file, a diffusers folder or owner/name.",
            field="model",
        )
    for path in _there(name, models_dir):
        return Ref(name, "folder" if path.is_dir() else "file", path.resolve())
    if is_hub_id(name):
        return Ref(name, "hub", None)
    raise ModelNotFoundError(
        f"There is no model at {shortened(name, 120)!r}: name a built-in, a .safetensors file, "
        "a diffusers folder or owner/name.",
        field="model",
    )


def is_hub_id(name: str) -> bool:
    """Whether the hub could have a repository of this name."""
    odd = len(name) > HUB_ID_LENGTH or "--" in name or ".." in name or name.endswith(".git")
    return HUB_ID.fullmatch(name) is not None and not odd


def list_models(assets: Path, models_dir: Path | None = None) -> tuple[ModelChoice, ...]:
    """Every text-to-image model that can be offered without a network: built-ins first, then the models folder.

    The models folder is searched with all its folders, and files are told by their headers. What cannot be read is
    not offered; naming it says why.
    """
    builtin = [_folder_choice(index.parent, BUILTIN + index.parent.name) for index in _indexes(assets / "models")]
    return (*builtin, *(_own_choices(models_dir, assets / "configs") if models_dir else ()))


def list_loras(assets: Path, models_dir: Path | None = None) -> tuple[str, ...]:
    """Every LoRA that can be offered: built-ins first, then those of the models folder by their paths inside it."""
    builtin = [BUILTIN + path.stem for path in _builtin_loras(assets)]
    found = [path for path in _entries(models_dir) if path.is_file()] if models_dir else []
    return (*builtin, *(_name(path, models_dir) for path in found if _content(path, assets / "configs") == LORA))


def resolve_lora(name: str, assets: Path, models_dir: Path | None = None, *, field: str = "adapters") -> Path:
    """The LoRA ``name`` means: ``builtin:x``, a name inside the models folder, or the path of a file or its folder.

    Raises UnknownNameError that suggests the nearest LoRA that can be offered.
    """
    for path in _builtin_loras(assets) if name.startswith(BUILTIN) else ():
        if path.stem == name.removeprefix(BUILTIN):
            return path
    for path in _there(name, models_dir):
        return path.resolve()
    known = list_loras(assets, models_dir)
    if not known:
        raise ModelNotFoundError(
            f"There is no LoRA at {shortened(name, 120)!r}: name a .safetensors file, or put one into the "
            "models folder (--models).",
            field=field,
        )
    raise UnknownNameError("LoRA", name, known, field=field)


def drawable(name: str, assets: Path) -> tuple[str, ...]:
    """The things a built-in model can draw, in its list's order; empty for a model that keeps no such list."""
    if not name.startswith(BUILTIN):
        return ()
    listed = assets / "models" / name.removeprefix(BUILTIN) / "things.json"
    return tuple(entry["name"] for entry in json.loads(listed.read_text(encoding="utf-8"))) if listed.exists() else ()


def _builtin_loras(assets: Path) -> list[Path]:
    """``loras/x/x.safetensors``, beside the card of each."""
    return [path for path in sorted((assets / "loras").glob("*/*.safetensors")) if path.stem == path.parent.name]


def _builtin(name: str, assets: Path) -> Ref:
    path = assets / "models" / name.removeprefix(BUILTIN)
    known = sorted(BUILTIN + folder.name for folder in (assets / "models").glob("*") if folder.is_dir())
    if name not in known:
        raise UnknownNameError("built-in model", name, known, field="model")
    return Ref(name, "builtin", path)


def _there(name: str, models_dir: Path | None) -> Iterator[Path]:
    """What lies under a name that a person gave: in the models folder, then elsewhere.

    Unlike pathlib's, these functions of os take a name that no disk could have, or a home that nobody has, for absent.
    """
    for path in (_inside(name, models_dir), Path(os.path.expanduser(name))):
        if path is not None and (os.path.isdir(path) or os.path.isfile(path)):
            yield path


def _inside(name: str, models_dir: Path | None) -> Path | None:
    """``name`` inside the models folder, never outside of it. A link in there was put there by its owner."""
    if models_dir is None or ".." in Path(name).parts or Path(name).is_absolute():
        return None
    return models_dir / name


def _indexes(root: Path) -> list[Path]:
    return sorted(root.glob("*/model_index.json"))


def _own_choices(models_dir: Path, configs: Path) -> Iterator[ModelChoice]:
    for path in _entries(models_dir):
        name = _name(path, models_dir)
        if path.is_dir() and _pipeline(path) in files.LAYOUTS:
            yield _folder_choice(path, name)
        elif path.is_file() and (family := _content(path, configs)) not in ("", LORA):
            yield ModelChoice(name=name, title=path.stem, family=family, about="")


def _entries(root: Path) -> Iterator[Path]:
    """Every diffusers folder and every .safetensors file outside of one, in the order of their names."""
    seen: set[Path] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        here = Path(folder)
        whole = "model_index.json" in names
        if whole:
            yield here
        elif here.resolve() not in seen:
            yield from (here / name for name in sorted(names) if name.endswith(".safetensors"))
        # A link may lead back up; os.walk goes on with what is left in ``inner``.
        deeper = [] if whole or here.resolve() in seen else sorted(inner)
        inner[:] = [name for name in deeper if not name.startswith(".")]
        seen.add(here.resolve())


def _name(path: Path, models_dir: Path) -> str:
    return path.relative_to(models_dir).as_posix()


def _content(path: Path, configs: Path) -> str:
    """What a .safetensors file holds: a checkpoint's family, ``LORA``, or nothing that can be offered."""
    try:
        about = path.stat()
    except OSError:
        return ""
    return _told(path, about.st_size, about.st_mtime_ns, configs)


@lru_cache(maxsize=4096)
def _told(path: Path, size: int, changed: int, configs: Path) -> str:
    """``_content``, read once for every state of a file: a models folder can hold hundreds."""
    try:
        header = files.read_header(path)
        if headers.is_lora(header):
            return LORA
        return headers.family_of(path.name, header, _family_titles(configs))
    except (ModelFileError, OSError):
        return ""


def _family_titles(configs: Path) -> dict[int, str]:
    """The width of cross-attention -> the family's title, from the configs that single files load with."""
    return {
        json.loads((configs / family / "unet.json").read_text(encoding="utf-8"))["cross_attention_dim"]: title
        for family, title in FILE_FAMILIES.items()
    }


def _pipeline(folder: Path) -> str:
    """The class that a diffusers folder's index names, "" when it cannot be read."""
    try:
        return files.read_index(folder)["_class_name"]
    except (ModelError, OSError):
        return ""


def _folder_choice(folder: Path, name: str) -> ModelChoice:
    about = _about(folder / "about.json")
    pipeline = _pipeline(folder)
    family = files.LAYOUTS[pipeline].title if pipeline in files.LAYOUTS else pipeline
    return ModelChoice(
        name=name,
        title=about.get("title", folder.name),
        family=about.get("family", family),
        about=about.get("about", ""),
    )


def _about(file: Path) -> dict[str, str]:
    """The texts of an about.json; nothing where there is none or it cannot be read."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in items if isinstance(value, str)}
