"""What a training would be, before any model is loaded: pictures, steps, epochs, and what stands in its way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from studio.errors import RequestError
from studio.models.geometry import Geometry, geometry
from studio.training import going_on
from studio.training.plan import Plan
from studio.training.preflight import data_place, planned_for
from studio.training.records import Dataset, Problem
from studio.training.request import TrainRequest
from studio.training.shelf import Shelf, TooMany

USUAL = Geometry(512, 8)  # of a model that is not here yet


@dataclass(frozen=True)
class Outlook:
    """``plan`` is None where a page cannot wait for all ``pictures``; ``done``: steps that an earlier run did."""

    pictures: int
    plan: Plan | None
    done: int = 0
    problems: tuple[Problem, ...] = ()

    def to_run(self, request: TrainRequest) -> TrainRequest:
        """``request`` as steps that are still to do, for what it costs."""
        steps = request.steps if self.plan is None else self.plan.steps
        return request.model_copy(update={"steps": max(1, steps - self.done), "epochs": None})


def outlook(request: TrainRequest, assets: Path, models_dir: Path | None, shelf: Shelf) -> Outlook:
    """Of a request that was checked. Raises StudioError with the field at fault, as the run would."""
    size = geometry(request.model, assets, models_dir) or USUAL
    if size.factor == 1:
        raise RequestError(
            f"model: {request.model} draws in pixels, which cannot be trained here; choose SD, SDXL or SD 3.",
            field="model",
        )
    place = data_place(request.data, assets)
    try:
        dataset = captioned(shelf.dataset(place, request.trigger, request.template), request)
    except TooMany as many:
        return Outlook(many.count, None)
    dataset.check()
    plan = planned_for(request, dataset.examples, size.size, size.factor)
    done = going_on.check(request, dataset.fingerprint, plan.steps)
    return Outlook(dataset.per_epoch, plan, done, dataset.problems)


def captioned(dataset: Dataset, request: TrainRequest) -> Dataset:
    """``dataset`` with the captions that are trained: DreamBooth has one prompt for all."""
    if request.method != "dreambooth":
        return dataset
    return replace(dataset, examples=tuple(replace(each, caption=request.instance_prompt) for each in dataset.examples))
