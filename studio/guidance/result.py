"""A comparison's files: every cell, the grid, the table as CSV and JSON, and one sentence that answers the question."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio.guidance.cells import Cells, Spot
from studio.guidance.grid import Column
from studio.guidance.guiders import GUIDERS
from studio.guidance.metrics import FIDELITIES, Measured
from studio.guidance.request import GuidanceRequest
from studio.guidance.verdict import verdict
from studio.imaging import grid, write_png
from studio.intervals import Estimate
from studio.models.memory import gigabytes

GRID_MOST = 400  # cells of the grid's picture; more would be too small to see


@dataclass(frozen=True)
class GuidanceResult:
    """``measured`` is None for a column of which nothing was drawn before a stop."""

    request: GuidanceRequest
    columns: tuple[Column, ...]
    cells: Cells
    measured: tuple[Measured | None, ...]
    seconds: float
    evaluations: int
    notes: tuple[str, ...]
    stopped: bool
    peak_memory: int
    changes: Mapping[str, Estimate] = field(default_factory=dict)  # what AutoLoRA has over LoRA + CFG

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the cells, the grid and the tables into ``folder``; returns the summary that goes to result.json."""
        rows = [self._save_row(folder, prompt, seed) for prompt, seed in self._rows()]
        lines = [self._line(index) for index in range(len(self.columns))]
        _write_table(folder, lines)
        said = verdict(self.columns, self.measured, self.changes)
        return {
            "columns": lines,
            "rows": rows,
            "verdict": said,
            "changes": {name: _rounded(value) for name, value in self.changes.items()},
            "grid": self._save_grid(folder),
            "tables": ["table.csv", "table.json"],
            "extractor": self.request.extractor,
            "stopped": self.stopped,
            "model": self.request.model,
            "seconds": round(self.seconds, 3),
            "evaluations": self.evaluations,
            "peak_memory": self.peak_memory,
            "notes": [*([said] if said else []), *self._said(), *self.notes],
        }

    def _rows(self) -> Iterator[tuple[int, int]]:
        """Prompts and seeds of which anything was drawn, in order."""
        yield from sorted({(spot.prompt, spot.seed) for spot in self.cells})

    def _save_row(self, folder: Path, prompt: int, seed: int) -> dict[str, Any]:
        saved = []
        for column in range(len(self.columns)):
            spot = Spot(prompt, seed, column)
            cell = self.cells.get(spot)
            if cell is None:
                saved.append(None)
                continue
            name = f"cell-{prompt}-{seed}-{column}.png"
            write_png(cell.picture, folder / name, self.cells.recipe(spot))
            saved.append({"image": name, "evaluations": cell.evaluations, "seconds": round(cell.seconds, 3)})
        return {"prompt": self.request.prompts[prompt], "seed": seed, "cells": saved}

    def _line(self, index: int) -> dict[str, Any]:
        """One line of the table: what was compared, and what was found."""
        column, found = self.columns[index], self.measured[index]
        about = {
            "title": column.title,
            "guider": column.guider,
            "guider_title": GUIDERS[column.guider].title,
            "settings": column.settings.model_dump(mode="json"),
            "point": dict(column.point),
        }
        if found is None:
            return about | {"pictures": 0}
        fidelity = {name: _rounded(value) for name, value in found.fidelity.items()}
        return about | {
            "pictures": found.pictures,
            "diversity": None if found.diversity is None else _rounded(found.diversity),
            **fidelity,
            "products": {f"div_{name}": round(value, 4) for name, value in found.products.items()},
            "evaluations": round(found.evaluations, 2),
            "seconds": round(found.seconds, 4),
        }

    def _save_grid(self, folder: Path) -> str:
        """The same seed in a row, the same column in a column; the first rows only of very many."""
        rows = list(self._rows())[: max(1, GRID_MOST // len(self.columns))]
        first = next(iter(self.cells.values())).picture
        blank = first.copy()
        blank.paste((128, 128, 128), (0, 0, *blank.size))
        spots = [Spot(prompt, seed, column) for prompt, seed in rows for column in range(len(self.columns))]
        pictures = [self.cells[spot].picture if spot in self.cells else blank for spot in spots]
        recipe = {"version": 1, "engine": "guidance", "request": self.request.model_dump(mode="json")}
        write_png(grid(pictures, columns=len(self.columns)), folder / "grid.png", recipe)
        return "grid.png"

    def _said(self) -> Iterator[str]:
        seeds = f"{self.request.seeds} seeds from {self.request.seed}"
        yield f"{len(self.cells)} pictures, {seeds}; features by {self.request.extractor}; 95 % bootstrap intervals."
        yield from (FIDELITIES[name] for name in self._fidelities())
        if self.stopped:
            yield "Stopped before all cells were drawn; what was drawn is kept and can be gone on from."
        yield f"Memory: {gigabytes(self.peak_memory)} at the most."

    def _fidelities(self) -> tuple[str, ...]:
        found = next((each for each in self.measured if each is not None), None)
        return tuple(found.fidelity) if found else ()


def _rounded(value: Estimate) -> dict[str, float]:
    return {name: round(number, 5) for name, number in asdict(value).items()}


def _write_table(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "table.json").write_text(json.dumps(lines, indent=1), encoding="utf-8")
    flat = [_flat(line) for line in lines]
    names = list(dict.fromkeys(name for line in flat for name in line))
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(flat)


def _flat(line: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``diversity.low`` and so on: a table has no nested cells."""
    found: dict[str, Any] = {}
    for name, value in line.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found
