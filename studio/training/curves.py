"""The curves of a training as few points as a picture of them needs, however many steps it has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from studio.training.folder import LOG, PLACE

NAMES = {"step", "loss", "smoothed", "rate"}
MOST = 240  # points of a curve: more than two for each pixel of a narrow page show nothing more


class Step(Protocol):
    """One line of the run's log."""

    step: int
    loss: float
    smoothed: float
    rate: float
    validation: float | None


@dataclass
class Curves:
    """Thinned while they grow: of ``every`` steps one stays, and that doubles whenever there are twice ``most``.

    Of validations none is left out before there are twice ``most`` of them.
    """

    most: int = MOST
    every: int = 1
    before: float | None = None
    points: list[tuple[int, float, float, float]] = field(default_factory=list)
    measured: list[tuple[int, float]] = field(default_factory=list)
    last: tuple[int, float, float, float] | None = None

    def add(self, point: Step) -> None:
        self.take(point.step, (point.loss, point.smoothed, point.rate), point.validation)

    def take(self, step: int, values: tuple[float, float, float], validation: float | None) -> None:
        """One step's loss, smoothed loss and learning rate."""
        self.last = (step, *values)
        if step % self.every == 0:
            self.points.append(self.last)
        if len(self.points) >= 2 * self.most:
            self.every *= 2
            self.points = [kept for kept in self.points if kept[0] % self.every == 0]
        if validation is not None:
            self.measured.append((step, validation))
            if len(self.measured) >= 2 * self.most:
                least = min(self.measured, key=lambda each: each[1])
                self.measured = sorted({*self.measured[::2], least, self.measured[-1]})

    def data(self) -> dict[str, Any]:
        """As plain values: ``points`` [step, loss, smoothed, rate], the last step among them; ``validation``."""
        tail = [] if self.last is None or self.last in self.points[-1:] else [self.last]
        return {"points": (*self.points, *tail), "validation": tuple(self.measured), "before": self.before}


def of(points: Iterable[Step], before: float | None, most: int) -> dict[str, Any]:
    """A whole run's curves in few digits, for its result."""
    curves = Curves(most, before=before)
    for point in points:
        curves.add(point)
    data = curves.data()
    return {name: [[_short(value) for value in each] for each in data[name]] for name in ("points", "validation")} | {
        "before": before
    }


def _short(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.5g}")


def read(folder: Path) -> dict[str, Any]:
    """The curves of the log that lies in a run's folder; empty ones where there is none."""
    path = folder / PLACE / LOG
    try:
        about = path.stat()
        return _read(path, about.st_size, about.st_mtime_ns)
    except (OSError, ValueError):
        return Curves().data()


@lru_cache(maxsize=32)
def _read(path: Path, size: int, changed: int) -> dict[str, Any]:
    """``read``, once for every state of a file."""
    curves = Curves()
    for entry in _entries(path):
        curves.take(entry["step"], (entry["loss"], entry["smoothed"], entry["rate"]), entry.get("validation"))
    return curves.data()


def _entries(path: Path) -> Iterator[Mapping[str, Any]]:
    """Every point of the log; a last line that a machine left half written is left out."""
    with path.open(encoding="utf-8") as file:
        found = (json.loads(line) for line in file if line.endswith("\n"))
        yield from (each for each in found if isinstance(each, dict) and each.keys() >= NAMES)
