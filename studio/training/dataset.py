"""Pictures with captions, read from a folder, a zip or a list into one frozen record before any model is loaded."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.errors import RequestError
from studio.progress import OnStep, Step, ignore
from studio.training import captions, layouts, sources
from studio.training.duplicates import Print, print_of, twins
from studio.training.edits import Edits
from studio.training.pictures import PictureError, decode
from studio.training.records import Dataset, Example, File, Limits, Problem

__all__ = ["Dataset", "Example", "Limits", "Problem", "edited", "read_dataset"]

FEW = 2  # pictures; below, a subject cannot be told from its picture


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
    try:
        files, root = sources.list_files(source, limits)
    except RequestError as error:
        root = source if isinstance(source, Path) else Path()
        return Dataset((), (Problem("", str(error), fatal=True),), root)
    pictures, problems = _pictures(files, limits)
    if any(problem.fatal for problem in problems):
        return Dataset((), tuple(problems), root)
    folder = root.name if root.is_dir() and root == source else ""
    found = layouts.find_captions(pictures, files, limits, folder)
    examples, more = _examples(pictures, folder, limits, on_step)
    examples = [dataclasses.replace(example, found=found.by_name.get(example.name)) for example in examples]
    whole = Dataset(tuple(examples), (*problems, *found.problems, *more, *_about(examples)), root)
    return edited(whole, edits, trigger=trigger, template=template)


def edited(dataset: Dataset, edits: Edits, *, trigger: str = "", template: str = captions.TEMPLATE) -> Dataset:
    """``dataset`` with other edits, trigger word or template; no file is read, so that a page can call it at every key.

    Pictures that were left out by earlier edits are gone: begin with the set as it was read without any.
    """
    captions.check_words(trigger, template)
    examples, problems = [], [problem for problem in dataset.problems if problem.kind not in ("uncaptioned", "edits")]
    for example in dataset.examples:
        if example.name in edits.left_out:
            continue
        written = edits.captions.get(example.name, example.found)
        caption = captions.with_trigger(written, trigger) if written is not None else ""
        if written is None:
            caption = captions.from_template(template, trigger, example.file.stem)
            problems.append(_uncaptioned(example, caption))
        examples.append(dataclasses.replace(example, caption=caption))
    problems += _edit_problems(dataset, edits, left=len(examples))
    return Dataset(tuple(examples), tuple(problems), dataset.root)


def _pictures(files: Sequence[File], limits: Limits) -> tuple[list[File], list[Problem]]:
    """The files that are pictures by their names, and what is said of the others."""
    pictures = [file for file in files if file.suffix in sources.PICTURES]
    problems = [_foreign(file) for file in files if file.suffix in sources.FOREIGN]
    aside = [file for file in pictures if layouts.is_regularisation(file)]
    if aside:
        pictures = [file for file in pictures if file not in set(aside)]
        what = f"{len(aside):,} regularisation pictures here are left out; they are no examples of the subject."
        problems.append(Problem(aside[0].folder, what, kind="left_out"))
    if not pictures:
        what = "There is no picture here; give a folder, a zip or files with pictures (PNG, JPEG, WEBP ...)."
        problems.append(Problem("", what, fatal=True, kind="empty"))
    elif len(pictures) > limits.max_pictures:
        what = f"There are {len(pictures):,} pictures, and at most {limits.max_pictures:,} are read; choose some."
        problems.append(Problem("", what, fatal=True, kind="too_many"))
    return pictures, problems


def _examples(
    pictures: Sequence[File], folder: str, limits: Limits, on_step: OnStep
) -> tuple[list[Example], list[Problem]]:
    """What can be read, in the order of names, without captions."""
    examples: list[Example] = []
    problems: list[Problem] = []
    prints: list[Print] = []
    for index, file in enumerate(pictures):
        on_step(Step(index, len(pictures), note="Looking at the pictures"))
        repeats = layouts.folder_words(file, folder)[0]
        if not 1 <= repeats <= layouts.MAX_REPEATS:
            what = f"lies in a folder of {repeats:,} repeats, so it is left out; name it 1_... to 1000_..."
            problems.append(Problem(file.name, what, kind="left_out"))
            continue
        try:
            example, seen, changes = _read(file, repeats, limits)
        except PictureError as error:
            problems.append(Problem(file.name, str(error), kind=error.kind))
            continue
        examples.append(example)
        prints.append(seen)
        problems += [Problem(file.name, f"{change}.", kind="converted") for change in changes]
    return _with_twins(examples, prints, problems), problems


def _read(file: File, repeats: int, limits: Limits) -> tuple[Example, Print, tuple[str, ...]]:
    try:
        data = file.read(limits.max_picture_bytes)
    except OSError as error:
        words = error.strerror or str(error)
        raise PictureError(f"cannot be read ({words}), so it is left out; save it anew.", "corrupt") from None
    picture, changes = decode(data, limits)
    sha256 = hashlib.sha256(data).hexdigest()
    return Example(file, "", None, picture.size, sha256, repeats), print_of(picture), changes


def _with_twins(examples: Sequence[Example], prints: Sequence[Print], problems: list[Problem]) -> list[Example]:
    """The examples with the first of their like; both stay, since only a person knows whether that was meant."""
    seen: list[Example] = []
    for example, other in zip(examples, twins(prints), strict=True):
        if other is not None:
            first = seen[other]
            same = first.sha256 == example.sha256
            what = f"{'is the same file as' if same else 'looks the same as'} {first.name}, so it counts twice;"
            kind = "duplicate" if same else "similar"
            problems.append(Problem(example.name, f"{what} leave one out unless that is meant.", kind=kind))
            example = dataclasses.replace(example, twin=first.twin or first.name)
        seen.append(example)
    return seen


def _about(examples: Sequence[Example]) -> Iterator[Problem]:
    """What is said of the set as a whole."""
    if not examples:
        yield Problem("", "None of the pictures here can be read; see what is said of each.", fatal=True, kind="empty")
    elif len(examples) < FEW:
        what = "There is one picture only: it will be learned by heart; 5 to 30 different ones are usual."
        yield Problem("", what, kind="single")


def _edit_problems(dataset: Dataset, edits: Edits, left: int) -> Iterator[Problem]:
    names = {example.name for example in dataset.examples}
    strange = sorted(({*edits.captions} | edits.left_out) - names)
    if strange:
        more = f" and {len(strange) - 1:,} more" if len(strange) > 1 else ""
        yield Problem("", f"Edits of {strange[0]!r}{more} are not used: no such picture is here.", kind="edits")
    if dataset.examples and not left:
        yield Problem("", "Every picture is left out; take some back.", fatal=True, kind="edits")


def _uncaptioned(example: Example, caption: str) -> Problem:
    what = f"has no caption; it is trained with {caption!r}."
    if not caption:
        what = "has no caption, so it is trained with an empty prompt; write one or give a trigger word."
    return Problem(example.name, what, kind="uncaptioned")


def _foreign(file: File) -> Problem:
    return Problem(file.name, f"is a {file.suffix[1:]} file, so it is left out; save it as PNG or JPEG.", kind="format")
