"""LoRAs and their kin, learned from a handful of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.models.store import ModelStore
    from studio.runs import Saveable
    from studio.training.request import TrainRequest
from studio.progress import OnStep, ignore


def run(request: TrainRequest, models: ModelStore, *, on_step: OnStep = ignore, folder: Path | None = None) -> Saveable:
    """``studio.training.engine.run``, imported when it is first called so that torch waits until it is needed."""
    from studio.training import engine

    return engine.run(request, models, on_step=on_step, folder=folder)
