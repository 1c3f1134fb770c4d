"""The sets of pictures that a request names, read and checked before a model is loaded: one, or one for each task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from studio.errors import RequestError
from studio.training.dataset import read_dataset
from studio.training.edits import named_edits
from studio.training.preflight import data_place
from studio.training.records import Dataset
from studio.training.request import TrainRequest
from studio.training.tasks import alone


def read_sets(request: TrainRequest, assets: Path, datasets: Path | None = None) -> tuple[Dataset, ...]:
    """``datasets``: where pictures lie that people have put in, and their edits.

    Raises RequestError for sets that cannot be trained on, with the field that names the set.
    """
    if not request.tasks:
        return (read_set(request, assets, datasets),)
    return tuple(_of_task(request, index, assets, datasets) for index in range(len(request.tasks)))


def read_set(request: TrainRequest, assets: Path, datasets: Path | None = None) -> Dataset:
    """The pictures of one task, their captions as they are trained."""
    place, edits = data_place(request.data, assets, datasets), named_edits(request.edits, datasets)
    dataset = read_dataset(place, trigger=request.trigger, template=request.template, edits=edits)
    dataset.check()
    return captioned(dataset, request)


def captioned(dataset: Dataset, request: TrainRequest) -> Dataset:
    """``dataset`` with the captions that are trained: DreamBooth has one prompt for all."""
    if request.method != "dreambooth":
        return dataset
    examples = tuple(replace(example, caption=request.instance_prompt) for example in dataset.examples)
    problems = tuple(problem for problem in dataset.problems if problem.kind != "uncaptioned")  # none needs its own
    return replace(dataset, examples=examples, problems=problems)


def _of_task(request: TrainRequest, index: int, assets: Path, datasets: Path | None) -> Dataset:
    try:
        return read_set(alone(request, index), assets, datasets)
    except RequestError as error:
        if request.tasks[index].model_dump().get(error.field or ""):  # the task's own, not the request's
            error.field = f"tasks.{index}.{error.field}"
        raise
