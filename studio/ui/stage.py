"""The result column while nothing is there yet, while a job waits or runs, and after it ended without a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio.ui import words
from studio.ui.markup import NOTHING, Markup, icon, joined, tag

if TYPE_CHECKING:
    from studio.jobs import Snapshot

NAMED_BY_PROMPTS = frozenset({"illusion"})  # engines whose jobs are called what their pictures show


def empty(title: str, line: str) -> Markup:
    """What stands in the result column before anything was made."""
    return _article("empty", tag("h2", title), tag("p", line, cls="stage-line"))


def opening(views: int) -> Markup:
    """Empty frames for the moment until the page knows what to show, so that nothing jumps then."""
    frames = [figure("\u00a0", "\u00a0", tag("div", cls="frame")) for _ in range(views + 1)]
    return tag(
        "article",
        tag("h2", "\u00a0"),
        tag("div", cls="bar is-done"),
        tag("p", "\u00a0", cls="stage-line"),
        tag("div", *frames, cls=f"views n-{views}"),
        cls="stage",
        data_state="opening",
        aria_hidden="true",
    )


def of(snapshot: Snapshot, body: Markup, *actions: Markup) -> Markup:
    """The result column of a job that has no result: waiting, running, or ended early.

    ``body`` is what forms under the progress line; ``actions`` are what else can be done after an early end.
    """
    if snapshot.status == "queued":
        return _waiting(snapshot, body)
    if snapshot.status == "running":
        return _running(snapshot, body)
    return _ended(snapshot, body, actions)


def heading(snapshot: Snapshot) -> str:
    prompts = snapshot.request.get("prompts") or () if snapshot.engine in NAMED_BY_PROMPTS else ()
    return words.title(prompts) or snapshot.title


def announcement(snapshot: Snapshot) -> str:
    """What a screen reader says when a job changes its state; steps are not announced."""
    verb = {"queued": "Waiting", "running": "Started", "done": "Finished"}.get(snapshot.status)
    if verb:
        return f"{verb}: {heading(snapshot)}."
    return f"{words.STATUS[snapshot.status]}: {heading(snapshot)}. {reason(snapshot)}"


def reason(snapshot: Snapshot) -> str:
    """One sentence why a job ended without a result."""
    return snapshot.reason or "It ended without a result; its settings are kept."


def _waiting(snapshot: Snapshot, body: Markup) -> Markup:
    before = snapshot.position - 1
    line = f"Waiting for {words.count(before, 'job')} in line before it" if before > 0 else "Starting"
    return _article(
        "queued",
        tag("h2", heading(snapshot)),
        _bar(snapshot),
        tag("p", line, cls="stage-line"),
        body,
        job=snapshot.id,
    )


def _running(snapshot: Snapshot, body: Markup) -> Markup:
    parts = [words.time_left(snapshot.step, snapshot.total, snapshot.eta)]
    if snapshot.evaluations:
        parts.append(words.count(snapshot.evaluations, "evaluation"))
    if snapshot.note:
        parts.append(snapshot.note)
    return _article(
        "running",
        tag("h2", heading(snapshot)),
        _bar(snapshot),
        tag("p", " · ".join(parts), cls="stage-line"),
        body,
        job=snapshot.id,
    )


def _ended(snapshot: Snapshot, body: Markup, actions: tuple[Markup, ...]) -> Markup:
    stopped = snapshot.status == "cancelled"
    restore = tag("button", icon("restore"), "Restore settings", type="button", cls="btn", data_act="restore")
    return _article(
        snapshot.status,
        tag("h2", heading(snapshot)),
        tag("div", cls="bar is-done", aria_hidden="true"),
        tag("p", reason(snapshot), cls="stage-line" if stopped else "stage-line is-error"),
        body,
        tag("div", *actions, restore, cls="actions"),
        job=snapshot.id,
    )


def _bar(snapshot: Snapshot) -> Markup:
    total, step = snapshot.total, snapshot.step
    done = 100 * step / total if total else 0
    return tag(
        "div",
        tag("span", style=f"width:{done:.1f}%"),
        cls="bar" if total else "bar is-waiting",
        role="progressbar",
        aria_label="Progress",
        aria_valuemin=0,
        aria_valuemax=total or None,
        aria_valuenow=step if total else None,
    )


def preview(source: str, name: str) -> Markup:
    """A picture as it forms; an empty frame keeps its place until then."""
    picture = tag("img", src=source, alt=f"Preview of {name}", decoding="sync") if source else NOTHING
    return tag("div", picture, cls="frame")


def figure(prompt: str, view: str, picture: Markup, *, cls: str = "view") -> Markup:
    """One picture under its prompt and the view it is seen in."""
    return tag("figure", tag("figcaption", tag("strong", prompt, title=prompt), tag("span", view)), picture, cls=cls)


def _article(state: str, *children: Markup, job: str | None = None) -> Markup:
    return tag("article", joined(*children), cls="stage", data_state=state, data_job=job)
