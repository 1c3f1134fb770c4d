"""Following jobs: a timer pulls, what did not change is not sent, and a page that opens again finds its jobs."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui import history
from studio.ui.desk import Desk
from studio.ui.form import NOTHING_CHANGES, Form, Updates
from studio.ui.markup import Markup, escaped, tag
from studio.ui.stage import announcement
from studio.workbench import OWNER, new_owner

POLL = 0.4  # seconds; a preview of 15 KB every 0.4 s is what slow lines carried without falling behind
QUIET: dict[str, Any] = {
    "queue": False,
    "show_progress": "hidden",
    "show_progress_on": [],
    "api_name": "page",
    "api_visibility": "private",
}
"""How every listener of the page is registered: at once, without a spinner, and out of the public interface.

No progress on any component: by default gradio writes the state of every call to each component that any call may
change, and to do so copies it with all that lies in it; that was a third of the time a page took to open.
One name for all of them, which gradio numbers: left out, they would take the names of the public calls."""

# Fixed, so that what a browser keeps is still readable after a restart of the studio. It is no secret.
STORAGE_SECRET = "duckrabbit"
LONGEST_KEY = 120  # characters
_BUSY = re.compile(r'data-busy="([^"]*)"')


@dataclass(frozen=True)
class Stage:
    """One tab's result column: ``key`` is what it shows, ``seen`` what this page was sent of it last."""

    tab: str
    key: gr.State
    seen: gr.State
    place: gr.HTML
    stop: gr.Button
    form: Form


@dataclass(frozen=True)
class Live:
    """The components that show jobs. ``seen`` is what this page was last told of all that runs."""

    me: gr.BrowserState
    seen: gr.State
    timer: gr.Timer
    said: gr.HTML
    pill: gr.HTML
    queue: gr.HTML
    stages: tuple[Stage, ...]

    @property
    def keys(self) -> list[Any]:
        return [stage.key for stage in self.stages]

    @property
    def followed(self) -> list[Any]:
        """What a pull has to know."""
        return [self.me, self.seen, *(part for stage in self.stages for part in (stage.key, stage.seen))]

    @property
    def pulled(self) -> list[Any]:
        """What a pull may change. gradio makes a component anew for every output that is skipped, so these are few."""
        stages = [part for stage in self.stages for part in (stage.seen, stage.place)]
        return [self.seen, self.said, self.pill, self.queue, *stages]

    @property
    def outputs(self) -> list[Any]:
        return [*self.pulled, self.me, *self.keys, self.timer, *(stage.stop for stage in self.stages)]

    def on(self, tab: str) -> Stage:
        return next(stage for stage in self.stages if stage.tab == tab)


@dataclass(frozen=True)
class _Look:
    """A stage, what it shows, and what the page has seen of it."""

    stage: Stage
    key: str
    seen: dict[str, Any]


def spoken(text: str, *, busy: Sequence[str] = ()) -> Markup:
    """What a screen reader is to say: the place is always there, only its words change. ``busy``: tabs with jobs."""
    return tag("p", text, role="status", data_busy=" ".join(busy) or None)


def owner_of(me: object) -> str:
    """The token that a browser remembers: random bits that nobody else can name. At home it makes no difference."""
    owner = me.get("owner") if isinstance(me, dict) else None
    return owner if isinstance(owner, str) and OWNER.fullmatch(owner) else ""


def remembered(me: object) -> dict[str, str]:
    """Tab -> what the browser says was shown there last. One key alone is from when there was one such tab."""
    shown = me.get("shown") if isinstance(me, dict) else None
    pairs = {"illusions": shown} if isinstance(shown, str) else shown if isinstance(shown, dict) else {}
    return {str(tab): key for tab, key in list(pairs.items())[:9] if isinstance(key, str) and len(key) <= LONGEST_KEY}


def show(desk: Desk, live: Live, tab: str, me: object, key: str, owner: str = "") -> Updates:
    """Put a job, a result or an example on a tab's stage, and follow what still runs."""
    owner = owner or owner_of(me) or new_owner()
    stage = live.on(tab)
    updates = _watched(desk, live, owner, [_Look(stage, key, {})])
    return updates | {live.me: {"owner": owner, "shown": remembered(me) | {tab: key}}, stage.key: key}


def attach(desk: Desk, live: Live, me: object) -> Updates:
    """A page opens: give it an owner if it has none, and what it left running or looked at last."""
    owner = owner_of(me) or new_owner()
    before = remembered(me)
    shown = {stage.tab: desk.first(owner, before.get(stage.tab, ""), stage.tab) for stage in live.stages}
    updates = _watched(desk, live, owner, [_Look(stage, shown[stage.tab], {}) for stage in live.stages])
    keys: Updates = {stage.key: shown[stage.tab] for stage in live.stages}
    return updates | keys | {live.me: {"owner": owner, "shown": shown}}


def tick(desk: Desk, live: Live, me: object, seen: dict[str, Any], *of_stages: Any) -> Updates:
    """One pull; nothing is sent when nothing changed. ``of_stages``: key and seen of each stage."""
    pairs = zip(live.stages, of_stages[::2], of_stages[1::2], strict=True)
    looks = [_Look(stage, key or "", known or {}) for stage, key, known in pairs]
    return _watch(desk, live, owner_of(me), seen or {}, looks) or NOTHING_CHANGES


def settle(desk: Desk, live: Live, me: object, said: str, *keys: str) -> Updates:
    """After a pull that brought news: the timer and Stop follow, and an error goes beside the field it is about."""
    owner = owner_of(me)
    # As the page was told: a job that ended since then has still to be pulled.
    busy = _BUSY.search(said or "")
    updates = _controls(live, busy[1].split() if busy else [])
    for each, key in zip(live.stages, keys, strict=True):
        snapshot = desk.snapshot(key or "", owner)
        if snapshot and snapshot.error and escaped(announcement(snapshot)) in (said or ""):
            error = StudioError(snapshot.error.message, field=snapshot.error.field)
            updates |= each.form.written(each.form.problems(error, snapshot.engine))
    return updates


def stop(desk: Desk, live: Live, me: object, keys: Sequence[str], asked: str = "", tab: str = "") -> Updates:
    """Stop the job that was asked for, or else what ``tab`` shows, or else the newest that runs or waits there."""
    owner = owner_of(me)
    active = desk.active(owner)
    shown = {stage.tab: key or "" for stage, key in zip(live.stages, keys, strict=True)}
    wanted = [asked] if asked else [shown.get(tab, ""), *(job.id for job in desk.active(owner, tab or None))]
    for job_id in wanted:
        if any(job.id == job_id for job in active) and desk.workbench.cancel(job_id, owner):
            _wait_until_over(desk, job_id, owner)
            break
    before = {job.id: job.status for job in active}
    known = [(stage, shown[stage.tab]) for stage in live.stages if shown[stage.tab] in before]
    return _watched(desk, live, owner, [_Look(at, key, {"status": [key, before[key]]}) for at, key in known])


def _watch(desk: Desk, live: Live, owner: str, seen: dict[str, Any], looks: Sequence[_Look]) -> Updates:
    """Updates of what is pulled, as far as it differs from what was seen."""
    # Looked at before the stages are drawn: a job that ends in between is seen as active once more and drawn next time.
    active = desk.active(owner)
    busy = [stage.tab for stage in live.stages if desk.active(owner, stage.tab)]
    updates: Updates = {}
    news = seen.get("said", [""])[0]
    for look in looks:
        snapshot = desk.snapshot(look.key, owner)
        status = [look.key, snapshot.status if snapshot else ""]
        if snapshot and status != look.seen.get("status") and ("status" in look.seen or not snapshot.over):
            news = announcement(snapshot)
        now = {"stage": [look.key, snapshot.revision if snapshot else 0], "status": status}
        if now != look.seen:
            updates[look.stage.seen] = now
        if now["stage"] != look.seen.get("stage"):
            updates[look.stage.place] = desk.stage(look.key, owner, look.stage.tab)
    now = {"active": [[job.id, job.revision] for job in active], "said": [news, busy]}
    if now != seen:
        updates[live.seen] = now
    if now["active"] != seen.get("active"):
        updates |= {live.pill: desk.pill(active), live.queue: history.queue(active)}
    if now["said"] != seen.get("said"):
        updates[live.said] = spoken(news, busy=busy)
    return updates


def _watched(desk: Desk, live: Live, owner: str, looks: Sequence[_Look]) -> Updates:
    """Everything that is pulled, drawn anew, with a timer that ticks until this page has seen the end of it."""
    updates = _watch(desk, live, owner, {}, looks)
    return updates | _controls(live, updates[live.seen]["said"][1])


def _controls(live: Live, busy: Sequence[str]) -> Updates:
    """The timer ticks while anything runs or waits, and Stop can be pressed where it was made."""
    stops: Updates = {stage.stop: gr.update(interactive=stage.tab in busy) for stage in live.stages}
    return stops | {live.timer: gr.Timer(active=bool(busy))}


def _wait_until_over(desk: Desk, job_id: str, owner: str) -> None:
    """Most steps are short: waiting for the end of this one shows it at once, not with the next pull."""
    until = time.monotonic() + POLL
    while time.monotonic() < until:
        snapshot = desk.snapshot(job_id, owner)
        if snapshot is None or snapshot.over:
            return
        time.sleep(0.02)
