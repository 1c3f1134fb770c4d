"""What a method must know of whole tensors before it changes a number of them, found piece by piece.

A tensor comes as ``Pieces``: its inputs cut alike into whole rows, as often as they are asked for. Nothing here depends
on where the cuts are, and no more is held than a few pieces, a row's length or, for ranks, four bytes a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

Tensors = Sequence[Tensor]
Changes = Callable[[], Iterable[Tensor]]
GROUP = 8 * 1024**2  # numbers that are sorted at a time
HIGH = 16  # bits by which magnitudes are first told apart; as whole numbers they have the order of the magnitudes


class Pieces(Protocol):
    """float32 tensors of one shape, one for each input, the first dimension cut.

    ``inputs``: how many tensors; ``numbers``: how many numbers of each lie in each piece.
    """

    inputs: int
    numbers: Sequence[int]

    def __iter__(self) -> Iterator[Tensors]: ...


class Whole:
    """Tensors that lie in memory, uncut."""

    def __init__(self, tensors: Tensors) -> None:
        self.inputs, self.numbers, self._tensors = len(tensors), (tensors[0].numel(),), tensors

    def __iter__(self) -> Iterator[Tensors]:
        yield self._tensors


def dots(pieces: Pieces, pairs: Callable[[Tensors], Iterable[tuple[Tensor, Tensor]]]) -> list[float]:
    """The dot products of ``pairs`` of the inputs: summed row by row in float32, the rows in float64."""
    rows: dict[int, list[float]] = {}
    for t in pieces:
        for index, (one, other) in enumerate(pairs(t)):
            # As numbers: small tensors that stay would lie between the pieces and keep their memory from being used.
            rows.setdefault(index, []).extend(_by_row(one).mul(_by_row(other)).sum(1).tolist())
    return [float(torch.tensor(sums, dtype=torch.float32).double().sum()) for sums in rows.values()]


def cosines(pieces: Pieces, vectors: Callable[[Tensors], Sequence[Tensor]]) -> list[float]:
    """Between each of ``vectors`` and every earlier one, flattened; 0 where one of them is zero."""

    def pairs(t: Tensors) -> Iterator[tuple[Tensor, Tensor]]:
        held = vectors(t)
        yield from ((one, one) for one in held)
        yield from ((one, other) for i, one in enumerate(held) for other in held[:i])

    found = dots(pieces, pairs)
    count = math.isqrt(2 * len(found))  # n squares and n (n - 1) / 2 products
    between = iter(found[count:])
    return [cosine(next(between), found[i], found[j]) for i in range(count) for j in range(i)]


def cosine(product: float, square: float, other: float) -> float:
    lengths = math.sqrt(square * other)
    return max(-1.0, min(1.0, product / lengths)) if lengths > 0.0 else 0.0


def column_cosines(pieces: Pieces) -> Tensor:
    """Between the first two inputs over the first dimension, summed in float64; 0 where one of them is zero."""
    sums: list[Tensor] = []
    for one, other in pieces:
        found = [(x * y).sum(0, dtype=torch.float64) for x, y in ((one, other), (one, one), (other, other))]
        sums = found if not sums else [total.add_(more) for total, more in zip(sums, found, strict=True)]
    product, square, another = sums
    lengths = (square * another).sqrt()
    return torch.where(lengths > 0, product / lengths.clamp(min=1e-300), 0.0).float()


def least_of_largest(changes: Changes, keep: int, count: int) -> float:
    """The least of the ``keep`` largest magnitudes of ``count`` numbers, exactly: counted by their upper bits, then

    by the lower ones.
    """
    below = count - keep
    high, before = _bucket(_histogram(bits >> HIGH for bits in map(_bits, changes())), below)
    inside = (bits[bits >> HIGH == high] & 0xFFFF for bits in map(_bits, changes()))
    low, _ = _bucket(_histogram(inside), below - before)
    return float(torch.tensor([high << HIGH | low], dtype=torch.int32).view(torch.float32))


def ranks(changes: Changes, count: int) -> Tensor:
    """The place of each of ``count`` magnitudes among all, from 0 for the smallest, equal ones in their order; flat.

    Sorted in groups of a range of magnitudes each, so that little is in memory at a time.
    """
    found = torch.empty(count)
    done = 0
    for low, high in _ranges(_histogram(bits >> HIGH for bits in map(_bits, changes()))):
        keys = np.concatenate(list(_keys(changes, low, high)))
        keys.sort()
        places = torch.from_numpy(keys).bitwise_and_(0xFFFFFFFF)
        found[places] = torch.arange(done, done + len(places)).float()
        done += len(places)
    return found


def _keys(changes: Changes, low: int, high: int) -> Iterator[np.ndarray]:
    """Magnitude and place in one whole number, for magnitudes whose upper bits lie from ``low`` up to ``high``."""
    start = 0
    for bits in map(_bits, changes()):
        upper = bits >> HIGH
        places = ((upper >= low) & (upper < high)).nonzero().flatten()
        yield (bits[places].long() << 32 | places + start).numpy()
        start += len(bits)


def _ranges(histogram: Tensor) -> Iterator[tuple[int, int]]:
    """Neighbouring buckets that together hold at most ``GROUP`` numbers, or one bucket that holds more."""
    low, held = 0, 0
    for bucket in histogram.nonzero().flatten().tolist():
        size = int(histogram[bucket])
        if held and held + size > GROUP:
            yield low, bucket
            low, held = bucket, 0
        held += size
    yield low, len(histogram)


def _histogram(parts: Iterable[Tensor]) -> Tensor:
    return sum((torch.bincount(part, minlength=1 << HIGH) for part in parts), torch.zeros(1 << HIGH, dtype=torch.int64))


def _bucket(histogram: Tensor, place: int) -> tuple[int, int]:
    """The bucket that holds the number of that place (from 0) in ascending order, and how many lie before it."""
    ends = histogram.cumsum(0)
    bucket = int(torch.searchsorted(ends, place, right=True))
    return bucket, int(ends[bucket] - histogram[bucket])


def _bits(change: Tensor) -> Tensor:
    """The magnitudes as whole numbers of the same order."""
    return change.abs().flatten().view(torch.int32)


def _by_row(tensor: Tensor) -> Tensor:
    return tensor.reshape(len(tensor) if tensor.dim() > 1 else 1, -1)
