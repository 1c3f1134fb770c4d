"""The table of reductions: how the predictions eps_i of N views, brought back upright, become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from studio.errors import RequestError
from studio.illusions.request import Reduction
from studio.views.specs import ANAGRAMS, FACTORISED, Kind

ANAGRAM_MTL = "https://arxiv.org/abs/2412.02693"
LATENT_NOTEBOOK = "https://github.com/tancik/Illusion-Diffusion"


@dataclass(frozen=True)
class Entry:
    """One reduction. ``weights`` says where the a_i come from when the request gives none (``weighable``)."""

    name: Reduction
    title: str
    help: str
    equation: str
    weights: Literal["equal", "one", "turns", "measured"]
    kind: Kind = "orthogonal"
    weighable: bool = False
    rectified: bool = False
    reference: str = ANAGRAMS


_VARIANCE = "c = max(1, sqrt(min(1, sum_i a_i Var_i) / (sum_i a_i^2 Var_i + 2 sum_(i<j) a_i a_j Cov_ij)))"

REDUCTIONS: tuple[Entry, ...] = (
    Entry("mean", "Mean of all views", "Every view counts the same.", "eps = 1/N sum_i eps_i", "equal"),
    Entry(
        "sum",
        "Sum of the parts",
        "For parts of a picture, each of which brings back only itself.",
        "eps = sum_i F_i eps_i with sum_i F_i = 1",
        "one",
        kind="component",
        reference=FACTORISED,
    ),
    Entry(
        "alternate",
        "Views take turns",
        "One view a step: cheap, and each step undoes some of the last.",
        "eps = eps_i with i = step mod N",
        "turns",
        reference=LATENT_NOTEBOOK,
    ),
    Entry(
        "weighted",
        "The weaker view gets more",
        "Weights that are given, or that the scorer sets while the picture forms.",
        "eps = sum_i a_i eps_i, a_i half even and half ~ exp(-(1 + t) k S_ii / tau), t from 0 to 1 over the run",
        "measured",
        weighable=True,
        reference=ANAGRAM_MTL,
    ),
    Entry(
        "rectified",
        "Mean with its noise restored",
        "Averaging predictions that differ can make them fainter than noise is; this restores their variance.",
        f"eps = c sum_i a_i eps_i, {_VARIANCE}",
        "equal",
        weighable=True,
        rectified=True,
        reference=ANAGRAM_MTL,
    ),
    Entry(
        "weighted_rectified",
        "Weaker view more, noise restored",
        "Both: measured weights, and the variance that averaging takes away restored.",
        f"eps = c sum_i a_i eps_i with the a_i of weighted, {_VARIANCE}",
        "measured",
        weighable=True,
        rectified=True,
        reference=ANAGRAM_MTL,
    ),
)
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in REDUCTIONS}


def resolve(reduction: Reduction, kind: Kind, weights: Sequence[float] | None = None) -> Entry:
    """The table's entry for views of ``kind``; RequestError for a reduction or for weights that do not fit them."""
    entry = ENTRIES[_automatic(kind, weights) if reduction == "auto" else reduction]
    if kind == "component" and entry.kind != "component":
        raise RequestError(
            f"With reduction={reduction} parts of a picture lose most of themselves: choose sum or auto.",
            field="reduction",
        )
    if kind == "orthogonal" and entry.kind == "component":
        raise RequestError(
            "With reduction=sum whole views would count several times over: choose mean, alternate or auto.",
            field="reduction",
        )
    if weights is not None and not entry.weighable:
        raise RequestError(
            f"weights: reduction={entry.name} takes no weights; choose weighted or rectified, or leave weights out.",
            field="weights",
        )
    return entry


def is_measured(reduction: Reduction, weights: Sequence[float] | None) -> bool:
    """Whether the scorer is needed while the picture forms."""
    return weights is None and reduction in ENTRIES and ENTRIES[reduction].weights == "measured"


def _automatic(kind: Kind, weights: Sequence[float] | None) -> Reduction:
    """Parts are summed, orthogonal views averaged, with the weights that are given."""
    if kind == "component":
        return "sum"
    return "mean" if weights is None else "weighted"
