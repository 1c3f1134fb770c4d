"""The pictures that a training learns from, and the words that go into their captions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gradio as gr

from studio.training.request import TrainRequest
from studio.ui.fields import text
from studio.ui.form import Form

if TYPE_CHECKING:
    from studio.ui.desk import Desk


def build(form: Form, desk: Desk) -> None:
    """The controls ``data``, ``trigger`` and ``template``, each with its place for sentences."""
    usual = {name: entry.default for name, entry in TrainRequest.model_fields.items()}
    folder = desk.workbench.settings.assets / "datasets"
    sets = [f"builtin:{path.name}" for path in sorted(folder.glob("*")) if path.is_dir()]
    with gr.Column(elem_classes="field"):
        info = "A built-in set, or the path of a folder or a .zip with pictures and captions."
        picker = gr.Dropdown(
            sets, value=usual["data"], label="Pictures", info=info, allow_custom_value=True, elem_id="train-data"
        )
        form.add("data", picker)
        form.note("data")
    text(form, "trigger", "Trigger word", "", "A word put before every caption that lacks it.", elem_id="train-trigger")
    info = "Of pictures without one: {trigger}, or {name} of the file."
    text(form, "template", "Caption", usual["template"], info)
