"""Early stops in a search: which candidates are not worth finishing.

Candidates are drawn one after the other. At one step of the run each is read by the scorer, in the decoded clean
estimate, and held against the best that any candidate was at that step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

JUDGED_AT = 0.4  # of a run's steps
HOPELESS = 0.5  # of the best score at that step


def judged_step(steps: int) -> int:
    """The step, counted from 1, after which candidates are held against each other."""
    return max(1, round(JUDGED_AT * steps))


class Stopped(Exception):
    """Raised out of a run that is not worth finishing; ``pixels`` (3 x H x W) is what it looked like."""

    def __init__(self, pixels: Tensor, similarities: Tensor, score: float, best: float) -> None:
        super().__init__(f"a score of {score:.3f} against {best:.3f}")
        self.pixels, self.similarities, self.score, self.best = pixels, similarities, score, best


class Race:
    """One search's memory: the best score that any candidate had at the judged step.

    The best so far is never stopped, so at least one candidate is finished; and which ones are depends on the request
    alone.
    """

    def __init__(self) -> None:
        self.best = -math.inf

    def is_hopeless(self, score: float) -> bool:
        """Whether a candidate with this score at the judged step should stop; it counts for those that follow."""
        hopeless = score < HOPELESS * self.best
        self.best = max(self.best, score)
        return hopeless
