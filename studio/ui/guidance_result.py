"""The result column of a comparison: the answer in one sentence, the grid, the figures, and what can be fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.ui import guidance_grid, guidance_plot, guidance_table, words
from studio.ui.compare import Side
from studio.ui.guidance_stage import go_on, left_over
from studio.ui.markup import NOTHING, Markup, icon, tag
from studio.ui.result import Result, finished, spent

NO_ANSWER = "Whether AutoLoRA is worth its price is said once it stands beside LoRA + CFG, with two seeds or more."
ENOUGH = 8  # pictures a column; intervals of fewer are much too narrow
FILES = (
    ("table.csv", "CSV", "guidance.csv", "The table below the grid, for a spreadsheet"),
    ("table.json", "JSON", "guidance.json", "The table below the grid, with all settings"),
    ("grid.png", "Grid", "guidance-grid.png", "All pictures as one PNG, with its recipe inside"),
)


def of(result: Result) -> Markup:
    summary = result.summary
    name = f"against-{''.join(c if c.isalnum() else '-' for c in result.key)}"
    parts = (
        _verdict(summary),
        _caution(summary),
        left_over(summary, result.request),
        guidance_grid.of(result),
        guidance_table.of(summary),
        guidance_plot.of(summary["columns"], name),
        _actions(result),
    )
    return finished(result, result.title, facts(result), *parts, cls="stage guidance-stage")


def facts(result: Result) -> str:
    """``24 pictures · 1,200 evaluations · 19 s · builtin:emoji``."""
    summary = result.summary
    parts = ["Example"] if result.example else []
    parts += [words.count(_drawn(summary), "picture"), *spent(summary)]
    return " · ".join([*parts, str(summary.get("model", ""))])


def told(summary: Mapping[str, Any]) -> list[str]:
    """What a list says of a result."""
    if not summary.get("columns"):
        return []
    found = [words.count(_drawn(summary), "picture"), words.count(len(summary["columns"]), "column")]
    answer = str(summary.get("verdict") or "").partition(":")[0]
    return [*found, *([f"AutoLoRA worth it? {answer}"] if answer else [])]


def cover(summary: Mapping[str, Any]) -> str | None:
    """The first picture of the first AutoLoRA, or else the first of all."""
    rows, columns = summary.get("rows") or (), summary.get("columns") or ()
    if not rows:
        return None
    row, column = guidance_grid.first_cell(rows, columns)
    cell = rows[row]["cells"][column]
    return cell["image"] if cell else None


def side(result: Result) -> Side | None:
    """The picture that stands for the result, with its column's settings and figures."""
    name, summary = cover(result.summary), result.summary
    if name is None:
        return None
    place = guidance_grid.first_cell(summary["rows"], summary["columns"])
    row, column = summary["rows"][place[0]], summary["columns"][place[1]]
    asked = {key: result.request.get(key) for key in ("model", "negative_prompt", "scheduler", "size")}
    loras = {"LoRAs": list((result.request.get("adapters") or {}).values()), "Guidance": column["guider_title"]}
    settings = {**asked, "prompts": [row["prompt"]], "seed": row["seed"], **loras, **guidance_grid.settings_of(column)}
    measures = (guidance_table.DIVERSITY, *guidance_table.FIDELITIES)
    measured = {each.title: column[each.name]["value"] for each in measures if column.get(each.name)}
    if column.get("evaluations"):
        measured["Evaluations"] = column["evaluations"]
    return Side(result.key, result.title, result.link(name, None), settings, measured)


def named_files(summary: Mapping[str, Any]) -> set[str]:
    """What of a run's folder may be fetched: its pictures, the grid and the tables."""
    pictures = {cell["image"] for row in summary.get("rows") or () for cell in row["cells"] if cell}
    return {name for name in {*pictures, summary.get("grid"), *(summary.get("tables") or ())} if _is_plain(name)}


def request_of(result: Result, place: str, *, alone: bool) -> dict[str, Any] | None:
    """The settings of a cell named like ``0-2``: those of its column, or with ``alone`` all that draws it."""
    row, column = _cell(result.summary, place)
    if row is None or column is None:
        return None
    own = {"settings": column["settings"], "sweep": []}
    if alone:
        own |= {"guiders": [column["guider"]], "prompts": [row["prompt"]], "seed": row["seed"], "seeds": 1}
    return {**result.request, **own, "resume": ""}


def _cell(summary: Mapping[str, Any], place: str) -> tuple[Any, Any]:
    first, _, second = place.partition("-")
    rows, columns = summary.get("rows") or (), summary.get("columns") or ()
    if not (first.isdecimal() and second.isdecimal()) or len(place) > 12:
        return None, None
    found = int(first) < len(rows) and int(second) < len(columns)
    return (rows[int(first)], columns[int(second)]) if found else (None, None)


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and bool(name) and Path(name).name == name


def _drawn(summary: Mapping[str, Any]) -> int:
    return sum(bool(cell) for row in summary.get("rows") or () for cell in row["cells"])


def _verdict(summary: Mapping[str, Any]) -> Markup:
    """The answer, its first word in bold."""
    said = str(summary.get("verdict") or "")
    if not said:
        return tag("p", NO_ANSWER, cls="verdict is-open")
    answer, _, reason = said.partition(":")
    return tag("p", tag("b", f"{answer}:"), reason, cls="verdict")


def _caution(summary: Mapping[str, Any]) -> Markup:
    """Figures of a few pictures say little, whatever their intervals look like."""
    fewest = min((column["pictures"] for column in summary["columns"] if column["pictures"]), default=0)
    if not summary.get("verdict") or fewest >= ENOUGH:
        return NOTHING
    said = f"{words.count(fewest, 'picture')} a column are too few to be sure of it: draw {ENOUGH} or more."
    return tag("p", said, cls="caution")


def _actions(result: Result) -> Markup:
    """Downloads; the settings back; at home a stopped run goes on, and a finished one grows."""
    summary = result.summary
    known = {summary.get("grid"), *(summary.get("tables") or ())}
    fetched = [_download(result, *each) for each in FILES if each[0] in known]
    restore = tag("button", icon("restore"), "Restore settings", type="button", cls="btn", data_act="restore")
    more = go_on() if summary.get("stopped") else _more_seeds()
    again = [*([more] if result.folder else []), restore]
    return tag("div", tag("div", *fetched, cls="group"), tag("div", *again, cls="group"), cls="actions")


def _more_seeds() -> Markup:
    said = "Put these settings into the form with twice the seeds; finished pictures are taken over"
    return tag("button", icon("play"), "More seeds", type="button", cls="btn", title=said, data_act="more-seeds")


def _download(result: Result, file: str, title: str, saved_as: str, said: str) -> Markup:
    href = result.link(file, None)
    return tag("a", icon("download"), title, cls="btn", href=href, download=saved_as, title=said)
