"""The page: top bar, six tabs, and how it is served."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.illusions.request import IllusionRequest
from studio.requests import parse
from studio.ui import (
    api,
    events,
    guard,
    guidance_events,
    live,
    merge_events,
    theme,
    train_events,
    train_pictures_events,
)
from studio.ui.desk import ENGINE, Desk
from studio.ui.examples import Examples
from studio.ui.files import Files
from studio.ui.form import Form
from studio.ui.guidance_form import GuidanceForm
from studio.ui.illusion_form import IllusionForm
from studio.ui.keeping import keep
from studio.ui.live import QUIET, STORAGE_SECRET, Live
from studio.ui.markup import MARK, NOTHING, Markup, icon, joined, tag
from studio.ui.merge_form import MergeForm
from studio.ui.place import place, pressable
from studio.ui.tabs import guidance, history, illusion, merge, score, train
from studio.ui.train_form import TrainForm

if TYPE_CHECKING:
    from studio.workbench import Workbench

TABS = ("merge", "train", "illusions", "guidance", "score", "history")
FIRST_TAB = illusion.TAB
SHOW_TAB_IN_ADDRESS = """() => {
  const chosen = document.querySelector("#tabs [role=tab][aria-selected=true]");
  const address = new URL(location.href);
  if (chosen) address.searchParams.set("tab", chosen.textContent.trim().toLowerCase());
  history.replaceState(null, "", address);
  return [];
}"""
FORGET_UPLOADS = 3600  # seconds; a recipe is read from an upload at once, nothing needs it later


class Page(gr.Blocks):
    """The page's blocks, with the addresses of finished files that its markup refers to."""

    def __init__(self, files: Files) -> None:
        super().__init__(
            title="Duckrabbit",
            analytics_enabled=False,
            fill_width=True,
            delete_cache=(FORGET_UPLOADS, FORGET_UPLOADS),
        )
        self.files = files


@dataclass(frozen=True)
class Forms:
    """The form of each tab that makes something."""

    illusion: IllusionForm
    merge: MergeForm
    train: TrainForm
    guidance: GuidanceForm


@dataclass(frozen=True)
class TopBar:
    model: gr.Dropdown
    chip: gr.HTML
    pill: gr.HTML


@dataclass(frozen=True)
class Drawn:
    """What the tabs hold that events speak to."""

    merge: merge.MergeTab
    merge_tab: gr.Tab
    train: train.TrainTab
    train_tab: gr.Tab
    illusion: illusion.IllusionTab
    guidance: guidance.GuidanceTab
    guidance_tab: gr.Tab
    history: history.HistoryTab
    history_tab: gr.Tab


def build(workbench: Workbench) -> Page:
    """The whole page over ``workbench``; give it to ``launch``."""
    presets = workbench.presets(ENGINE)
    shipped = workbench.settings.assets / "examples"
    found = Examples(shipped / ENGINE, {p.slug: p.request for p in presets})
    found.add(shipped / train.ENGINE, {p.slug: p.request for p in workbench.presets(train.ENGINE)}, train.ENGINE)
    desk = Desk(workbench, found, Files(workbench, found))
    forms = Forms(IllusionForm(), MergeForm(), TrainForm(), GuidanceForm())
    request = _first_request(desk)
    with Page(desk.files) as page:
        me = gr.BrowserState({}, storage_key="duckrabbit.me", secret=STORAGE_SECRET)
        kept = {name: _kept(name) for name in ("illusion", "merge", "train", "guidance")}
        seen, timer = gr.State({}), gr.Timer(live.POLL, active=False)
        bar = _top_bar(desk, forms.illusion, request)
        said = place(live.spoken(""), elem_id="said", elem_classes="unseen")
        with gr.Tabs(selected=FIRST_TAB, overflow_behavior="wrap", elem_id="tabs") as tabs:
            drawn = _tabs(desk, forms, request)
        stages = (
            _stage(illusion.TAB, drawn.illusion.stage, drawn.illusion.stop, forms.illusion),
            _stage(merge.TAB, drawn.merge.stage, drawn.merge.stop, forms.merge),
            _stage(train.TAB, drawn.train.stage, drawn.train.stop, forms.train),
            _stage(guidance.TAB, drawn.guidance.stage, drawn.guidance.stop, forms.guidance),
        )
        shown = Live(me, seen, timer, said, bar.pill, drawn.history.queue, stages)
        others = (
            events.Illusions(desk, drawn.illusion, shown),
            merge_events.Merges(desk, drawn.merge, shown),
            guidance_events.Guidances(desk, drawn.guidance, shown),
        )
        makers = (*others[:2], train_events.Trainings(desk, drawn.train, shown, others), others[2])
        _wire(page, makers, drawn, tabs, kept)
        chip = partial(model_chip, workbench)
        for known in (page.load, bar.model.change, said.change):
            known(chip, bar.model, bar.chip, **QUIET)
        api.build(desk)
    return page


def launch(page: Page, workbench: Workbench, **options: Any) -> tuple[Any, str, str]:
    """Serve the page as the settings say; ``options`` go to gradio's launch and win."""
    settings = workbench.settings
    arguments: dict[str, Any] = {
        "server_name": settings.host,
        "server_port": settings.port,
        "share": settings.share,
        "auth": list(settings.auth) or None,
        "inbrowser": settings.open_browser,
        "max_threads": 200,
        "show_error": False,
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "max_file_size": workbench.limits.max_file_bytes,
        "allowed_paths": [],
        "state_session_capacity": 500,
        "footer_links": [],  # light and dark stand in the top bar
        "favicon_path": theme.FAVICON,
        "theme": theme.theme(),
        "css_paths": list(theme.STYLES),
        "head": theme.head(),
        "app_kwargs": {
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
            "routes": page.files.routes(),
            "middleware": guard.middleware(settings),
        },
    }
    # Jobs are put in line by the studio's own runner; gradio's queue only carries the public calls.
    page.queue(max_size=64, default_concurrency_limit=None)
    return page.launch(**arguments | options)


def _first_request(desk: Desk) -> IllusionRequest:
    """What the form holds on a first visit: the settings of the first example or preset, else the defaults."""
    found = [example.request for example in desk.examples.of(ENGINE)]
    found += [preset.request for preset in desk.workbench.presets(ENGINE)]
    return parse(IllusionRequest, dict(found[0])) if found else IllusionRequest()


def _top_bar(desk: Desk, form: IllusionForm, request: IllusionRequest) -> TopBar:
    workbench = desk.workbench
    choices = [(model.title, model.name) for model in workbench.models()]
    with gr.Row(elem_id="topbar"):
        place(tag("div", MARK, tag("h1", "Duckrabbit"), cls="brand"), elem_id="brand")
        with gr.Row(elem_id="model"):
            model = gr.Dropdown(
                choices,
                value=request.model,
                label="Model",
                show_label=False,
                allow_custom_value=True,  # what may be named says the policy, with a sentence beside the field
                elem_classes="model-picker",
                elem_id="model-picker",
            )
            chip = place(model_chip(workbench, request.model), elem_id="model-chip")
            form.note("model")
        pill = pressable(elem_id="pill")
        toggle = {"type": "button", "cls": "btn is-quiet", "data_look": True, "aria_label": "Light or dark"}
        veil = tag(
            "div",
            tag("span", "Drop the file to restore its settings", cls="for-settings"),
            tag("span", "Drop pictures, captions or a .zip", cls="for-pictures"),
            id="drop-veil",
        )
        place(joined(tag("button", icon("look"), **toggle), veil), elem_id="look")
    form.add("model", model)
    return TopBar(model, chip, pill)


def _kept(name: str) -> gr.BrowserState:
    """What the browser keeps of a tab's form."""
    return gr.BrowserState({}, storage_key=f"duckrabbit.{name}", secret=STORAGE_SECRET)


def _stage(tab: str, place: gr.HTML, stop: gr.Button, form: Form) -> live.Stage:
    return live.Stage(tab, gr.State(""), gr.State({}), place, stop, form)


def _tabs(desk: Desk, forms: Forms, request: IllusionRequest) -> Drawn:
    with gr.Tab("Merge", id=merge.TAB) as merge_tab:
        merged = merge.draw(desk, forms.merge)
    with gr.Tab("Train", id=train.TAB) as train_tab:
        trained = train.draw(desk, forms.train)
    with gr.Tab("Illusions", id=illusion.TAB):
        drawn = illusion.draw(desk, forms.illusion, request, desk.workbench.limits)
    with gr.Tab("Guidance", id=guidance.TAB) as guidance_tab:
        guided = guidance.draw(desk, forms.guidance)
    with gr.Tab("Score", id="score"):
        score.draw()
    with gr.Tab("History", id="history") as tab:
        listed = history.draw()
    return Drawn(merged, merge_tab, trained, train_tab, drawn, guided, guidance_tab, listed, tab)


def _wire(
    page: Page,
    makers: tuple[events.Illusions, merge_events.Merges, train_events.Trainings, guidance_events.Guidances],
    drawn: Drawn,
    tabs: gr.Tabs,
    kept: Mapping[str, gr.BrowserState],
) -> None:
    """Everything that is not one tab's own: opening, following, stopping, the history's buttons, the address."""
    illusions, merges, trainings, guidances = makers
    desk, shown = illusions.desk, illusions.live
    page.load(partial(live.attach, desk, shown), shown.me, shown.outputs, **QUIET)
    keep(page, illusions.form, kept["illusion"])
    keep(page, merges.form, kept["merge"])
    keep(page, trainings.form, kept["train"])
    keep(page, guidances.form, kept["guidance"])
    events.wire(illusions)
    merge_events.wire(merges, page, drawn.merge_tab)
    train_pictures_events.wire(trainings.pictures, page, drawn.train_tab)
    train_events.wire(trainings, page, drawn.train_tab)
    guidance_events.wire(guidances, page, drawn.guidance_tab)
    shown.timer.tick(partial(live.tick, desk, shown), shown.followed, shown.pulled, trigger_mode="once", **QUIET)
    news = [shown.me, shown.said, *shown.keys]
    after = [shown.timer, *(part for stage in shown.stages for part in (stage.stop, *stage.form.places()))]
    shown.said.change(partial(live.settle, desk, shown), news, after, trigger_mode="always_last", **QUIET)
    for stage in shown.stages:
        stage.stop.click(_stopping(desk, shown, stage.tab), [shown.me, *shown.keys], shown.outputs, **QUIET)
    history.wire(drawn.history, desk, shown, makers, drawn.history_tab)
    tabs.select(None, None, None, js=SHOW_TAB_IN_ADDRESS, **QUIET)


def _stopping(desk: Desk, shown: Live, tab: str) -> Any:
    def stop(me: object, *keys: str) -> Any:
        return live.stop(desk, shown, me, keys, tab=tab)

    return stop


def model_chip(workbench: Workbench, name: str) -> Markup:
    """The model's family, its device and what loaded models fill, as far as that is known without loading anything."""
    choice = next((choice for choice in workbench.models() if choice.name == name), None)
    parts = [choice.family if choice else "", device_name(workbench.settings.device), workbench.memory()]
    text = " · ".join(filter(None, parts))
    return tag("span", text, cls="device", title=choice.about if choice else None) if text else NOTHING


def device_name(asked: str) -> str:
    """The device in words. What "auto" means is known once a job has imported torch; until then nothing is said."""
    if asked == "auto" and "torch" in sys.modules:
        from studio.devices import pick_device

        asked = str(pick_device("auto"))
    return "" if asked == "auto" else {"cpu": "CPU", "cuda": "GPU", "mps": "Apple GPU"}.get(asked, asked.upper())
