"""Guidance: the recipe on the left; every guidance from the same seeds, what it gains and costs on the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.ui import guidance_fields, stage
from studio.ui.advice import cost_line
from studio.ui.desk import EMPTY, Desk
from studio.ui.guidance_form import ENGINE, GuidanceForm
from studio.ui.place import place, pressable
from studio.ui.starts import starts

if TYPE_CHECKING:
    from studio.workbench import Workbench

TAB = "guidance"
FIRST = "is-it-worth-it"  # the preset that a first visit finds in the form


@dataclass
class GuidanceTab:
    """The tab's components that events speak to.

    ``confirm`` asks before a very large run; ``refused`` holds the recipe that was refused or asked about last.
    """

    form: GuidanceForm
    presets: gr.HTML
    upload: gr.UploadButton
    run: gr.Button
    stop: gr.Button
    confirm: gr.HTML
    cost: gr.HTML
    stage: gr.HTML
    refused: gr.State


def draw(desk: Desk, form: GuidanceForm) -> GuidanceTab:
    """Both columns, the form filled with the first preset, or with the first model and LoRA."""
    first = first_comparison(desk.workbench)
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="recipe"):
            presets, upload = starts(desk, form, ENGINE, "Restore from a saved picture")
            guidance_fields.build(form, desk, first)
            with gr.Column(elem_classes="action-bar"):
                confirm = pressable(elem_id="guidance-confirm", elem_classes="note")
                with gr.Row(elem_classes="go"):
                    run = gr.Button("Compare", variant="primary", size="lg", elem_id="guide", elem_classes="run")
                    stop = gr.Button("Stop", size="lg", interactive=False, elem_id="guidance-stop", elem_classes="stop")
                form.note("recipe")
                cost = place(cost_line(""), elem_id="guidance-cost")
        with gr.Column(elem_classes="result-column"):
            shown = pressable(stage.empty(*EMPTY[TAB]), elem_id="guidance-stage", elem_classes="stage-place")
    guidance_fields.set_first(form, first)
    return GuidanceTab(form, presets, upload, run, stop, confirm, cost, shown, gr.State(None))


def first_comparison(workbench: Workbench) -> dict[str, Any]:
    """What the form holds on a first visit: the first preset, or else the first model with the first LoRA."""
    presets = {preset.slug: preset for preset in workbench.presets(ENGINE)}
    chosen = presets.get(FIRST) or next(iter(presets.values()), None)
    if chosen:
        return dict(chosen.request)
    models, loras = workbench.models(), workbench.loras()
    return {"model": models[0].name if models else "", "adapters": {"lora": loras[0]} if loras else {}}
