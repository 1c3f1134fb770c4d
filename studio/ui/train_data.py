"""Between a training's data and what its form's controls hold; no components here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from studio.requests import defaults
from studio.training.kinds import KINDS, Kind, Options
from studio.training.methods import METHODS
from studio.training.request import TrainRequest
from studio.training.trackers import TRACKERS
from studio.ui.fields import lines
from studio.ui.fields import written as written_number

TEXTS = ("data", "trigger", "template", "initializer", "resume", "title")
CHOICES = ("model", "method", "adapter", "targets", "optimizer", "schedule", "crop", "precision", "file_precision")
CHOICES += ("cache",)
FLAGS = ("text_encoder", "shuffle_tags", "flip", "gradient_checkpointing", "buckets")
WHOLE = ("vectors", "rank", "steps", "batch_size", "accumulation", "warmup_steps", "keep_tags", "seed")
WHOLE += ("validate_every", "patience", "sample_every", "sample_steps", "checkpoint_every")
SHARES = ("caption_dropout", "noise_offset", "validation_share", "sample_guidance")
WRITTEN = ("learning_rate", "weight_decay", "max_grad_norm", "ema", "earlier_penalty")
"""Numbers that a person writes, such as 1e-4: steps of a slider would be too coarse."""
IF_ANY = ("alpha", "text_encoder_learning_rate", "min_snr_gamma", "epochs", "resolution")
LISTS = ("earlier", "trackers")
OF_CLASS = ("class_prompt", "class_pictures", "prior_weight")
OPTIONS = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.options.model_fields))
PLAIN = (*CHOICES, *WHOLE, *SHARES)


def kind_of(named: Mapping[str, Any]) -> Kind:
    """The chosen kind of adapter; of a stored or raw value that is none, the first."""
    return KINDS.get(str(named.get("adapter")), next(iter(KINDS.values())))


def record_with(option: str) -> type[Options]:
    """The first kind's record that has an option of this name."""
    return next(kind.options for kind in KINDS.values() if option in kind.options.model_fields)


def read(named: Mapping[str, Any]) -> dict[str, Any]:
    """A training's data as it stands in the form, unchecked; what method and kind do not ask for is left out."""
    kind = kind_of(named)
    data = {name: named[name] for name in PLAIN}
    data |= {name: str(named[name] or "").strip() for name in (*TEXTS, *WRITTEN)}
    data |= {name: bool(named[name]) for name in FLAGS}
    data |= {name: str(named[name] or "").strip() or None for name in IF_ANY}
    data |= {"sample_prompts": lines(named["sample_prompts"]), "options": _options(named, kind)}
    data |= {"alpha": data["alpha"] if kind.ranked else None}
    if not data["text_encoder"]:
        data |= {"text_encoder_learning_rate": None}
    if named["method"] == "dreambooth":
        data |= {"instance_prompt": named["instance_prompt"] or ""}
        data |= {name: named[name] for name in OF_CLASS} | {"class_prompt": named["class_prompt"] or ""}
    data |= {name: list(named[name] or ()) for name in LISTS}
    return {name: value for name, value in data.items() if name not in unasked(named)}


def unasked(named: Mapping[str, Any]) -> set[str]:
    """Settings that the chosen method has no use for, or that are another method's own."""
    way = METHODS.get(str(named.get("method")), next(iter(METHODS.values())))
    return {*way.without, *(name for other in METHODS.values() if other is not way for name in other.own)}


def written(request: Mapping[str, Any]) -> dict[str, Any]:
    """A training's fields as the controls show them; options of other kinds than its own are left as they are."""
    full = {**defaults(TrainRequest), **request}
    named = {name: full[name] for name in (*PLAIN, *TEXTS, *FLAGS, "instance_prompt", *OF_CLASS)}
    named |= {name: written_number(full[name]) for name in WRITTEN}
    named |= {name: list(full[name]) for name in LISTS}
    # Of a file from elsewhere: gradio would refuse every event of a form that holds what is no choice.
    named |= {"trackers": [name for name in named["trackers"] if name in TRACKERS and TRACKERS[name].here]}
    named |= {name: "" if full[name] is None else written_number(full[name]) for name in IF_ANY}
    return named | {"sample_prompts": "\n".join(full["sample_prompts"])} | options_of(kind_of(full), full["options"])


def options_of(kind: Kind, given: Mapping[str, Any] = {}) -> dict[str, Any]:
    """The controls of a kind's own options, with their defaults where nothing is given."""
    fields = kind.options.model_fields
    return {f"options.{name}": given.get(name, entry.default) for name, entry in fields.items()}


def _options(named: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Those of the kind's options that differ from its defaults."""
    usual = {name: entry.default for name, entry in kind.options.model_fields.items()}
    given = {name: named[f"options.{name}"] for name in usual}
    return {name: value for name, value in given.items() if value not in (None, usual[name])}
