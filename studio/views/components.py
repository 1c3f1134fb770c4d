"""Factorised views: parts of a picture that together sum to the whole (Geng et al. 2024, arXiv 2404.11615).

A family is a ladder of ever smoother pictures S_0 = identity, S_1, ..., S_k = 0. Part i is S_i - S_(i+1), so the parts
sum to the identity whatever the smoothing is, and S_i is what a viewer sees from where part i is the finest visible.
The smoothing matrices reflect at the border between pixels, which makes them symmetric and keeps the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from studio.views.permutations import Parameters

if TYPE_CHECKING:
    from torch import Tensor

Smoother = Callable[["Tensor"], "Tensor"]


class Blur(Parameters):
    sigma: float = Field(0.04, ge=0.005, le=0.25, description="Blur of the far view, as a share of the picture's side.")


class TripleBlur(Parameters):
    fine: float = Field(0.025, ge=0.005, le=0.25, description="Blur at medium distance, a share of the picture's side.")
    coarse: float = Field(0.07, ge=0.005, le=0.25, description="Blur from afar, a share of the picture's side.")

    @model_validator(mode="after")
    def _coarse_is_coarser(self) -> Self:
        if self.coarse <= self.fine:
            raise ValueError(f"coarse must be larger than fine, which is {self.fine:g}")
        return self


class Motion(Parameters):
    length: float = Field(0.12, ge=0.01, le=0.5, description="Length of the movement as a share of the picture's side.")
    direction: Literal["horizontal", "vertical"] = Field("horizontal", description="Which way the picture is moved.")


@dataclass(frozen=True, eq=False)
class Component:
    """Part ``upper - lower`` of a picture, of which a viewer sees ``upper``; None is the identity above, 0 below."""

    upper: Smoother | None
    lower: Smoother | None

    def part(self, x: Tensor) -> Tensor:
        """F_i x for x of shape (..., channels, side, side)."""
        return self.seen(x) if self.lower is None else self.seen(x) - self.lower(x)

    def seen(self, x: Tensor) -> Tensor:
        return x if self.upper is None else self.upper(x)


def low_pass(parameters: Blur, n: int) -> Component:
    return Component(gaussian(parameters.sigma * n, n), None)


def high_pass(parameters: Blur, n: int) -> Component:
    return Component(None, gaussian(parameters.sigma * n, n))


def triple_low(parameters: TripleBlur, n: int) -> Component:
    return Component(gaussian(parameters.coarse * n, n), None)


def triple_medium(parameters: TripleBlur, n: int) -> Component:
    return Component(gaussian(parameters.fine * n, n), gaussian(parameters.coarse * n, n))


def triple_high(parameters: TripleBlur, n: int) -> Component:
    return Component(None, gaussian(parameters.fine * n, n))


def grayscale(_: Parameters, n: int) -> Component:
    return Component(channel_mean, None)


def colour(_: Parameters, n: int) -> Component:
    return Component(None, channel_mean)


def motion(parameters: Motion, n: int) -> Component:
    return Component(moved_along(parameters, n), None)


def motion_residual(parameters: Motion, n: int) -> Component:
    return Component(None, moved_along(parameters, n))


def channel_mean(x: Tensor) -> Tensor:
    """Every channel becomes the mean of them all."""
    return x.mean(-3, keepdim=True).expand_as(x)


def gaussian(sigma: float, n: int) -> Smoother:
    """Gaussian blur by ``sigma`` pixels of pictures n pixels wide, cut off at 3.5 sigma."""
    reach = np.arange(min(n, int(np.ceil(3.5 * sigma))) + 1)
    matrix = mirror_filter(np.exp(-0.5 * (reach / sigma) ** 2), n)
    return _filtered(matrix, matrix)


def moved_along(parameters: Motion, n: int) -> Smoother:
    """The blur of an even movement over ``length`` of the picture's side."""
    half = parameters.length * n / 2
    reach = np.arange(min(n, int(np.ceil(half))) + 1)
    matrix = mirror_filter(np.clip(half + 0.5 - reach, 0, 1), n)
    return _filtered(None, matrix) if parameters.direction == "horizontal" else _filtered(matrix, None)


def mirror_filter(taps: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """The n x n matrix of the even kernel whose right half is ``taps`` (at most n + 1 of them), mirrored at borders.

    Mirroring between pixels (x_(-1) = x_0) sums kernel values at i - j, i + j + 1 and i + j + 1 - 2n.
    """
    table = np.zeros(2 * n, np.float32)
    table[: len(taps)] = taps / (2 * taps.sum() - taps[0])
    i, j = np.ogrid[:n, :n]
    return table[np.abs(i - j)] + table[i + j + 1] + table[2 * n - 1 - i - j]


def _filtered(down: NDArray[np.float32] | None, across: NDArray[np.float32] | None) -> Smoother:
    """Filter along columns, rows or both: down @ x @ across^T, computed in float32."""

    def smooth(x: Tensor) -> Tensor:
        from torch import from_numpy

        smoothed = x.float()
        if down is not None:
            smoothed = from_numpy(down).to(x.device) @ smoothed
        if across is not None:
            smoothed = smoothed @ from_numpy(across).to(x.device)
        return smoothed.to(x.dtype)

    return smooth
