"""How alpha runs over a network's blocks: presets as functions of depth, so that they fit any number of blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studio.errors import RequestError, UnknownNameError
from studio.merging.layout import BASE


@dataclass(frozen=True)
class Curve:
    """``at`` maps depth (0: first IN block, 1: last OUT block) to what alpha is multiplied by there."""

    name: str
    title: str
    at: Callable[[float], float]


CURVES: Mapping[str, Curve] = {
    curve.name: curve
    for curve in (
        Curve("flat", "alpha everywhere", lambda t: 1.0),
        Curve("rising", "from 0 at the first block to alpha at the last", lambda t: t),
        Curve("falling", "from alpha at the first block to 0 at the last", lambda t: 1.0 - t),
        Curve("valley", "alpha at both ends, 0 in the middle", lambda t: abs(2.0 * t - 1.0)),
        Curve("hill", "0 at both ends, alpha in the middle", lambda t: 1.0 - abs(2.0 * t - 1.0)),
        Curve("easing", "rising, slowly at both ends", lambda t: t * t * (3.0 - 2.0 * t)),
        Curve("edges", "alpha in the outer third of the blocks only", lambda t: float(abs(2.0 * t - 1.0) > 2.0 / 3.0)),
        Curve("core", "alpha in the inner two thirds only", lambda t: float(abs(2.0 * t - 1.0) <= 2.0 / 3.0)),
        Curve("inputs", "alpha on the way in only", lambda t: float(t < 0.5)),
        Curve("outputs", "alpha on the way out only", lambda t: float(t > 0.5)),
    )
}


def curve_named(name: str) -> Curve:
    if name not in CURVES:
        raise UnknownNameError("curve", name, CURVES, field="curve")
    return CURVES[name]


def alphas(names: Sequence[str], curve: str, alpha: float) -> dict[str, float]:
    """An alpha for every block of ``names`` (BASE first, which no curve changes)."""
    at, inside = curve_named(curve).at, [name for name in names if name != BASE]
    steps = max(1, len(inside) - 1)
    return {BASE: alpha} | {name: alpha * at(i / steps) for i, name in enumerate(inside)}


def given(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """``values`` as alphas of the blocks; RequestError that says how many are needed for this network."""
    if len(values) != len(names):
        raise RequestError(
            f"blocks: {len(values)} alphas are given and this network has {len(names)} blocks "
            f"({', '.join(names[:2])} ... {names[-1]}); give one for each.",
            field="blocks",
        )
    return dict(zip(names, values, strict=True))
