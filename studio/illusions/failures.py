"""The three ways illusions fail, measured on every result and said in words.

Independent synthesis, noise shift and correlated noise (Geng, Park & Owens 2024, arXiv 2311.17919). All of it is read
from rows that the network answers anyway.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from studio.illusions import metrics
from studio.illusions.joining import noise_estimate, power
from studio.models.networks import Prediction
from studio.sampling import Guider, Moment, Plan, Term

# Measured on builtin:emoji with 20 steps and guidance 7: six plain pictures (one view), eight illusions that read as
# both of their prompts, and twelve that do not.
#
#                                       plain          good           failed
#   variance of the predicted noise     1.01 to 1.08   0.98 to 1.46   0.98 to 1.33
#   correlation of neighbouring codes   0.02 to 0.03   0.01 to 0.06   0.02 to 0.06   (views that take turns: 0.31)
#   of one view's variance kept         -              0.57 to 0.82   0.39 to 0.79
#   correlation of the views' own       -              0.15 to 0.27   0.01 to 0.58
#   weakest view reads as its own by    -              0.19 to 0.98   0.00 to 0.09, one 0.26 whose concealment is 0.47
#
# What joining keeps and how alike the views are tell nothing of a picture's fate, and so are not judged.
DOMINATES = 0.5  # of the way from equal parts to one prompt taking every view
HARDLY = 0.1  # the chance that a view reads as its own prompt
ALIKE = 0.1  # concealment, from chance to certain
FAINT, LOUD = 0.85, 1.6  # variance of the predicted noise; the mean of unlike white noises would have 0.5
BLOTCHY = 0.4  # correlation of neighbouring codes; white noise under a 3 x 3 blur would have 0.67


@dataclass(frozen=True)
class Failure:
    """One failure mode: whether it was ``found``, what was measured, and the sentence that says so."""

    name: str
    title: str
    found: bool
    measured: Mapping[str, float]
    words: str

    def summary(self) -> dict[str, Any]:
        measured = {key: round(value, 4) for key, value in self.measured.items()}
        return {"name": self.name, "title": self.title, "found": self.found, "measured": measured, "words": self.words}


@dataclass(frozen=True)
class Noise:
    """Means over a run of what was predicted as noise; what takes two views at once is None without them.

    ``variance`` of the joined prediction (1 is white noise); ``kept``, its share of the variance of single views;
    ``lowest``, the smallest such share of any step; ``between_views``, the mean correlation of two views' predictions
    in the same place; ``between_neighbours``, that of neighbouring codes of the joined one.
    """

    variance: float
    between_neighbours: float
    kept: float | None = None
    lowest: float | None = None
    between_views: float | None = None


class Watch:
    """Measures a run through its guider, without changing its numbers or asking the network for more.

    ``by_view`` are each view's own guidance terms where all views are looked at in every step, else empty; ``scale``
    is the standard deviation of the noise that a run begins with.
    """

    def __init__(self, kind: Prediction, by_view: Sequence[Sequence[Term]] = (), scale: float = 1.0) -> None:
        self.kind, self.scale = kind, scale
        self.by_view = by_view if len(by_view) > 1 else ()
        self._steps: list[Tensor] = []

    def over(self, guider: Guider) -> Guider:
        """The same guider, watched."""

        def watched(step: int, sigma: float) -> Plan:
            plan = guider(step, sigma)
            plan = plan if isinstance(plan, Plan) else Plan([plan])
            count = len(plan.groups)

            def join(sums: Sequence[Tensor], at: Moment) -> Tensor:
                joined = plan.join(sums[:count], at)
                self._see(joined, sums[count:], at)
                return joined

            return Plan([*plan.groups, *self.by_view], join)

        return watched

    def noise(self) -> Noise:
        """What was seen since the run began."""
        seen = torch.stack(self._steps).double().cpu()
        variance, neighbours, *several = seen.mean(0).tolist()
        if not several:
            return Noise(variance, neighbours)
        return Noise(variance, neighbours, several[0], seen[:, 2].min().item(), several[1])

    def _see(self, joined: Tensor, views: Sequence[Tensor], at: Moment) -> None:
        noise = noise_estimate(joined, at, self.kind) / self.scale
        seen = [power(noise).mean(), neighbour_correlation(noise)]
        if views:
            noises = [noise_estimate(view, at, self.kind) / self.scale for view in views]
            single = torch.stack([power(each) for each in noises]).mean(0)
            seen += [(power(noise) / single).mean(), torch.stack(_correlations(noises)).mean()]
        self._steps.append(torch.stack(seen))


def neighbour_correlation(noise: Tensor) -> Tensor:
    """Mean correlation of horizontal and vertical neighbours, of noise (B x C x h x w) with a mean of zero."""
    across = (noise[..., :, 1:] * noise[..., :, :-1]).mean()
    down = (noise[..., 1:, :] * noise[..., :-1, :]).mean()
    return (across + down) / 2 / noise.square().mean()


def _correlations(noises: Sequence[Tensor]) -> list[Tensor]:
    return [
        ((a * b).mean((1, 2, 3), keepdim=True) / (power(a) * power(b)).sqrt()).mean()
        for a, b in combinations(noises, 2)
    ]


def diagnose(
    noise: Noise, similarities: Tensor, temperature: float, prompts: Sequence[str]
) -> tuple[Failure, Failure, Failure]:
    """The three failure modes of one picture; ``similarities`` are S, N views x N prompts."""
    return independent_synthesis(similarities, temperature, prompts), noise_shift(noise), correlated_noise(noise)


def independent_synthesis(similarities: Tensor, temperature: float, prompts: Sequence[str]) -> Failure:
    """Whether prompts share the picture instead of the views: one wins in every view, or every view shows them all.

    From p = softmax_j(S_ij / tau), the chance that view i reads as prompt j. ``dominance`` is the largest column mean,
    ``own`` the smallest diagonal entry, both from 0 (1 / N) to 1 (certain); so is ``apart``, the concealment.
    """
    count = len(prompts)
    if count == 1:
        words = "There is one view, so nothing can take its place."
        return Failure("independent_synthesis", "Independent synthesis", False, {}, words)
    chances = (similarities / temperature).softmax(1)
    part, winner = chances.mean(0).max(0)
    weakest, view = chances.diagonal().min(0)
    dominance, own = _from_chance(part.item(), count), _from_chance(weakest.item(), count)
    apart = _from_chance(metrics.concealment(similarities, temperature), count)
    measured = {"dominance": dominance, "own": own, "apart": apart}
    found = weakest.item() < HARDLY or apart < ALIKE
    if found and dominance > DOMINATES:
        words = (
            f"“{prompts[int(winner)]}” dominates: on average {part.item():.0%} of what a view reads as "
            f"({1 / count:.0%} would be its share), and “{prompts[int(view)]}” is hardly seen in its own view. "
            "Give that view a larger weight (weights, with reduction=weighted), or try another seed."
        )
    elif found:
        words = (
            f"No prompt dominates, but the view of “{prompts[int(view)]}” reads as that with only "
            f"{weakest.item():.0%} certainty: it shows the prompts side by side. Try another seed or a larger guidance."
        )
    else:
        words = f"Every prompt is seen in its own view: the weakest is read there with {weakest.item():.0%} certainty."
    return Failure("independent_synthesis", "Independent synthesis", found, measured, words)


def noise_shift(noise: Noise) -> Failure:
    """Whether what the sampler took for noise is fainter or louder than noise, which washes out or burns the picture.

    What joining keeps of the views' own variance is told but not judged: guidance makes those louder than noise, and
    their mean is then what it should be.
    """
    measured, said = {"variance": noise.variance}, f"a variance of {noise.variance:.2f} on average (1 is white noise)"
    if noise.kept is None or noise.lowest is None:
        words = f"The predicted noise had {said}; no views were averaged."
        return Failure("noise_shift", "Noise shift", False, measured, words)
    measured |= {"kept": noise.kept, "lowest": noise.lowest}
    said = f"it had {said}, {noise.kept:.0%} of the views' own ({noise.lowest:.0%} in the worst step)"
    if noise.variance < FAINT:
        words = f"Too little noise was predicted: {said}, which leaves a grainy picture. Try reduction=rectified."
    elif noise.variance > LOUD:
        words = f"Too much noise was predicted: {said}, which burns or washes out a picture. Try a smaller guidance."
    else:
        words = f"No shift of the predicted noise: {said}."
    return Failure("noise_shift", "Noise shift", not FAINT <= noise.variance <= LOUD, measured, words)


def correlated_noise(noise: Noise) -> Failure:
    """Whether predicted noise hangs together where it should not.

    How alike the views' predictions are is told but not judged: it says how far apart the prompts are, and guidance
    moves them further.
    """
    measured = {"between_neighbours": noise.between_neighbours}
    blotchy = abs(noise.between_neighbours) > BLOTCHY
    words = f"Neighbouring codes of the predicted noise correlate by {noise.between_neighbours:.2f} (0 is white noise)"
    words += ", which shows as blotches; try a smaller guidance." if blotchy else ", which is little."
    if noise.between_views is not None:
        measured["between_views"] = noise.between_views
        words += f" The views' predictions correlate by {noise.between_views:.2f}."
    return Failure("correlated_noise", "Correlated noise", blotchy, measured, words)


def _from_chance(probability: float, count: int) -> float:
    """0 for a chance of 1 / count, 1 for certainty; negative below chance."""
    return (probability - 1 / count) / (1 - 1 / count)
