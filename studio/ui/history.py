"""The history as markup: what runs and waits, and everything that ended, newest first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.ui import stage, words
from studio.ui.drawings import drawing_of
from studio.ui.markup import NOTHING, Markup, icon, joined, tag

if TYPE_CHECKING:
    from studio.jobs import Snapshot

Cover = Callable[["Snapshot"], str | None]
"""From a finished job to the address of its thumbnail."""
Gone = tuple[str, str]
"""A deleted job and its title."""
MOST_UNDONE = 5  # offers to take a deletion back, side by side

HOUR, DAY = 3600, 86_400
TIMES = (
    ("Any time", 0),
    ("The last hour", HOUR),
    ("The last 24 hours", DAY),
    ("The last 7 days", 7 * DAY),
    ("The last 30 days", 30 * DAY),
)
"""Spans rather than days: whose midnight it is, the studio and a visitor may not agree on."""


EMPTY = "Nothing here. What you make is kept and listed on this page."
NONE_MATCHES = "Nothing matches. Search for another word, or choose a longer time."


@dataclass(frozen=True)
class Filter:
    """What to list: an engine ("" is every one), words, and at most so many seconds old (0 is any age)."""

    engine: str = ""
    text: str = ""
    within: float = 0

    @property
    def everything(self) -> bool:
        return not (self.engine or self.text.strip() or self.within)


def cards(snapshots: Sequence[Snapshot], cover: Cover, now: float, *, nothing: str = EMPTY, most: int = 60) -> Markup:
    """What ended, at most ``most`` of it, or the sentence ``nothing``."""
    ended = [snapshot for snapshot in snapshots if snapshot.over]
    parts = [tag("ul", *[_card(snapshot, cover(snapshot), now) for snapshot in ended[:most]], cls="cards")]
    if not ended:
        parts.append(tag("p", nothing, cls="nothing"))
    if len(ended) > most:
        parts.append(tag("p", f"The newest {most} of {len(ended)}; search to find the others.", cls="hint"))
    return tag("div", *parts, cls="history")


def queue(active: Sequence[Snapshot]) -> Markup:
    """What runs and waits, in the order in which it will run."""
    if not active:
        return NOTHING
    rows = [_row(snapshot) for snapshot in sorted(active, key=lambda snapshot: snapshot.created)]
    return tag("section", tag("h3", "Running and waiting"), tag("ul", *rows, cls="waiting"), cls="history")


def matching(snapshots: Sequence[Snapshot], asked: Filter, now: float) -> list[Snapshot]:
    """The jobs whose prompts, model, state or reason hold every word that is asked for, of that engine and time."""
    words_asked = asked.text.lower().split()
    return [
        snapshot
        for snapshot in snapshots
        if (not asked.engine or snapshot.engine == asked.engine)
        and (not asked.within or now - (snapshot.finished or snapshot.created) <= asked.within)
        and all(word in _searched(snapshot) for word in words_asked)
    ]


def deleted(gone: Sequence[Gone]) -> Markup:
    """The offers to take deletions back, the last one first."""
    return joined(*[_offer(job, title) for job, title in gone])


def _offer(job: str, title: str) -> Markup:
    undo = tag("button", icon("restore"), "Undo", type="button", cls="btn", data_act="undo", data_job=job)
    return tag("p", tag("span", "Deleted ", tag("b", title), "."), undo, cls="said")


def _searched(snapshot: Snapshot) -> str:
    asked = snapshot.request
    made_from = [*(asked.get("prompts") or ()), *(asked.get("models") or ()), *(asked.get("adapters") or ())]
    parts = (snapshot.title, str(asked.get("model", "")), *map(str, made_from))
    return " ".join((*parts, words.STATUS[snapshot.status], snapshot.status, snapshot.reason)).lower()


def _row(snapshot: Snapshot) -> Markup:
    done = 100 * snapshot.step / snapshot.total if snapshot.total else 0
    line = words.time_left(snapshot.step, snapshot.total, snapshot.eta) if snapshot.status == "running" else "Waiting"
    stop = tag("button", icon("stop"), "Stop", type="button", cls="btn", data_act="stop", data_job=snapshot.id)
    return tag(
        "li",
        tag("div", tag("strong", stage.heading(snapshot)), tag("br"), tag("small", line)),
        tag("div", tag("span", style=f"width:{done:.0f}%"), cls="bar"),
        stop,
    )


def _card(snapshot: Snapshot, source: str | None, now: float) -> Markup:
    name = stage.heading(snapshot)
    ended = snapshot.finished or snapshot.created
    when = tag("time", words.ago(now - ended), title=time.strftime("%d %B %Y, %H:%M", time.localtime(ended)))
    facts: list[Markup | str] = [when]
    drawing = drawing_of(snapshot.engine)
    facts += drawing.told(snapshot.summary or {})
    why = tag("p", stage.reason(snapshot), cls="why" if snapshot.status == "failed" else None)
    return tag(
        "li",
        _cover(snapshot, source, name),
        tag("div", tag("strong", name, title=name), cls="name"),
        tag("p", *_dotted(facts)),
        NOTHING if snapshot.status == "done" else why,
        tag(
            "div",
            _action(snapshot, "restore", "Restore"),
            _action(snapshot, "compare", "Compare") if drawing.cover(snapshot.summary or {}) else NOTHING,
            _action(snapshot, "delete", "Delete", icon("delete")),
            cls="group",
        ),
        cls="card",
        data_status=snapshot.status,
    )


def _cover(snapshot: Snapshot, source: str | None, name: str) -> Markup:
    state = words.STATUS[snapshot.status]
    return tag(
        "button",
        tag("img", src=source, alt="", loading="lazy") if source else state,
        type="button",
        cls="cover" if source else "cover is-blank",
        data_act="show",
        data_job=snapshot.id,
        data_tab=drawing_of(snapshot.engine).tab,
        aria_label=f"Show {name}" if source else f"Show {name}, {state.lower()}",
    )


def _dotted(facts: Sequence[Markup | str]) -> list[Markup | str]:
    return [part for fact in facts for part in (" · ", fact)][1:]


def _action(snapshot: Snapshot, act: str, title: str, picture: Markup = NOTHING) -> Markup:
    return tag(
        "button",
        picture or title,
        type="button",
        cls="btn is-quiet",
        title=title if picture else None,
        data_act=act,
        data_job=snapshot.id,
        data_tab=drawing_of(snapshot.engine).tab,
        aria_label=f"{title} {stage.heading(snapshot)}",
        aria_pressed="false" if act == "compare" else None,
    )
