"""What of a training's form is shown: only what its method and its kind of adapter ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.training.kinds import LAYERS
from studio.ui.form import Updates
from studio.ui.markup import Markup, tag
from studio.ui.train_data import OPTIONS, kind_of

if TYPE_CHECKING:
    from studio.ui.train_form import TrainForm

WORD = "textual_inversion"
LAYER_TITLES = {
    "attention": "Attention",
    "cross_attention": "Keys and values of the prompt only",
    "linear": "All linear layers",
    "all": "All layers, convolutions too",
}


def opened(form: TrainForm, named: Mapping[str, Any]) -> Updates:
    """Updates of all that can be shown or hidden, and of the choices that the kind leaves."""
    kind, subject, word = kind_of(named), named.get("method") == "dreambooth", named.get("method") == WORD
    visible = {"instance_prompt": subject, "class": subject, "word": word, "kind": not word, "adapter_group": not word}
    visible |= {"rank": kind.ranked, "alpha": kind.ranked, "caption_dropout": not word, "earlier": not word}
    visible |= {f"options.{name}": name in kind.options.model_fields for name in OPTIONS}
    visible |= {"text_encoder_learning_rate": bool(named.get("text_encoder"))}
    visible |= {"keep_tags": bool(named.get("shuffle_tags"))}
    updates: Updates = {form.shown[name]: gr.update(visible=yes) for name, yes in visible.items() if name in form.shown}
    if "targets" in form.controls:
        updates |= {form.controls["targets"]: gr.update(choices=layers(kind.layers))}
    return updates | {form.kind_help: kind_help(named)}


def layers(names: tuple[str, ...] = tuple(LAYERS)) -> list[tuple[str, str]]:
    return [(LAYER_TITLES[name], name) for name in names]


def kind_help(named: Mapping[str, Any]) -> Markup:
    """One line of what the kind does, and where it comes from."""
    kind = kind_of(named)
    return tag("p", kind.help, tag("small", kind.reference), cls="method-help")
