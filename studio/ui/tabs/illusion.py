"""Illusions: the recipe on the left, the pictures on the right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr
from PIL import Image

from studio.illusions.request import IllusionRequest
from studio.imaging import jpeg_data_uri
from studio.ui import advice, illusion_form, stage
from studio.ui.desk import Desk
from studio.ui.illusion_form import IllusionForm
from studio.ui.markup import NOTHING, Markup, tag
from studio.ui.place import place, pressable

if TYPE_CHECKING:
    from studio.policy import Limits
    from studio.presets import Preset

COVER = 192  # pixels


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
            with gr.Column(elem_classes="starts"):
                with gr.Row(elem_classes="starts-head"):
                    place(tag("h3", "Start from"))
                    upload = gr.UploadButton("Restore from a saved picture", size="sm", elem_id="restore-upload")
                form.note("picture")
                presets = pressable(preset_strip(desk), elem_id="presets")
            illusion_form.build(form, request, limits)
            with gr.Accordion("What it can draw", open=False, elem_classes="fold", visible=bool(drawable)) as fold:
                words = place(word_list(drawable), elem_id="words")
            with gr.Column(elem_classes="action-bar"):
                with gr.Row(elem_classes="go"):
                    generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
                    stop = gr.Button("Stop", size="lg", interactive=False, elem_id="stop")
                form.note("recipe")
                data = request.model_dump(mode="json")
                cost = place(advice.cost(desk.workbench, data), elem_id="cost")
        with gr.Column(elem_classes="result-column"):
            shown = pressable(_first_look(desk, request), elem_id="stage")
    return IllusionTab(form, presets, upload, generate, stop, cost, words, fold, shown, gr.State(None))


def _first_look(desk: Desk, request: IllusionRequest) -> Markup:
    """What stands in the result column until the page has attached to what it shows."""
    return stage.opening(len(request.views)) if any(True for _ in desk.examples) else stage.empty()


def preset_strip(desk: Desk) -> Markup:
    """The presets as small pictures; one without an example yet has a plain cover."""
    presets = desk.workbench.presets("illusion")
    if not presets:
        return NOTHING
    return tag("div", *[_preset(desk, preset) for preset in presets], cls="presets", role="group", aria_label="Presets")


def _preset(desk: Desk, preset: Preset) -> Markup:
    cover = _cover(desk, preset)
    return tag(
        "button",
        tag("span", tag("img", src=cover, alt="") if cover else "⇅", cls="cover"),
        tag("span", preset.title),
        type="button",
        cls="preset",
        title=preset.description,
        data_act="preset",
        data_slug=preset.slug,
    )


def _cover(desk: Desk, preset: Preset) -> str | None:
    """A small picture as a data URI: the preset's own, or else its example's best candidate."""
    example = desk.examples.find(preset.slug)
    path = preset.picture or (example and example.folder / example.summary["candidates"][0]["image"])
    if not path or not path.is_file():
        return None
    with Image.open(path) as picture:
        return jpeg_data_uri(picture, COVER)


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
