"""Pictures with captions, read from a folder, a zip or a list into one frozen record before any model is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.progress import OnStep, Step, ignore
from studio.training import captions
from studio.training.edits import Edits
from studio.training.reading import SINGLE, Reading
from studio.training.records import Dataset, Example, Limits, Problem

__all__ = ["Dataset", "Example", "Limits", "Problem", "edited", "read_dataset"]

ALIKE = ("duplicate", "similar")


def read_dataset(
    source: Path | Sequence[Path],
    *,
    trigger: str = "",
    template: str = captions.TEMPLATE,
    limits: Limits = Limits(),
    edits: Edits = Edits(),
    on_step: OnStep = ignore,
) -> Dataset:
    """Every picture of a folder, a zip or a list, with its caption and all that is wrong with it.

    Nothing is written anywhere. What is wrong with the pictures is in ``problems``; a set that cannot be trained on
    has a fatal one. Raises RequestError for the trigger word and the template alone. ``on_step`` is called before
    each picture, and what it raises stops the reading.
    """
    captions.check_words(trigger, template)
    reading = Reading(source, limits)
    while not reading.done:
        on_step(Step(reading.looked_at, len(reading.pictures), note="Looking at the pictures"))
        reading.advance()
    return edited(reading.dataset, edits, trigger=trigger, template=template)


def edited(dataset: Dataset, edits: Edits, *, trigger: str = "", template: str = captions.TEMPLATE) -> Dataset:
    """``dataset`` with other edits, trigger word or template; no file is read, so that a page can call it at every key.

    Pictures that were left out by earlier edits are gone: begin with the set as it was read without any.
    """
    captions.check_words(trigger, template)
    examples, uncaptioned = [], []
    for example in dataset.examples:
        if example.name in edits.left_out:
            continue
        written = edits.captions.get(example.name, example.found)
        caption = captions.with_trigger(written, trigger) if written is not None else ""
        if written is None:
            caption = captions.from_template(template, trigger, example.file.stem)
            uncaptioned.append(_uncaptioned(example, caption))
        examples.append(dataclasses.replace(example, caption=caption))
    problems = [*_remaining(dataset, edits), *uncaptioned, *_edit_problems(dataset, edits, left=len(examples))]
    return Dataset(tuple(examples), tuple(problems), dataset.root)


def _remaining(dataset: Dataset, edits: Edits) -> Iterator[Problem]:
    """What was wrong and still is: nothing of a picture that is left out, nor of one whose likes all are."""
    alone: set[str] = set()
    met: set[str] = set()
    for example in dataset.examples:
        first = example.twin or example.name
        if example.name not in edits.left_out and first not in met:
            met.add(first)
            alone.add(example.name)
    for problem in dataset.problems:
        settled = problem.file in edits.left_out or (problem.kind in ALIKE and problem.file in alone)
        if problem.kind not in ("uncaptioned", "edits") and not settled:
            yield problem


def _edit_problems(dataset: Dataset, edits: Edits, left: int) -> Iterator[Problem]:
    names = {example.name for example in dataset.examples}
    strange = sorted(({*edits.captions} | edits.left_out) - names)
    if strange:
        more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
        yield Problem("", f"Edits of {strange[0]!r}{more} are not used: no such picture is here.", kind="edits")
    if dataset.examples and not left:
        yield Problem("", "Every picture is left out; take some back.", fatal=True, kind="edits")
    elif left == 1 < len(dataset.examples):
        yield Problem("", SINGLE, kind="single")


def _uncaptioned(example: Example, caption: str) -> Problem:
    what = f"has no caption; it is trained with {caption!r}."
    if not caption:
        what = "has no caption, so it is trained with an empty prompt; write one or give a trigger word."
    return Problem(example.name, what, kind="uncaptioned")
