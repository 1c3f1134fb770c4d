"""Whether a name stands for what draws or for what scores: told from a folder's small JSON files, nothing is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from studio.errors import ModelError, ModelNotFoundError, StudioError, UnknownNameError, shortened
from studio.models.refs import BUILTIN, resolve

DRAWS, SCORES = "builtin:emoji", "builtin:clip"
NEEDED = f"choose {SCORES}, or name the folder of a CLIP model that transformers saved"


def is_clip(folder: Path) -> bool:
    """Whether a folder holds a CLIP model of transformers, and no pipeline."""
    if (folder / "model_index.json").is_file():
        return False
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "clip"


def check_draws(name: str, assets: Path, models_dir: Path | None = None) -> None:
    """ModelError for a CLIP model where a text-to-image model is needed; whatever else is wrong, loading it says."""
    try:
        path = resolve(name, assets, models_dir).path
    except StudioError:
        return
    if path is not None and is_clip(path):
        raise ModelError(
            f"{shortened(name, 120)} is a scorer, not a text-to-image model: choose {DRAWS}.", field="model"
        )


def check_scores(name: str, assets: Path, models_dir: Path | None = None) -> None:
    """A StudioError, with the field scorer, for a name that stands for no CLIP model; a hub id may yet be one."""
    try:
        path = resolve(name, assets, models_dir).path
    except StudioError as error:
        if name.startswith(BUILTIN):
            raise UnknownNameError("scorer", name, _own_scorers(assets), field="scorer") from error
        raise ModelNotFoundError(f"There is no scorer {shortened(name, 120)!r}: {NEEDED}.", field="scorer") from error
    if path is not None and not is_clip(path):
        raise ModelError(f"{shortened(name, 120)} is no CLIP model, it cannot score: {NEEDED}.", field="scorer")


def _own_scorers(assets: Path) -> list[str]:
    return sorted(BUILTIN + folder.name for folder in (assets / "models").glob("*") if is_clip(folder))
