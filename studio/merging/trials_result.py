"""What a strip and a search give back, and the files they become. Every picture carries the request that repeats it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from studio.imaging import grid, write_png
from studio.merging.request import MergeRequest
from studio.merging.trials_request import SearchRequest, StripRequest, at_alpha

LABEL = 22  # pixels that a column's label takes


@dataclass(frozen=True)
class Column:
    """What one network drew: a picture and its alignment for each prompt. ``letter`` is a model's, or merge."""

    letter: str
    title: str
    alpha: float | None
    pictures: tuple[Image.Image, ...]
    scores: tuple[float | None, ...]


@dataclass(frozen=True)
class Strip:
    """Checkpoints first, then the merges by alpha."""

    request: StripRequest
    columns: tuple[Column, ...]
    seconds: float
    evaluations: int
    notes: tuple[str, ...]

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the pictures and the strip into ``folder``; returns the summary that goes to result.json."""
        saved = [entry for column in self.columns for entry in self._save_column(folder, column)]
        write_png(self._strip(), folder / "strip.png", _recipe(self.request))
        return {
            "pictures": saved,
            "prompts": list(self.request.prompts),
            "alphas": list(self.request.points),
            "strip": "strip.png",
            "seed": self.request.seed,
            "model": self.request.model,
            "scorer": self.request.scorer or None,
            "evaluations": self.evaluations,
            "seconds": round(self.seconds, 3),
            "notes": [*self._said(), *self.notes],
        }

    def _said(self) -> list[str]:
        """How well each network's pictures read, in a sentence; nothing where nobody scored them."""
        means = []
        for column in self.columns:
            found = [score for score in column.scores if score is not None]
            name = column.title if column.letter == "merge" else column.letter.upper()
            means += [f"{name} {sum(found) / len(found):.3f}"] if found else []
        return [f"Mean alignment by {self.request.scorer}: {', '.join(means)}."] if means else []

    def _save_column(self, folder: Path, column: Column) -> list[dict[str, Any]]:
        merges = [each for each in self.columns if each.letter == "merge"]
        stem = column.letter if column.letter != "merge" else f"merge-{merges.index(column)}"
        saved = []
        for index, (picture, score) in enumerate(zip(column.pictures, column.scores, strict=True)):
            name = f"{stem}-{index}.png"
            write_png(picture, folder / name, _recipe(self._alone(column, index)))
            saved.append(
                {
                    "model": column.letter,
                    "title": column.title,
                    "alpha": column.alpha,
                    "prompt": index,
                    "image": name,
                    "score": _rounded(score),
                }
            )
        return saved

    def _alone(self, column: Column, prompt: int) -> StripRequest:
        """The request that draws this very picture, and its neighbours of the same prompt."""
        merge = at_alpha(self.request.merge, column.alpha)
        own = {"merge": merge, "alphas": (), "prompts": (self.request.prompts[prompt],)}
        return self.request.model_copy(update=own)

    def _strip(self) -> Image.Image:
        """A row for each prompt; A on the left, the merges, the other checkpoints on the right, labelled."""
        merges = [column for column in self.columns if column.letter == "merge"]
        parents = [column for column in self.columns if column.letter != "merge"]
        left = [column for column in parents if column.letter == "a"]
        shown = [*left, *merges, *(column for column in parents if column.letter != "a")]
        labels = [column.title if column.letter == "merge" else column.letter.upper() for column in shown]
        rows = [[column.pictures[index] for column in shown] for index in range(len(self.request.prompts))]
        return _labelled(rows, labels)


@dataclass(frozen=True)
class Trial:
    """One merge of a search. ``place``: its number in the order of trying, from 1."""

    place: int
    merge: MergeRequest
    picture: Image.Image
    score: float

    @property
    def blocks(self) -> tuple[float, ...] | None:
        return self.merge.blocks


@dataclass(frozen=True)
class SearchResult:
    """All trials in the order of trying; ``alphas``: what each had, for a bake what LoRAs were multiplied by."""

    request: SearchRequest
    trials: tuple[Trial, ...]
    alphas: tuple[float, ...]
    block_names: tuple[str, ...]
    seconds: float
    evaluations: int
    notes: tuple[str, ...]

    @property
    def ranked(self) -> list[Trial]:
        """Best first; of equal ones the one that was tried first."""
        return sorted(self.trials, key=lambda trial: (-trial.score, trial.place))

    def save(self, folder: Path) -> dict[str, Any]:
        """Write each trial's picture into ``folder``; returns the summary that goes to result.json."""
        saved = [self._save_trial(folder, trial) for trial in self.ranked]
        return {
            "trials": saved,
            "best": saved[0] | {"merge": self.ranked[0].merge.model_dump(mode="json")},
            "over": self.request.over,
            "block_names": list(self.block_names),
            "prompts": list(self.request.prompts),
            "seed": self.request.seed,
            "seeds": self.request.seeds,
            "model": self.request.model,
            "scorer": self.request.scorer,
            "evaluations": self.evaluations,
            "seconds": round(self.seconds, 3),
            "notes": [self._said(), *self.notes],
        }

    def _save_trial(self, folder: Path, trial: Trial) -> dict[str, Any]:
        name = f"trial-{trial.place}.png"
        write_png(trial.picture, folder / name, _recipe(self._strip_of(trial)))
        return {
            "place": trial.place,
            "alpha": self.alphas[trial.place - 1],
            "blocks": None if self.request.over == "alpha" else list(trial.merge.blocks or ()),
            "score": _rounded(trial.score),
            "image": name,
        }

    def _strip_of(self, trial: Trial) -> StripRequest:
        """The preview of a trial's merge, for its picture is drawn as those are."""
        shared = {name: getattr(self.request, name) for name in ("prompts", "negative_prompt", "seed", "steps")}
        scale, scorer = self.request.guidance_scale, self.request.scorer
        return StripRequest(merge=trial.merge, guidance_scale=scale, scorer=scorer, **shared)

    def _said(self) -> str:
        best = self.ranked[0]
        of = f"alpha {self.alphas[best.place - 1]:g}" if self.request.over == "alpha" else "its block alphas"
        return f"Of {len(self.trials)} trials, number {best.place} ({of}) reads best, with {best.score:.4f}."


def _labelled(rows: Sequence[Sequence[Image.Image]], labels: Sequence[str]) -> Image.Image:
    """Equal pictures under one label for each column."""
    sheet = grid([picture for row in rows for picture in row], len(labels))
    whole = Image.new("RGB", (sheet.width, sheet.height + LABEL), "white")
    whole.paste(sheet, (0, LABEL))
    pen, font = ImageDraw.Draw(whole), ImageFont.load_default(13)
    width = (sheet.width + 8) / len(labels)
    for index, label in enumerate(labels):
        pen.text((index * width + (width - 8) / 2, LABEL / 2), label, fill="black", font=font, anchor="mm")
    return whole


def _recipe(request: StripRequest) -> dict[str, Any]:
    return {"engine": "merge-strip", "seed": request.seed, "request": request.model_dump(mode="json")}


def _rounded(score: float | None) -> float | None:
    return None if score is None else round(score, 4)
