"""Merge: the recipe on the left; A, the merge and B on the right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.ui import merge_fields, stage
from studio.ui.advice import cost_line
from studio.ui.desk import EMPTY, Desk
from studio.ui.merge_form import ENGINE, MergeForm
from studio.ui.place import place, pressable
from studio.ui.starts import starts

if TYPE_CHECKING:
    from studio.workbench import Workbench

TAB = "merge"


@dataclass
class MergeTab:
    """The tab's components that events speak to. ``refused`` holds the recipe that was refused last."""

    form: MergeForm
    presets: gr.HTML
    upload: gr.UploadButton
    preview: gr.Button
    save: gr.Button
    stop: gr.Button
    fit: gr.HTML
    cost: gr.HTML
    stage: gr.HTML
    refused: gr.State


def draw(desk: Desk, form: MergeForm) -> MergeTab:
    """Both columns, the form filled with the first preset or with the first two models."""
    first = first_merge(desk.workbench)
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="recipe"):
            presets, upload = starts(desk, form, ENGINE, "Restore from a merged file")
            fit = merge_fields.build(form, desk, first)
            with gr.Column(elem_classes="action-bar"):
                with gr.Row(elem_classes="go"):
                    form.preview = gr.Button(
                        "Preview", variant="primary", size="lg", elem_id="preview", elem_classes="run"
                    )
                    form.save = gr.Button("Save", size="lg", elem_id="save", elem_classes="also-run")
                    stop = gr.Button("Stop", size="lg", interactive=False, elem_id="merge-stop", elem_classes="stop")
                form.note("recipe")
                cost = place(cost_line(""), elem_id="merge-cost")
        with gr.Column(elem_classes="result-column"):
            shown = pressable(stage.empty(*EMPTY[TAB]), elem_id="merge-stage", elem_classes="stage-place")
    merge_fields.set_first(form, first)
    return MergeTab(form, presets, upload, form.preview, form.save, stop, fit, cost, shown, gr.State(None))


def first_merge(workbench: Workbench) -> dict[str, Any]:
    """What the form holds on a first visit: the first preset, or else the first two models."""
    presets = workbench.presets(ENGINE)
    if presets:
        return dict(presets[0].request)
    names = [model.name for model in workbench.models()]
    return {"models": [*names, *names][:2] if names else ["", ""]}
