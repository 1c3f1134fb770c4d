"""Which pictures are learned from and which measured on, and how many steps and epochs that makes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from studio.training.records import Example


@dataclass(frozen=True)
class Plan:
    """``pictures`` and ``batches`` of one epoch, repeats counted; ``held_out``: pictures that only measure.

    Of several ``tasks`` each has ``apart`` steps of its own first, and after them every step sees a batch of each.
    """

    steps: int
    pictures: int
    batches: int
    accumulation: int
    held_out: int = 0
    tasks: int = 1
    apart: int = 0

    @property
    def epochs(self) -> Fraction:
        """Passes over the pictures, exactly."""
        return self.epochs_in(self.steps)

    def epochs_in(self, steps: int) -> Fraction:
        """Passes over the pictures in the first ``steps``; of several tasks over those of all of them."""
        together = max(0, steps - self.tasks * self.apart)
        return Fraction((steps + together * (self.tasks - 1)) * self.accumulation, self.batches)

    def words(self) -> str:
        """Such as "500 steps, 25.0 epochs of 20 pictures; 2 held out"."""
        said = f"{self.steps:,} step{'s' * (self.steps != 1)}"
        if self.tasks > 1:
            said += f" ({self.tasks} x {self.apart:,} apart and {self.steps - self.tasks * self.apart:,} together)"
        said += f", {float(self.epochs):,.1f} epochs of {self.pictures:,} "
        said += f"picture{'s' * (self.pictures != 1)}"
        return f"{said}; {self.held_out} held out" if self.held_out else said


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(learned from, held out): about ``share`` of the pictures, at least one if any, chosen by seed.

    Pictures that look alike stay together, and one group at least is left to learn from. Both keep their order.
    """
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.twin or example.name, []).append(example)
    if share <= 0.0 or len(groups) < 2:
        return tuple(examples), ()
    names = sorted(groups)
    random.Random(f"split/{seed}").shuffle(names)
    wanted, kept = max(1, round(share * len(examples))), set[str]()
    for name in names[:-1]:
        if len(kept) >= wanted:
            break
        kept |= {example.name for example in groups[name]}
    learned = tuple(example for example in examples if example.name not in kept)
    return learned, tuple(example for example in examples if example.name in kept)
