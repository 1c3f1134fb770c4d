"""How many passes of the network a run takes: one a step, and more where it travels back in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Space = Literal["auto", "latent", "picture"]

# Views of colours: an autoencoder's codes mix those, so no model is known whose codes carry them.
OF_COLOURS = ("negate", "channel_permutation", "grayscale", "colour")


@dataclass(frozen=True)
class Travel:
    """Time travel: which steps are taken ``repeats`` times, each time from where the step began.

    Going back adds as much new noise as the step took away, so that the network makes what a step put together whole
    before more is built on it (RePaint, Lugmayr et al. 2022, arXiv 2201.09865, section 4.2, with a jump length of 1).
    Steps between the shares ``start`` and ``end`` of the run repeat; ``seed`` is that of the new noise.
    """

    repeats: int = 1
    start: float = 0.2
    end: float = 0.8
    seed: int = 0

    def at(self, index: int, steps: int) -> int:
        """How many passes the step ``index`` takes, of ``steps``."""
        return self.repeats if self.start * steps <= index and index + 1 <= self.end * steps else 1

    def passes(self, steps: int, first: int = 0, end: int | None = None) -> int:
        """How many passes the steps from ``first`` up to ``end`` take, of a run of ``steps``."""
        return sum(self.at(index, steps) for index in range(first, steps if end is None else end))


NOWHERE = Travel()
AGAIN, TRACK = 1, 2  # what further noise of a picture is for: see ``devices.derived_seed``
IN_PICTURES = Travel(repeats=2)
"""What picture space does: LookingGlass (arXiv 2504.08902) repeats in the same part of the run, five times.

On builtin:emoji (12 pictures each, 20 steps) two passes instead of one took the mean alignment from 0.46 to 0.42 for a
turn by 180 degrees and from 0.20 to 0.23 (+0.03 +- 0.02, pair by pair) for the negative, at 1.7 times the seconds: no
gain on so small a model, but no loss that is clear of chance.
"""


def expected(space: Space, views: Iterable[str]) -> Travel:
    """The way a run will take, as far as its words tell: ``auto`` acts on pictures for views of colours."""
    of_colours = any(name in view for view in views for name in OF_COLOURS)
    in_pictures = space == "picture" or (space == "auto" and of_colours)
    return IN_PICTURES if in_pictures else NOWHERE
