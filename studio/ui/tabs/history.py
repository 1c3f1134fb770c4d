"""History: what runs and waits, and everything made before, to look at, restore, or delete and take back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from studio.ui import history as panel
from studio.ui import live
from studio.ui.desk import Desk
from studio.ui.form import NOTHING_CHANGES, Updates
from studio.ui.live import QUIET, owner_of
from studio.ui.markup import NOTHING, Markup
from studio.ui.place import pressable, pressed

if TYPE_CHECKING:
    from studio.ui.events import Illusions

ENGINES = (("Everything", ""), ("Illusions", "illusion"))


@dataclass(frozen=True)
class HistoryTab:
    text: gr.Textbox
    engine: gr.Dropdown
    queue: gr.HTML
    cards: gr.HTML


def draw() -> HistoryTab:
    """The panel, empty until its tab is opened."""
    queue = pressable(elem_id="queue")
    with gr.Row(elem_classes="history-tools"):
        text = gr.Textbox(label="Search", placeholder="a word of a prompt", lines=1, elem_id="history-text")
        engine = gr.Dropdown(list(ENGINES), value="", label="Made in", elem_id="history-engine")
    cards = pressable(elem_id="history")
    return HistoryTab(text, engine, queue, cards)


def wire(tab: HistoryTab, handlers: Illusions, tabs: gr.Tabs, own: gr.Tab) -> None:
    """Redraw when the tab opens, a filter changes or a job changes its state; act on what is pressed."""
    desk, shown, form = handlers.desk, handlers.live, handlers.form

    def redraw(me: object, text: str, engine: str) -> Markup:
        return desk.history(owner_of(me), engine or "", text or "")

    filters = [shown.me, tab.text, tab.engine]
    for happened in (own.select, tab.text.change, tab.engine.change, shown.said.change):
        happened(redraw, filters, tab.cards, trigger_mode="always_last", **QUIET)

    def press(me: object, text: str, engine: str, event: gr.EventData) -> Updates:
        data = pressed(event)
        act, job, owner = data.get("act"), data.get("job", ""), owner_of(me)
        if act in ("delete", "undo"):
            said = _delete(desk, job, owner) if act == "delete" else _undo(desk, job, owner)
            return {tab.cards: desk.history(owner, engine or "", text or "", said)}
        if act in ("show", "restore") and desk.snapshot(job, owner):
            updates = live.show(desk, shown, owner, job)
            if act == "restore":
                updates |= handlers.restored(desk.request(job, owner) or {}, "The settings are in the form")
            return updates | {tabs: gr.Tabs(selected="illusions")}
        return NOTHING_CHANGES

    outputs = [tab.cards, tabs, *shown.outputs, *form.controls.values(), *form.openable, *form.places()]
    tab.cards.press(press, filters, outputs, **QUIET)

    def manage(me: object, key: str, event: gr.EventData) -> Updates:
        """The queue's and the pill's buttons."""
        data = pressed(event)
        if data.get("act") == "stop":
            return live.stop(desk, shown, me, key, data.get("job", ""))
        return {tabs: gr.Tabs(selected="history")} if data.get("act") == "queue" else NOTHING_CHANGES

    for place in (tab.queue, shown.pill):
        place.press(manage, [shown.me, shown.key], [tabs, *shown.outputs], **QUIET)


def _delete(desk: Desk, job: str, owner: str) -> Markup:
    snapshot = desk.snapshot(job, owner)
    return panel.deleted(snapshot) if snapshot and desk.workbench.delete(job, owner) else NOTHING


def _undo(desk: Desk, job: str, owner: str) -> Markup:
    desk.workbench.undelete(job, owner)
    return NOTHING
