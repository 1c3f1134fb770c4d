"""How the learning rate runs, as a table of pure functions of the share of the run that is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

RESTARTS = 3
END = 1e-3  # share of the learning rate that polynomial decay ends with


@dataclass(frozen=True)
class Schedule:
    """``at``: the factor of the learning rate when a share (0 to 1) of the steps after the warm-up is done."""

    title: str
    help: str
    at: Callable[[float], float]


SCHEDULES: Mapping[str, Schedule] = {
    "constant": Schedule("Constant", "Always the same; a run can be made longer later.", lambda done: 1.0),
    "linear": Schedule("Linear", "Falls evenly to zero.", lambda done: 1.0 - done),
    "cosine": Schedule(
        "Cosine",
        "Falls slowly, quickly, slowly to zero (Loshchilov & Hutter 2016, eq. 5).",
        lambda done: (1 + math.cos(math.pi * done)) / 2,
    ),
    "cosine_restarts": Schedule(
        "Cosine with restarts",
        f"Cosine, {RESTARTS} times over (Loshchilov & Hutter 2016).",
        lambda done: (1 + math.cos(math.pi * (RESTARTS * done % 1.0))) / 2 if done < 1.0 else 0.0,
    ),
    "polynomial": Schedule(
        "Polynomial", "Falls with the square of what is left.", lambda done: END + (1 - END) * (1 - done) ** 2
    ),
}


def factor(schedule: str, step: int, steps: int, warmup: int) -> float:
    """What the learning rate is multiplied by in step ``step`` (from 0) of ``steps``."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return SCHEDULES[schedule].at((step - warmup) / max(1, steps - warmup))
