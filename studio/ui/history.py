"""The history as markup: what runs and waits, and everything that ended, newest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from studio.ui import stage, words
from studio.ui.markup import NOTHING, Markup, icon, tag

if TYPE_CHECKING:
    from studio.jobs import Snapshot

Cover = Callable[["Snapshot"], str | None]
"""From a finished job to the address of its thumbnail."""


def cards(snapshots: Sequence[Snapshot], cover: Cover, now: float, *, said: Markup = NOTHING, most: int = 60) -> Markup:
    """What ended, at most ``most`` of it. ``said`` stands above, such as the offer to undo a deletion."""
    ended = [snapshot for snapshot in snapshots if snapshot.over]
    parts = [said, tag("ul", *[_card(snapshot, cover(snapshot), now) for snapshot in ended[:most]], cls="cards")]
    if not ended:
        parts.append(tag("p", "Nothing here. What you make is kept and listed on this page.", cls="nothing"))
    if len(ended) > most:
        parts.append(tag("p", f"The newest {most} of {len(ended)}; search to find the others.", cls="hint"))
    return tag("div", *parts, cls="history")


def queue(active: Sequence[Snapshot]) -> Markup:
    """What runs and waits, in the order in which it will run."""
    if not active:
        return NOTHING
    rows = [_row(snapshot) for snapshot in sorted(active, key=lambda snapshot: snapshot.created)]
    return tag("section", tag("h3", "Running and waiting"), tag("ul", *rows, cls="waiting"), cls="history")


def matching(snapshots: Sequence[Snapshot], engine: str, text: str) -> list[Snapshot]:
    """The jobs of an engine ("" is every one) whose prompts, model or reason hold every word of ``text``."""
    asked = text.lower().split()
    return [
        snapshot
        for snapshot in snapshots
        if (not engine or snapshot.engine == engine) and all(word in _searched(snapshot) for word in asked)
    ]


def deleted(snapshot: Snapshot) -> Markup:
    """The offer to take a deletion back."""
    undo = tag("button", icon("restore"), "Undo", type="button", cls="btn", data_act="undo", data_job=snapshot.id)
    return tag("p", tag("span", f"Deleted {stage.heading(snapshot)}."), undo, cls="said")


def _searched(snapshot: Snapshot) -> str:
    parts = (snapshot.title, *(snapshot.request.get("prompts") or ()), str(snapshot.request.get("model", "")))
    return " ".join((*parts, snapshot.status, snapshot.reason)).lower()


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
    facts = [words.ago(now - (snapshot.finished or snapshot.created))]
    found = (snapshot.summary or {}).get("candidates") or ()
    facts += [f"seed {found[0].get('seed')}"] if found else []
    facts += [words.count(len(found), "candidate")] if len(found) > 1 else []
    why = tag("p", stage.reason(snapshot), cls="why" if snapshot.status == "failed" else None)
    return tag(
        "li",
        _cover(snapshot, source, name),
        tag("div", tag("strong", name, title=name), cls="name"),
        tag("p", " · ".join(facts)),
        NOTHING if snapshot.status == "done" else why,
        tag("div", _action(snapshot, "restore", "Restore"), _action(snapshot, "delete", "Delete"), cls="group"),
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
        aria_label=f"Show {name}" if source else f"Show {name}, {state.lower()}",
    )


def _action(snapshot: Snapshot, act: str, title: str) -> Markup:
    return tag(
        "button",
        icon(act),
        title,
        type="button",
        cls="btn is-quiet",
        data_act=act,
        data_job=snapshot.id,
        aria_label=f"{title} {stage.heading(snapshot)}",
    )
