"""Following a job: a timer pulls, what did not change is not sent, and a page that opens again finds its job."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui import history, stage
from studio.ui.desk import Desk
from studio.ui.form import NOTHING_CHANGES, Form, Updates, problems
from studio.ui.markup import Markup, escaped, tag
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


@dataclass(frozen=True)
class Live:
    """The components that show a job. ``key`` is what the stage shows, ``seen`` what this page was sent last."""

    me: gr.BrowserState
    key: gr.State
    seen: gr.State
    timer: gr.Timer
    stage: gr.HTML
    said: gr.HTML
    pill: gr.HTML
    queue: gr.HTML
    stop: gr.Button

    @property
    def pulled(self) -> list[Any]:
        """What a pull may change. gradio makes a component anew for every output that is skipped, so these are few."""
        return [self.seen, self.stage, self.said, self.pill, self.queue]

    @property
    def outputs(self) -> list[Any]:
        return [*self.pulled, self.me, self.key, self.timer, self.stop]


def spoken(text: str, *, busy: bool = False) -> Markup:
    """What a screen reader is to say: the place is always there, only its words change."""
    return tag("p", text, role="status", data_busy=busy)


def owner_of(me: object) -> str:
    """The token that a browser remembers: random bits that nobody else can name. At home it makes no difference."""
    owner = me.get("owner") if isinstance(me, dict) else None
    return owner if isinstance(owner, str) and OWNER.fullmatch(owner) else ""


def remembered(me: object) -> str:
    key = me.get("shown") if isinstance(me, dict) else None
    return key if isinstance(key, str) and len(key) <= 120 else ""


def show(desk: Desk, live: Live, owner: str, key: str) -> Updates:
    """Put a job, a result or an example on the stage, and follow what still runs."""
    updates = _watched(desk, live, owner, key)
    return updates | {live.me: {"owner": owner, "shown": key}, live.key: key}


def attach(desk: Desk, live: Live, me: object) -> Updates:
    """A page opens: give it an owner if it has none, and what it left running or looked at last."""
    owner = owner_of(me) or new_owner()
    return show(desk, live, owner, desk.first(owner, remembered(me)))


def tick(desk: Desk, live: Live, me: object, key: str, seen: dict[str, Any]) -> Updates:
    """One pull; nothing is sent when nothing changed."""
    return _watch(desk, live, owner_of(me), key or "", seen or {}) or NOTHING_CHANGES


def settle(desk: Desk, live: Live, form: Form, me: object, key: str, said: str) -> Updates:
    """After a pull that brought news: the timer and Stop follow, and an error goes beside the field it is about."""
    owner = owner_of(me)
    snapshot = desk.snapshot(key or "", owner)
    # As the page was told: a job that ended since then has still to be pulled.
    updates = _controls(live, (said or "").startswith(spoken("", busy=True).removesuffix("</p>")))
    if snapshot and snapshot.error and escaped(stage.announcement(snapshot)) in (said or ""):
        error = StudioError(snapshot.error.message, field=snapshot.error.field)
        updates |= form.written(problems(error, form.notes))
    return updates


def _watch(desk: Desk, live: Live, owner: str, key: str, seen: dict[str, Any]) -> Updates:
    """Updates of what is pulled, as far as it differs from what was ``seen``."""
    # Looked at before the stage is drawn: a job that ends in between is seen as active once more and drawn next time.
    active = desk.active(owner)
    snapshot = desk.snapshot(key, owner)
    status = [key, snapshot.status if snapshot else ""]
    news = snapshot and status != seen.get("status") and ("status" in seen or not snapshot.over)
    now = {
        "stage": [key, snapshot.revision if snapshot else 0],
        "status": status,
        "active": [[job.id, job.revision] for job in active],
        "said": [stage.announcement(snapshot) if news else seen.get("said", [""])[0], bool(active)],
    }
    if now == seen:
        return {}
    updates: Updates = {live.seen: now}
    if now["stage"] != seen.get("stage"):
        updates[live.stage] = desk.stage(key, owner)
    if now["active"] != seen.get("active"):
        updates |= {live.pill: desk.pill(active), live.queue: history.queue(active)}
    if now["said"] != seen.get("said"):
        updates[live.said] = spoken(now["said"][0], busy=bool(active))
    return updates


def _watched(desk: Desk, live: Live, owner: str, key: str, status: str | None = None) -> Updates:
    """Everything that is pulled, drawn anew, with a timer that ticks until this page has seen the end of it.

    ``status`` is what the page knows of the job: another one is announced.
    """
    updates = _watch(desk, live, owner, key, {} if status is None else {"status": [key, status]})
    return updates | _controls(live, bool(updates[live.seen]["active"]))


def _controls(live: Live, busy: bool) -> Updates:
    """Stop can be pressed, and the timer ticks, while anything runs or waits."""
    return {live.timer: gr.Timer(active=busy), live.stop: gr.update(interactive=busy)}


def _wait_until_over(desk: Desk, job_id: str, owner: str) -> None:
    """Most steps are short: waiting for the end of this one shows it at once, not with the next pull."""
    until = time.monotonic() + POLL
    while time.monotonic() < until:
        snapshot = desk.snapshot(job_id, owner)
        if snapshot is None or snapshot.over:
            return
        time.sleep(0.02)


def stop(desk: Desk, live: Live, me: object, key: str, asked: str = "") -> Updates:
    """Stop the job that was asked for, or else the one on the stage, or else the newest that runs or waits."""
    owner = owner_of(me)
    active = desk.active(owner)
    wanted = [asked] if asked else [key, *(job.id for job in active)]
    known = next((job.status for job in active if job.id == key), None)
    for job_id in wanted:
        if any(job.id == job_id for job in active) and desk.workbench.cancel(job_id, owner):
            _wait_until_over(desk, job_id, owner)
            break
    return _watched(desk, live, owner, key or "", known)
