"""Pictures that read as one thing upright and as another when rearranged."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.illusions.request import IllusionRequest
    from studio.illusions.result import IllusionResult
    from studio.models.store import ModelStore
from studio.progress import OnStep, ignore


def run(request: IllusionRequest, models: ModelStore, *, on_step: OnStep = ignore) -> IllusionResult:
    """``studio.illusions.engine.run``, imported when it is first called so that torch waits until it is needed."""
    from studio.illusions import engine

    return engine.run(request, models, on_step=on_step)
