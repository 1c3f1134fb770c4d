"""The result column of a comparison while it waits or runs, and after it ended without a result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.guidance.cells import LOG, PLACE
from studio.guidance.grid import columns
from studio.guidance.request import GuidanceRequest
from studio.requests import parse
from studio.ui.markup import NOTHING, Markup, icon, joined, tag
from studio.ui.stage import figure, preview
from studio.workbench import LOCAL_OWNER

if TYPE_CHECKING:
    from studio.jobs import Snapshot

MOST_SHOWN = 12  # frames before the first preview: as many as a row sends
_PROMPT, _SEED = re.compile(r", prompt (\d+) of \d+"), re.compile(r", seed (\d+)$")
GO_ON = "Draw what is missing; finished pictures are taken over"


def forming(snapshot: Snapshot) -> Markup:
    """The row that forms: one picture a column, all of one prompt and one seed."""
    titles = snapshot.labels or planned(snapshot.request)
    prompt, seed = row_of(snapshot.note, snapshot.request)
    heading = tag("p", tag("b", prompt), f" · seed {seed}", cls="row-said")
    said = [title for title in titles if snapshot.note == title or snapshot.note.startswith(f"{title}, ")]
    now = max(said, key=len, default="")
    there = titles.index(now) + 1 if now else len(titles)
    sources = [*snapshot.previews[:there], *[""] * len(titles)]  # what is still to come has an empty frame
    figures = [
        figure(*name_and_point(title), preview(source, title), cls="view is-now" if title == now else "view")
        for title, source in zip(titles, sources, strict=False)
    ]
    return joined(heading, tag("div", *figures, cls=f"views row n-{min(len(figures), 4)}-wide"))


def planned(request: Mapping[str, Any]) -> tuple[str, ...]:
    """What the first columns will be called."""
    try:
        return tuple(column.title for column in columns(parse(GuidanceRequest, dict(request)))[:MOST_SHOWN])
    except StudioError:
        return ()


def row_of(note: str, request: Mapping[str, Any]) -> tuple[str, int]:
    """The prompt and the seed that a note is about; the first ones where there is but one, and at the beginning."""
    prompt, seed = _PROMPT.search(note), _SEED.search(note)
    prompts = request.get("prompts") or ("",)
    index = min(int(prompt[1]), len(prompts)) - 1 if prompt else 0
    return prompts[max(0, index)], int(seed[1]) if seed else int(request.get("seed") or 0)


def name_and_point(title: str) -> tuple[str, str]:
    """``AutoLoRA`` and ``γ 1.5``, which stand in two lines."""
    name, _, point = title.partition(" · ")
    return name, point or "\u00a0"


def actions(snapshot: Snapshot) -> Sequence[Markup]:
    """At home a comparison that ended early goes on from the pictures that it has drawn."""
    if snapshot.owner != LOCAL_OWNER or not (snapshot.folder / PLACE / LOG).is_file():
        return ()
    return (go_on(),)


def go_on() -> Markup:
    return tag("button", icon("play"), "Go on", type="button", cls="btn", title=GO_ON, data_act="go-on")


def left_over(summary: Mapping[str, Any], request: Mapping[str, Any]) -> Markup:
    """How much of a stopped comparison is there; nothing where all is."""
    if not summary.get("stopped"):
        return NOTHING
    there = sum(bool(cell) for row in summary.get("rows") or () for cell in row["cells"])
    prompts, seeds = len(request.get("prompts") or ("",)), int(request.get("seeds") or 1)
    all_of = len(summary.get("columns") or ()) * prompts * seeds
    said = f"Stopped: {there:,} of {all_of:,} pictures are drawn. The figures below are of those."
    return tag("p", said, cls="left-over")
