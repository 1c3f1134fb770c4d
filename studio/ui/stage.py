"""The result column while nothing is there yet, while a job waits or runs, and after it ended without a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from studio.ui import words
from studio.ui.markup import NOTHING, Markup, icon, joined, tag

if TYPE_CHECKING:
    from studio.jobs import Snapshot

Titles = Mapping[str, str]


def empty() -> Markup:
    """What stands in the result column before anything was made."""
    return _article(
        "empty",
        tag("h2", "Your illusion appears here"),
        tag("p", "Choose a preset or write one prompt per view, then press Generate.", cls="stage-line"),
    )


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


def of(snapshot: Snapshot, titles: Titles) -> Markup:
    """The result column of a job that has no result: waiting, running, or ended early."""
    if snapshot.status == "queued":
        return _waiting(snapshot, titles)
    if snapshot.status == "running":
        return _running(snapshot, titles)
    return _ended(snapshot, titles)


def heading(snapshot: Snapshot) -> str:
    prompts = snapshot.request.get("prompts") or ()
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


def _waiting(snapshot: Snapshot, titles: Titles) -> Markup:
    before = snapshot.position - 1
    line = f"Waiting for {words.count(before, 'job')} in line before it" if before > 0 else "Starting"
    return _article(
        "queued",
        tag("h2", heading(snapshot)),
        _bar(snapshot),
        tag("p", line, cls="stage-line"),
        _views(snapshot, titles),
        job=snapshot.id,
    )


def _running(snapshot: Snapshot, titles: Titles) -> Markup:
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
        _views(snapshot, titles),
        job=snapshot.id,
    )


def _ended(snapshot: Snapshot, titles: Titles) -> Markup:
    stopped = snapshot.status == "cancelled"
    return _article(
        snapshot.status,
        tag("h2", heading(snapshot)),
        tag("div", cls="bar is-done", aria_hidden="true"),
        tag("p", reason(snapshot), cls="stage-line" if stopped else "stage-line is-error"),
        _views(snapshot, titles),
        tag(
            "div",
            tag("button", icon("restore"), "Restore settings", type="button", cls="btn", data_act="restore"),
            cls="actions",
        ),
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


def _views(snapshot: Snapshot, titles: Titles) -> Markup:
    """Every view as it forms, each under its own prompt; empty frames keep the place until the first preview."""
    request = snapshot.request
    specs: Sequence[str] = request.get("views") or ()
    prompts: Sequence[str] = snapshot.labels or request.get("prompts") or ()
    previews = [*snapshot.previews, *[""] * (len(prompts) - len(snapshot.previews))]
    figures = [
        figure(prompt, words.view_title(spec, titles), _preview(source, prompt))
        for prompt, spec, source in zip(prompts, [*specs, *[""] * (len(prompts) - len(specs))], previews, strict=False)
    ]
    motion = figure("In motion", "drawn last", tag("div", cls="frame"), cls="view is-motion")
    return tag("div", *figures, motion, cls=f"views n-{len(figures)}")


def _preview(source: str, prompt: str) -> Markup:
    picture = tag("img", src=source, alt=f"Preview of {prompt}", decoding="sync") if source else NOTHING
    return tag("div", picture, cls="frame")


def figure(prompt: str, view: str, picture: Markup, *, cls: str = "view") -> Markup:
    """One picture under its prompt and the view it is seen in."""
    return tag("figure", tag("figcaption", tag("strong", prompt, title=prompt), tag("span", view)), picture, cls=cls)


def _article(state: str, *children: Markup, job: str | None = None) -> Markup:
    return tag("article", joined(*children), cls="stage", data_state=state, data_job=job)
