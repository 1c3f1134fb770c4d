"""The controls of a comparison of guidance: few at hand, the others under More, the grid in a fold of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.guidance.guiders import GUIDERS
from studio.guidance.request import GuidanceRequest
from studio.guidance.settings import Settings
from studio.ui.fields import check, choice, group, number, slider, text
from studio.ui.guidance_data import AXES, SWEPT, written
from studio.ui.guidance_form import GuidanceForm
from studio.ui.guidance_showing import TITLES, explained
from studio.ui.place import place

if TYPE_CHECKING:
    from studio.ui.desk import Desk

KNOWN_GUIDERS = [(entry.title, name) for name, entry in GUIDERS.items()]
SCHEDULERS = (("DDIM", "ddim"), ("Euler", "euler"), ("DPM-Solver++ 2M", "dpm++2m"))
EXAMPLES = ("such as 1.5, 1.75, 2", "such as 0.6, 1, 1.3")
Named = Mapping[str, Any]


def told(name: str) -> str:
    """One sentence of help: the field's description."""
    return Settings.model_fields[name].description or ""


def build(form: GuidanceForm, desk: Desk, first: Named) -> None:
    """Draw the form with a comparison's data ``first`` in it."""
    named, free = written(first), not desk.workbench.limits.listed_models_only
    models = [(model.title, model.name) for model in desk.workbench.models()]
    loras = desk.workbench.loras()
    with gr.Column(elem_classes="model-rows"):
        _picker(form, "model", "Model", models, named, elem_id="guidance-model")
        _picker(form, "lora", "LoRA", loras, named, elem_id="guidance-lora")
        form.notes["adapters"] = form.notes["lora"]
    text(form, "prompts", "Draw", named["prompts"], "One prompt a line.", lines=2, elem_id="guidance-prompts",
         elem_classes="prompt")  # fmt: skip
    _guiders(form, named)
    _essentials(form, named)
    with gr.Accordion("Grid over settings", open=False, elem_classes="fold", elem_id="guidance-grid") as fold:
        form.grid = fold
        _grid(form, named)
    with gr.Accordion("More", open=False, elem_classes="fold", elem_id="guidance-more") as form.more:
        _own_settings(form, named)
        _drawing(form, named)
        _loras(form, named, loras)
        _measuring(form, named)
        with _shown(form, "resume", visible=free), group("Go on"):
            info = "Folder of an earlier run whose pictures are taken over."
            text(form, "resume", "Go on from", named["resume"], info, elem_id="guidance-resume")
    form.add("names", gr.Textbox(named["names"], label="Names of the LoRAs", visible=False))


@contextmanager
def _shown(form: GuidanceForm, name: str, **more: Any) -> Iterator[None]:
    """A column that is shown where it is asked for."""
    with gr.Column(**more) as column:
        yield
    form.shown[name] = column


def _picker(form: GuidanceForm, name: str, label: str, choices: Any, named: Named, **more: Any) -> None:
    with gr.Column(elem_classes="field"):
        value = named[name] or None
        form.add(name, gr.Dropdown(choices, value=value, label=label, allow_custom_value=True, **more))
        form.note(name)


def _guiders(form: GuidanceForm, named: Named) -> None:
    with gr.Column(elem_classes="field"):
        info = "Columns, in the order in which they are ticked."
        boxes = gr.CheckboxGroup(
            KNOWN_GUIDERS, value=named["guiders"], label="Guidance to compare", info=info, elem_classes="guiders"
        )
        form.add("guiders", boxes)
        form.note("guiders")
        place(explained())


def _essentials(form: GuidanceForm, named: Named) -> None:
    with gr.Row(elem_classes="sliders"):
        _slide(form, named, "gamma", "Beyond the LoRA", -2, 6, "gamma: 0 the base, 1 the LoRA.", elem_id="gamma")
        with _shown(form, "w"):
            info = "w1 and w2, the CFG scale."
            _slide(form, named, "w", "How strongly prompts count", 0, 30, info, elem_id="w", step=0.1)
    with _shown(form, "own-w"), gr.Row(elem_classes="sliders"):
        _slide(form, named, "w1", "Guidance of the base", 0, 30, "w1", step=0.1)
        _slide(form, named, "w2", "Guidance with the LoRA", 0, 30, "w2", step=0.1)
    with gr.Row(elem_classes="sliders"):
        _slide(form, named, "lora_scale", "LoRA scale", -4, 4, "Times each LoRA's own.", elem_id="lora-scale")
        number(form, "seeds", "Seeds", named["seeds"], "The same in every column.", elem_id="seeds")


def _slide(
    form: GuidanceForm, named: Named, name: str, label: str, least: float, most: float, info: str, *,
    step: float = 0.05, **more: Any,
) -> None:  # fmt: skip
    slider(form, name, label, least, most, named[name], info, step=step, **more)


def _grid(form: GuidanceForm, named: Named) -> None:
    place('<p class="hint">Every guider is drawn at every value that it heeds; two settings make all pairs.</p>')
    axes = [("None", ""), *((TITLES[name], name) for name in SWEPT)]
    for axis in AXES:
        ordinal = ("First", "Second")[axis]
        with _shown(form, f"axis.{axis}"):
            label = f"{ordinal} setting"
            choice(form, f"axis.{axis}", label, axes, named[f"axis.{axis}"], None, elem_id=f"axis-{axis}")
            with _shown(form, f"values.{axis}"):
                info = f"Numbers between commas, {EXAMPLES[axis]}."
                label = f"{ordinal} setting's values"
                text(form, f"values.{axis}", label, named[f"values.{axis}"], info, elem_id=f"values-{axis}")
    form.note("sweep")


def _own_settings(form: GuidanceForm, named: Named) -> None:
    """What single guiders heed; each stands here only where one of those was chosen."""
    with group("Guidance"):
        with _shown(form, "apart"):
            info = "Guidance of the base model and with the LoRA, each with a slider."
            check(form, "apart", "w1 and w2 apart", named["apart"], info)
        with _shown(form, "interval"):
            text(form, "low", "Interval: from sigma", named["low"], f"{told('low')} Empty: to the end.")
            text(form, "high", "Interval: to sigma", named["high"], f"{told('high')} Empty: from the start.")
        with _shown(form, "every"):
            _slide(form, named, "every", "Refresh every", 1, 20, told("every"), step=1)
        with _shown(form, "agreement"):
            _slide(form, named, "agreement", "Agreed from a cosine of", -1, 1, told("agreement"), step=0.001)
        with _shown(form, "rescale"):
            _slide(form, named, "rescale", "Share that is rescaled", 0, 1, f"phi. {told('rescale')}")
        with _shown(form, "apg"):
            _slide(form, named, "eta", "Part along the estimate", 0, 1, f"eta. {told('eta')}")
            _slide(form, named, "norm", "Longest guidance", 0, 50, told("norm"), step=0.5)
            _slide(form, named, "momentum", "Momentum", -1, 1, told("momentum"))


def _drawing(form: GuidanceForm, named: Named) -> None:
    with group("Drawing"):
        _slide(form, named, "steps", "Steps", 1, 100, told("steps"), step=1)
        choice(form, "scheduler", "Sampler", SCHEDULERS, named["scheduler"], "What takes the steps.")
        text(form, "size", "Size in pixels", named["size"], "A multiple of 8; empty: the model's own.")
        info = "Stands in the empty prompt's place."
        text(form, "negative_prompt", "What no picture should show", named["negative_prompt"], info)
        with gr.Column(elem_classes="field"):
            with gr.Row(elem_classes="seed-row"):
                seed = gr.Number(named["seed"], label="First seed", info="The others follow it.", precision=0)
                form.add("seed", seed)
                form.dice = gr.Button("Roll", elem_classes="dice")
            form.note("seed")


def _loras(form: GuidanceForm, named: Named, loras: list[str]) -> None:
    with group("LoRAs"):
        with gr.Column(elem_classes="field"):
            info = "Worn with the first; confirm each with Enter."
            others = gr.Dropdown(
                loras,
                value=named["others"],
                label="Further LoRAs",
                info=info,
                multiselect=True,
                allow_custom_value=True,
            )
            form.add("others", others)
            form.note("others")
        info = "One number a LoRA, such as 1, 0.8; empty: all 1."
        text(form, "scales", "Scale of each", named["scales"], info)


def _measuring(form: GuidanceForm, named: Named) -> None:
    said = {name: GuidanceRequest.model_fields[name].description or "" for name in ("style", "character", "extractor")}
    with group("What is measured"):
        text(form, "style", "Style", named["style"], said["style"])
        text(form, "character", "Character", named["character"], said["character"])
        text(form, "extractor", "Features by", named["extractor"], said["extractor"])


def set_first(form: GuidanceForm, first: Named) -> None:
    """Hide what the first recipe does not ask for, as the page would after a change."""
    for part, update in form.opened(written(first)).items():
        for name, value in update.items():
            if name != "__type__":
                setattr(part, name, value)
    form.grid.open = bool(first.get("sweep"))
