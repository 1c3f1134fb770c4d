"""The maths of the catalogue: short pure functions on float32 tensors of one shape, the base or A first.

A method works on a tensor in pieces of whole rows. What it must know of the whole of it, it finds out before, with the
measures of ``measures``; nothing depends on where the pieces are cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from studio.merging import measures
from studio.merging.measures import Changes, Pieces, Tensors, Whole

Method = Callable[[Pieces, "Setting"], Iterator[Tensor]]
LEAST = 1e-9  # what a chance to be kept is never below where a number was kept


@dataclass(frozen=True)
class Setting:
    """``options`` is the method's own record; ``draw`` is seeded for the tensor at hand, for methods that draw."""

    alpha: float
    options: Any = None
    draw: torch.Generator | None = None


def merged(name: str, tensors: Tensors, setting: Setting) -> Tensor:
    """What the method ``name`` makes of tensors that lie in memory."""
    return next(FUNCTIONS[name](Whole(tensors), setting))


def weighted_sum(t: Tensors, s: Setting) -> Tensor:
    return between(t[0], t[1], s.alpha)


def add_difference(t: Tensors, s: Setting) -> Tensor:
    return t[0] + s.alpha * (t[1] - t[2])


def sigmoid(t: Tensors, s: Setting) -> Tensor:
    return between(t[0], t[1], s.alpha * s.alpha * (3.0 - 2.0 * s.alpha))


def inverse_sigmoid(t: Tensors, s: Setting) -> Tensor:
    return between(t[0], t[1], 0.5 - math.sin(math.asin(1.0 - 2.0 * s.alpha) / 3.0))


def slerp(pieces: Pieces, s: Setting) -> Iterator[Tensor]:
    """sin((1 - alpha) w) / sin(w) A + sin(alpha w) / sin(w) B for the angle w between A and B."""
    (cosine,) = measures.cosines(pieces, lambda t: t[:2])
    if abs(cosine) > s.options.parallel:
        yield from (between(t[0], t[1], s.alpha) for t in pieces)
        return
    angle = math.acos(cosine)
    for t in pieces:
        yield (math.sin((1.0 - s.alpha) * angle) * t[0] + math.sin(s.alpha * angle) * t[1]) / math.sin(angle)


def average(t: Tensors, s: Setting) -> Tensor:
    """A plus the mean distance to A, which is exact where all agree."""
    return t[0] + sum(other - t[0] for other in t[1:]) / len(t)


def train_difference(t: Tensors, s: Setting) -> Tensor:
    """A + 1.8 alpha (B - C) |B - A| / (|B - A| + |B - C|)."""
    learned, away = t[1] - t[2], (t[1] - t[0]).abs()
    share = away / (away + learned.abs())
    return t[0] + 1.8 * s.alpha * torch.nan_to_num(share, nan=0.0) * learned


def task_arithmetic(t: Tensors, s: Setting) -> Tensor:
    return t[0] + s.alpha * sum(other - t[0] for other in t[1:])


def ties(pieces: Pieces, s: Setting) -> Iterator[Tensor]:
    """Trim, elect, disjoint merge."""
    least = [least_kept(changes, sum(pieces.numbers), s.options.density) for changes in _changes(pieces)]
    for t in pieces:
        kept = [trimmed(change, size) for change, size in zip(_differences(t), least, strict=True)]
        yield t[0] + s.alpha * elected_mean(torch.stack(kept))


def dare(pieces: Pieces, s: Setting) -> Iterator[Tensor]:
    """Each change is kept with probability 1 - p and divided by it (eq. 2 and 3), then task arithmetic."""
    keep = 1.0 - s.options.drop
    drawn = [_drawn((torch.full((n,), keep) for n in pieces.numbers), pieces, s.draw) for _ in _changes(pieces)]
    for t, *kept in zip(pieces, *drawn, strict=True):
        yield t[0] + s.alpha * sum(_masked(c, bits) / keep for c, bits in zip(_differences(t), kept, strict=True))


def della(pieces: Pieces, s: Setting) -> Iterator[Tensor]:
    """MagPrune (eq. 1 to 3): by rank of magnitude, chances to be dropped run from p + e/2 down to p - e/2; then TIES'

    election and mean.
    """
    count, chances, drawn = sum(pieces.numbers), [], []
    for changes in _changes(pieces):
        keep = drop_chances(changes, count, s.options.drop, s.options.window).neg_().add_(1.0).split(pieces.numbers)
        chances.append(keep)
        drawn.append(_drawn(keep, pieces, s.draw))
    for t, *kept in zip(pieces, *chances, *drawn, strict=True):
        parts = zip(_differences(t), kept[: len(chances)], kept[len(chances) :], strict=True)
        changes = [_masked(c, bits) / keep.view_as(c).clamp(min=LEAST) for c, keep, bits in parts]
        yield t[0] + s.alpha * elected_mean(torch.stack(changes))


def perpendicular(pieces: Pieces, s: Setting) -> Iterator[Tensor]:
    """A + alpha (d - <d, a> / <a, a> a) for d = B - C and a = A - C."""
    product, square = measures.dots(pieces, lambda t: ((t[1] - t[2], t[0] - t[2]), (t[0] - t[2], t[0] - t[2])))
    along = product / square if square > 0.0 else 0.0
    for t in pieces:
        yield t[0] + s.alpha * ((t[1] - t[2]) - along * (t[0] - t[2]))


def model_stock(pieces: Pieces, s: Setting) -> Iterator[Tensor]:
    """w0 + N cos / (1 + (N - 1) cos) (mean - w0), cos the mean over pairs of changes of w0 = A; never past either."""
    pairs = measures.cosines(pieces, _differences)
    cosine = min(max(sum(pairs) / len(pairs), 0.0), 1.0)
    for t in pieces:
        count = len(t) - 1
        yield t[0] + count * cosine / (1.0 + (count - 1) * cosine) * (sum(_differences(t)) / count)


def cosine_a(pieces: Pieces, s: Setting) -> Iterator[Tensor]:
    """A to B by 1 - clip(cos - alpha), the cosine taken over the first dimension."""
    likeness = measures.column_cosines(pieces)
    yield from (_by_likeness(t, s.alpha, likeness) for t in pieces)


def cosine_b(pieces: Pieces, s: Setting) -> Iterator[Tensor]:
    (whole,) = measures.cosines(pieces, lambda t: t[:2])
    likeness = (measures.column_cosines(pieces) + whole) / 2.0
    yield from (_by_likeness(t, s.alpha, likeness) for t in pieces)


def between(one: Tensor, other: Tensor, weight: float) -> Tensor:
    """(1 - weight) one + weight other, exact at both ends and where the two agree.

    Every product and sum is rounded by itself, unlike in ``torch.lerp``, whose last bit depends on the processor.
    """
    difference = other - one
    if weight < 0.5:
        return difference.mul_(weight).add_(one)
    return torch.sub(other, difference.mul_(1.0 - weight))


def least_kept(changes: Changes, count: int, density: float) -> float | None:
    """The smallest magnitude that is among the largest ``density`` share of all; None where all are kept."""
    keep = max(1, round(density * count))
    return None if keep >= count else measures.least_of_largest(changes, keep, count)


def trimmed(change: Tensor, least: float | None) -> Tensor:
    """``change`` with all that is smaller than ``least`` set to zero."""
    return change if least is None else change * (change.abs() >= least)


def elected_mean(changes: Tensor) -> Tensor:
    """n x ... changes -> the mean of those that are not zero and have the sign of the sum."""
    agree = torch.sign(changes) * torch.sign(changes.sum(0)) > 0
    return (changes * agree).sum(0) / agree.sum(0).clamp(min=1)


def drop_chances(changes: Changes, count: int, drop: float, window: float) -> Tensor:
    """For each number the chance to be dropped, by its rank among all magnitudes: the largest ones least; flat."""
    place = measures.ranks(changes, count).div_(max(1, count - 1))
    return place.mul_(window).neg_().add_(drop + window / 2)


def _changes(pieces: Pieces) -> list[Changes]:
    """For each model but the first, what it changes in the first, piece by piece and as often as it is asked for."""

    def changes(index: int) -> Changes:
        return lambda: (t[index] - t[0] for t in pieces)

    return [changes(index) for index in range(1, pieces.inputs)]


def _differences(t: Tensors) -> list[Tensor]:
    return [other - t[0] for other in t[1:]]


def _drawn(keep: Iterable[Tensor], pieces: Pieces, draw: torch.Generator | None) -> list[np.ndarray]:
    """1 with the probability ``keep``, a bit for each number, piece by piece; all in one place of the memory."""
    sizes = [-(-count // 8) for count in pieces.numbers]
    bits = np.split(np.empty(sum(sizes), np.uint8), np.cumsum(sizes)[:-1])
    for place, chance in zip(bits, keep, strict=True):
        place[:] = np.packbits(torch.bernoulli(chance, generator=draw).bool().numpy())
    return bits


def _masked(change: Tensor, bits: np.ndarray) -> Tensor:
    return change * torch.from_numpy(np.unpackbits(bits, count=change.numel())).view_as(change)


def _by_likeness(t: Tensors, alpha: float, likeness: Tensor) -> Tensor:
    keep = torch.clamp(likeness - alpha, 0.0, 1.0)
    difference = t[1] - t[0]
    return torch.where(keep > 0.5, t[0] + (1.0 - keep) * difference, t[1] - keep * difference)


def _by_piece(maths: Callable[[Tensors, Setting], Tensor]) -> Method:
    """A method that need not know of the whole tensor."""
    return lambda pieces, setting: (maths(t, setting) for t in pieces)


FUNCTIONS: Mapping[str, Method] = {
    "weighted_sum": _by_piece(weighted_sum),
    "add_difference": _by_piece(add_difference),
    "sigmoid": _by_piece(sigmoid),
    "inverse_sigmoid": _by_piece(inverse_sigmoid),
    "slerp": slerp,
    "average": _by_piece(average),
    "train_difference": _by_piece(train_difference),
    "task_arithmetic": _by_piece(task_arithmetic),
    "ties": ties,
    "dare": dare,
    "della": della,
    "perpendicular": perpendicular,
    "model_stock": model_stock,
    "cosine_a": cosine_a,
    "cosine_b": cosine_b,
}
