"""The curves of a training as a picture: loss, its mean, validation and learning rate, drawn without any script.

The lines are stretched to the width there is; numbers and marks stand over them as text, so that they stay readable on
a phone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.ui.markup import NOTHING, Markup, tag

WIDTH, HEIGHT, LOW = 1000, 300, 60  # units of the picture, stretched to the page; the second: of the learning rate
MOST = 240  # points of a line
TICKS = 5  # at most so many steps between the marks of an axis
Points = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Scale:
    """From ``least``..``most`` to 0..``length``, turned over if ``up``: pictures count downwards."""

    least: float
    most: float
    length: int
    up: bool = False

    def at(self, value: float) -> float:
        share = (value - self.least) / (self.most - self.least) if self.most > self.least else 0.5
        share = min(1.0, max(0.0, share))
        return self.length * (1 - share if self.up else share)

    def percent(self, value: float) -> str:
        return f"{100 * self.at(value) / self.length:.2f}%"


def drawn(data: Mapping[str, Any], total: int, name: str) -> Markup:
    """The curves in ``data`` (``training.curves``) over ``total`` steps; ``name`` tells this picture from others."""
    points = thinned(data.get("points") or ())
    if not points:
        return tag("div", tag("p", "The curves begin with the first step.", cls="hint"), cls="curve is-empty")
    measured = data.get("validation") or ()
    across = Scale(0, max(total, points[-1][0]), WIDTH)
    up = heights(points, measured, data.get("before"))
    best = next((each for each in measured if each[0] == data.get("best")), None)
    return tag(
        "figure",
        _key(bool(measured), best),
        tag("div", _axis(up), _plot(points, measured, data, (across, up), name), _mark(best, across, up), cls="plot"),
        _rates(points, across),
        _steps(across),
        cls="curve",
    )


def thinned(points: Points, most: int = MOST) -> Points:
    """At most about ``most`` of the points, first and last among them."""
    every = max(1, math.ceil(len(points) / most))
    kept = list(points[::every])
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def heights(points: Points, measured: Points, before: float | None) -> Scale:
    """From the least to the most of what counts; single steps whose loss lies far out are cut off."""
    raw = sorted(point[1] for point in points)
    values = [*(point[2] for point in points), *(each[1] for each in measured)]
    values += [raw[len(raw) // 20], raw[-1 - len(raw) // 20]] + ([before] if before is not None else [])
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.1
    return Scale(max(0.0, low - room), high + room, HEIGHT, up=True)


def ticks(scale: Scale, about: int = TICKS) -> list[float]:
    """Round numbers inside the scale: 1, 2 or 5 times a power of ten apart."""
    span = scale.most - scale.least
    rough = span / about
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * times for times in (1, 2, 5, 10) if power * times >= rough)
    first = math.ceil(scale.least / apart)
    return [round(number * apart, 10) for number in range(first, math.floor(scale.most / apart) + 1)]


def _key(has_validation: bool, best: Sequence[float] | None) -> Markup:
    entries = [("is-raw", "loss"), ("is-smooth", "loss, smoothed")]
    entries += [("is-measured", "validation")] if has_validation else []
    entries += [("is-best", f"best, step {best[0]:,}")] if best else []
    return tag("figcaption", *[tag("span", tag("i", cls=cls), said) for cls, said in entries], aria_hidden="true")


def _plot(points: Points, measured: Points, data: Mapping[str, Any], scales: tuple[Scale, Scale], name: str) -> Markup:
    up = scales[1]
    lines = [_line("raw", points, 1, scales), _line("smooth", points, 2, scales)]
    shown = [*([(0, data["before"])] if data.get("before") is not None else []), *measured]
    lines += [_line("measured", thinned(shown), 1, scales), _dots(thinned(shown), scales)] if measured else []
    grid = "".join(f"M0 {up.at(value):.0f}H{WIDTH}" for value in ticks(up))
    return tag(
        "svg",
        tag("title", "Loss over steps", id=f"{name}-title"),
        tag("desc", described(points, measured, data.get("best")), id=f"{name}-desc"),
        tag("path", d=grid, cls="grid"),
        *lines,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def described(points: Points, measured: Points, best: int | None) -> str:
    """The curves in words, for those who do not see them."""
    said = f"The smoothed loss went from {points[0][2]:.4f} to {points[-1][2]:.4f} in {points[-1][0]:,} steps."
    if measured:
        said += f" Validation went from {measured[0][1]:.4f} to {measured[-1][1]:.4f}"
        said += f"; it was best at step {best:,}." if best is not None else "."
    return said


def _line(cls: str, points: Points, column: int, scales: tuple[Scale, Scale]) -> Markup:
    across, up = scales
    path = " ".join(f"{across.at(point[0]):.0f},{up.at(point[column]):.0f}" for point in points)
    return tag("polyline", points=path, cls=f"line is-{cls}")


def _dots(points: Points, scales: tuple[Scale, Scale]) -> Markup:
    """Lines of no length: their round ends stay round however the picture is stretched."""
    across, up = scales
    return tag("path", d="".join(f"M{across.at(x):.0f} {up.at(y):.0f}h0" for x, y in points), cls="line is-dot")


def _axis(up: Scale) -> Markup:
    """The numbers of the loss, at their heights."""
    marks = [tag("span", f"{value:g}", style=f"top:{up.percent(value)}") for value in ticks(up)]
    return tag("div", *marks, cls="axis-y", aria_hidden="true")


def _mark(best: Sequence[float] | None, across: Scale, up: Scale) -> Markup:
    if best is None:
        return NOTHING
    style = f"left:{across.percent(best[0])};top:{up.percent(best[1])}"
    return tag("div", tag("b", style=style), cls="marks", aria_hidden="true")


def _rates(points: Points, across: Scale) -> Markup:
    """The learning rate in a strip of its own; nothing where it never changes."""
    rates = [point[3] for point in points]
    if len(set(rates)) < 2:
        return NOTHING
    up = Scale(0.0, max(rates), LOW, up=True)
    svg = tag(
        "svg",
        tag("title", f"Learning rate over steps: from {rates[0]:.3g} to {rates[-1]:.3g}, at most {max(rates):.3g}"),
        _line("rate", points, 3, (across, up)),
        viewBox=f"0 0 {WIDTH} {LOW}",
        preserveAspectRatio="none",
        role="img",
    )
    top = tag("div", tag("span", f"{max(rates):.2g}", style="top:0%"), cls="axis-y", aria_hidden="true")
    return tag("div", top, svg, tag("small", "learning rate", aria_hidden="true"), cls="plot is-low")


def _steps(across: Scale) -> Markup:
    """The numbers of the steps below."""
    marks = [tag("span", f"{value:,.0f}", style=f"left:{across.percent(value)}") for value in _whole(across)]
    return tag("div", *marks, tag("small", "steps"), cls="axis-x", aria_hidden="true")


def _whole(across: Scale) -> Iterator[float]:
    """Round numbers of steps, none so near the end that the word for them would lie on it."""
    yield from (value for value in ticks(across) if value == int(value) and value <= 0.92 * across.most)
