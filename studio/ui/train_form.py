"""The form of a training: its components, what they read as a request, and which of them are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.ui import train_data, train_showing
from studio.ui.form import Form, Updates, Values, combined
from studio.ui.train_source import Source

ENGINE = "train"
AT_HAND = ("model", "data", "trigger", "template", "method", "instance_prompt", "adapter", "steps")
"""The fields that stand outside of More; so do the places of sentences that are about no field."""


@dataclass
class TrainForm(Form):
    """Components by field name; ``shown``: columns by the names of what stands in them, shown where it is asked for."""

    shown: dict[str, gr.Column] = field(default_factory=dict)
    source: Source | None = None
    kind_help: gr.HTML | None = None
    dice: gr.Button | None = None
    more: gr.Accordion | None = None

    def request(self, values: Values) -> dict[str, Any]:
        """The training's data as it stands in the form, unchecked."""
        return train_data.read(self.named(values))

    def filled(self, data: Mapping[str, Any], engine: str = ENGINE) -> Updates:
        """The form with a request's data in it; what it leaves out gets its default."""
        named = train_data.written(data)
        return combined(self.updates(named), self.opened(named))

    @property
    def openable(self) -> list[Any]:
        return [*self.shown.values(), self.kind_help, self.more]

    def opened(self, named: Mapping[str, Any]) -> Updates:
        """Only what the method and the kind of adapter ask for is shown."""
        return train_showing.opened(self, named)
