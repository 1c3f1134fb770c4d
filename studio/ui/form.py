"""Between a form's components and a request's data, and the sentences that stand beside the fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.components import Component

from studio.errors import StudioError
from studio.ui.markup import Markup, joined, tag
from studio.ui.place import place

Values = Mapping[Component, Any]
Updates = dict[Component, Any]

# gradio takes no empty dictionary for "no output changes"; this is what it takes.
NOTHING_CHANGES: Any = gr.skip()

MOST_KEPT = 20_000  # characters of a text that a reload brings back
MOST_LISTED = 16  # entries of a choice of several
_FIELD = re.compile(r"(?:^|(?<=[.?!] ))([a-z_]+(?:\.[a-z0-9_]+)*): ")


class BoundedByRequest(gr.Slider):
    """A slider whose limits guide the hand only: what may be used is decided, and said, in one place, by the policy."""

    def preprocess(self, payload: float) -> float:
        return payload

    def get_block_name(self) -> str:
        return "slider"


@dataclass
class Form:
    """Components and note places by field name; a list entry is named like ``prompts.1``."""

    controls: dict[str, Component] = field(default_factory=dict)
    notes: dict[str, gr.HTML] = field(default_factory=dict)

    def add(self, name: str, control: Component) -> Component:
        self.controls[name] = control
        return control

    def note(self, *names: str) -> gr.HTML:
        """A place for sentences about the fields of these names, empty until there is one."""
        spot = place(elem_classes="note")
        self.notes.update(dict.fromkeys(names, spot))
        return spot

    @property
    def inputs(self) -> set[Component]:
        return set(self.controls.values())

    def named(self, values: Values) -> dict[str, Any]:
        """What gradio hands over by component, by name."""
        return {name: values[control] for name, control in self.controls.items()}

    def updates(self, named: Mapping[str, Any]) -> Updates:
        """What to put into the components; names this form does not know are left out."""
        return {self.controls[name]: value for name, value in named.items() if name in self.controls}

    @property
    def openable(self) -> list[Any]:
        """What is shown and hidden as the form's values ask for it."""
        return []

    def opened(self, named: Mapping[str, Any]) -> Updates:
        """Show and hide ``openable`` as these values ask for it."""
        return {}

    def recalled(self, stored: object) -> Updates:
        """What an earlier visit left in the browser: untrusted, so only known names and fitting types are taken."""
        if not isinstance(stored, dict):
            return NOTHING_CHANGES
        known = {name: control for name, control in self.controls.items() if name in stored}
        named = {name: stored[name] for name, control in known.items() if fits(control, stored[name])}
        if not named:  # a first visit: the form stands as it was drawn
            return NOTHING_CHANGES
        return combined(self.updates(named), self.opened(named)) or NOTHING_CHANGES

    def places(self) -> list[gr.HTML]:
        return list(dict.fromkeys(self.notes.values()))

    def written(self, sentences: Mapping[str, Markup]) -> Updates:
        """Every note place with its sentences, the others emptied."""
        grouped: dict[gr.HTML, list[Markup]] = {place: [] for place in self.places()}
        for name, sentence in sentences.items():
            place = self.place(name)
            if place is not None:
                grouped[place].append(sentence)
        return {place: joined(*found) for place, found in grouped.items()}

    def problems(self, error: StudioError, engine: str = "") -> dict[str, Markup]:
        """An error's sentences by field, as notes; ``engine`` is the one that was asked."""
        return problems(error, self.notes)

    def place(self, name: str) -> gr.HTML | None:
        """Where a sentence about ``name`` stands; one about a whole list stands with its first entry."""
        return self.notes.get(name) or self.notes.get(f"{name}.0") or self.notes.get(name.partition(".")[0])


def combined(values: Updates, looks: Updates) -> Updates:
    """Values together with how their controls are to look, such as the limits of a slider."""
    both = {
        part: {**look, "value": values[part]} if part in values and _is_look(look) else look
        for part, look in looks.items()
    }
    return {**values, **both}


def _is_look(update: object) -> bool:
    return isinstance(update, dict) and update.get("__type__") == "update"


def fits(control: Component, value: object) -> bool:
    """Whether a stored value is of the type that the control holds."""
    if isinstance(control, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(control, gr.Number | gr.Slider):
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if isinstance(control, gr.CheckboxGroup) or (isinstance(control, gr.Dropdown) and control.multiselect):
        return isinstance(value, list) and len(value) <= MOST_LISTED and all(map(_is_text, value))
    return _is_text(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MOST_KEPT


def hint(text: str, *actions: Markup) -> Markup:
    return tag("p", text, *[joined(" ", action) for action in actions], cls="is-hint")


def problems(error: StudioError, known: Iterable[str]) -> dict[str, Markup]:
    """An error's sentences by the field each is about, as notes; empty when it is about no field of this form."""
    by_field = _by_field(str(error), set(known))
    if not by_field and error.field:
        by_field = {error.field: str(error)}
    return {name: tag("p", text, cls="is-error", data_field=name) for name, text in by_field.items()}


def _by_field(message: str, known: set[str]) -> dict[str, str]:
    """``steps: must be at least 1. seed: must be ...`` taken apart at the names of fields."""
    marks = [m for m in _FIELD.finditer(message) if m[1] in known or m[1].partition(".")[0] in known]
    if not marks or marks[0].start() != 0:
        return {}
    ends = [mark.start() for mark in marks[1:]] + [len(message)]
    found: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=True):
        words = message[mark.end() : end].strip()
        found[mark[1]] = f"{found.get(mark[1], '')} {words[:1].upper()}{words[1:]}".strip()
    return found
