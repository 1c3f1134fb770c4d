"""Illusions: the recipe on the left, the pictures on the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.illusions.request import IllusionRequest
from studio.ui import advice, examples, illusion_form, stage
from studio.ui.desk import Desk
from studio.ui.illusion_form import IllusionForm
from studio.ui.markup import NOTHING, Markup, joined, tag
from studio.ui.tabs.history import FORWARD_PRESSES

if TYPE_CHECKING:
    from studio.policy import Limits


@dataclass
class IllusionTab:
    """The tab's components that events speak to."""

    form: IllusionForm
    presets: gr.HTML
    upload: gr.UploadButton
    generate: gr.Button
    stop: gr.Button
    cost: gr.HTML
    words: gr.HTML
    fold: gr.Accordion
    stage: gr.HTML
    extras: dict[str, Any] = field(default_factory=dict)


def draw(desk: Desk, form: IllusionForm, request: IllusionRequest, limits: Limits) -> IllusionTab:
    """Both columns, the form filled with ``request``. The result comes first for a screen reader only on a phone."""
    drawable = desk.workbench.drawable(request.model)
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="recipe"):
            presets = gr.HTML(preset_strip(desk), js_on_load=FORWARD_PRESSES, elem_id="presets")
            with gr.Column(elem_classes="restore-slot field"):
                upload = gr.UploadButton("Restore from a saved picture", size="sm", elem_id="restore-upload")
                form.note("picture")
            illusion_form.build(form, request, limits)
            with gr.Accordion("What it can draw", open=False, elem_classes="fold", visible=bool(drawable)) as fold:
                words = gr.HTML(word_list(drawable), js_on_load=None, elem_id="words")
            with gr.Column(elem_classes="action-bar"):
                with gr.Row(elem_classes="go"):
                    generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
                    stop = gr.Button("Stop", size="lg", interactive=False, elem_id="stop")
                data = request.model_dump(mode="json")
                cost = gr.HTML(advice.cost(desk.workbench, data), js_on_load=None, elem_id="cost")
        with gr.Column(elem_classes="result-column"):
            shown = gr.HTML(stage.empty(), js_on_load=FORWARD_PRESSES, elem_id="stage")
    return IllusionTab(form, presets, upload, generate, stop, cost, words, fold, shown)


def preset_strip(desk: Desk) -> Markup:
    """The presets as small pictures; one without an example yet has a plain cover."""
    presets = desk.workbench.presets("illusion")
    if not presets:
        return NOTHING
    return tag("div", *[_preset(desk, preset) for preset in presets], cls="presets", role="group", aria_label="Presets")


def _preset(desk: Desk, preset: Any) -> Markup:
    example = desk.examples.find(preset.slug)
    inside: Markup | str = "⇅"
    if example:
        source = f"examples/{preset.slug}/{example.summary['candidates'][0]['image']}?w=256"
        inside = tag("img", src=source, alt="", loading="lazy")
    return tag(
        "button",
        tag("span", inside, cls="cover"),
        tag("span", preset.title),
        type="button",
        cls="preset",
        title=preset.description,
        data_act="preset",
        data_slug=preset.slug,
    )


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


def advised(desk: Desk, form: IllusionForm, data: Mapping[str, Any]) -> dict[Any, Any]:
    """Cost and notes for the recipe as it stands."""
    drawable = desk.workbench.drawable(data["model"])
    return form.written(advice.notes(data, tuple(form.notes), drawable))


def preset_key(desk: Desk, slug: str) -> str:
    """The key of a preset's example, or "" when it has none."""
    return examples.key(slug) if desk.examples.find(slug) else ""


def joined_notes(*notes: Markup) -> Markup:
    return joined(*notes)
