"""Means with bootstrap intervals: how far a figure might be off because other seeds were not drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 4000
LEVEL = 0.95
WIDEST = 2.0  # diversity of two opposite rows


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def signed(self) -> str:
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values, and the percentile bootstrap's interval for it (Efron 1979)."""
    array = np.asarray(values, dtype=np.float64)
    means = array[resamples(array.size)].mean(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(array.mean()), float(low), float(high))


def diversity(features: NDArray[np.float64]) -> float:
    """1 less the mean cosine of all pairs of N x D unit rows (AutoLoRA, arXiv 2410.03941, eq. 8), in O(N D).

    0 for rows that are all alike, 1 for orthogonal ones, at most N / (N - 1). ValueError for fewer than two rows.
    """
    if len(features) < 2:
        raise ValueError("diversity needs two pictures or more")
    return float(_spreads(features, np.ones((1, len(features))))[0])


def diversity_estimate(groups: Sequence[NDArray[np.float64]]) -> Estimate:
    """The mean diversity of groups (one for each prompt), bootstrapped over the rows of each.

    Pairs of a row with itself, of which resampling makes some, do not count: they would draw the figure down. A pair
    says nothing of how far it might be off: groups of two have the interval of all that diversity can be.
    """
    value = float(np.mean([diversity(group) for group in groups]))
    if min(map(len, groups)) == 2:
        return Estimate(value, 0.0, WIDEST)
    drawn = np.stack([_spreads(group, _counts(len(group))) for group in groups])
    low, high = np.nanquantile(drawn.mean(0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def diversity_change(groups: Sequence[NDArray[np.float64]], before: Sequence[NDArray[np.float64]]) -> Estimate:
    """How much more diverse ``groups`` are than ``before``, whose rows are of the same seeds: both are resampled alike.

    Narrower than what two separate intervals leave, since what a seed does to both falls out.
    """
    pairs = list(zip(groups, before, strict=True))
    value = float(np.mean([diversity(ours) - diversity(theirs) for ours, theirs in pairs]))
    if min(map(len, groups)) == 2:
        return Estimate(value, -WIDEST, WIDEST)
    counts = [_counts(len(ours)) for ours, _ in pairs]
    drawn = [_spreads(a, each) - _spreads(b, each) for (a, b), each in zip(pairs, counts, strict=True)]
    low, high = np.nanquantile(np.stack(drawn).mean(0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def resamples(count: int) -> NDArray[np.int64]:
    """The rows of each resample: the same for the same count, so that methods are compared on the same draws."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def _counts(count: int) -> NDArray[np.float64]:
    """How often each of ``count`` rows is in each resample."""
    return np.stack([np.bincount(rows, minlength=count) for rows in resamples(count)]).astype(np.float64)


def _spreads(features: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """R of them: 1 less the mean cosine of pairs of different rows, row i standing there ``counts[r, i]`` times.

    NaN where all are the same row.
    """
    squares = counts**2
    cosines = ((counts @ features) ** 2).sum(1) - squares @ (features**2).sum(1)
    pairs = counts.sum(1) ** 2 - squares.sum(1)
    return 1.0 - np.divide(cosines, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)
