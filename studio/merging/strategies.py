"""Ways to search for the point with the best score: each is told a score and says where to look next.

A point is a tuple of numbers in [0, 1]. A strategy is a generator: it yields points, each but once, and is sent the
score of each. It has no state outside and draws from its own seeded generator, so that equal scores mean equal points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, ...]
Search = Generator[Point, float, None]
Array = NDArray[np.float64]

LEAST_STEP = 1 / 256
DIGITS = 9  # of a coordinate: there and back again is where it was
LENGTHS, NOISES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6), (1e-6, 1e-3, 3e-2, 0.3)
LINE = 401  # places that are looked at along one dimension
DRAWN, AROUND = 768, 256  # places in more of them: anywhere, and near the best one
NEARER = 1e-3  # how far apart two tries must be


@dataclass(frozen=True)
class Space:
    """Where to search: from ``start``, for ``trials`` points at the most."""

    start: Point
    trials: int
    seed: int = 0

    @property
    def dimensions(self) -> int:
        return len(self.start)


def grid(space: Space) -> Search:
    """Even steps from one end to the other, in one dimension."""
    for index in range(space.trials):
        yield (index / (space.trials - 1),)


def coordinate(space: Space) -> Search:
    """Compass search (Kolda, Lewis & Torczon 2003, section 1): a step to either side along each dimension in turn.

    It goes wherever the score grows; when it grows nowhere, the step is halved, and the search ends when that is tiny.
    """
    best, step = tuple(round(value, DIGITS) for value in space.start), 0.5
    known: dict[Point, float] = {best: (yield best)}
    while step >= LEAST_STEP:
        before = best
        for axis in range(space.dimensions):
            for way in (step, -step):
                point = _moved(best, axis, way)
                if point not in known:
                    known[point] = yield point
                if known[point] > known[best]:
                    best = point
                    break
        step = step / 2 if best == before else step


def bayes(space: Space) -> Search:
    """Bayesian optimisation (Jones, Schonlau & Welch 1998, EGO): the point of the largest expected improvement over

    the best score so far, under a Gaussian process that is fitted to all of them.
    """
    draw = np.random.default_rng(space.seed)
    points: list[Point] = []
    scores: list[float] = []
    for point in dict.fromkeys((space.start, (0.0,) * space.dimensions, (1.0,) * space.dimensions)):
        points.append(point)
        scores.append((yield point))
    while True:
        places = _places(points, scores, draw)
        if not len(places):
            return
        model = fit_process(np.array(points), np.array(scores))
        improvement = expected_improvement(*model.at(places), max(model.at(np.array(points))[0]))
        points.append(tuple(float(value) for value in places[int(np.argmax(improvement))]))
        scores.append((yield points[-1]))


STRATEGIES: Mapping[str, Callable[[Space], Search]] = {"grid": grid, "coordinate": coordinate, "bayes": bayes}


@dataclass(frozen=True)
class Process:
    """A Gaussian process with mean ``centre`` that saw ``points`` (N x D); numbers as in Rasmussen & Williams 2006,

    algorithm 2.1: ``factor`` is the Cholesky factor of K + noise I, ``weights`` its inverse times the scores.
    """

    points: Array
    centre: float
    spread: float
    length: float
    factor: Array
    weights: Array
    likelihood: float

    def at(self, places: Array) -> tuple[Array, Array]:
        """Mean and standard deviation of the score at ``places`` (M x D)."""
        across = matern(self.points, places, self.length)
        mean = across.T @ self.weights
        solved = np.linalg.solve(self.factor, across)
        left = np.clip(1.0 - (solved**2).sum(0), 1e-12, None)
        return self.centre + self.spread * mean, self.spread * np.sqrt(left)


def fit_process(points: Array, scores: Array) -> Process:
    """The process whose length scale and noise, of a few, make the scores most likely."""
    fitted = [_process(points, scores, length, noise) for length in LENGTHS for noise in NOISES]
    return max(fitted, key=lambda process: process.likelihood)


def matern(one: Array, other: Array, length: float) -> Array:
    """The Matérn 5/2 kernel (Rasmussen & Williams 2006, eq. 4.17) of two lists of points, N x M.

    Distances are those of the average dimension, so that one length scale serves any number of dimensions.
    """
    squared = ((one[:, None, :] - other[None, :, :]) ** 2).mean(-1)
    scaled = math.sqrt(5.0) * np.sqrt(squared) / length
    return (1.0 + scaled + scaled**2 / 3.0) * np.exp(-scaled)


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """E[max(score - best, 0)] for normally distributed scores (Jones, Schonlau & Welch 1998, eq. 15)."""
    z = (mean - best) / deviation
    below = np.array([0.5 * (1.0 + math.erf(value / math.sqrt(2.0))) for value in z])
    density = np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)
    return (mean - best) * below + deviation * density


def _process(points: Array, scores: Array, length: float, noise: float) -> Process:
    centre, spread = float(scores.mean()), float(scores.std()) or 1.0
    y = (scores - centre) / spread
    factor = np.linalg.cholesky(matern(points, points, length) + (noise + 1e-9) * np.eye(len(points)))
    weights = np.linalg.solve(factor.T, np.linalg.solve(factor, y))
    likelihood = -0.5 * float(y @ weights) - float(np.log(np.diag(factor)).sum())
    return Process(points, centre, spread, length, factor, weights, likelihood)


def _places(points: Sequence[Point], scores: Sequence[float], draw: np.random.Generator) -> Array:
    """Where the next try may be: anywhere but where one was."""
    dimensions, best = len(points[0]), np.array(points[int(np.argmax(scores))])
    if dimensions == 1:
        places = np.linspace(0.0, 1.0, LINE)[:, None]
    else:
        anywhere = draw.random((DRAWN, dimensions))
        steps = draw.normal(0.0, 0.2, (AROUND, dimensions)) * (draw.random((AROUND, dimensions)) < 0.3)
        places = np.concatenate([anywhere, np.clip(best + steps, 0.0, 1.0)])
    distance = np.abs(places[:, None, :] - np.array(points)[None, :, :]).max(-1).min(1)
    return places[distance > NEARER]


def _moved(point: Point, axis: int, way: float) -> Point:
    moved = round(min(1.0, max(0.0, point[axis] + way)), DIGITS)
    return (*point[:axis], moved, *point[axis + 1 :])
