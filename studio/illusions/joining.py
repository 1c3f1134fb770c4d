"""Joining the views' predictions: guiders for the reductions that are more than one fixed sum of terms.

Weights and variance correction follow Anagram-MTL (Xu et al. 2024, arXiv 2412.02693), with changes that let them work
with any scorer and any guidance scale; each says why. What was measured for them is of builtin:emoji, flip_vertical.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from studio.illusions.reductions import Entry
from studio.models.networks import Prediction
from studio.sampling import Guider, Moment, Plan, Term, clean_estimate, from_clean, noise_share

WEIGH_EVERY = 3  # steps; a scorer's look at a preview costs about as much as one evaluation of a small network
STEEPNESS = 0.08
LEAST = 0.5  # of an even share: what a view keeps even when the other needs everything
# Of the run. Which view reads better in a preview says nothing of which will in the picture before that: over 64 runs
# the two differences correlated by -0.3 to 0 in the first quarter, by 0.3 at 40 % and by 0.7 at 90 %.
WEIGHED_FROM = 0.4

Weigh = Callable[[Tensor, int], Sequence[float]]
"""From the clean estimate (B x C x h x w) after a step, and its index, to the views' weights, which sum to 1."""


def noise_estimate(prediction: Tensor, at: Moment, kind: Prediction) -> Tensor:
    """The noise that a prediction of ``kind`` implies."""
    if kind == "flow":
        return at.x + (1 - noise_share(at.sigma)) * prediction
    return from_clean(clean_estimate(prediction, at.x, at.sigma, kind), at.x, at.sigma, "epsilon")


def from_noise(noise: Tensor, at: Moment, kind: Prediction) -> Tensor:
    """The prediction of ``kind`` that implies ``noise``; the inverse of ``noise_estimate``."""
    if kind == "flow":
        return (noise - at.x) / (1 - noise_share(at.sigma))
    return from_clean(clean_estimate(noise, at.x, at.sigma, "epsilon"), at.x, at.sigma, kind)


def power(noise: Tensor) -> Tensor:
    """The variance of noise estimates about their known mean of zero, one number per picture: B x 1 x 1 x 1."""
    return noise.square().mean((1, 2, 3), keepdim=True)


def rectification(noises: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """c = sqrt(min(1, sum a_i Var_i) / Var(sum a_i eps_i)), at least 1, B x 1 x 1 x 1: the joined noise is no fainter.

    Var(sum a_i eps_i) is sum a_i^2 Var_i + 2 sum_(i<j) a_i a_j Cov_ij with covariances as measured. Anagram-MTL takes
    every Var_i for 1, then c is 1 over the root of that. Guided predictions have variances of up to 1.6, and their mean
    often still one above white noise: there is nothing to restore then. Making it as strong as the views' own left
    noise in the pictures, which took 0.05 off every similarity (24 runs, standard error 0.015).
    """
    joined = sum(a * noise for a, noise in zip(weights, noises, strict=True))
    wanted = sum(a * power(noise) for a, noise in zip(weights, noises, strict=True))
    return (wanted.clamp_max(1) / power(joined).clamp_min(1e-12)).sqrt().clamp_min(1)


def balanced(own: Sequence[float], temperature: float, share: float) -> tuple[float, ...]:
    """Weights of the views from how well each reads as its own prompt (S_ii), ``share`` of the way through the run.

    a_i = LEAST / N + (1 - LEAST) p_i with p_i ~ exp(-(1 + share) k S_ii / tau), summing to 1. Anagram-MTL has
    a_i ~ S_ii^-(1 + share), which is for CLIP's similarities: about 0.25 with tau = 0.01, where the two have the same
    slope when (1 - LEAST) k = 0.04. This one takes similarities of any scorer, zero and negative ones among them. The
    least share is for prompts that a model cannot draw: without it they took all of the picture, and to no avail.
    """
    levels = [-(1 + share) * STEEPNESS * value / temperature for value in own]
    parts = [math.exp(level - max(levels)) for level in levels]
    return tuple(LEAST / len(parts) + (1 - LEAST) * part / sum(parts) for part in parts)


class Joint:
    """A guider for sum_i a_i eps_i: weights given or measured as the picture forms, variance restored or not.

    ``by_view`` are each view's guidance terms, of weight 1 together. One guider serves one run.
    """

    def __init__(
        self,
        by_view: Sequence[Sequence[Term]],
        kind: Prediction,
        weights: Sequence[float],
        rectified: bool = False,
        weigh: Weigh | None = None,
    ) -> None:
        self.by_view, self.kind, self.rectified, self.weigh = by_view, kind, rectified, weigh
        self.weights = tuple(weight / sum(weights) for weight in weights)
        self._step = 0

    def __call__(self, step: int, sigma: float) -> Plan:
        self._step = step
        return Plan(self.by_view, self._join)

    def _join(self, sums: Sequence[Tensor], at: Moment) -> Tensor:
        joined = sum(a * each for a, each in zip(self.weights, sums, strict=True))
        # Flow begins at nothing but noise: there every prediction implies the same noise, and nothing is to be mended.
        if self.rectified and math.isfinite(at.sigma):
            factor = rectification([noise_estimate(each, at, self.kind) for each in sums], self.weights)
            joined = from_noise(factor * noise_estimate(joined, at, self.kind), at, self.kind)
        if self.weigh is not None and self._step % WEIGH_EVERY == WEIGH_EVERY - 1:
            self.weights = tuple(self.weigh(clean_estimate(joined, at.x, at.sigma, self.kind), self._step))
        return joined


def guider(
    entry: Entry,
    by_view: Sequence[Sequence[Term]],
    kind: Prediction,
    weights: Sequence[float] | None = None,
    weigh: Weigh | None = None,
) -> Guider:
    """The guider of a reduction over each view's guidance terms, of weight 1 together for every view.

    ``weights`` are those of the request, ``weigh`` measures them when the reduction asks for that and none are given.
    """
    if entry.weights == "turns":
        return lambda step, sigma: by_view[step % len(by_view)]
    if entry.weighable:
        measured = weights is None and entry.weights == "measured"
        given = weights or [1.0] * len(by_view)
        return Joint(by_view, kind, given, entry.rectified, weigh if measured else None)
    share = 1 / len(by_view) if entry.weights == "equal" else 1.0
    every = [Term(share * term.weight, term.prompt, term.view, term.adapters) for terms in by_view for term in terms]
    return lambda step, sigma: every
