"""The guiders' maths: each writes down the terms of a step, or a plan of two sums and what is made of them.

b and l stand for the base model and the adapted one, u and c for the empty (or negative) prompt and the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.guidance.settings import SIGMA_MOST, Settings
from studio.models.networks import Prediction
from studio.sampling import Adapters, Guider, Moment, Plan, Term, Upright, clean_estimate, from_clean

AGREED_TWICE = 2  # looks in a row at which the models must agree: one may be chance


@dataclass(frozen=True)
class Cast:
    """What a guider is made for: the words, the adapters with their scales, the numbers, what the network predicts."""

    prompt: str
    negative: str
    adapters: Adapters
    settings: Settings
    kind: Prediction

    def worn(self, times: float = 1.0) -> Adapters:
        """The adapters as the adapted model wears them, ``times`` as strong; none that makes no difference."""
        scales = ((name, scale * self.settings.lora_scale * times) for name, scale in self.adapters)
        return tuple(sorted((name, scale) for name, scale in scales if scale))

    def cfg(self, w: float, worn: Adapters, weight: float = 1.0) -> list[Term]:
        """weight * (u + w (c - u)), Ho & Salimans 2022, eq. 6."""
        return [self._term(weight * (1 - w), self.negative, worn), self._term(weight * w, self.prompt, worn)]

    def conditional(self, worn: Adapters, weight: float = 1.0) -> list[Term]:
        return [self._term(weight, self.prompt, worn)]

    def unconditional(self, worn: Adapters) -> list[Term]:
        return [self._term(1.0, self.negative, worn)]

    def _term(self, weight: float, prompt: str, worn: Adapters) -> Term:
        return Term(weight, prompt, Upright(), worn)


def none(cast: Cast) -> Guider:
    return lambda step, sigma: cast.conditional(cast.worn())


def cfg(cast: Cast) -> Guider:
    return lambda step, sigma: cast.cfg(cast.settings.w2, cast.worn())


def autolora_plain(cast: Cast) -> Guider:
    """AutoLoRA, eq. 6: b_c + gamma (l_c - b_c)."""
    gamma = cast.settings.gamma
    terms = [*cast.conditional((), 1 - gamma), *cast.conditional(cast.worn(), gamma)]
    return lambda step, sigma: terms


def autolora_terms(cast: Cast) -> list[Term]:
    """AutoLoRA, eq. 7: b^w1 + gamma (l^w2 - b^w1), whose four coefficients sum to one."""
    s = cast.settings
    return [*cast.cfg(s.w1, (), 1 - s.gamma), *cast.cfg(s.w2, cast.worn(), s.gamma)]


def autolora(cast: Cast) -> Guider:
    terms = autolora_terms(cast)
    return lambda step, sigma: terms


def autolora_interval(cast: Cast) -> Guider:
    """gamma is 1 outside the interval, so that the base model's rows have weight zero there and are not evaluated."""
    inside, outside = autolora_terms(cast), cast.cfg(cast.settings.w2, cast.worn())
    return lambda step, sigma: inside if _is_inside(cast.settings, sigma) else outside


def cfg_interval(cast: Cast) -> Guider:
    """Kynkäänniemi et al. 2024, eq. 5."""
    inside, outside = cast.cfg(cast.settings.w2, cast.worn()), cast.conditional(cast.worn())
    return lambda step, sigma: inside if _is_inside(cast.settings, sigma) else outside


def lora_scaled(cast: Cast) -> Guider:
    """b + gamma (l - b) is the model at gamma times the adapter, but for what is of second order in the adapter."""
    return lambda step, sigma: cast.cfg(cast.settings.w2, cast.worn(cast.settings.gamma))


class Refreshed:
    """l^w2 + (gamma - 1) d with d = l^w2 - b^w1 as it was when it was last looked at."""

    def __init__(self, cast: Cast) -> None:
        s, self.extra = cast.settings, cast.settings.gamma - 1
        self.every, self.difference = s.every, torch.zeros(())
        self.base, self.adapted = cast.cfg(s.w1, ()), cast.cfg(s.w2, cast.worn())

    def __call__(self, step: int, sigma: float) -> Plan:
        if alone := _alone(1 + self.extra, self.base, self.adapted):
            return alone
        if step % self.every:
            return Plan([self.adapted], lambda sums, at: sums[0] + self.extra * self.difference)
        return Plan([self.base, self.adapted], self._look)

    def _look(self, sums: list[Tensor], at: Moment) -> Tensor:
        base, adapted = sums
        self.difference = adapted - base
        return adapted + self.extra * self.difference


def _alone(gamma: float, base: list[Term], adapted: list[Term]) -> Plan | None:
    """Where one of the two models does not count at all, it is not asked."""
    return Plan([adapted]) if gamma == 1.0 else Plan([base]) if gamma == 0.0 else None


class UntilAgreed:
    """AutoLoRA until the clean estimates of b^w1 and l^w2 point the same way twice in a row; then l^w2 alone.

    Clean estimates, and not the predictions, which at high noise are nothing but that noise and so always agree.
    """

    def __init__(self, cast: Cast) -> None:
        s = cast.settings
        self.gamma, self.agreement, self.kind, self.agreed = s.gamma, s.agreement, cast.kind, 0
        self.base, self.adapted = cast.cfg(s.w1, ()), cast.cfg(s.w2, cast.worn())

    def __call__(self, step: int, sigma: float) -> Plan:
        if alone := _alone(self.gamma, self.base, self.adapted):
            return alone
        if self.agreed >= AGREED_TWICE:
            return Plan([self.adapted])
        return Plan([self.base, self.adapted], self._look)

    def _look(self, sums: list[Tensor], at: Moment) -> Tensor:
        base, adapted = sums
        clean = [clean_estimate(each, at.x.float(), at.sigma, self.kind).flatten(1) for each in sums]
        cosine = float(F.cosine_similarity(*clean).min())
        self.agreed = self.agreed + 1 if cosine >= self.agreement else 0
        return base + self.gamma * (adapted - base)


def cfg_rescaled(cast: Cast) -> Guider:
    """phi std(c) / std(x) x + (1 - phi) x for x = u + w (c - u): Lin et al. 2023, eq. 15 and 16."""
    phi = cast.settings.rescale

    def join(sums: list[Tensor], at: Moment) -> Tensor:
        guided, prompted = sums
        spread = [each.flatten(1).std(1).view(-1, 1, 1, 1) for each in (prompted, guided)]
        return phi * guided * (spread[0] / spread[1].clamp(min=1e-12)) + (1 - phi) * guided

    plan = Plan([cast.cfg(cast.settings.w2, cast.worn()), cast.conditional(cast.worn())], join)
    return lambda step, sigma: plan


class Projected:
    """Adaptive projected guidance (Sadat et al. 2024, algorithm 1), on clean estimates.

    With d the difference of the two estimates, momentum and all, cut to the length ``norm`` (of its numbers' standard
    deviation, so that it means the same at every size), the part of d along the prompt's estimate counts eta.
    """

    def __init__(self, cast: Cast) -> None:
        s, self.kind = cast.settings, cast.kind
        self.w, self.eta, self.norm, self.momentum = s.w2, s.eta, s.norm, s.momentum
        self.running: Tensor | float = 0.0
        self.groups = [cast.conditional(cast.worn()), cast.unconditional(cast.worn())]

    def __call__(self, step: int, sigma: float) -> Plan:
        return Plan(self.groups[:1]) if self.w == 1.0 else Plan(self.groups, self._join)

    def _join(self, sums: list[Tensor], at: Moment) -> Tensor:
        x = at.x.float()
        prompted, empty = (clean_estimate(each, x, at.sigma, self.kind) for each in sums)
        self.running = prompted - empty + self.momentum * self.running
        change = self.running
        if self.norm:
            length = change.flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)
            change = change * (self.norm / length.clamp(min=1e-12)).clamp(max=1.0)
        along = _projected(change, prompted)
        guided = prompted + (self.w - 1) * (change - along + self.eta * along)
        return from_clean(guided, x, at.sigma, self.kind)


def _projected(change: Tensor, onto: Tensor) -> Tensor:
    """The part of ``change`` along ``onto``, picture by picture."""
    flat, direction = change.flatten(1).double(), F.normalize(onto.flatten(1).double(), dim=1)
    return ((flat * direction).sum(1, keepdim=True) * direction).view_as(change).to(change.dtype)


def _is_inside(settings: Settings, sigma: float) -> bool:
    """The interval is open below and closed above, as Kynkäänniemi et al. write it.

    Its greatest end has no bound: flow begins at infinite noise to signal.
    """
    high = settings.high if settings.high < SIGMA_MOST else math.inf
    return settings.low < settings.high and settings.low < sigma <= high


FACTORIES: Mapping[str, Callable[[Cast], Guider]] = {
    "none": none,
    "cfg": cfg,
    "autolora_plain": autolora_plain,
    "autolora": autolora,
    "autolora_interval": autolora_interval,
    "autolora_refresh": Refreshed,
    "autolora_skip": UntilAgreed,
    "lora_scaled": lora_scaled,
    "cfg_budget": cfg,
    "cfg_interval": cfg_interval,
    "cfg_rescaled": cfg_rescaled,
    "apg": Projected,
}
