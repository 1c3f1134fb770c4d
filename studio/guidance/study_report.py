"""What the study writes: one table as Markdown, CSV and JSON, a curve and a grid for every sheet."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio.guidance import curves, study
from studio.guidance.cells import Spot
from studio.guidance.result import GuidanceResult
from studio.guidance.study import Line, Plan
from studio.imaging import grid
from studio.intervals import LEVEL, Estimate

TABLE = "table"
HEADS = (
    "column",
    "diversity",
    "PC-clip",
    "pixelness",
    "Div-PC-clip",
    "evaluations",
    "seconds",
    "price",
    "kept",
    "apart",
)
GRID_SEEDS = 2  # rows of each prompt in a grid's picture
SIDE = 96  # pixels of a grid's cell: a study's pictures are looked at side by side


def write(folder: Path, plan: Plan, lines: Sequence[Line], results: Mapping[str, GuidanceResult]) -> list[Path]:
    """All files of the study, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{TABLE}.{ending}" for ending in ("md", "json", "csv")]
    records = [as_record(line, lines) for line in lines]
    written[0].write_text(markdown(plan, lines), encoding="utf-8")
    written[1].write_text(json.dumps({"plan": asdict(plan), "lines": records}, indent=1), encoding="utf-8")
    with written[2].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for record in records for name in record)))
        writer.writeheader()
        writer.writerows(records)
    for name, result in results.items():
        own = [line for line in lines if line.sheet == name]
        if not own:
            continue
        written += [folder / f"{name}.svg", folder / f"{name}.png"]
        written[-2].write_text(figure(name, own), encoding="utf-8")
        _grid(result).save(written[-1], optimize=True)
    return written


def markdown(plan: Plan, lines: Sequence[Line]) -> str:
    side, prompts = study.STYLE_CELLS, ", ".join(plan.prompts)
    about = (
        f"{plan.model} with {plan.lora}, prompts {prompts}, {plan.seeds} seeds of each, {plan.steps} DDIM steps; "
        f"features by {plan.extractor}. Brackets: {LEVEL:.0%} bootstrap intervals. Pixelness: the share of a picture's "
        f"variance between its {side} x {side} cells, 1 for pixel art. Evaluations and seconds are of one picture, "
        "price is both over LoRA + CFG's. Kept: the share of the change from LoRA + CFG to exact AutoLoRA in "
        "diversity and in PC-clip. Apart: the distance of the pictures from exact AutoLoRA's of the same noise, "
        "where LoRA + CFG's is 1."
    )
    parts = [about]
    for name in dict.fromkeys(line.sheet for line in lines):
        sheet = study.SHEETS[name]
        own = [line for line in lines if line.sheet == name]
        parts += ["", f"## {sheet.title}", "", *([sheet.about, ""] if sheet.about else []), _row(HEADS)]
        parts += [_row(["---"] * len(HEADS)), *(_row(_cells(line, lines)) for line in own)]
    return "\n".join([*parts, ""])


def as_record(line: Line, lines: Sequence[Line]) -> dict[str, Any]:
    """A line of the CSV and of the JSON: flat."""
    found = line.found
    record: dict[str, Any] = {"sheet": line.sheet, "title": line.column.title, "guider": line.column.guider}
    record |= dict(line.column.settings.model_dump()) | {"pictures": found.pictures}
    for name, value in {"diversity": found.diversity, **found.fidelity, "pixelness": line.style}.items():
        record |= _spread(name, value)
    record |= {f"div_{name}": round(value, 5) for name, value in found.products.items()}
    record |= {"evaluations": round(found.evaluations, 2), "seconds": round(found.seconds, 4)}
    record |= {f"kept_{name}": round(value, 4) for name, value in _kept(line, lines).items()}
    return record | _spread("apart", line.distance)


def figure(name: str, lines: Sequence[Line]) -> str:
    """Diversity against prompt fidelity, a curve for every guider."""
    by_guider: dict[str, list[curves.Dot]] = {}
    for line in lines:
        if line.found.diversity is not None:
            by_guider.setdefault(line.column.guider, []).append(_dot(line))
    drawn = [curves.Curve(study.GUIDERS[guider].title, dots) for guider, dots in by_guider.items()]
    title = f"{study.SHEETS[name].title}: dots are as large as their cost"
    return curves.svg(title, drawn, "diversity (eq. 8)", "PC-clip")


def _dot(line: Line) -> curves.Dot:
    spread, fidelity = line.found.diversity, line.found.fidelity["pc_clip"]
    words = f"{line.column.title}: diversity {spread}, PC-clip {fidelity}, {line.found.evaluations:.0f} evaluations"
    return curves.Dot(_three(spread), _three(fidelity), line.found.evaluations, words)


def _three(value: Estimate) -> tuple[float, float, float]:
    return value.value, value.low, value.high


def _cells(line: Line, lines: Sequence[Line]) -> list[str]:
    found, price = line.found, study.price(line, lines)
    product = found.products.get("pc_clip")
    kept = " / ".join(f"{round(value, 2) + 0.0:.0%}" for value in _kept(line, lines).values())
    return [
        line.column.title,
        str(found.diversity or "-"),
        str(found.fidelity["pc_clip"]),
        str(line.style),
        "-" if product is None else f"{product:.3f}",
        f"{found.evaluations:.0f}",
        f"{found.seconds:.2f}",
        "-" if price is None else f"{price[0]:.2f} / {price[1]:.2f}",
        kept or "-",
        "-" if line.distance is None else str(line.distance),
    ]


def _kept(line: Line, lines: Sequence[Line]) -> dict[str, float]:
    """Of what is held against exact AutoLoRA."""
    return {} if line.distance is None else study.kept(line, lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(name: str, value: Estimate | None) -> dict[str, float]:
    if value is None:
        return {}
    return {name: round(value.value, 5), f"{name}_low": round(value.low, 5), f"{name}_high": round(value.high, 5)}


def _grid(result: GuidanceResult) -> Any:
    """Columns as in the table, the first seeds of every prompt as rows."""
    seeds = sorted({spot.seed for spot in result.cells})[:GRID_SEEDS]
    spots = [
        Spot(prompt, seed, column)
        for prompt in range(len(result.request.prompts))
        for seed in seeds
        for column in range(len(result.columns))
    ]
    pictures = [result.cells[spot].picture.resize((SIDE, SIDE)) for spot in spots if spot in result.cells]
    return grid(pictures, columns=len(result.columns), gap=4)
