"""What a training gives back: the adapter at the end and at its best, samples and curves, and the files they become."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studio.imaging import grid, write_png
from studio.models.memory import gigabytes
from studio.training import curves
from studio.training.journal import Journal
from studio.training.learning import Learned
from studio.training.loop import Point
from studio.training.plan import Plan
from studio.training.preflight import file_name
from studio.training.request import TrainRequest

CURVE = 120  # points of the curves that the summary holds: at least so many, and less than twice as many


@dataclass(frozen=True)
class TrainResult:
    """``best`` is None where the last step is the best, or nothing was held out; ``stopped``: somebody asked it to."""

    request: TrainRequest
    plan: Plan
    last: Learned
    best: Learned | None
    best_step: int | None
    before: float | None  # validation loss at the beginning
    notes: dict[str, dict[str, str]]
    points: tuple[Point, ...]
    journal: Journal
    said: tuple[str, ...]
    seconds: float
    rows: int  # of the network, since it began or went on
    speed: float  # pictures a second that it learned from
    stopped: bool
    peak_memory: int
    by_task: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def save(self, folder: Path) -> dict[str, Any]:
        """Write adapters, samples and curves into ``folder``; returns the summary that goes to result.json."""
        name = file_name(self.request)
        files = {"last": self.last.save(folder, name, self.notes["last"])}
        if self.best is not None:
            files["best"] = self.best.save(folder, f"{name}-best", self.notes["best"])
        (folder / "curve.json").write_text(json.dumps([asdict(point) for point in self.points]), encoding="utf-8")
        last = self.points[-1]
        validations = {point.step: point.validation for point in self.points if point.validation is not None}
        return {
            "output": files["last"]["kohya"],
            "files": files,
            "curve": "curve.json",
            "curves": curves.of(self.points, self.before, CURVE),
            "sha256": {name: _hash(folder / name) for name in (entry["kohya"] for entry in files.values())},
            "samples": self._save_samples(folder),
            "checkpoints": self._checkpoints(validations),
            "steps": last.step,
            "epochs": round(float(self.plan.epochs_in(last.step)), 3),
            "stopped": self.stopped,
            "loss": last.smoothed,
            "validation_before": self.before,
            "validation": validations.get(max(validations)) if validations else None,
            "by_task": {task: dict(measured) for task, measured in self.by_task.items()},
            "best_step": self.best_step,
            "best_validation": validations.get(self.best_step) if self.best_step is not None else None,
            "seconds": round(self.seconds, 3),
            "evaluations": self.rows,
            "speed": round(self.speed, 3),
            "peak_memory": self.peak_memory,
            "model": self.request.model,
            "notes": [*self.said, f"Memory: {gigabytes(self.peak_memory)} at the most."],
        }

    def _save_samples(self, folder: Path) -> list[dict[str, Any]]:
        """Pictures by step, and a sheet with a row for every step."""
        found, recipe = [], self.journal.recipe
        for step, pictures in sorted(self.journal.samples.items()):
            names = [f"sample-{step:08d}-{index}.png" for index in range(len(pictures))]
            for picture, name in zip(pictures, names, strict=True):
                write_png(picture, folder / name, recipe)
            found.append({"step": step, "pictures": names})
        rows = [picture for _, pictures in sorted(self.journal.samples.items()) for picture in pictures]
        if rows:
            write_png(grid(rows, columns=len(self.request.sample_prompts)), folder / "samples.png", recipe)
        return found

    def _checkpoints(self, validations: dict[int, float]) -> list[dict[str, Any]]:
        """The adapters that lie beside the checkpoints in the run's folder, with what was measured of them."""
        return [
            {"step": step, "file": f"training/{name}", "validation": validations.get(step)}
            for step, name in sorted(self.journal.kept.items())
        ]


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
