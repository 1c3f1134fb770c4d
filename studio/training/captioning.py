"""Captions for pictures that have none, by a model that is at hand or a template; no original is changed unasked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.errors import Cancelled, RequestError, StudioError
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore
from studio.training import captioners, captions
from studio.training.captioners import TEMPLATE_NAME, Describe
from studio.training.dataset import edited, read_dataset
from studio.training.edits import EDITS_FILE, Edits, write_edits
from studio.training.pictures import load
from studio.training.preflight import BUILTIN, data_place
from studio.training.records import Dataset, Example, Limits

DETAILS = ("short", "long", "longest")
BEFORE = ".before"  # what a caption's file is called once another took its place


class CaptionRequest(BaseModel):
    """Captions for a set of pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str = Field(min_length=1, max_length=1000, description="A folder or a .zip with pictures, or a built-in set.")
    model: str = Field(
        TEMPLATE_NAME,
        min_length=1,
        max_length=300,
        description="template, blip, florence-2, a folder of one, or owner/name that is downloaded already.",
    )
    again: bool = Field(False, description="Also for pictures that have a caption.")
    detail: Literal["short", "long", "longest"] = Field(
        "short", description="How much Florence-2 says; SD 1 and SDXL read 75 words or fewer."
    )
    tokens: int = Field(60, ge=8, le=400, description="Where a caption is cut, in the model's tokens.")
    trigger: str = Field("", max_length=60, description="A word put before every caption that lacks it.")
    template: str = Field(
        captions.TEMPLATE, max_length=200, description="For template: {trigger}, or {name} of the file."
    )
    write: Literal["edits", "text"] = Field(
        "edits", description="edits: a file of its own; text: .txt beside each picture of a folder."
    )


@dataclass(frozen=True)
class Captioned:
    """The new ``captions`` by the pictures' names; ``edits`` are those and what a person had edited before."""

    request: CaptionRequest
    dataset: Dataset
    captions: Mapping[str, str]
    before: Edits
    wanted: int
    said: tuple[str, ...] = field(default=())

    @property
    def edits(self) -> Edits:
        return Edits({**self.before.captions, **self.captions}, self.before.left_out)

    def save(self, folder: Path) -> dict[str, Any]:
        """edits.json in ``folder``; returns the summary."""
        write_edits(folder, self.edits)
        return {"output": EDITS_FILE, "captions": dict(self.captions), "wanted": self.wanted, "notes": list(self.said)}

    def write_beside(self) -> list[Path]:
        """A .txt beside every picture that got a caption; one that is there becomes .txt.before."""
        examples = {example.name: example for example in self.dataset.examples}
        with _writing():
            return [_write_text(examples[name].path, caption) for name, caption in self.captions.items()]


def run(request: CaptionRequest, models: ModelStore, *, on_step: OnStep = ignore, edits: Edits = Edits()) -> Captioned:
    """Captions as ``request`` says, for a page, the command line and Python alike. Nothing is written.

    Raises StudioError for pictures or a model that cannot be used. What ``on_step`` raises stops it; after the first
    caption ``Cancelled.kept`` then holds those that are there.
    """
    captions.check_words(request.trigger, request.template)
    whole = read_dataset(data_place(request.data, models.assets), template=request.template, trigger=request.trigger)
    whole.check()
    dataset = edited(whole, edits, trigger=request.trigger, template=request.template)
    wanted = [example for example in dataset.examples if request.again or not _has_one(example, edits)]
    if request.write == "text":
        _check_place(request, dataset)
    made: dict[str, str] = {}

    def result() -> Captioned:
        return Captioned(request, dataset, made, edits, len(wanted), _said(request, made, len(wanted)))

    try:
        with _describer(request, models, wanted, on_step) as describe:
            for index, example in enumerate(wanted, start=1):
                caption = describe(example)
                if caption:
                    made[example.name] = caption
                on_step(_step(index, len(wanted), example, caption))
    except (Cancelled, KeyboardInterrupt):
        raise Cancelled(kept=result() if made else None) from None
    return result()


@contextmanager
def _describer(request: CaptionRequest, models: ModelStore, wanted: list[Example], on_step: OnStep) -> Iterator[Any]:
    """What makes an example's caption; a model is loaded where there is something to say only."""
    if request.model == TEMPLATE_NAME or not wanted:
        yield lambda example: captions.from_template(request.template, request.trigger, example.file.stem)
        return
    entry, _ = captioners.find(request.model, models.models_dir)
    on_step(Step(0, len(wanted), note=f"Loading {entry.title}"))
    detail = DETAILS.index(request.detail)
    with captioners.loaded(request.model, models, detail=detail, tokens=request.tokens) as describe:
        yield lambda example: _told(describe, example, request.trigger)


def _told(describe: Describe, example: Example, trigger: str) -> str:
    said = " ".join(describe(load(example)).split())[: Limits().max_caption]
    return captions.with_trigger(said, trigger) if said else ""


def _has_one(example: Example, edits: Edits) -> bool:
    return bool((edits.captions.get(example.name) or example.found or "").strip())


def _step(index: int, total: int, example: Example, caption: str) -> Step:
    note = f"{example.name}: {caption}" if caption else f"{example.name}: nothing was said of it"
    return Step(index, total, note=note, pictures=lambda: (load(example),), labels=(caption,))


def _said(request: CaptionRequest, made: Mapping[str, str], wanted: int) -> tuple[str, ...]:
    title = captioners.CAPTIONERS[request.model].title if request.model in captioners.CAPTIONERS else request.model
    said = [f"{len(made)} of {wanted} pictures got a caption by {title}."]
    if not wanted:
        said = ["Every picture has a caption already; nothing was done."]
    elif len(made) < wanted and request.model == TEMPLATE_NAME and not request.trigger:
        said.append("The template needs a trigger word, or {name} in place of it.")
    return tuple(said)


def _check_place(request: CaptionRequest, dataset: Dataset) -> None:
    """Raises RequestError where no text can be put beside a picture."""
    if request.data.startswith(BUILTIN) or not dataset.root.is_dir():
        what = "a built-in set stays as it is" if request.data.startswith(BUILTIN) else "a zip is not written into"
        raise RequestError(f"write: {what}; write edits, or give a folder of your own.", field="write")


def _write_text(picture: Path, caption: str) -> Path:
    path = picture.with_suffix(".txt")
    if path.exists():
        os.replace(path, path.with_name(path.name + BEFORE))
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(caption + "\n", encoding="utf-8")
    os.replace(fresh, path)
    return path


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        words = error.strerror or str(error)
        raise StudioError(f"The captions cannot be written ({words}); write edits, or make room there.") from None
