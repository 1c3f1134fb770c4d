"""What happens on the Illusions tab when something is pressed, written or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui import advice, examples, live
from studio.ui.desk import ENGINE, Desk
from studio.ui.form import Updates, Values, problems
from studio.ui.live import QUIET, Live
from studio.ui.markup import Markup, tag
from studio.ui.place import pressed
from studio.ui.tabs.illusion import TAB, IllusionTab, word_list
from studio.workbench import new_owner

SEEDS = 2**32
MADE_ELSEWHERE = "This picture was made on another tab; open that tab and drop it there."


class Illusions:
    """The tab's handlers. Each takes what gradio hands over by component and returns what changes."""

    def __init__(self, desk: Desk, tab: IllusionTab, shown: Live) -> None:
        self.desk, self.tab, self.form, self.live = desk, tab, tab.form, shown
        self.stage, self.beside = shown.on(TAB), ()

    def generate(self, values: Values) -> Updates:
        return self._submit(self.form.request(values), values)

    def advise(self, values: Values) -> Updates:
        """Cost and hints for the recipe as it stands; errors of the last run go when the recipe changes."""
        data, workbench = self.form.request(values), self.desk.workbench
        # What was typed just before a refusal may be looked at only after it: the sentences have to stay.
        refused = values[self.tab.refused] == data
        updates = self.form.written(advice.notes(workbench, data, tuple(self.form.notes), refused=refused))
        return updates | {self.tab.cost: advice.cost(workbench, data)}

    def list_words(self, model: str) -> Updates:
        drawable = self.desk.workbench.drawable(model)
        return {self.tab.words: word_list(drawable), self.tab.fold: gr.update(visible=bool(drawable))}

    def add_view(self, values: Values) -> Updates:
        return self.form.opening(min(len(self.form.rows), int(values[self.form.controls["count"]]) + 1))

    def press(self, values: Values, event: gr.EventData) -> Updates:
        """A button on the stage or among the presets."""
        data = pressed(event)
        act = data.get("act")
        if act == "preset":
            return self._preset(data.get("slug", ""), values)
        owner, key = live.owner_of(values[self.live.me]), values[self.stage.key] or ""
        request = self.desk.request(key, owner, _index(data.get("candidate")))
        if request is None:
            return {self.tab.cost: gr.skip()}
        if act == "vary":
            return self._vary(self.desk.request(key, owner) or request, values)
        return (
            self.restored(request, "The settings are in the form") if act == "restore" else {self.tab.cost: gr.skip()}
        )

    def upload(self, path: str | None) -> Updates:
        """A dropped or chosen picture: its recipe goes into the form, or one sentence says why not."""
        if not path:
            return {self.tab.cost: gr.skip()}
        try:
            recipe = self.desk.workbench.restore(Path(path))
        except StudioError as error:
            return self._problem(StudioError(str(error), field="picture"), {})
        if recipe["engine"] != ENGINE:
            return self._problem(StudioError(MADE_ELSEWHERE, field="picture"), {})
        request = recipe["request"]
        return self.restored(request, f"Settings and seed {request['seed']} restored from {Path(path).name}")

    def restored(self, request: Mapping[str, Any], said: str, engine: str = ENGINE, owner: str = "") -> Updates:
        """A result's settings in the form."""
        note = tag("p", f"{said}.", cls="is-done")
        return (
            self.form.filled(request) | self.form.written({"picture": note}) | {self.live.said: live.spoken(f"{said}.")}
        )

    def _preset(self, slug: str, values: Values) -> Updates:
        preset = next((preset for preset in self.desk.workbench.presets(ENGINE) if preset.slug == slug), None)
        if preset is None:
            return {self.tab.cost: gr.skip()}
        updates = self.form.filled(preset.request) | {self.live.said: live.spoken(f"{preset.title} is in the form.")}
        owner = live.owner_of(values[self.live.me])
        if self.desk.examples.find(slug) and not self.desk.active(owner):
            updates |= live.show(self.desk, self.live, TAB, values[self.live.me], examples.key(slug))
        return updates

    def _vary(self, request: Mapping[str, Any], values: Values) -> Updates:
        """The same again from the next seeds; the form follows."""
        following = (int(request.get("seed", 0)) + int(request.get("candidates", 1))) % SEEDS
        again = {**request, "seed": following}
        return self.form.filled(again) | self._submit(again, values)

    def _submit(self, data: Mapping[str, Any], values: Values) -> Updates:
        owner, workbench = live.owner_of(values[self.live.me]) or new_owner(), self.desk.workbench
        hints = advice.hints(workbench, data)
        try:
            job_id = workbench.submit(ENGINE, dict(data), owner)
        except StudioError as error:
            return self._problem(error, hints) | {self.tab.refused: dict(data)}
        return self.form.written(hints) | live.show(self.desk, self.live, TAB, values[self.live.me], job_id, owner)

    def _problem(self, error: StudioError, hints: Mapping[str, Markup]) -> Updates:
        """Sentences beside their fields, where hints give way to them; by the button what has no field here."""
        sentences = problems(error, self.form.notes)
        if not any(self.form.place(name) for name in sentences):
            sentences = {"recipe": tag("p", str(error), cls="is-error")}
        return self.form.written({**hints, **sentences}) | {self.live.said: live.spoken(str(error))}


def wire(handlers: Illusions) -> None:
    """Register the tab's listeners."""
    tab, form, shown = handlers.tab, handlers.form, handlers.live
    state = {shown.me, handlers.stage.key}
    results = [*shown.outputs, *form.controls.values(), *form.places(), *form.openable, tab.cost, tab.refused]
    answers = [*shown.outputs, *form.places(), tab.refused]
    tab.generate.click(handlers.generate, form.inputs | state, answers, **QUIET)
    for place in (tab.presets, tab.stage):
        place.press(handlers.press, form.inputs | state, results, **QUIET)
    tab.upload.upload(handlers.upload, tab.upload, results, **QUIET)
    _wire_form(handlers)


def _wire_form(handlers: Illusions) -> None:
    tab, form = handlers.tab, handlers.form
    everything = [*form.controls.values(), *form.openable]
    form.adder.click(handlers.add_view, form.inputs, everything, **QUIET)
    for index, button in enumerate(form.removers):
        button.click(_taking_away(handlers, index), form.inputs, everything, **QUIET)
    form.dice.click(None, None, form.controls["seed"], js=f"() => Math.floor(Math.random() * {SEEDS})", **QUIET)
    changes = [control.change for control in form.controls.values()]
    read = form.inputs | {tab.refused}
    gr.on(changes, handlers.advise, read, [*form.places(), tab.cost], trigger_mode="always_last", **QUIET)
    form.controls["model"].change(
        handlers.list_words, form.controls["model"], [tab.words, tab.fold], trigger_mode="always_last", **QUIET
    )


def _taking_away(handlers: Illusions, index: int) -> Any:
    def take_away(values: Values) -> Updates:
        return handlers.form.without(index, values)

    return take_away


def _index(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 4 else None
