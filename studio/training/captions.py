"""Captions as they are trained: the trigger word put in, templates filled, tags shuffled and dropped by seed."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from studio.errors import RequestError

TEMPLATE = "a photo of {trigger}"
PLACEHOLDERS = ("{trigger}", "[trigger]")
FIELDS = ("{trigger}", "{name}")
BRACES = re.compile(r"\{[^{}]*\}")
MAX_TRIGGER, MAX_TEMPLATE = 60, 200  # characters


@dataclass(frozen=True)
class CaptionRules:
    """How a caption differs from epoch to epoch. ``keep`` first tags are neither shuffled nor dropped (kohya's words).

    ``dropout`` is the share of captions that become empty, from which a model learns what guidance compares with
    (Ho & Salimans 2022, section 3.2); ``tag_dropout`` the share of tags that are left out.
    """

    shuffle: bool = False
    keep: int = 0
    separator: str = ","
    dropout: float = 0.0
    tag_dropout: float = 0.0

    @property
    def varied(self) -> bool:
        """Whether two epochs can see different captions."""
        return self.shuffle or self.dropout > 0 or self.tag_dropout > 0


def drawn(caption: str, rules: CaptionRules, *, seed: int, epoch: int, index: int) -> str:
    """The caption of example ``index`` in ``epoch``: the same for the same three numbers, on every machine.

    Each rule draws from a stream of its own, so that switching one on leaves what the others do as it is.
    """
    if _stream("dropout", seed, epoch, index).random() < rules.dropout:
        return ""
    if not rules.shuffle and rules.tag_dropout == 0:
        return caption
    tags = [tag.strip() for tag in caption.split(rules.separator) if tag.strip()]
    kept, rest = tags[: rules.keep], tags[rules.keep :]
    chance = _stream("tags", seed, epoch, index)
    rest = [tag for tag in rest if chance.random() >= rules.tag_dropout]
    if rules.shuffle:
        _stream("shuffle", seed, epoch, index).shuffle(rest)
    return f"{rules.separator.strip()} ".join((*kept, *rest))


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger word: at its placeholders, as it stands when it is there already, else in front."""
    for placeholder in PLACEHOLDERS:
        caption = caption.replace(placeholder, trigger)
    caption = " ".join(caption.split())
    if not trigger or re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", caption, re.IGNORECASE):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def from_template(template: str, trigger: str, stem: str) -> str:
    """What a picture without a caption is trained with; empty when the template needs a trigger word and has none.

    ``{name}`` becomes the words of the file's name: "red_fox-02" is "red fox".
    """
    if "{trigger}" in template and not trigger:
        return ""
    name = " ".join(word for word in re.split(r"[\W_]+", stem.rpartition("/")[2]) if not word.isdigit())
    return with_trigger(template.replace("{name}", name), trigger)


def check_words(trigger: str, template: str) -> None:
    """Raises RequestError for a trigger word or a template that cannot be used."""
    if len(trigger) > MAX_TRIGGER or not trigger.isprintable() or trigger != trigger.strip():
        raise RequestError(
            f"trigger: give one or a few words of at most {MAX_TRIGGER} characters, such as sks.", field="trigger"
        )
    if any(mark in trigger for mark in "{}[],"):
        raise RequestError("trigger: leave out commas and brackets; give a plain word, such as sks.", field="trigger")
    unknown = [found for found in BRACES.findall(template) if found not in FIELDS]
    if unknown or not template.isprintable() or len(template) > MAX_TEMPLATE:
        raise RequestError(
            f"template: give one line of at most {MAX_TEMPLATE} characters that may hold {' and '.join(FIELDS)}.",
            field="template",
        )


def _stream(rule: str, seed: int, epoch: int, index: int) -> random.Random:
    """A generator seeded with text goes through SHA-512, so that neighbouring numbers give unlike streams."""
    return random.Random(f"{rule}/{seed}/{epoch}/{index}")
