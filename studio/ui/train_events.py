"""What happens on the Train tab when something is pressed, written or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.training import folder
from studio.training.preflight import OPTIMIZERS
from studio.ui import live, train_advice, train_result
from studio.ui.desk import Desk
from studio.ui.events import SEEDS, Illusions
from studio.ui.fields import written
from studio.ui.form import Updates, Values
from studio.ui.guidance_events import Guidances
from studio.ui.live import QUIET, Live
from studio.ui.markup import Markup, tag
from studio.ui.merge_events import PICTURES, Merges
from studio.ui.place import pressed
from studio.ui.tabs.train import TAB, TrainTab
from studio.ui.train_data import kind_of, options_of
from studio.ui.train_fields import ON_PAGE
from studio.ui.train_form import AT_HAND, ENGINE
from studio.ui.train_pictures_events import Pictures
from studio.ui.train_uses import in_guidance, in_illusions, in_merge
from studio.workbench import new_owner

OUTSIDE = (*AT_HAND, "restore", "recipe")
NO_FORM = "This was trained in a way that this form cannot hold; run it from the command line, with its request.json."


class Trainings:
    """The tab's handlers. Each takes what gradio hands over by component and returns what changes."""

    def __init__(self, desk: Desk, tab: TrainTab, shown: Live, others: tuple[Illusions, Merges, Guidances]) -> None:
        self.desk, self.tab, self.form, self.live = desk, tab, tab.form, shown
        self.illusions, self.merges, self.guidances = others
        self.stage, self.beside = shown.on(TAB), tab.pane.parts
        self.pictures = Pictures(desk, self.form.source, tab.pane, shown.me)

    def train(self, values: Values) -> Updates:
        """The pane is drawn anew: another page may have changed captions, which are trained as they are now."""
        return self._submit(self.form.request(values), values, as_shown=True) | self.pictures.worded(values)

    def adapt(self, values: Values) -> Updates:
        """Another method or kind: what it asks for is shown."""
        return self.form.opened(self.form.named(values))

    def choose_kind(self, values: Values) -> Updates:
        """A person chose a kind of adapter: its own options begin at their defaults, and its layers fit."""
        named = self.form.named(values)
        kind = kind_of(named)
        changed = options_of(kind)
        if named["targets"] not in kind.layers:
            changed["targets"] = kind.layers[0]
        return self.form.updates(changed)

    def choose_optimizer(self, rate: str, event: gr.SelectData) -> Any:
        """A person chose an optimiser: the learning rate follows where it is another's usual one, else it stays."""
        entry = OPTIMIZERS.get(str(event.value))
        if entry is None or _number(rate) not in {each.usual for each in OPTIMIZERS.values()}:
            return gr.skip()
        return written(entry.usual)

    def advise(self, values: Values) -> Updates:
        """The plan and notes for the recipe as it stands; errors of the last run go when it changes."""
        refused = values[self.tab.refused] == self.form.request(values)
        owner = live.owner_of(values[self.live.me]) or new_owner()
        found = train_advice.of(self.desk.workbench, self.form, values, owner, refused=refused)
        return self.form.written(found.notes) | {self.tab.cost: found.plan}

    def list_models(self) -> Any:
        """The models folder may have grown since the page was opened."""
        return gr.update(choices=[(model.title, model.name) for model in self.desk.workbench.models()])

    def press(self, values: Values, event: gr.EventData) -> Updates:
        """A button on the stage or among the presets."""
        data = pressed(event)
        act = data.get("act")
        if act == "preset":
            return self._preset(data.get("slug", ""), values)
        owner, key = live.owner_of(values[self.live.me]), values[self.stage.key] or ""
        request = self.desk.request(key, owner)
        if request is None:
            return self._nothing()
        if act == "restore":
            return self.restored(request, "The settings are in the form", owner=owner)
        if act in ("resume", "go-on"):
            return self._go_on(act, key, owner, values)
        if act in {name for name, *_ in train_result.USES}:
            return self._use(act, key, owner, data.get("slot", ""), values)
        return self._nothing()

    def upload(self, path: str | None, me: object) -> Updates:
        """A chosen LoRA or sample: its recipe goes into the form, or one sentence says why not."""
        if not path:
            return self._nothing()
        owner = live.owner_of(me)
        try:
            if Path(path).suffix.lower() in PICTURES:
                recipe = self.desk.workbench.restore(Path(path))
            else:
                recipe = self.desk.workbench.restore_training(Path(path))
        except StudioError as error:
            return self._problem(StudioError(str(error), field="restore"))
        if recipe["engine"] != ENGINE:
            return self._problem(StudioError("This was made on another tab; drop it there.", field="restore"))
        return self.restored(recipe["request"], f"The recipe of {Path(path).name} is in the form", owner=owner)

    def restored(self, request: Mapping[str, Any], said: str, engine: str = ENGINE, owner: str = "") -> Updates:
        """A result's or a file's settings in the form, and the captions that ``owner`` edited for it, to begin anew."""
        if request.get("method", ON_PAGE[0]) not in ON_PAGE:
            return self._problem(StudioError(NO_FORM, field="restore"))
        pane, wrong = self._taken_up(request, owner)
        said = f"{said}, but its pictures are not as they were: {wrong}" if wrong else said
        note = tag("p", f"{said.rstrip('.')}.", cls="is-done")
        updates = self.form.filled({**request, "resume": ""}) | self.form.written({"restore": note}) | pane
        return updates | {self.live.said: live.spoken(f"{said.rstrip('.')}.")}

    def _taken_up(self, request: Mapping[str, Any], owner: str) -> tuple[Updates, str]:
        """The pane with the captions of ``request``, or why there are none: the pictures are gone, or another's."""
        try:
            return self.pictures.taken_up(request, owner), ""
        except StudioError as error:
            return {}, str(error)

    def _preset(self, slug: str, values: Values) -> Updates:
        preset = next((each for each in self.desk.workbench.presets(ENGINE) if each.slug == slug), None)
        if preset is None:
            return self._nothing()
        return self.form.filled(preset.request) | {self.live.said: live.spoken(f"{preset.title} is in the form.")}

    def _go_on(self, act: str, key: str, owner: str, values: Values) -> Updates:
        """The same run from where it stands: at once, or from the form, with more steps."""
        snapshot = self.desk.snapshot(key, owner)
        done = folder.reached(snapshot.folder) if snapshot else None
        if snapshot is None or done is None:
            return self._nothing()
        request = {**snapshot.request, "resume": str(snapshot.folder.absolute())}
        if request["method"] not in ON_PAGE:
            return self._submit(request, values) if act == "resume" else self.restored(request, "", owner=owner)
        pane, _ = self._taken_up(request, owner)  # only with the captions of then it can go on
        if act == "resume":
            # The form is for the next run, which is to begin anew.
            return pane | self.form.filled({**request, "resume": ""}) | self._submit(request, values)
        steps = request["steps"] if request["epochs"] is None and request["steps"] > done else 2 * done
        said = "The settings are in the form: say how many steps it shall have in all, then press Train"
        note = tag("p", f"{said}.", cls="is-done")
        updates = self.form.filled({**request, "steps": steps, "epochs": None, "patience": 0})
        return updates | self.form.written({"steps": note}) | pane | {self.live.said: live.spoken(f"{said}.")}

    def _use(self, act: str, key: str, owner: str, slot: str, values: Values) -> Updates:
        """What was learned, on another tab."""
        found = self.desk.result(key, owner)
        path = train_result.place(found, slot) if found else None
        if found is None or path is None:
            return self._nothing()
        uses = {
            "use-illusions": (in_illusions, self.illusions.form),
            "use-merge": (in_merge, self.merges.form),
            "use-guidance": (in_guidance, self.guidances.form),
        }
        use, form = uses[act]
        updates, said = use(form, values, found.request, path.absolute())
        return updates | {self.live.said: live.spoken(said)}

    def _submit(self, data: Mapping[str, Any], values: Values, *, as_shown: bool = False) -> Updates:
        """``as_shown``: with the captions as this page shows them, and not those that ``data`` names."""
        owner, workbench = live.owner_of(values[self.live.me]) or new_owner(), self.desk.workbench
        try:
            edits = self.pictures.edits_of(str(data["data"]), owner) if as_shown else data.get("edits", "")
            asked = {**data, "edits": edits}
            workbench.training(asked, owner)
            job_id = workbench.submit(ENGINE, asked, owner)
        except StudioError as error:
            return self._problem(error) | {self.tab.refused: dict(data)}
        return self.form.written({}) | live.show(self.desk, self.live, TAB, values[self.live.me], job_id, owner)

    def _problem(self, error: StudioError) -> Updates:
        """Sentences beside their fields; by the button what has no field here."""
        sentences = self.form.problems(error, ENGINE)
        if not any(self.form.place(name) for name in sentences):
            sentences = {"recipe": tag("p", str(error), cls="is-error")}
        return self.form.written(sentences) | self._unfolded(sentences) | {self.live.said: live.spoken(str(error))}

    def _unfolded(self, sentences: Mapping[str, Markup]) -> Updates:
        under = {name.partition(".")[0] for name in sentences} - set(OUTSIDE)
        return {self.form.more: gr.update(open=True)} if under else {}

    def _nothing(self) -> Updates:
        return {self.tab.cost: gr.skip()}


def wire(handlers: Trainings, page: gr.Blocks, own: gr.Tab) -> None:
    """Register the tab's listeners."""
    tab, form, shown = handlers.tab, handlers.form, handlers.live
    others = handlers.illusions.form.inputs | handlers.merges.form.inputs | handlers.guidances.form.inputs
    read = form.inputs | others | {shown.me, handlers.stage.key}
    answers = [*shown.outputs, *form.places(), form.more, tab.refused]
    pressing = form.inputs | {shown.me, handlers.stage.key, tab.pane.view}
    tab.train.click(handlers.train, pressing, [*answers, *handlers.beside], **QUIET)
    own_parts = [*form.controls.values(), *(part for part in form.openable if part is not form.more), tab.cost]
    results = [*answers, *own_parts, *handlers.beside, *_of_others(handlers)]
    for place in (tab.presets, tab.stage):
        place.press(handlers.press, read, results, **QUIET)
    tab.upload.upload(handlers.upload, [tab.upload, shown.me], results, **QUIET)
    own.select(handlers.list_models, None, form.controls["model"], **QUIET)
    page.load(handlers.advise, form.inputs | {tab.refused, shown.me}, [*form.places(), tab.cost], **QUIET)
    _wire_form(handlers)


def _wire_form(handlers: Trainings) -> None:
    tab, form = handlers.tab, handlers.form
    controls = form.controls
    kinds = [controls[name].change for name in ("method", "adapter", "text_encoder", "shuffle_tags")]
    gr.on(kinds, handlers.adapt, form.inputs, [*controls.values(), *form.openable], trigger_mode="always_last", **QUIET)
    options = [control for name, control in controls.items() if name.startswith("options.")]
    controls["adapter"].input(handlers.choose_kind, form.inputs, [controls["targets"], *options], **QUIET)
    rate = controls["learning_rate"]
    controls["optimizer"].select(handlers.choose_optimizer, rate, rate, **QUIET)
    changes = [control.change for control in controls.values()]
    read = form.inputs | {tab.refused, handlers.live.me}
    gr.on(changes, handlers.advise, read, [*form.places(), tab.cost], trigger_mode="always_last", **QUIET)
    form.dice.click(None, None, controls["seed"], js=f"() => Math.floor(Math.random() * {SEEDS})", **QUIET)


def _of_others(handlers: Trainings) -> list[Any]:
    """What a use in another tab writes there."""
    forms = (handlers.illusions.form, handlers.merges.form, handlers.guidances.form)
    return [part for form in forms for part in (*form.controls.values(), *form.openable, *form.places())]


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
