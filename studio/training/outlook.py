"""What a training would be, before any model is loaded: pictures, steps, epochs, and what stands in its way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from studio.errors import RequestError
from studio.models.geometry import Geometry, geometry
from studio.training import going_on
from studio.training.edits import Edits, named_edits
from studio.training.plan import Plan
from studio.training.preflight import data_place, planned_for, planned_for_tasks
from studio.training.records import Dataset, Problem
from studio.training.request import TrainRequest
from studio.training.shelf import Shelf, TooMany
from studio.training.task_sets import captioned
from studio.training.tasks import alone

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


@dataclass(frozen=True)
class Place:
    """Where models and pictures lie. ``edits`` are those that a page shows, in the place of a request's own."""

    assets: Path
    models_dir: Path | None = None
    datasets: Path | None = None
    edits: Edits | None = None


def outlook(request: TrainRequest, place: Place, shelf: Shelf) -> Outlook:
    """Of a request that was checked. Raises StudioError with the field at fault, as the run would."""
    size = geometry(request.model, place.assets, place.models_dir) or USUAL
    if size.factor == 1:
        raise RequestError(
            f"model: {request.model} draws in pixels, which cannot be trained here; choose SD, SDXL or SD 3.",
            field="model",
        )
    each = [alone(request, index) for index in range(len(request.tasks))] or [request]
    try:
        datasets = [
            _dataset(own, place if own.data == request.data else replace(place, edits=None), shelf) for own in each
        ]
    except TooMany as many:
        return Outlook(many.count, None)
    examples = [dataset.examples for dataset in datasets]
    if request.tasks:
        plan = planned_for_tasks(request, examples, size.size, size.factor)
    else:
        plan = planned_for(request, *examples, size.size, size.factor)
    done = going_on.check(request, "/".join(dataset.fingerprint for dataset in datasets), plan.steps)
    problems = tuple(problem for dataset in datasets for problem in dataset.problems)
    return Outlook(sum(dataset.per_epoch for dataset in datasets), plan, done, problems)


def _dataset(request: TrainRequest, place: Place, shelf: Shelf) -> Dataset:
    """The pictures of one task, with the captions that are trained; RequestError for ones that cannot be."""
    where = data_place(request.data, place.assets, place.datasets)
    edits = named_edits(request.edits, place.datasets) if place.edits is None else place.edits
    dataset = shelf.dataset(where, request.trigger, request.template, edits)
    dataset.check()
    return captioned(dataset, request)
