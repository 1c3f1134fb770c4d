"""Diversity against fidelity as a picture, a mark for every column, as large as it is dear; drawn without any script.

Lines and intervals are stretched to the width there is; marks and numbers stand over them as text, so that they stay
round and readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.ui.curve import HEIGHT, WIDTH, Scale, ticks
from studio.ui.guidance_table import Measure, measured
from studio.ui.markup import NOTHING, Markup, joined, tag

HUES = 6
LEAST, MOST = 20, 44  # pixels across of a mark
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Mark:
    """One column: both figures with their intervals, and what it costs."""

    title: str
    guider: str
    point: tuple[tuple[str, float], ...]
    across: Line
    up: Line
    evaluations: float


def of(columns: Sequence[Line], name: str) -> Markup:
    """A picture for every fidelity that was read; nothing where there are less than two columns to compare."""
    drawn = [_figure(columns, measure, f"{name}-{measure.name}") for measure in measured(columns)]
    found = [each for each in drawn if each]
    if not found:
        return NOTHING
    said = "up and right is better; a larger mark costs more evaluations"
    return joined(tag("h3", "Diversity against fidelity", tag("small", said)), *found)


def marks_of(columns: Sequence[Line], measure: Measure) -> list[Mark]:
    """The columns of which both figures are known."""
    return [
        Mark(
            column["title"],
            column["guider"],
            tuple(column["point"].items()),
            column[measure.name],
            column["diversity"],
            column["evaluations"],
        )
        for column in columns
        if column.get("diversity") and column.get(measure.name)
    ]


def across_of(mark: Mark, dearest: float) -> float:
    """Pixels: the area grows with the evaluations."""
    return max(LEAST, MOST * math.sqrt(mark.evaluations / dearest))


def scale_of(values: Sequence[Line], length: int, *, up: bool = False) -> Scale:
    """From the least to the most of the intervals, with room for the marks."""
    low, high = min(each["low"] for each in values), max(each["high"] for each in values)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    return Scale(low - room, high + room, length, up=up)


def _figure(columns: Sequence[Line], measure: Measure, name: str) -> Markup:
    marks = marks_of(columns, measure)
    if len(marks) < 2:
        return NOTHING
    across = scale_of([mark.across for mark in marks], WIDTH)
    up = scale_of([mark.up for mark in marks], HEIGHT, up=True)
    names = list(dict.fromkeys(mark.guider for mark in marks))
    dearest = max(mark.evaluations for mark in marks)
    shown = [_mark(mark, names, dearest, (across, up)) for mark in marks]
    plot = tag(
        "div", _axis(up), _svg(marks, names, (across, up), name, measure), tag("div", *shown, cls="marks"), cls="plot"
    )
    return tag("figure", _key(marks, names), plot, _below(across, measure), cls="against")


def _svg(
    marks: Sequence[Mark], names: Sequence[str], scales: tuple[Scale, Scale], name: str, measure: Measure
) -> Markup:
    across, up = scales
    grid = "".join(f"M0 {up.at(value):.0f}H{WIDTH}" for value in ticks(up))
    lines = [_path(chain, names, scales) for chain in chains(marks)]
    return tag(
        "svg",
        tag("title", f"Diversity against {measure.title}", id=f"{name}-title"),
        tag("desc", described(marks, measure), id=f"{name}-desc"),
        tag("path", d=grid, cls="grid"),
        *[_interval(mark, names, across, up) for mark in marks],
        *lines,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_labelledby=f"{name}-title {name}-desc",
    )


def described(marks: Sequence[Mark], measure: Measure) -> str:
    """The picture in words, for those who do not see it."""
    parts = [
        f"{mark.title}: diversity {mark.up['value']:.3f}, {measure.title} {mark.across['value']:.3f}, "
        f"{mark.evaluations:,.4g} evaluations"
        for mark in marks
    ]
    return f"{'; '.join(parts)}."


def _interval(mark: Mark, names: Sequence[str], across: Scale, up: Scale) -> Markup:
    x, y = across.at(mark.across["value"]), up.at(mark.up["value"])
    level = f"M{across.at(mark.across['low']):.0f} {y:.0f}H{across.at(mark.across['high']):.0f}"
    upright = f"M{x:.0f} {up.at(mark.up['low']):.0f}V{up.at(mark.up['high']):.0f}"
    return tag("path", d=level + upright, cls=f"interval hue-{names.index(mark.guider) % HUES}")


def chains(marks: Sequence[Mark]) -> list[list[Mark]]:
    """The marks of one guider that differ in the last setting of the grid alone, in its order."""
    found: dict[tuple[Any, ...], list[Mark]] = {}
    for mark in marks:
        found.setdefault((mark.guider, *mark.point[:-1]), []).append(mark)
    return [chain for chain in found.values() if len(chain) > 1]


def _path(chain: Sequence[Mark], names: Sequence[str], scales: tuple[Scale, Scale]) -> Markup:
    across, up = scales
    points = " ".join(f"{across.at(mark.across['value']):.0f},{up.at(mark.up['value']):.0f}" for mark in chain)
    return tag("polyline", points=points, cls=f"line hue-{names.index(chain[0].guider) % HUES}")


def _mark(mark: Mark, names: Sequence[str], dearest: float, scales: tuple[Scale, Scale]) -> Markup:
    across, up = scales
    place, wide = names.index(mark.guider), across_of(mark, dearest)
    style = f"left:{across.percent(mark.across['value'])};top:{up.percent(mark.up['value'])};"
    style += f"width:{wide:.0f}px;height:{wide:.0f}px"
    said = f"{mark.title}: diversity {mark.up['value']:.3f}, fidelity {mark.across['value']:.3f}, "
    said += f"{mark.evaluations:,.4g} evaluations"
    return tag("b", place + 1, cls=f"hue-{place % HUES}", style=style, title=said, aria_hidden="true")


def _key(marks: Sequence[Mark], names: Sequence[str]) -> Markup:
    titles = {mark.guider: mark.title.partition(" · ")[0] for mark in marks}
    entries = [
        tag("span", tag("b", place + 1, cls=f"hue-{place % HUES}"), titles[name]) for place, name in enumerate(names)
    ]
    return tag("figcaption", *entries, aria_hidden="true")


def _axis(up: Scale) -> Markup:
    marks = [tag("span", f"{value:g}", style=f"top:{up.percent(value)}") for value in ticks(up)]
    return tag("div", *marks, tag("small", "diversity"), cls="axis-y", aria_hidden="true")


def _below(across: Scale, measure: Measure) -> Markup:
    marks = [tag("span", f"{value:g}", style=f"left:{across.percent(value)}") for value in ticks(across)]
    return tag("div", *marks, tag("small", measure.title), cls="axis-x", aria_hidden="true")
