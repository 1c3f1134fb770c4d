"""What every column of a comparison is worth and costs: a table, with the price over that of LoRA + CFG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.ui.guidance_stage import name_and_point
from studio.ui.markup import Markup, joined, tag

PLAIN = "cfg"
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """One figure with an interval: its key in a line of the table, what it is called, what it means."""

    name: str
    title: str
    help: str


DIVERSITY = Measure(
    "diversity", "Diversity", "1 less the mean cosine of the features of all pairs of seeds of a prompt."
)
FIDELITIES = (
    Measure("pc_clip", "PC-clip", "Fidelity to the prompt: 2.5 times the cosine of picture and prompt, at least 0."),
    Measure("sa_clip", "SA-clip", "Style: how much nearer the picture is to the prompt with the style's words in it."),
    Measure("cp_clip", "CP-clip", "Character: 2.5 times the cosine of picture and the character's words, at least 0."),
)
COSTS = {
    "evaluations": "Rows of the network for one picture, on average.",
    "seconds": "Seconds for one picture, on average, on this machine.",
    "price": "Evaluations over those of LoRA + CFG at the same point of the grid.",
}


def of(summary: Line) -> Markup:
    """One line a column; what was not measured stays a dash."""
    columns, measures = summary["columns"], measured(summary["columns"])
    heads = [_head(measure.title, measure.help) for measure in (DIVERSITY, *measures)]
    heads += [_head(f"Div × {measure.title}", "The two multiplied; never instead of them.") for measure in measures]
    heads += [_head("Evaluations", COSTS["evaluations"]), _head("Seconds", COSTS["seconds"])]
    heads.append(_head("Price", COSTS["price"]))
    body = [_line(index, columns, measures) for index in range(len(columns))]
    head = tag("tr", tag("td"), _head("Pictures", "How many were drawn."), *heads)
    table = tag("table", tag("thead", head), tag("tbody", *body), aria_label="Figures of every column")
    said = f"mean and 95 % interval; features by {summary.get('extractor', 'the extractor')}"
    return joined(tag("h3", "What it gains and costs", tag("small", said)), tag("div", table, cls="scroll figures"))


def measured(columns: Sequence[Line]) -> tuple[Measure, ...]:
    """The fidelities that were read."""
    return tuple(each for each in FIDELITIES if any(each.name in column for column in columns))


def price(index: int, columns: Sequence[Line]) -> float | None:
    """Evaluations over those of LoRA + CFG where the two share most of their point; None without such a column."""
    column = columns[index]
    plain = [each for each in columns if each["guider"] == PLAIN and each.get("evaluations")]
    if not plain or not column.get("evaluations"):
        return None
    point = column["point"]

    def shared(each: Line) -> int:
        own = each["point"]
        return sum(1 if own[name] == point.get(name) else -1 for name in own if name in point)

    return column["evaluations"] / max(plain, key=shared)["evaluations"]


def _head(title: str, said: str) -> Markup:
    return tag("th", title, scope="col", title=said)


def _line(index: int, columns: Sequence[Line], measures: Sequence[Measure]) -> Markup:
    column = columns[index]
    name, point = name_and_point(column["title"])
    cells = [tag("td", f"{column['pictures']:,}")]
    cells += [_figure(column.get(measure.name)) for measure in (DIVERSITY, *measures)]
    products = column.get("products") or {}
    cells += [_number(products.get(f"div_{measure.name}"), ".3f") for measure in measures]
    cells += [_number(column.get("evaluations"), ",.4g"), _number(column.get("seconds"), ".2f")]
    times = price(index, columns)
    cells.append(tag("td", "–" if times is None else f"{times:.2f}×"))
    title = tag("th", tag("b", name), tag("small", point), scope="row", title=column["title"])
    return tag("tr", title, *cells)


def _figure(found: Line | None) -> Markup:
    if not found:
        return tag("td", "–")
    interval = tag("small", f"{found['low']:.3f} to {found['high']:.3f}")
    return tag("td", tag("b", f"{found['value']:.3f}"), interval)


def _number(value: float | None, how: str) -> Markup:
    return tag("td", "–" if value is None else format(value, how))
