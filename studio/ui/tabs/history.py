"""History: what runs and waits, and everything made before, to look at, restore, or delete and take back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.ui import history as panel
from studio.ui.desk import Desk
from studio.ui.live import QUIET, owner_of
from studio.ui.markup import NOTHING, Markup

ENGINES = (("Everything", ""), ("Illusions", "illusion"))

# One listener for every button in our own markup: what was pressed travels as data-* of the button.
FORWARD_PRESSES = """
element.addEventListener('click', (event) => {
  const pressed = event.target.closest('[data-act]');
  if (pressed) trigger('press', {...pressed.dataset});
});
"""


@dataclass(frozen=True)
class HistoryTab:
    text: gr.Textbox
    engine: gr.Dropdown
    queue: gr.HTML
    cards: gr.HTML


def draw() -> HistoryTab:
    """The panel, empty until its tab is opened."""
    queue = gr.HTML("", js_on_load=FORWARD_PRESSES, elem_id="queue")
    with gr.Row(elem_classes="history-tools"):
        text = gr.Textbox(label="Search", placeholder="a word of a prompt", lines=1, elem_id="history-text")
        engine = gr.Dropdown(list(ENGINES), value="", label="Made in", elem_id="history-engine")
    cards = gr.HTML("", js_on_load=FORWARD_PRESSES, elem_id="history")
    return HistoryTab(text, engine, queue, cards)


def pressed(event: gr.EventData) -> dict[str, str]:
    """What a press in our own markup carries; it comes from the browser, so only text of a sane length is taken."""
    data = event._data if isinstance(event._data, dict) else {}
    return {key: value for key, value in data.items() if isinstance(value, str) and len(value) <= 120}


def wire(tab: HistoryTab, desk: Desk, me: gr.BrowserState, tab_opened: Any, changed: Any) -> None:
    """Redraw when the tab opens, when a filter changes and when a job's state ``changed``."""

    def redraw(me: object, text: str, engine: str) -> Markup:
        return desk.history(owner_of(me), engine or "", text or "")

    inputs = [me, tab.text, tab.engine]
    for event in (tab_opened, tab.text.change, tab.engine.change, changed):
        event(redraw, inputs, tab.cards, trigger_mode="always_last", **QUIET)


def removal(desk: Desk) -> Callable[..., Markup]:
    """The handler's part for Delete and Undo: does it and draws the panel again."""

    def remove(data: dict[str, str], me: object, text: str, engine: str) -> Markup:
        owner, job = owner_of(me), data.get("job", "")
        said = NOTHING
        if data.get("act") == "delete":
            snapshot = desk.snapshot(job, owner)
            if snapshot and desk.workbench.delete(job, owner):
                said = panel.deleted(snapshot)
        elif data.get("act") == "undo":
            desk.workbench.undelete(job, owner)
        return desk.history(owner, engine or "", text or "", said)

    return remove
