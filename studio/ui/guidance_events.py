"""What happens on the Guidance tab when something is pressed, written or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui import guidance_advice, guidance_result, live
from studio.ui.desk import Desk
from studio.ui.events import SEEDS
from studio.ui.form import Updates, Values
from studio.ui.guidance_data import AXES
from studio.ui.guidance_form import AT_HAND, ENGINE, OF_THE_GRID
from studio.ui.live import QUIET, Live
from studio.ui.markup import NOTHING, Markup, tag
from studio.ui.place import pressed
from studio.ui.tabs.guidance import TAB, GuidanceTab
from studio.workbench import LOCAL_OWNER, new_owner

OUTSIDE = (*AT_HAND, *OF_THE_GRID, "restore", "recipe")


class Guidances:
    """The tab's handlers. Each takes what gradio hands over by component and returns what changes."""

    def __init__(self, desk: Desk, tab: GuidanceTab, shown: Live) -> None:
        self.desk, self.tab, self.form, self.live = desk, tab, tab.form, shown
        self.stage, self.beside = shown.on(TAB), ()

    def run(self, values: Values) -> Updates:
        return self._submit(self.form.request(values), values)

    def confirm(self, values: Values, event: gr.EventData) -> Updates:
        """A very large run is wanted all the same."""
        if pressed(event).get("act") != "run-anyway":
            return self._nothing()
        return self._submit(self.form.request(values), values, confirmed=True)

    def adapt(self, values: Values) -> Updates:
        """Other guiders or another grid: what they ask for is shown."""
        return self.form.opened(self.form.named(values))

    def advise(self, values: Values) -> Updates:
        """Cost and notes for the recipe as it stands; what was asked or said of the last one goes when it changes."""
        refused = values[self.tab.refused] == self.form.request(values)
        found = guidance_advice.of(self.desk.workbench, self.form, values, refused=refused)
        updates = self.form.written(found.notes) | {self.tab.cost: found.cost}
        return updates | ({} if refused else {self.tab.confirm: NOTHING})

    def list_files(self) -> Updates:
        """The models folder may have grown since the page was opened."""
        workbench, controls = self.desk.workbench, self.form.controls
        models = [(model.title, model.name) for model in workbench.models()]
        loras = gr.update(choices=workbench.loras())
        return {controls["model"]: gr.update(choices=models), controls["lora"]: loras, controls["others"]: loras}

    def press(self, values: Values, event: gr.EventData) -> Updates:
        """A button on the stage or among the presets."""
        data = pressed(event)
        act = data.get("act")
        if act == "preset":
            return self._preset(data.get("slug", ""))
        owner, key = live.owner_of(values[self.live.me]), values[self.stage.key] or ""
        request = self.desk.request(key, owner)
        if request is None:
            return self._nothing()
        if act == "restore":
            return self.restored(request, "The settings are in the form")
        if act in ("use-cell", "restore-cell"):
            return self._use(act, key, owner, data.get("cellPlace", ""))
        if act in ("go-on", "more-seeds"):
            return self._go_on(act, key, owner, values)
        return self._nothing()

    def upload(self, path: str | None) -> Updates:
        """A chosen picture or grid: its recipe goes into the form, or one sentence says why not."""
        if not path:
            return self._nothing()
        try:
            recipe = self.desk.workbench.restore(Path(path))
        except StudioError as error:
            return self._problem(StudioError(str(error), field="restore"))
        if recipe["engine"] != ENGINE:
            return self._problem(StudioError("This was made on another tab; drop it there.", field="restore"))
        return self.restored(recipe["request"], f"The recipe of {Path(path).name} is in the form")

    def restored(self, request: Mapping[str, Any], said: str, engine: str = ENGINE, owner: str = "") -> Updates:
        """A result's or a file's settings in the form, to begin anew with."""
        return self._filled({**request, "resume": ""}, f"{said}.", "restore")

    def _filled(self, request: Mapping[str, Any], said: str, beside: str) -> Updates:
        note = tag("p", said, cls="is-done")
        return self.form.filled(request) | self.form.written({beside: note}) | {self.live.said: live.spoken(said)}

    def _preset(self, slug: str) -> Updates:
        preset = next((each for each in self.desk.workbench.presets(ENGINE) if each.slug == slug), None)
        if preset is None:
            return self._nothing()
        return self.form.filled(preset.request) | {self.live.said: live.spoken(f"{preset.title} is in the form.")}

    def _use(self, act: str, key: str, owner: str, place: str) -> Updates:
        """One cell's settings: the numbers of its column beside what the form holds, or all of them."""
        found = self.desk.result(key, owner)
        request = guidance_result.request_of(found, place, alone=act == "restore-cell") if found else None
        if request is None:
            return self._nothing()
        if act == "restore-cell":
            return self.restored(request, "The settings of this picture are in the form")
        full = self.form.filled(request)
        own = {self.form.controls[name] for name in _numbers()}
        updates = {part: update for part, update in full.items() if part in own}
        return updates | {self.live.said: live.spoken("The numbers of this column are in the form.")}

    def _go_on(self, act: str, key: str, owner: str, values: Values) -> Updates:
        """The same run from where it stands: at once, or from the form, with twice the seeds."""
        snapshot = self.desk.snapshot(key, owner)
        if snapshot is None or snapshot.owner != LOCAL_OWNER:
            return self._nothing()
        request = {**snapshot.request, "resume": str(snapshot.folder.absolute())}
        if act == "go-on":
            return self._submit(request, values, confirmed=True)
        said = "Twice the seeds are in the form; press Compare, and finished pictures are taken over."
        return self._filled({**request, "seeds": 2 * request["seeds"]}, said, "seeds")

    def _submit(self, data: Mapping[str, Any], values: Values, *, confirmed: bool = False) -> Updates:
        owner, workbench = live.owner_of(values[self.live.me]) or new_owner(), self.desk.workbench
        hints = guidance_advice.hints(workbench, self.form.named(values), data)
        try:
            request = workbench.request(ENGINE, dict(data))
            if guidance_advice.is_large(request) and not confirmed:
                question = guidance_advice.confirmation(request, workbench.estimate(request, ENGINE))
                return self.form.written(hints) | {self.tab.confirm: question, self.tab.refused: dict(data)}
            job_id = workbench.submit(ENGINE, dict(data), owner)
        except StudioError as error:
            return self._problem(error) | {self.tab.refused: dict(data), self.tab.confirm: NOTHING}
        updates = self.form.written(hints) | {self.tab.confirm: NOTHING}
        return updates | live.show(self.desk, self.live, TAB, values[self.live.me], job_id, owner)

    def _problem(self, error: StudioError) -> Updates:
        """Sentences beside their fields; by the button what has no field here."""
        sentences = self.form.problems(error, ENGINE)
        if not any(self.form.place(name) for name in sentences):
            sentences = {"recipe": tag("p", str(error), cls="is-error")}
        return self.form.written(sentences) | self._unfolded(sentences) | {self.live.said: live.spoken(str(error))}

    def _unfolded(self, sentences: Mapping[str, Markup]) -> Updates:
        about = {name.partition(".")[0] for name in sentences}
        folds = {self.form.more: about - set(OUTSIDE), self.form.grid: about & set(OF_THE_GRID)}
        return {fold: gr.update(open=True) for fold, names in folds.items() if names}

    def _nothing(self) -> Updates:
        return {self.tab.cost: gr.skip()}


def wire(handlers: Guidances, page: gr.Blocks, own: gr.Tab) -> None:
    """Register the tab's listeners."""
    tab, form, shown = handlers.tab, handlers.form, handlers.live
    read = form.inputs | {shown.me, handlers.stage.key}
    answers = [*shown.outputs, *form.places(), form.more, form.grid, tab.refused, tab.confirm]
    tab.run.click(handlers.run, read, answers, **QUIET)
    tab.confirm.press(handlers.confirm, read, [*answers, tab.cost], **QUIET)
    results = [*answers, *form.controls.values(), *form.shown.values(), tab.cost]
    for place in (tab.presets, tab.stage):
        place.press(handlers.press, read, results, **QUIET)
    tab.upload.upload(handlers.upload, tab.upload, results, **QUIET)
    pickers = [form.controls[name] for name in ("model", "lora", "others")]
    own.select(handlers.list_files, None, pickers, **QUIET)
    page.load(handlers.advise, form.inputs | {tab.refused}, _advised(handlers), **QUIET)
    _wire_form(handlers)


def _wire_form(handlers: Guidances) -> None:
    tab, form = handlers.tab, handlers.form
    controls = form.controls
    kinds = [controls[name].change for name in ("guiders", "apart", *(f"axis.{axis}" for axis in AXES))]
    gr.on(kinds, handlers.adapt, form.inputs, [*controls.values(), *form.openable], trigger_mode="always_last", **QUIET)
    changes = [control.change for control in controls.values()]
    read = form.inputs | {tab.refused}
    gr.on(changes, handlers.advise, read, _advised(handlers), trigger_mode="always_last", **QUIET)
    form.dice.click(None, None, controls["seed"], js=f"() => Math.floor(Math.random() * {SEEDS})", **QUIET)


def _advised(handlers: Guidances) -> list[Any]:
    return [*handlers.form.places(), handlers.tab.cost, handlers.tab.confirm]


def _numbers() -> tuple[str, ...]:
    """The controls that a column's settings stand in, and the grid's, which would change them."""
    of_grid = [f"{part}.{axis}" for axis in AXES for part in ("axis", "values")]
    own = ("gamma", "w", "w1", "w2", "apart", "lora_scale", "low", "high", "every", "agreement", "rescale")
    return (*own, "eta", "norm", "momentum", "steps", *of_grid)
