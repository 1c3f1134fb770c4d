"""What happens on the Merge tab when something is pressed, written or dropped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import RecipeError, StudioError
from studio.merging.request import MergeRequest
from studio.merging.trials_request import at_alpha
from studio.requests import parse
from studio.ui import live, merge_advice, merge_showing
from studio.ui.desk import Desk
from studio.ui.events import SEEDS
from studio.ui.fields import listed
from studio.ui.form import Updates, Values
from studio.ui.live import QUIET, Live
from studio.ui.markup import Markup, tag
from studio.ui.merge_data import PARTS
from studio.ui.merge_form import ENGINE, SEARCH, STRIP
from studio.ui.place import pressed
from studio.ui.tabs.merge import TAB, MergeTab
from studio.workbench import new_owner

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
UNDER_MORE = ("curve", "blocks", "rules", "rank", "conv_rank", "names", "steps", "guidance_scale", "picture_seed")
UNDER_MORE += ("negative_prompt", "scorer", "title", "precision", "seed", "target", "overwrite", "accept_nonfinite")
UNDER_MORE += ("verify", "check_sources", "path", "parts")
IN_SEARCH = ("over", "strategy", "trials", "seeds", "low", "high", "search")


class Merges:
    """The tab's handlers. Each takes what gradio hands over by component and returns what changes."""

    def __init__(self, desk: Desk, tab: MergeTab, shown: Live) -> None:
        self.desk, self.tab, self.form, self.live = desk, tab, tab.form, shown
        self.stage, self.beside = shown.on(TAB), ()

    def preview(self, values: Values) -> Updates:
        return self._submit(STRIP, self.form.asked(STRIP, values), values)

    def save(self, values: Values) -> Updates:
        return self._submit(ENGINE, self.form.request(values), values)

    def search(self, values: Values) -> Updates:
        return self._submit(SEARCH, self.form.asked(SEARCH, values), values)

    def adapt(self, values: Values) -> Updates:
        """Another task or method: what it asks for is shown."""
        return self.form.opened(self.form.named(values))

    def advise(self, values: Values) -> Updates:
        """The fit line, the cost and notes for the recipe as it stands; errors of the last run go when it changes."""
        refused = values[self.tab.refused] == self.form.request(values)
        found = merge_advice.of(self.desk.workbench, self.form, values, refused=refused)
        updates = self.form.written(found.notes)
        if found.parts:
            named = self.form.named(values)
            there = {part: gr.update(visible=merge_showing.is_shown(part, named, found.parts)) for part in PARTS}
            updates |= {self.form.shown[f"parts.{part}"]: update for part, update in there.items()}
        return updates | {self.tab.fit: found.fit, self.tab.cost: found.cost, self.form.mixer: found.mixer}

    def own_blocks(self, blocks: str, curve: str) -> Any:
        """Blocks with alphas of their own know no curve."""
        return "flat" if (blocks or "").strip() and curve != "flat" else gr.skip()

    def list_models(self) -> Updates:
        """The models folder may have grown since the page was opened."""
        workbench, controls = self.desk.workbench, self.form.controls
        models = [(model.title, model.name) for model in workbench.models()]
        updates: Updates = {controls[f"models.{index}"]: gr.update(choices=models) for index in (0, 1)}
        updates |= {controls["models.2"]: gr.update(choices=[("None", ""), *models])}
        updates |= {controls["further"]: gr.update(choices=models)}
        return updates | {controls["adapters"]: gr.update(choices=workbench.loras())}

    def press(self, values: Values, event: gr.EventData) -> Updates:
        """A button on the stage or among the presets."""
        data = pressed(event)
        act = data.get("act")
        if act == "preset":
            return self._preset(data.get("slug", ""))
        owner, key = live.owner_of(values[self.live.me]), values[self.stage.key] or ""
        request, engine = self.desk.request(key, owner), self.desk.engine(key, owner)
        if request is None:
            return self._nothing()
        if act == "restore":
            return self.restored(request, "The settings are in the form", engine)
        if act == "save-anyway" and engine == ENGINE:
            return self._submit(ENGINE, {**request, "accept_nonfinite": True}, values)
        if act in ("use-alpha", "save-this") and engine == STRIP:
            return self._at(act, request["merge"], _number(data.get("alpha")), values)
        if act == "use-trial" and engine == SEARCH:
            return self._use_trial(key, owner, request, data.get("trial", ""))
        return self._nothing()

    def upload(self, path: str | None) -> Updates:
        """A dropped or chosen file: its recipe goes into the form, or one sentence says why not."""
        if not path:
            return self._nothing()
        try:
            if Path(path).suffix.lower() in PICTURES:
                recipe = self.desk.workbench.restore(Path(path))
            else:
                recipe = self.desk.workbench.restore_merge(Path(path), uploaded=True)
        except StudioError as error:
            return self._problem(StudioError(str(error), field="restore"))
        return self._recipe(recipe, Path(path).name)

    def read_path(self, text: str) -> Updates:
        """A path that was typed: only the person at this machine may name one."""
        if not (text or "").strip():
            return self._nothing()
        try:
            if self.desk.workbench.limits.listed_models_only:
                raise RecipeError("Paths of this machine cannot be named here; drop the file instead.")
            path = Path(text.strip()).expanduser()
            return self._recipe(self.desk.workbench.restore_merge(path), path.name)
        except StudioError as error:
            return self._problem(StudioError(str(error), field="path"))

    def restored(self, request: Mapping[str, Any], said: str, engine: str = ENGINE, owner: str = "") -> Updates:
        """A result's or a file's settings in the form."""
        note = tag("p", f"{said}.", cls="is-done")
        updates = self.form.filled(request, engine) | self.form.written({"restore": note})
        return updates | {self.live.said: live.spoken(f"{said}.")}

    def _recipe(self, recipe: Mapping[str, Any], name: str) -> Updates:
        if recipe["engine"] not in (ENGINE, STRIP, SEARCH):
            return self._problem(StudioError("This was made on another tab; drop it there.", field="restore"))
        checked = len(recipe["request"].get("verify") or ())
        said = f"The recipe of {name} is in the form"
        said += "; Save makes it again, once the sources' SHA-256 were checked" if checked else ""
        return self.restored(recipe["request"], said, recipe["engine"])

    def _preset(self, slug: str) -> Updates:
        preset = next((each for each in self.desk.workbench.presets(ENGINE) if each.slug == slug), None)
        if preset is None:
            return self._nothing()
        return self.form.filled(preset.request) | {self.live.said: live.spoken(f"{preset.title} is in the form.")}

    def _at(self, act: str, merge: Mapping[str, Any], alpha: float | None, values: Values) -> Updates:
        """The merge of a preview at one of the alphas that it drew: into the form, or to the disk."""
        try:
            chosen = at_alpha(parse(MergeRequest, dict(merge)), alpha).model_dump(mode="json")
        except StudioError as error:
            return self._problem(error)
        if act == "save-this":
            kept = self.form.request(values)
            chosen |= {name: kept[name] for name in ("target", "overwrite", "title", "precision")}
            return self._submit(ENGINE, chosen, values)
        named = {"alpha": chosen["alpha"], "weights": listed(chosen["weights"])}
        return self.form.updates(named) | {self.live.said: live.spoken("It is in the form.")}

    def _use_trial(self, key: str, owner: str, request: Mapping[str, Any], place: str) -> Updates:
        """A search's finding in the form, ready to be seen and saved."""
        found = self.desk.result(key, owner)
        trials = found.summary.get("trials") or () if found else ()
        if not place.isdecimal() or int(place) >= len(trials):
            return self._nothing()
        trial = trials[int(place)]
        merge = dict(request["merge"])
        if merge.get("task") == "bake":
            merge = at_alpha(parse(MergeRequest, merge), trial.get("alpha")).model_dump(mode="json")
        elif trial.get("blocks"):
            merge |= {"blocks": trial["blocks"], "curve": "flat"}
        else:
            merge |= {"alpha": trial.get("alpha", merge.get("alpha"))}
        return self.restored({**request, "merge": merge}, "What was found is in the form", SEARCH)

    def _submit(self, engine: str, data: Mapping[str, Any], values: Values) -> Updates:
        owner, workbench = live.owner_of(values[self.live.me]) or new_owner(), self.desk.workbench
        try:
            if engine == ENGINE:
                workbench.outlook(dict(data))
            job_id = workbench.submit(engine, dict(data), owner)
        except StudioError as error:
            return self._problem(error, engine) | {self.tab.refused: self.form.request(values)}
        return self.form.written({}) | live.show(self.desk, self.live, TAB, values[self.live.me], job_id, owner)

    def _problem(self, error: StudioError, engine: str = ENGINE) -> Updates:
        """Sentences beside their fields; by the button what has no field here."""
        sentences = self.form.problems(error, engine)
        if not any(self.form.place(name) for name in sentences):
            sentences = {"recipe": tag("p", str(error), cls="is-error")}
        return self.form.written(sentences) | self._unfolded(sentences) | {self.live.said: live.spoken(str(error))}

    def _unfolded(self, sentences: Mapping[str, Markup]) -> Updates:
        about = {name.partition(".")[0] for name in sentences}
        folds = ((self.form.more, UNDER_MORE), (self.form.searching, IN_SEARCH))
        return {fold: gr.update(open=True) for fold, names in folds if about & set(names)}

    def _nothing(self) -> Updates:
        return {self.tab.cost: gr.skip()}


def wire(handlers: Merges, page: gr.Blocks, own: gr.Tab) -> None:
    """Register the tab's listeners."""
    tab, form, shown = handlers.tab, handlers.form, handlers.live
    read = form.inputs | {shown.me, handlers.stage.key}
    answers = [*shown.outputs, *form.places(), form.more, form.searching, tab.refused]
    for button, act in (
        (tab.preview, handlers.preview),
        (tab.save, handlers.save),
        (form.search_button, handlers.search),
    ):
        button.click(act, read, answers, **QUIET)
    results = [*answers, *form.controls.values(), *_others(form.openable, answers), tab.cost]
    for place in (tab.presets, tab.stage):
        place.press(handlers.press, read, results, **QUIET)
    tab.upload.upload(handlers.upload, tab.upload, results, **QUIET)
    gr.on([form.path.submit, form.path.blur], handlers.read_path, form.path, results, **QUIET)
    own.select(handlers.list_models, None, _pickers(handlers), **QUIET)
    page.load(handlers.advise, form.inputs | {tab.refused}, _advised(handlers), **QUIET)
    _wire_form(handlers)


def _wire_form(handlers: Merges) -> None:
    tab, form = handlers.tab, handlers.form
    controls = form.controls
    kinds = [controls["task"].change, controls["method"].change, controls["join"].change, controls["verify"].change]
    gr.on(kinds, handlers.adapt, form.inputs, [*controls.values(), *form.openable], trigger_mode="always_last", **QUIET)
    changes = [control.change for control in controls.values()]
    read = form.inputs | {tab.refused}
    gr.on(changes, handlers.advise, read, _advised(handlers), trigger_mode="always_last", **QUIET)
    curve = [controls["blocks"], controls["curve"]]
    controls["blocks"].change(handlers.own_blocks, curve, controls["curve"], **QUIET)
    form.dice.click(None, None, controls["picture_seed"], js=f"() => Math.floor(Math.random() * {SEEDS})", **QUIET)


def _advised(handlers: Merges) -> list[Any]:
    form, tab = handlers.form, handlers.tab
    parts = [form.shown[f"parts.{part}"] for part in PARTS]
    return [*form.places(), tab.fit, tab.cost, form.mixer, *parts]


def _pickers(handlers: Merges) -> list[Any]:
    names = ("models.0", "models.1", "models.2", "further", "adapters")
    return [handlers.form.controls[name] for name in names]


def _others(parts: list[Any], there: list[Any]) -> list[Any]:
    """Each output stands once."""
    return [part for part in parts if all(part is not each for each in there)]


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
