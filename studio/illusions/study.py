"""A study of adapters: the bare model, each adapter alone and all together, drawn from the same seeds."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.illusions import adapters, study_sheet
from studio.imaging import write_png

if TYPE_CHECKING:
    from PIL import Image

    from studio.illusions.drawing import Drawn
    from studio.illusions.request import IllusionRequest
    from studio.illusions.result import Candidate
    from studio.progress import OnStep, Step

BASE, OWN = "base", "each view its own"

# Student's t at 97.5 % for 1, 2, ... degrees of freedom; the last one, a little too wide, for all that follow.
T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Setting:
    """One column of a study: its title, and the request that draws it alone."""

    title: str
    request: IllusionRequest


@dataclass(frozen=True)
class Column:
    """What was drawn for a setting, and the seconds it took."""

    setting: Setting
    drawn: Drawn
    seconds: float


@dataclass(frozen=True)
class Scored:
    """A column with its scores: ``cells`` in the order of their seeds, which is the same in all columns."""

    setting: Setting
    cells: tuple[Candidate, ...]
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval, which a single value does not have."""

    mean: float
    low: float | None
    high: float | None

    def summary(self) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 4) for name, value in dataclasses.asdict(self).items()}


def settings(request: IllusionRequest) -> tuple[Setting, ...]:
    """The columns that ``request`` asks for: itself alone when it asks for no study.

    A study has W_0 (base), W_0 + a W_1, W_0 + b W_2 and so on, and W_0 + a W_1 + b W_2 (the poster's joint model), each
    in all views, where a and b are the scales farthest from zero that any view gives them; and the request as it is,
    where its views differ. What is the same is drawn once.
    """
    if not request.adapter_study:
        return (Setting(OWN, request),)
    asked = adapters.worn(request)
    scales = {name: _farthest(name, asked) for name in request.adapters}
    alike = [{}, *({name: scale} for name, scale in scales.items()), scales]
    found = {(adapters.in_order(each),) * len(asked): title(each) for each in alike}
    found.setdefault(asked, OWN)
    return tuple(Setting(words, _alone(request, worn)) for worn, words in found.items())


def title(scales: Mapping[str, float]) -> str:
    """A setting in which all views wear the same, such as "ink - 0.5 wash"."""
    words = ""
    for name, scale in adapters.in_order(scales):
        sign = ("-" if scale < 0 else "") if not words else " - " if scale < 0 else " + "
        words += f"{sign}{'' if abs(scale) == 1 else f'{abs(scale):g} '}{name}"
    return words or BASE


def asked_for(request: IllusionRequest, setting: Setting) -> bool:
    """Whether a study's setting is the request itself."""
    return adapters.worn(setting.request) == adapters.worn(request)


def draw(
    request: IllusionRequest, work: Callable[[IllusionRequest, OnStep], Drawn], on_step: OnStep
) -> tuple[Column, ...]:
    """``work`` for every setting in turn; ``on_step`` counts the steps and evaluations of them all."""
    columns: list[Column] = []
    todo = settings(request)
    for index, setting in enumerate(todo):
        report = on_step if len(todo) == 1 else _counting(index, setting.title, columns, len(todo), on_step)
        start = time.perf_counter()
        drawn = work(setting.request, report)
        columns.append(Column(setting, drawn, time.perf_counter() - start))
    return tuple(columns)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean and Student's interval of a few values."""
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Estimate(mean, None, None)
    wide = T975[min(count - 1, len(T975)) - 1] * statistics.stdev(values) / math.sqrt(count)
    return Estimate(mean, mean - wide, mean + wide)


@dataclass(frozen=True)
class Study:
    """Columns with the bare model among them; what each adds is the mean difference under equal seeds."""

    request: IllusionRequest
    columns: tuple[Scored, ...]
    scorer: str

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the grid and every cell's picture into ``folder``; returns what result.json says of them."""
        rows = [self._save_row(folder, index, cells) for index, cells in enumerate(self._rows())]
        write_png(self.sheet(), folder / "study.png", _recipe(self.request, self.request.seed))
        return {"grid": "study.png", "columns": [self._summary(column) for column in self.columns], "rows": rows}

    def sheet(self) -> Image.Image:
        """The grid: the same seed in a row, the same setting in a column, A and C under every cell."""
        rows = [
            (f"seed {cells[0].seed}", [study_sheet.Panel(cell.views, scores(cell)) for cell in cells])
            for cells in self._rows()
        ]
        heads = [column.setting.title for column in self.columns]
        means = [_means(column) for column in self.columns] if len(rows) > 1 else []
        return study_sheet.sheet(heads, rows, means, f"A: alignment, C: concealment, by {self.scorer}")

    def said(self) -> list[str]:
        """One sentence per column."""
        return [f"{column.setting.title}: {_means(column)}{self._gain_in_words(column)}." for column in self.columns]

    def _rows(self) -> list[tuple[Candidate, ...]]:
        return list(zip(*(column.cells for column in self.columns), strict=True))

    def _base(self) -> Scored:
        return next(column for column in self.columns if not any(adapters.worn(column.setting.request)))

    def _gain(self, column: Scored, name: str) -> Estimate:
        pairs = zip(column.cells, self._base().cells, strict=True)
        return estimate([getattr(cell, name) - getattr(bare, name) for cell, bare in pairs])

    def _gain_in_words(self, column: Scored) -> str:
        if column is self._base():
            return ""
        gain = self._gain(column, "alignment")
        between = "" if gain.low is None else f" (95 %: {gain.low:+.3f} to {gain.high:+.3f})"
        return f"; in A {gain.mean:+.3f}{between} against the bare model"

    def _save_row(self, folder: Path, row: int, cells: Sequence[Candidate]) -> dict[str, Any]:
        saved = []
        for index, (column, cell) in enumerate(zip(self.columns, cells, strict=True)):
            name = f"study-{row}-{index}.png"
            write_png(cell.image, folder / name, _recipe(column.setting.request, cell.seed, candidates=1))
            scored = {key: round(getattr(cell, key), 4) for key in ("alignment", "concealment")}
            saved.append({"setting": column.setting.title, "image": name, **scored})
        return {"seed": cells[0].seed, "cells": saved}

    def _summary(self, column: Scored) -> dict[str, Any]:
        measured = ("alignment", "concealment")
        return {
            "setting": column.setting.title,
            "view_adapters": [dict(worn) for worn in adapters.worn(column.setting.request)],
            **{name: estimate([getattr(cell, name) for cell in column.cells]).summary() for name in measured},
            "over_base": {name: self._gain(column, name).summary() for name in measured},
            "evaluations": column.evaluations,
            "seconds": round(column.seconds, 3),
        }


def scores(cell: Candidate) -> str:
    return f"A {cell.alignment:.3f}   C {cell.concealment:.3f}"


def _means(column: Scored) -> str:
    alignment, concealment = (
        statistics.fmean(getattr(cell, name) for cell in column.cells) for name in ("alignment", "concealment")
    )
    return f"A {alignment:.3f}, C {concealment:.3f}"


def _farthest(name: str, asked: Sequence[adapters.Worn]) -> float:
    return max((dict(worn).get(name, 0.0) for worn in asked), key=abs)


def _alone(request: IllusionRequest, by_view: Sequence[adapters.Worn]) -> IllusionRequest:
    """The request whose views wear just this; adapters that none wears are left out."""
    used = {name: path for name, path in request.adapters.items() if any(name in dict(worn) for worn in by_view)}
    scales = tuple(dict(worn) for worn in (by_view[:1] if len(set(by_view)) == 1 else by_view)) if used else ()
    return request.model_copy(update={"adapters": used, "view_adapters": scales, "adapter_study": False})


def _counting(index: int, words: str, done: Sequence[Column], of: int, on_step: OnStep) -> OnStep:
    before = sum(column.drawn.evaluations for column in done)

    def report(step: Step) -> None:
        counted = {"index": index * step.total + step.index, "total": of * step.total}
        note = f"{words}: {step.note}" if step.note else words
        on_step(dataclasses.replace(step, **counted, note=note, evaluations=before + step.evaluations))

    return report


def _recipe(request: IllusionRequest, seed: int, **changes: Any) -> dict[str, Any]:
    alone = request.model_copy(update={"seed": seed, **changes})
    return {"version": 1, "engine": "illusion", "seed": seed, "request": alone.model_dump(mode="json")}
