"""Train: the recipe on the left, the pictures with their captions on the right."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from studio.ui import train_pictures, train_source
from studio.ui.desk import Desk
from studio.ui.form import Form
from studio.ui.train_pictures import Pane
from studio.ui.train_source import Source

TAB = "train"


@dataclass(frozen=True)
class TrainTab:
    """The tab's components that events speak to."""

    source: Source
    pane: Pane


def draw(desk: Desk, form: Form) -> TrainTab:
    """Both columns."""
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="recipe"):
            source = train_source.build(form, desk)
        with gr.Column(elem_classes="result-column"):
            pane = train_pictures.build()
    return TrainTab(source, pane)
