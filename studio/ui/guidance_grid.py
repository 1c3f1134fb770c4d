"""The grid of a comparison: same seed in a row, same setting in a column; a press shows one large, or two compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.ui import words
from studio.ui.compare import Side, figures
from studio.ui.guidance_data import heeded
from studio.ui.guidance_stage import name_and_point
from studio.ui.markup import Markup, icon, joined, tag
from studio.ui.result import Result

MOST_SHOWN = 1200  # cells that stand in the page; the table counts all
THUMB = 128  # pixels
SYMBOLS = {"gamma": "γ", "lora_scale": "LoRA scale", "rescale": "φ", "eta": "η", "momentum": "β"}
FACTS = (("column", "Guidance"), ("settings", "Settings"), ("prompt", "Prompt"), ("seed", "Seed"), ("cost", "Cost"))
Line = Mapping[str, Any]


def of(result: Result) -> Markup:
    """The grid in a box of its own, and below it the picture that was pressed."""
    columns, rows = result.summary["columns"], result.summary["rows"]
    shown = rows[: max(1, MOST_SHOWN // max(1, len(columns)))]
    chosen = first_cell(shown, columns)
    head = tag("tr", tag("td"), *[_head(column) for column in columns])
    body = [_row(result, index, row, chosen) for index, row in enumerate(shown)]
    table = tag("table", tag("thead", head), tag("tbody", *body), aria_label="Pictures by seed and guidance")
    left_out = (
        f"The first {len(shown):,} of {len(rows):,} rows; the figures below count all." if rows[len(shown) :] else ""
    )
    title = tag("h3", "Pictures", tag("small", "same seed in a row, same setting in a column"))
    more = [tag("p", left_out, cls="hint")] if left_out else []
    return joined(title, tag("div", table, cls="scroll cells", tabindex=-1), *more, _panel(result, chosen))


def first_cell(rows: Sequence[Line], columns: Sequence[Line]) -> tuple[int, int]:
    """Row and column of what is shown first: the first AutoLoRA that was drawn, or else the first picture."""
    places = [(x, y) for x, row in enumerate(rows) for y, cell in enumerate(row["cells"]) if cell]
    ours = [place for place in places if columns[place[1]]["guider"].startswith("autolora")]
    return next(iter([*ours[:1], *places[:1]]), (0, 0))


def settings_of(column: Line) -> dict[str, Any]:
    """The numbers that made a column's pictures, by their names."""
    there = heeded([column["guider"]])
    return {name: value for name, value in column["settings"].items() if name in there}


def told(column: Line) -> str:
    """``γ 1.5 · w1 5 · w2 5 · LoRA scale 1 · 20 steps``."""
    found = settings_of(column)
    steps = found.pop("steps", None)
    parts = [f"{SYMBOLS.get(name, name)} {value:g}" for name, value in found.items()]
    return " · ".join([*parts, *([words.count(int(steps), "step")] if steps else [])])


def cost_of(cell: Line) -> str:
    return f"{words.count(int(cell['evaluations']), 'evaluation')}, {words.exactly(float(cell['seconds']))}"


def _head(column: Line) -> Markup:
    name, point = name_and_point(column["title"])
    return tag(
        "th", tag("b", name), tag("small", point), scope="col", title=told(column),
        data_title=column["title"], data_settings=told(column),
    )  # fmt: skip


def _row(result: Result, index: int, row: Line, chosen: tuple[int, int]) -> Markup:
    prompts = result.request.get("prompts") or ()
    words_of = [tag("b", row["prompt"], title=row["prompt"])] if len(prompts) > 1 else []
    head = tag("th", *words_of, tag("small", f"seed {row['seed']}"), scope="row", data_prompt=row["prompt"],
               data_seed=row["seed"])  # fmt: skip
    cells = [_cell(result, (index, place), cell, chosen) for place, cell in enumerate(row["cells"])]
    return tag("tr", head, *cells)


def _cell(result: Result, place: tuple[int, int], cell: Line | None, chosen: tuple[int, int]) -> Markup:
    if not cell:
        return tag("td", tag("span", "not drawn", cls="cell is-blank"))
    row, column = result.summary["rows"][place[0]], result.summary["columns"][place[1]]
    picture = tag(
        "img", src=result.link(cell["image"], THUMB), alt="", loading="lazy", decoding="async", width=96, height=96
    )
    return tag(
        "td",
        tag(
            "button",
            picture,
            type="button",
            cls="cell",
            data_cell=f"{place[0]}-{place[1]}",
            data_cost=cost_of(cell),
            aria_label=f"{column['title']}, {row['prompt']}, seed {row['seed']}",
            aria_pressed="true" if place == chosen else "false",
            tabindex=0 if place == chosen else -1,
        ),
    )


def _panel(result: Result, chosen: tuple[int, int]) -> Markup:
    """One picture large with its recipe; the page's script fills it anew for every cell that is pressed."""
    row, column = result.summary["rows"][chosen[0]], result.summary["columns"][chosen[1]]
    cell = row["cells"][chosen[1]]
    if not cell:
        return tag("p", "No picture was drawn.", cls="hint")
    source, place = result.link(cell["image"], None), f"{chosen[0]}-{chosen[1]}"
    facts = dict(zip([name for name, _ in FACTS], _facts(row, column, cell), strict=True))
    listed = [part for name, title in FACTS for part in (tag("dt", title), tag("dd", facts[name], data_fact=name))]
    picture = tag("div", tag("img", src=source, alt=_words(row, column), data_large=True), cls="frame")
    alone = tag(
        "div",
        picture,
        tag("div", tag("dl", *listed), _actions(place, source), cls="cell-facts"),
        cls="cell-alone",
    )
    blank = Side("", "", "", {}, {})
    close = tag("button", "Close", type="button", cls="btn", data_close_pair=True)
    heading = tag("div", tag("h3", "Compared", tabindex=-1), close, cls="comparison-head")
    pair = tag("template", tag("div", heading, figures(blank, blank), _pair_table(), cls="comparison cell-pair"))
    return tag("section", alone, pair, cls="cell-panel", aria_label="The picture that is chosen", aria_live="polite")


def _facts(row: Line, column: Line, cell: Line) -> tuple[str, ...]:
    return column["title"], told(column), row["prompt"], str(row["seed"]), cost_of(cell)


def _words(row: Line, column: Line) -> str:
    return f"{row['prompt']} by {column['title']}, seed {row['seed']}"


def _actions(place: str, source: str) -> Markup:
    use = "Put this column's numbers into the form; guiders, prompts and seeds stay"
    restore = "Put all that draws this one picture into the form"
    compare = "Then press a second picture in the grid"
    buttons = [
        tag("button", icon("compare"), "Compare with …", type="button", cls="btn", title=compare, data_compare=True,
            aria_pressed="false"),
        tag("button", icon("restore"), "Use these settings", type="button", cls="btn", title=use, data_act="use-cell",
            data_cell_place=place),
        tag("button", icon("restore"), "Restore", type="button", cls="btn", title=restore, data_act="restore-cell",
            data_cell_place=place),
    ]  # fmt: skip
    save = tag("a", icon("download"), "PNG", cls="btn", href=source, download="guidance.png", data_save=True,
               title="The picture, with its recipe inside")  # fmt: skip
    return tag("div", *buttons, save, cls="group")


def _pair_table() -> Markup:
    """The facts of both, filled by the page's script."""
    head = tag("tr", tag("td"), tag("th", "Left", scope="col"), tag("th", "Right", scope="col"))
    body = [
        tag("tr", tag("th", title, scope="row"), tag("td", data_left_fact=name), tag("td", data_right_fact=name))
        for name, title in FACTS
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), cls="scroll")
