"""From a request to a merged model. Everything is checked by ``run``; the bytes are made while they are saved."""

from __future__ import annotations

from studio.merging import loras
from studio.merging.baking import plan_baking
from studio.merging.fit import fit
from studio.merging.place import target_of
from studio.merging.preflight import check
from studio.merging.request import MergeRequest
from studio.merging.result import Checkpoint
from studio.merging.sources import check_hashes
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore
from studio.runs import Saveable


def run(request: MergeRequest, models: ModelStore, *, on_step: OnStep = ignore) -> Saveable:
    """A result whose ``save`` streams it to the disk: what takes gigabytes is never held in memory.

    Raises StudioError for what does not fit, before any work; ``save`` reports to ``on_step`` as well, and whatever
    that raises stops it and leaves nothing behind.
    """
    check(request)
    on_step(Step(0, 1, note="Reading the headers"))
    if request.task in ("join", "extract"):
        return loras.run(request, models, on_step)
    plan = (plan_baking if request.task == "bake" else fit)(request, models.assets, models.models_dir)
    places = [*plan.files, *(source.path for source in plan.everything)]
    target = target_of(request, models.models_dir, places, folder=plan.is_folder)
    check_hashes(request.verify, plan.everything, on_step, models.hashes)
    return Checkpoint(plan, target, on_step, models.hashes)
