"""Several checkpoints or LoRAs made into one: streamed, exact and replayable."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.merging.request import MergeRequest
    from studio.models.store import ModelStore
    from studio.runs import Saveable
from studio.progress import OnStep, ignore


def run(request: MergeRequest, models: ModelStore, *, on_step: OnStep = ignore) -> Saveable:
    """``studio.merging.engine.run``, imported when it is first called so that torch waits until it is needed."""
    from studio.merging import engine

    return engine.run(request, models, on_step=on_step)
