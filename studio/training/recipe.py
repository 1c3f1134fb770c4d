"""The request in a trained file's header, and how it is read back to train it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from studio.errors import ModelError, RecipeError
from studio.models import files
from studio.training.request import TrainRequest

KEY, VERSION = "duckrabbit", 1
MAX_RECIPE = 64 * 1024  # characters
NOT_RECORDED = {"resume", "trackers"}


def recipe(request: TrainRequest) -> dict[str, Any]:
    """What to do again."""
    return {"version": VERSION, "engine": "train", "request": request.model_dump(mode="json", exclude=NOT_RECORDED)}


def read(path: Path) -> dict[str, Any]:
    """The recipe in a trained file, as ``recipe`` made it. Raises RecipeError for a file that holds none."""
    return _read(path, lambda: files.read_header_and_notes(path)[1])


def read_upload(path: Path) -> dict[str, Any]:
    """``read`` for a file of which only the header was sent."""
    return _read(path, lambda: files.read_notes(path))


def _read(path: Path, notes: Callable[[], Mapping[str, str]]) -> dict[str, Any]:
    try:
        text = notes().get(KEY, "")
    except (OSError, ModelError) as error:
        reason = str(error) if isinstance(error, ModelError) else "there is no such file, or it cannot be read."
        raise RecipeError(f"{path.name} has no recipe that can be read: {reason}") from None
    if not text or len(text) > MAX_RECIPE:
        raise RecipeError(f"{path.name} holds no recipe of this studio: it was trained elsewhere, or not at all.")
    try:
        found = json.loads(text)
        good = isinstance(found["request"], dict) and found["version"] == VERSION and found["engine"] == "train"
    except (ValueError, LookupError, TypeError, RecursionError):
        raise RecipeError(f"The recipe in {path.name} is damaged: use the file as the studio saved it.") from None
    if not good:
        raise RecipeError(f"The recipe in {path.name} is for another engine, or of a newer studio.")
    return found
