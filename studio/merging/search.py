"""Not there yet: only the records are, so that a page can be built against them."""

from __future__ import annotations

from studio.errors import StudioError
from studio.merging.trials_request import Trials
from studio.models.store import ModelStore
from studio.progress import OnStep, ignore
from studio.runs import Saveable


def run(request: Trials, models: ModelStore, *, on_step: OnStep = ignore) -> Saveable:
    raise StudioError("This engine is not there yet.")
