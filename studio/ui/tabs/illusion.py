"""Illusions: the recipe on the left, the pictures on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

from studio.illusions.request import IllusionRequest
from studio.ui import advice, illusion_form, stage
from studio.ui.desk import EMPTY, ENGINE, Desk
from studio.ui.illusion_form import IllusionForm
from studio.ui.markup import NOTHING, Markup, tag
from studio.ui.place import place, pressable
from studio.ui.starts import starts

if TYPE_CHECKING:
    from studio.policy import Limits

TAB = "illusions"


@dataclass
class IllusionTab:
    """The tab's components that events speak to. ``refused`` holds the recipe that was refused last."""

    form: IllusionForm
    presets: gr.HTML
    upload: gr.UploadButton
    generate: gr.Button
    stop: gr.Button
    cost: gr.HTML
    words: gr.HTML
    fold: gr.Accordion
    stage: gr.HTML
    refused: gr.State


def draw(desk: Desk, form: IllusionForm, request: IllusionRequest, limits: Limits) -> IllusionTab:
    """Both columns, the form filled with ``request``. The result comes first for a screen reader only on a phone."""
    drawable = desk.workbench.drawable(request.model)
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="recipe"):
            own = {"note": "picture", "strip": "presets", "elem_id": "restore-upload"}
            presets, upload = starts(desk, form, ENGINE, "Restore from a saved picture", **own)
            illusion_form.build(form, request, limits)
            with gr.Accordion("What it can draw", open=False, elem_classes="fold", visible=bool(drawable)) as fold:
                words = place(word_list(drawable), elem_id="words")
            with gr.Column(elem_classes="action-bar"):
                with gr.Row(elem_classes="go"):
                    generate = gr.Button(
                        "Generate", variant="primary", size="lg", elem_id="generate", elem_classes="run"
                    )
                    stop = gr.Button("Stop", size="lg", interactive=False, elem_id="stop", elem_classes="stop")
                form.note("recipe")
                data = request.model_dump(mode="json")
                cost = place(advice.cost(desk.workbench, data), elem_id="cost")
        with gr.Column(elem_classes="result-column"):
            shown = pressable(_first_look(desk, request), elem_id="stage", elem_classes="stage-place")
    return IllusionTab(form, presets, upload, generate, stop, cost, words, fold, shown, gr.State(None))


def _first_look(desk: Desk, request: IllusionRequest) -> Markup:
    """What stands in the result column until the page has attached to what it shows."""
    return stage.opening(len(request.views)) if any(True for _ in desk.examples) else stage.empty(*EMPTY[TAB])


def word_list(drawable: Sequence[str]) -> Markup:
    """Everything the built-in model can draw, searchable; pressing a word puts it into the prompt used last."""
    if not drawable:
        return NOTHING
    items = [tag("li", tag("button", word, type="button", data_word=word)) for word in sorted(drawable)]
    field_id = "words-filter"
    return tag(
        "div",
        tag("label", "Search what it can draw", for_=field_id, cls="unseen"),
        tag("input", type="search", id=field_id, placeholder=f"Search {len(drawable)} things", data_filter_words=True),
        tag("p", cls="hint left", aria_live="polite"),
        tag("ul", *items),
        cls="words",
    )
