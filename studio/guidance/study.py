"""The study of AutoLoRA: the paper's sweeps at small scale, and the search for a guider that keeps its effect for less.

Sheets share their cells: what one has drawn, no other draws again, nor does the same command after a stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio.errors import RequestError, UnknownNameError
from studio.guidance.cells import LOG, PLACE, Cells
from studio.guidance.grid import Column
from studio.guidance.guiders import GUIDERS
from studio.guidance.metrics import Measured
from studio.guidance.request import GuidanceRequest
from studio.guidance.result import GuidanceResult
from studio.intervals import Estimate, estimate
from studio.requests import parse

SCALES = tuple(round(0.1 * tenth, 1) for tenth in range(2, 14))
PAIR = ("cfg", "autolora")
PLAIN, EXACT = PAIR
LEAST_SEEDS = 2
STYLE_CELLS = 16  # of the built-in pixel set's pictures, on each side


@dataclass(frozen=True)
class Sheet:
    """One table of the study. ``about`` says what it is held against; ``changes`` are its request's."""

    name: str
    title: str
    about: str
    changes: Mapping[str, Any]


def _sweep(setting: str, *values: float) -> dict[str, Any]:
    return {"sweep": ({"setting": setting, "values": values},)}


SHEETS: Mapping[str, Sheet] = {
    sheet.name: sheet
    for sheet in (
        Sheet("guiders", "Every guider", "At the paper's settings, LoRA scale 1.", {"guiders": tuple(GUIDERS)}),
        Sheet(
            "lora-scale",
            "LoRA scales",
            "The paper's table 1, with the LoRA times gamma beside it.",
            {"guiders": ("none", "autolora_plain", *PAIR, "lora_scaled"), **_sweep("lora_scale", *SCALES)},
        ),
        Sheet(
            "cfg",
            "CFG scales",
            "The paper's figures 2 and 3.",
            {"guiders": (*PAIR, "lora_scaled"), **_sweep("w", 3.5, 4, 4.5, 5, 5.5, 6, 6.5)},
        ),
        Sheet(
            "gamma",
            "AutoLoRA scales",
            "The paper's figure 4.",
            {"guiders": (*PAIR, "lora_scaled"), **_sweep("gamma", 1.5, 1.75, 2)},
        ),
        Sheet(
            "refresh", "Looked at now and then", "", {"guiders": ("autolora_refresh",), **_sweep("every", 2, 4, 5, 7)}
        ),
        Sheet("early", "Only above a noise", "", {"guiders": ("autolora_interval",), **_sweep("low", 1.5, 2.5, 4)}),
        Sheet("late", "Only below a noise", "", {"guiders": ("autolora_interval",), **_sweep("high", 0.5, 0.9, 1.7)}),
        Sheet("skip", "Until they agree", "", {"guiders": ("autolora_skip",), **_sweep("agreement", 0.9, 0.95, 0.98)}),
    )
}
APPROXIMATE = ("refresh", "early", "late", "skip")


@dataclass(frozen=True)
class Plan:
    """What is studied on what."""

    sheets: tuple[str, ...] = tuple(SHEETS)
    model: str = "builtin:emoji"
    lora: str = "builtin:pixel"
    prompts: tuple[str, ...] = ("a fox", "a cat")
    seeds: int = 16
    steps: int = 20
    extractor: str = "builtin:clip"

    def request(self, name: str, resume: Path | None = None) -> GuidanceRequest:
        """A sheet's request; RequestError for settings that none can have, UnknownNameError for no sheet."""
        if self.seeds < LEAST_SEEDS:
            raise RequestError(f"seeds: diversity needs {LEAST_SEEDS} or more, got {self.seeds}.", field="seeds")
        if name not in SHEETS:
            raise UnknownNameError("sheet", name, SHEETS, field="sheets")
        asked = {"model": self.model, "adapters": {"lora": self.lora}, "prompts": self.prompts, "seeds": self.seeds}
        asked |= {"settings": {"steps": self.steps}, "extractor": self.extractor, "resume": str(resume or "")}
        return parse(GuidanceRequest, asked | dict(SHEETS[name].changes))


@dataclass(frozen=True)
class Line:
    """One column of a sheet. ``style`` is ``pixelness``, ``distance`` see ``distances``; both only where they apply."""

    sheet: str
    column: Column
    found: Measured
    style: Estimate
    distance: Estimate | None = None

    @property
    def figures(self) -> dict[str, float]:
        """Whose change is to be kept: AutoLoRA's own aims, and not the style, which a LoRA brings without it."""
        spread = 0.0 if self.found.diversity is None else self.found.diversity.value
        return {"diversity": spread, "pc_clip": self.found.fidelity["pc_clip"].value}


Draw = Callable[[GuidanceRequest, Path], GuidanceResult]


def run(plan: Plan, draw: Draw, folder: Path) -> tuple[list[Line], dict[str, GuidanceResult]]:
    """Every sheet of the plan, one after the other; the figures, and the results by sheet."""
    results: dict[str, GuidanceResult] = {}
    lines: list[Line] = []
    for name in plan.sheets:
        begun = folder if (folder / PLACE / LOG).exists() else None
        results[name] = draw(plan.request(name, begun), folder)
        lines += _lines(name, results[name], results.get("guiders"))
    return lines, results


def _lines(name: str, result: GuidanceResult, guiders: GuidanceResult | None) -> list[Line]:
    found = []
    for index, (column, figures) in enumerate(zip(result.columns, result.measured, strict=True)):
        if figures is not None:
            own = {
                (spot.prompt, spot.seed): result.cells[spot].picture for spot in result.cells if spot.column == index
            }
            apart = distances(own, guiders) if guiders is not None and name in ("guiders", *APPROXIMATE) else ()
            style = estimate([pixelness(picture) for picture in own.values()])
            found.append(Line(name, column, figures, style, estimate(apart) if apart else None))
    return found


def distances(own: Mapping[tuple[int, int], Image.Image], guiders: GuidanceResult) -> list[float]:
    """How far each picture is from exact AutoLoRA's of the same noise, where LoRA + CFG's is 1 away on average.

    Root mean squares of the pixels' differences; empty where either of the two is missing.
    """
    plain, exact = (_pictures(guiders.cells, guiders.columns, name) for name in PAIR)
    shared = sorted(set(own) & set(plain) & set(exact))
    whole = float(np.mean([_apart(plain[spot], exact[spot]) for spot in shared])) if shared else 0.0
    return [_apart(own[spot], exact[spot]) / whole for spot in shared] if whole else []


def _pictures(cells: Cells, columns: Sequence[Column], guider: str) -> dict[tuple[int, int], Image.Image]:
    return {(s.prompt, s.seed): cells[s].picture for s in cells if columns[s.column].guider == guider}


def _apart(one: Image.Image, other: Image.Image) -> float:
    a, b = (np.asarray(picture, dtype=np.float64) for picture in (one, other))
    return float(np.sqrt(((a - b) ** 2).mean()))


def pixelness(picture: Image.Image, cells: int = STYLE_CELLS) -> float:
    """How far a picture is pixel art of ``cells`` x ``cells``: the share of its variance that lies between cells.

    1 for pictures whose cells are of one colour each, as those of the built-in pixel set; 1 for a single colour too.
    """
    values = np.asarray(picture.convert("RGB"), dtype=np.float64)
    height, width = values.shape[0] // cells, values.shape[1] // cells
    values = values[: height * cells, : width * cells]
    means = values.reshape(cells, height, cells, width, 3).mean((1, 3), keepdims=True)
    within = ((values.reshape(cells, height, cells, width, 3) - means) ** 2).sum()
    whole = ((values - values.mean((0, 1))) ** 2).sum()
    return float(1 - within / whole) if whole else 1.0


def kept(line: Line, lines: Sequence[Line]) -> dict[str, float]:
    """What share of the change from LoRA + CFG to exact AutoLoRA a line has, figure by figure; empty without both."""
    by_guider = {each.column.guider: each.figures for each in lines if each.sheet == "guiders"}
    if not set(PAIR) <= set(by_guider):
        return {}
    plain, exact, own = by_guider[PLAIN], by_guider[EXACT], line.figures
    return {name: (own[name] - plain[name]) / (exact[name] - plain[name]) for name in own if exact[name] != plain[name]}


def price(line: Line, lines: Sequence[Line]) -> tuple[float, float] | None:
    """Evaluations and seconds over those of LoRA + CFG; None where that is missing."""
    base = next((each.found for each in lines if (each.sheet, each.column.guider) == ("guiders", PLAIN)), None)
    if base is None:
        return None
    return line.found.evaluations / base.evaluations, line.found.seconds / base.seconds
