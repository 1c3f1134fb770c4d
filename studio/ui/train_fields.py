"""The controls of a training, in the order in which a person thinks of them; most of them stand under More."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.training.kinds import KINDS
from studio.training.methods import METHODS
from studio.training.preflight import OPTIMIZERS
from studio.training.request import TrainRequest
from studio.training.trackers import TRACKERS
from studio.ui import train_source
from studio.ui.fields import check, choice, group, number, slider, text
from studio.ui.place import place
from studio.ui.train_data import OPTIONS, options_of, record_with, written
from studio.ui.train_form import TrainForm
from studio.ui.train_showing import kind_help, layers

if TYPE_CHECKING:
    from studio.ui.desk import Desk

ON_PAGE = ("text_to_image", "dreambooth", "textual_inversion")
"""The methods that a form can hold; the tasks of joint training are written down in a file."""
KNOWN_KINDS = [(kind.title, kind.name) for kind in KINDS.values()]
OPTION_TITLES = {
    "conv_rank": "Rank of convolutions",
    "conv_alpha": "Alpha of convolutions",
    "factor": "Kronecker factor",
    "block_size": "Size of a block",
    "factors": "Butterfly factors",
}
SCHEDULES = (
    ("Constant", "constant"),
    ("Linear, down to zero", "linear"),
    ("Cosine", "cosine"),
    ("Cosine with restarts", "cosine_restarts"),
    ("Polynomial", "polynomial"),
)
PRECISIONS = (("As the model", "auto"), ("fp32", "fp32"), ("bf16", "bf16"), ("fp16", "fp16"))
FILES = (("fp32", "fp32"), ("fp16", "fp16"), ("bf16", "bf16"))
CROPS = (("The middle", "center"), ("A random part", "random"))
CACHES = (("In memory", "memory"), ("On the disk", "disk"), ("Nowhere: made anew each time", "off"))


def told(name: str) -> str:
    """One sentence of help: the field's description, without the method that it is for."""
    said = TrainRequest.model_fields[name].description or ""
    for method in ON_PAGE:
        said = said.removeprefix(f"{method}: ")
    return said[:1].upper() + said[1:]


def build(form: TrainForm, desk: Desk, first: Mapping[str, Any]) -> None:
    """Draw the form with a training's data ``first`` in it."""
    named = {name: value for kind in KINDS.values() for name, value in options_of(kind).items()} | written(first)
    free = not desk.workbench.limits.listed_models_only
    models = [(model.title, model.name) for model in desk.workbench.models()]
    with gr.Column(elem_classes="field"):
        picker = gr.Dropdown(
            models, value=named["model"], label="Model that learns", allow_custom_value=True, elem_id="train-model"
        )
        form.add("model", picker)
        form.note("model")
    form.source = train_source.build(form, desk)
    _essentials(form, named)
    with gr.Accordion("More", open=False, elem_classes="fold", elem_id="train-more") as form.more:
        _adapter(form, named)
        _learning(form, named)
        _class(form, named)
        _earlier(form, named, desk.workbench.loras())
        _pictures(form, named)
        _batches(form, named, free)
        _noise(form, named)
        _watching(form, named)
        _result(form, named, free)


@contextmanager
def _shown(form: TrainForm, name: str, **more: Any) -> Iterator[None]:
    """A column that is shown where it is asked for."""
    with gr.Column(**more) as column:
        yield
    form.shown[name] = column


def _number(form: TrainForm, named: Mapping[str, Any], name: str, label: str, **more: Any) -> None:
    number(form, name, label, named[name], told(name), **more)


def _text(form: TrainForm, named: Mapping[str, Any], name: str, label: str, **more: Any) -> None:
    text(form, name, label, named[name], told(name), **more)


def _check(form: TrainForm, named: Mapping[str, Any], name: str, label: str) -> None:
    check(form, name, label, named[name], told(name))


def _essentials(form: TrainForm, named: Mapping[str, Any]) -> None:
    with gr.Column(elem_classes="field"):
        ways = [(METHODS[name].title, name) for name in ON_PAGE]
        info = "Each with its own caption, all of one subject under one prompt, or a new word and no adapter."
        radio = gr.Radio(ways, value=named["method"], label="Method", info=info, elem_classes="tasks")
        form.add("method", radio)
        form.note("method")
    with _shown(form, "instance_prompt"):
        _text(form, named, "instance_prompt", "Prompt of all pictures", elem_id="train-instance")
    with _shown(form, "word"):
        _number(form, named, "vectors", "Vectors of the word", elem_id="train-vectors")
        _text(form, named, "initializer", "Words that it begins as")
    with _shown(form, "kind", elem_classes="field"):
        kinds = gr.Dropdown(KNOWN_KINDS, value=named["adapter"], label="Kind of adapter", elem_id="train-kind")
        form.add("adapter", kinds)
        form.note("adapter", "options")
        form.kind_help = place(kind_help(named))
    _number(form, named, "steps", "Steps", elem_id="train-steps")


def _adapter(form: TrainForm, named: Mapping[str, Any]) -> None:
    with _shown(form, "adapter_group"), group("Adapter"):
        with _shown(form, "rank"):
            _number(form, named, "rank", "Rank", elem_id="train-rank")
        with _shown(form, "alpha"):
            _text(form, named, "alpha", "Alpha")
        more = {"allow_custom_value": True, "elem_id": "train-targets"}
        choice(form, "targets", "Layers that learn", layers(), named["targets"], None, **more)
        for name in OPTIONS:
            with _shown(form, f"options.{name}"):
                info = record_with(name).model_fields[name].description
                number(form, f"options.{name}", OPTION_TITLES[name], named[f"options.{name}"], info)
        _check(form, named, "text_encoder", "Text encoders")
        with _shown(form, "text_encoder_learning_rate"):
            _text(form, named, "text_encoder_learning_rate", "Learning rate of the text encoders")


def _learning(form: TrainForm, named: Mapping[str, Any]) -> None:
    with group("Learning"):
        _text(form, named, "learning_rate", "Learning rate", elem_id="train-rate")
        here = [(entry.title, name) for name, entry in OPTIMIZERS.items() if entry.here]
        info = " ".join(f"{entry.title}: {entry.help}" for entry in OPTIMIZERS.values() if entry.here)
        choice(form, "optimizer", "Optimiser", here, named["optimizer"], info, allow_custom_value=True)
        choice(form, "schedule", "Schedule", SCHEDULES, named["schedule"], told("schedule"))
        _number(form, named, "warmup_steps", "Steps of warm-up")
        _text(form, named, "weight_decay", "Weight decay")
        _text(form, named, "max_grad_norm", "Longest gradient")


def _earlier(form: TrainForm, named: Mapping[str, Any], loras: list[str]) -> None:
    with _shown(form, "earlier"), group("On top of earlier LoRAs"):
        several = {"multiselect": True, "allow_custom_value": True, "elem_id": "train-earlier"}
        choice(form, "earlier", "Earlier LoRAs", loras, named["earlier"], told("earlier"), **several)
        _text(form, named, "earlier_penalty", "How strongly they are kept")


def _class(form: TrainForm, named: Mapping[str, Any]) -> None:
    with _shown(form, "class"), group("Pictures of the class"):
        _text(form, named, "class_prompt", "Prompt of the class")
        _number(form, named, "class_pictures", "Pictures of the class")
        _share(form, named, "prior_weight", "Weight of the class", 10, step=0.1)


def _pictures(form: TrainForm, named: Mapping[str, Any]) -> None:
    with group("Pictures and captions"):
        _text(form, named, "resolution", "Resolution in pixels")
        _check(form, named, "buckets", "Buckets")
        choice(form, "crop", "Crop", CROPS, named["crop"], told("crop"))
        _check(form, named, "flip", "Flip")
        with _shown(form, "caption_dropout"):
            _share(form, named, "caption_dropout", "Captions left empty", 1)
        _check(form, named, "shuffle_tags", "Shuffle tags")
        with _shown(form, "keep_tags"):
            _number(form, named, "keep_tags", "Tags that stay first")


def _batches(form: TrainForm, named: Mapping[str, Any], free: bool) -> None:
    with group("Batches and memory"):
        _number(form, named, "batch_size", "Pictures in a batch", elem_id="train-batch")
        _number(form, named, "accumulation", "Batches in a step")
        with _shown(form, "epochs", visible=free):
            _text(form, named, "epochs", "Epochs")
        _check(form, named, "gradient_checkpointing", "Gradient checkpointing")
        choice(form, "precision", "Precision", PRECISIONS, named["precision"], told("precision"))
        with _shown(form, "cache", visible=free):
            choice(form, "cache", "Cache", CACHES, named["cache"], told("cache"))


def _noise(form: TrainForm, named: Mapping[str, Any]) -> None:
    with group("Noise and averaging"):
        _text(form, named, "min_snr_gamma", "Min-SNR gamma")
        _share(form, named, "noise_offset", "Noise offset", 1)
        _text(form, named, "ema", "Averaged weights (EMA)")


def _watching(form: TrainForm, named: Mapping[str, Any]) -> None:
    with group("Samples and validation"):
        _text(form, named, "sample_prompts", "Sample prompts", lines=2, elem_id="train-prompts")
        _number(form, named, "sample_every", "Sample every")
        _number(form, named, "sample_steps", "Steps of a sample")
        _share(form, named, "sample_guidance", "How strongly sample prompts count", 30, step=0.5)
        _share(form, named, "validation_share", "Pictures held out", 0.5)
        _number(form, named, "validate_every", "Validate every")
        _number(form, named, "patience", "Patience")


def _share(form: TrainForm, named: Mapping[str, Any], name: str, label: str, most: float, step: float = 0.01) -> None:
    slider(form, name, label, 0, most, named[name], told(name), step=step)


def _result(form: TrainForm, named: Mapping[str, Any], free: bool) -> None:
    with group("Result"):
        _text(form, named, "title", "Title")
        choice(form, "file_precision", "Numbers in the files", FILES, named["file_precision"], told("file_precision"))
        with gr.Column(elem_classes="field"):
            with gr.Row(elem_classes="seed-row"):
                seed = gr.Number(named["seed"], label="Seed", info=told("seed"), precision=0, elem_id="train-seed")
                form.add("seed", seed)
                form.dice = gr.Button("Roll", elem_classes="dice")
            form.note("seed")
        _number(form, named, "checkpoint_every", "Checkpoint every")
        with _shown(form, "resume", visible=free):
            _text(form, named, "resume", "Go on from", elem_id="train-resume")
        here = [(entry.title, name) for name, entry in TRACKERS.items() if entry.here]
        with _shown(form, "trackers", visible=free and bool(here)), gr.Column(elem_classes="field"):
            info = "Curves and samples are also sent there; its own settings say as whom."
            form.add("trackers", gr.CheckboxGroup(here, value=named["trackers"], label="Trackers", info=info))
            form.note("trackers")


def set_first(form: TrainForm, first: Mapping[str, Any]) -> None:
    """Fill the form, and hide what the first recipe does not ask for, as the page would after a change."""
    named = {name: control.value for name, control in form.controls.items()} | written(first)
    for name, value in named.items():
        if name in form.controls:
            form.controls[name].value = value
    for part, update in form.opened(named).items():
        changes = update if isinstance(update, dict) else {"value": update}
        for name, value in changes.items():
            if name != "__type__":
                setattr(part, name, value)
