"""The maths of the catalogue: short pure functions on float32 tensors of one shape, the base or A first."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = Sequence[Tensor]


@dataclass(frozen=True)
class Setting:
    """``options`` is the method's own record; ``draw`` is seeded for the tensor at hand, for methods that draw."""

    alpha: float
    options: Any = None
    draw: torch.Generator | None = None


def weighted_sum(t: Tensors, s: Setting) -> Tensor:
    return between(t[0], t[1], s.alpha)


def add_difference(t: Tensors, s: Setting) -> Tensor:
    return t[0] + s.alpha * (t[1] - t[2])


def sigmoid(t: Tensors, s: Setting) -> Tensor:
    return between(t[0], t[1], s.alpha * s.alpha * (3.0 - 2.0 * s.alpha))


def inverse_sigmoid(t: Tensors, s: Setting) -> Tensor:
    return between(t[0], t[1], 0.5 - math.sin(math.asin(1.0 - 2.0 * s.alpha) / 3.0))


def slerp(t: Tensors, s: Setting) -> Tensor:
    """sin((1 - alpha) w) / sin(w) A + sin(alpha w) / sin(w) B for the angle w between A and B."""
    cosine = cosine_of(t[0], t[1])
    if abs(cosine) > s.options.parallel:
        return between(t[0], t[1], s.alpha)
    angle = math.acos(cosine)
    return (math.sin((1.0 - s.alpha) * angle) * t[0] + math.sin(s.alpha * angle) * t[1]) / math.sin(angle)


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


def ties(t: Tensors, s: Setting) -> Tensor:
    """Trim, elect, disjoint merge."""
    changes = torch.stack([trimmed(other - t[0], s.options.density) for other in t[1:]])
    return t[0] + s.alpha * elected_mean(changes)


def dare(t: Tensors, s: Setting) -> Tensor:
    """Each change is kept with probability 1 - p and divided by it (eq. 2 and 3), then task arithmetic."""
    keep = 1.0 - s.options.drop
    return t[0] + s.alpha * sum(_kept(other - t[0], torch.full_like(t[0], keep), s.draw) for other in t[1:])


def della(t: Tensors, s: Setting) -> Tensor:
    """MagPrune (eq. 1 to 3): by rank of magnitude, chances to be dropped run from p + e/2 down to p - e/2; then TIES'

    election and mean.
    """
    changes = [other - t[0] for other in t[1:]]
    kept = [_kept(change, 1.0 - drop_chances(change, s.options.drop, s.options.window), s.draw) for change in changes]
    return t[0] + s.alpha * elected_mean(torch.stack(kept))


def perpendicular(t: Tensors, s: Setting) -> Tensor:
    """A + alpha (d - <d, a> / <a, a> a) for d = B - C and a = A - C."""
    learned, held = t[1] - t[2], t[0] - t[2]
    length = dot(held, held)
    along = dot(learned, held) / length if length > 0.0 else 0.0
    return t[0] + s.alpha * (learned - along * held)


def model_stock(t: Tensors, s: Setting) -> Tensor:
    """w0 + N cos / (1 + (N - 1) cos) (mean - w0), cos the mean over pairs of changes of w0 = A; never past either."""
    changes = [other - t[0] for other in t[1:]]
    count = len(changes)
    pairs = [cosine_of(one, other) for i, one in enumerate(changes) for other in changes[:i]]
    cosine = min(max(sum(pairs) / len(pairs), 0.0), 1.0)
    return t[0] + count * cosine / (1.0 + (count - 1) * cosine) * (sum(changes) / count)


def cosine_a(t: Tensors, s: Setting) -> Tensor:
    """A to B by 1 - clip(cos - alpha), the cosine taken over the first dimension."""
    return _by_likeness(t, s.alpha, _column_cosine(t[0], t[1]))


def cosine_b(t: Tensors, s: Setting) -> Tensor:
    return _by_likeness(t, s.alpha, (_column_cosine(t[0], t[1]) + cosine_of(t[0], t[1])) / 2.0)


def between(one: Tensor, other: Tensor, weight: float) -> Tensor:
    """(1 - weight) one + weight other, exact at both ends and where the two agree.

    Every product and sum is rounded by itself, unlike in ``torch.lerp``, whose last bit depends on the processor.
    """
    difference = other - one
    if weight < 0.5:
        return difference.mul_(weight).add_(one)
    return torch.sub(other, difference.mul_(1.0 - weight))


def trimmed(change: Tensor, density: float) -> Tensor:
    """``change`` with all but its largest ``density`` share set to zero; what is as large as the last one stays."""
    keep = max(1, round(density * change.numel()))
    if keep >= change.numel():
        return change
    sizes = change.abs()
    least = sizes.flatten().kthvalue(change.numel() - keep + 1).values
    return change * (sizes >= least)


def elected_mean(changes: Tensor) -> Tensor:
    """n x ... changes -> the mean of those that are not zero and have the sign of the sum."""
    agree = torch.sign(changes) * torch.sign(changes.sum(0)) > 0
    return (changes * agree).sum(0) / agree.sum(0).clamp(min=1)


def drop_chances(change: Tensor, drop: float, window: float) -> Tensor:
    """For each number the chance to be dropped, by its rank among all magnitudes: the largest ones least."""
    ranks = torch.empty(change.numel())
    ranks[change.abs().flatten().argsort(stable=True)] = torch.arange(change.numel(), dtype=torch.float32)
    place = ranks / max(1, change.numel() - 1)
    return (drop + window / 2 - window * place).reshape(change.shape)


def cosine_of(one: Tensor, other: Tensor) -> float:
    """Between two flattened tensors; 0 where one of them is zero."""
    lengths = math.sqrt(dot(one, one) * dot(other, other))
    return max(-1.0, min(1.0, dot(one, other) / lengths)) if lengths > 0.0 else 0.0


def dot(one: Tensor, other: Tensor) -> float:
    """Summed row by row in float32, the rows in float64: thousands of numbers lose nothing that matters."""
    rows = one.reshape(len(one) if one.dim() > 1 else 1, -1) * other.reshape(len(other) if other.dim() > 1 else 1, -1)
    return float(rows.sum(1).double().sum())


def _kept(change: Tensor, keep: Tensor, draw: torch.Generator | None) -> Tensor:
    return change * torch.bernoulli(keep, generator=draw) / keep


def _column_cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(torch.atleast_1d(one), torch.atleast_1d(other), dim=0)


def _by_likeness(t: Tensors, alpha: float, likeness: Tensor) -> Tensor:
    keep = torch.clamp(likeness - alpha, 0.0, 1.0)
    difference = t[1] - t[0]
    return torch.where(keep > 0.5, t[0] + (1.0 - keep) * difference, t[1] - keep * difference)


FUNCTIONS: Mapping[str, Callable[[Tensors, Setting], Tensor]] = {
    "weighted_sum": weighted_sum,
    "add_difference": add_difference,
    "sigmoid": sigmoid,
    "inverse_sigmoid": inverse_sigmoid,
    "slerp": slerp,
    "average": average,
    "train_difference": train_difference,
    "task_arithmetic": task_arithmetic,
    "ties": ties,
    "dare": dare,
    "della": della,
    "perpendicular": perpendicular,
    "model_stock": model_stock,
    "cosine_a": cosine_a,
    "cosine_b": cosine_b,
}
