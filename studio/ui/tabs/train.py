"""Train: the recipe on the left; pictures, curves and samples on the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.ui import stage, train_fields, train_pictures
from studio.ui.advice import cost_line
from studio.ui.desk import EMPTY, Desk
from studio.ui.place import place, pressable
from studio.ui.starts import starts
from studio.ui.train_form import ENGINE, TrainForm
from studio.ui.train_pictures import Pane

if TYPE_CHECKING:
    from studio.workbench import Workbench

TAB = "train"
FIRST = "learn-the-duckrabbit"  # the preset that a first visit finds in the form


@dataclass
class TrainTab:
    """The tab's components that events speak to. ``refused`` holds the recipe that was refused last."""

    form: TrainForm
    presets: gr.HTML
    upload: gr.UploadButton
    train: gr.Button
    stop: gr.Button
    cost: gr.HTML
    stage: gr.HTML
    pane: Pane
    refused: gr.State


def draw(desk: Desk, form: TrainForm) -> TrainTab:
    """Both columns, the form filled with the first preset or with the defaults."""
    first = first_training(desk.workbench)
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="recipe"):
            presets, upload = starts(desk, form, ENGINE, "Restore from a LoRA", elem_classes="restore-file")
            train_fields.build(form, desk, first)
            with gr.Column(elem_classes="action-bar"):
                with gr.Row(elem_classes="go"):
                    train = gr.Button("Train", variant="primary", size="lg", elem_id="train", elem_classes="run")
                    stop = gr.Button("Pause", size="lg", interactive=False, elem_id="train-stop", elem_classes="stop")
                form.note("recipe")
                cost = place(cost_line(""), elem_id="train-cost")
        with gr.Column(elem_classes="result-column"):
            shown = pressable(stage.empty(*EMPTY[TAB]), elem_id="train-stage", elem_classes="stage-place")
            pane = train_pictures.build()
    train_fields.set_first(form, first)
    return TrainTab(form, presets, upload, train, stop, cost, shown, pane, gr.State(None))


def first_training(workbench: Workbench) -> dict[str, Any]:
    """What the form holds on a first visit: the preset made for it, or else the first one, or the defaults."""
    presets = {preset.slug: preset for preset in workbench.presets(ENGINE)}
    chosen = presets.get(FIRST) or next(iter(presets.values()), None)
    return dict(chosen.request) if chosen else {}
