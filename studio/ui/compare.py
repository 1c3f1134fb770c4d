"""Two finished results beside each other: a slider between their pictures, a map of what differs, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.ui import words
from studio.ui.markup import Markup, tag
from studio.ui.result import MEASURES, TITLES, Result

LABELS = {
    "model": "Model",
    "prompts": "Prompts",
    "views": "Views",
    "seed": "Seed",
    "steps": "Steps",
    "guidance_scale": "How strongly the prompts are followed",
    "negative_prompt": "What no view should show",
    "scheduler": "Sampler",
    "reduction": "How views are joined",
    "weights": "How much each view counts",
    "size": "Size in pixels",
}
"""Settings in the order of the form. Others that a request has are named as they are called there."""

NOT_COMPARED = frozenset({"candidates", "puzzle"})  # they do not change the picture that is compared


@dataclass(frozen=True)
class Side:
    """One of the two: the picture that stands for a result."""

    key: str
    title: str
    picture: str
    settings: Mapping[str, Any]
    measured: Mapping[str, float]


def side(result: Result) -> Side | None:
    """The best candidate of ``result``, or None when it made no picture."""
    if not result.candidates:
        return None
    best = result.candidates[0]
    measured = {m.title: best[m.name] for m in MEASURES if isinstance(best.get(m.name), int | float)}
    settings = {**result.request, "seed": best.get("seed")}
    return Side(result.key, words.title(result.prompts), result.link(best["image"], None), settings, measured)


def nothing() -> Markup:
    return tag("div", cls="comparison", data_picked="")


def waiting(first: Side) -> Markup:
    """One is chosen: what to do next, in a line that stays in sight."""
    text = tag("span", "Choose a second picture to compare with ", tag("b", first.title), ".")
    return tag("div", tag("p", text, _close("Do not compare"), cls="said"), cls="comparison", data_picked=first.key)


def pair(left: Side, right: Side) -> Markup:
    """Both, as large as the page allows."""
    heading = tag("div", tag("h2", "Compare", tabindex=-1), _close("Close"), cls="comparison-head")
    return tag(
        "section",
        heading,
        figures(left, right),
        _table(left, right),
        cls="comparison is-open",
        data_picked=f"{left.key} {right.key}",
        aria_label="Comparison",
    )


def figures(left: Side, right: Side) -> Markup:
    """The slider between two pictures, and the map of what differs."""
    return tag("div", _slider(left, right), _difference(left, right), cls="comparison-figures")


def _close(title: str) -> Markup:
    return tag("button", title, type="button", cls="btn", data_act="close-comparison")


def _slider(left: Side, right: Side) -> Markup:
    frame = tag(
        "div",
        tag("img", src=right.picture, alt=f"Right: {right.title}", decoding="sync"),
        tag("img", src=left.picture, alt=f"Left: {left.title}", decoding="sync", cls="over"),
        tag("span", cls="edge", aria_hidden="true"),
        tag(
            "input",
            type="range",
            min=0,
            max=100,
            value=50,
            data_slide=True,
            aria_label="How much of the left picture is shown",
        ),
        cls="frame slide",
    )
    caption = tag(
        "figcaption", tag("strong", left.title, title=left.title), tag("strong", right.title, title=right.title)
    )
    return tag("figure", caption, frame, cls="view is-pair")


def _difference(left: Side, right: Side) -> Markup:
    canvas = tag(
        "canvas",
        width=256,
        height=256,
        role="img",
        aria_label="Where the two differ: dark is the same, bright is different",
        data_difference=True,
        data_left=left.picture,
        data_right=right.picture,
    )
    caption = tag("figcaption", tag("strong", "Difference"), tag("span", "dark is the same", cls="amount"))
    return tag("figure", caption, tag("div", canvas, cls="frame"), cls="view")


def _table(left: Side, right: Side) -> Markup:
    """What differs in the settings, and what was measured of both."""
    rows = [*_settings(left, right), *_measures(left, right)]
    if not rows:
        return tag("p", "Both were made with the same settings.", cls="hint")
    head = tag("tr", tag("td"), tag("th", "Left", scope="col"), tag("th", "Right", scope="col"))
    body = [tag("tr", tag("th", name, scope="row"), tag("td", one), tag("td", two)) for name, one, two in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), cls="scroll")


def _settings(left: Side, right: Side) -> Iterator[tuple[str, str, str]]:
    names = dict.fromkeys([*LABELS, *left.settings, *right.settings])
    for name in names:
        one, two = left.settings.get(name), right.settings.get(name)
        if name not in NOT_COMPARED and one != two:
            yield LABELS.get(name, name), _written(name, one), _written(name, two)


def _measures(left: Side, right: Side) -> Iterator[tuple[str, str, str]]:
    for title in dict.fromkeys([*left.measured, *right.measured]):
        one, two = left.measured.get(title), right.measured.get(title)
        yield title, *("–" if value is None else f"{value:.2f}" for value in (one, two))


def _written(name: str, value: Any) -> str:
    if value in (None, "", [], {}):
        return "–"
    if name == "views":
        return ", ".join(words.view_title(spec, TITLES) for spec in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value))
    return str(value)


def of(sides: Sequence[Side]) -> Markup:
    """The panel for none, one or two chosen results."""
    if len(sides) > 1:
        return pair(sides[0], sides[1])
    return waiting(sides[0]) if sides else nothing()
