"""History: what runs and waits, and everything made before, to look at, restore, compare, or delete and take back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import gradio as gr

from studio.engines import ENGINES
from studio.ui import compare, live
from studio.ui import history as panel
from studio.ui.desk import Desk
from studio.ui.drawings import drawing_of
from studio.ui.form import Updates, Values
from studio.ui.history import Gone
from studio.ui.live import QUIET, owner_of
from studio.ui.markup import Markup
from studio.ui.place import pressable, pressed
from studio.ui.stage import heading

if TYPE_CHECKING:
    from studio.ui.form import Form


class Handlers(Protocol):
    """What this tab asks of another one's handlers: to take a result's settings into its form.

    ``beside``: components that change with it and are no part of the form.
    """

    form: Form
    stage: live.Stage
    beside: Sequence[Any]

    def restored(self, request: Mapping[str, Any], said: str, engine: str, owner: str) -> Updates: ...


@dataclass(frozen=True)
class HistoryTab:
    """``picked`` holds the keys of at most two results to compare, ``gone`` those deleted last, with their titles."""

    text: gr.Textbox
    engine: gr.Dropdown
    within: gr.Dropdown
    queue: gr.HTML
    notice: gr.HTML
    comparison: gr.HTML
    cards: gr.HTML
    picked: gr.State
    gone: gr.State

    @property
    def filters(self) -> list[Any]:
        return [self.text, self.engine, self.within]


def draw() -> HistoryTab:
    """The panel, empty until its tab is opened."""
    queue = pressable(elem_id="queue")
    engines = [("Every tab", ""), *((engine.title, engine.name) for engine in ENGINES)]
    with gr.Row(elem_classes="history-tools"):
        text = gr.Textbox(label="Search", placeholder="a word of a prompt or a model", lines=1, elem_id="history-text")
        engine = gr.Dropdown(engines, value="", label="Made in", elem_id="history-engine")
        within = gr.Dropdown(list(panel.TIMES), value=0, label="When", elem_id="history-time")
    notice = pressable(elem_id="notice")
    comparison = pressable(compare.nothing(), elem_id="comparison")
    cards = pressable(elem_id="history")
    return HistoryTab(text, engine, within, queue, notice, comparison, cards, gr.State([]), gr.State([]))


def wire(tab: HistoryTab, desk: Desk, shown: live.Live, makers: Sequence[Handlers], own: gr.Tab) -> None:
    """Redraw when the tab opens, a filter changes or a job changes its state; act on what is pressed.

    What a button does to the tabs themselves, the page's script does: gradio would look through every component.
    """
    by_tab = {maker.stage.tab: maker for maker in makers}

    def redraw(me: object, text: str, engine: str, within: float) -> Markup:
        return desk.history(owner_of(me), _asked(text, engine, within))

    filters = [shown.me, *tab.filters]
    # With ``me`` comes whose history it is: an address may open this tab before that is known.
    for happened in (own.select, *(each.change for each in tab.filters), shown.said.change, shown.me.change):
        happened(redraw, filters, tab.cards, trigger_mode="always_last", **QUIET)

    # Not a bare skip: for many outputs at once that empties what the browser remembers.
    nothing: Updates = {tab.cards: gr.skip()}

    def press(values: Values, event: gr.EventData) -> Updates:
        data, me, picked = pressed(event), values[shown.me], values[tab.picked]
        act, job, owner = data.get("act"), data.get("job", ""), owner_of(me)
        if act in ("delete", "undo"):
            change = _delete if act == "delete" else _undo
            gone, spoken = change(desk, job, owner, values[tab.gone])
            asked = _asked(*(values[each] for each in tab.filters))
            updates: Updates = {tab.cards: desk.history(owner, asked), tab.gone: gone, tab.notice: panel.deleted(gone)}
            updates |= {shown.said: live.spoken(spoken)} if spoken else {}
            return updates | (_picked(tab, desk, owner, without(picked, job)) if job in picked else {})
        if act == "compare":
            return _picked(tab, desk, owner, toggled(picked, job)) if desk.result(job, owner) else nothing
        if act == "close-comparison":
            return _picked(tab, desk, owner, [])
        if act in ("show", "restore") and desk.snapshot(job, owner):
            engine = desk.engine(job, owner)
            maker = by_tab[drawing_of(engine).tab]
            updates = live.show(desk, shown, maker.stage.tab, me, job)
            if act == "restore":
                updates |= maker.restored(desk.request(job, owner) or {}, "The settings are in the form", engine, owner)
            return updates
        return nothing

    own_outputs = [tab.cards, tab.notice, tab.comparison, tab.picked, tab.gone]
    forms = [part for maker in makers for part in (*_parts(maker.form), *maker.beside)]
    outputs = [*own_outputs, *shown.outputs, *forms]
    for place in (tab.cards, tab.notice, tab.comparison):
        place.press(press, {*filters, tab.picked, tab.gone}, outputs, **QUIET)

    def manage(values: Values, event: gr.EventData) -> Updates:
        """The queue's and the pill's buttons; opening the queue is the page's own script's."""
        data = pressed(event)
        if data.get("act") == "stop":
            keys = [values[key] for key in shown.keys]
            return live.stop(desk, shown, values[shown.me], keys, data.get("job", ""))
        return {shown.pill: gr.skip()}

    for place in (tab.queue, shown.pill):
        place.press(manage, {shown.me, *shown.keys}, shown.outputs, **QUIET)


def _parts(form: Form) -> list[Any]:
    return [*form.controls.values(), *form.openable, *form.places()]


def toggled(picked: list[str], job: str) -> list[str]:
    """``picked`` with ``job`` taken up, or given back; of three the oldest gives way."""
    return without(picked, job) if job in picked else [*picked, job][-2:]


def without(picked: list[str], job: str) -> list[str]:
    return [key for key in picked if key != job]


def _picked(tab: HistoryTab, desk: Desk, owner: str, picked: list[str]) -> Updates:
    return {tab.picked: picked, tab.comparison: desk.comparison(picked, owner)}


def _asked(text: str, engine: str, within: float) -> panel.Filter:
    return panel.Filter(engine or "", text or "", within if isinstance(within, int | float) else 0)


def _delete(desk: Desk, job: str, owner: str, gone: list[Gone]) -> tuple[list[Gone], str]:
    """What can be taken back now, and a sentence for a screen reader."""
    snapshot = desk.snapshot(job, owner)
    if snapshot is None or not desk.workbench.delete(job, owner):
        return gone, ""
    return [(job, heading(snapshot)), *gone][: panel.MOST_UNDONE], f"Deleted {heading(snapshot)}. Undo takes it back."


def _undo(desk: Desk, job: str, owner: str, gone: list[Gone]) -> tuple[list[Gone], str]:
    back = desk.workbench.undelete(job, owner) and desk.snapshot(job, owner)
    return [each for each in gone if each[0] != job], f"{heading(back)} is back." if back else ""
