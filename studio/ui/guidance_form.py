"""The form of a comparison of guidance: its components, what they read as a request, and which of them are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.ui import guidance_data, guidance_showing
from studio.ui.form import Form, Updates, Values, combined, problems
from studio.ui.markup import Markup

ENGINE = "guidance"
AT_HAND = ("model", "adapters", "lora", "prompts", "guiders", "gamma", "w", "w1", "w2", "lora_scale", "seeds")
"""The fields that stand outside of the folds; so do the places of sentences that are about no field."""
OF_THE_GRID = ("sweep",)


@dataclass
class GuidanceForm(Form):
    """Components by field name; ``shown``: columns by the names of what stands in them, shown where it is asked for."""

    shown: dict[str, gr.Column] = field(default_factory=dict)
    dice: gr.Button | None = None
    more: gr.Accordion | None = None
    grid: gr.Accordion | None = None

    def request(self, values: Values) -> dict[str, Any]:
        """The comparison's data as it stands in the form, unchecked."""
        return guidance_data.read(self.named(values))

    def filled(self, data: Mapping[str, Any], engine: str = ENGINE) -> Updates:
        """The form with a request's data in it; what it leaves out gets its default, and a grid is shown."""
        named = guidance_data.written(data)
        updates = combined(self.updates(named), self.opened(named))
        return updates | ({self.grid: gr.update(open=True)} if data.get("sweep") and self.grid else {})

    @property
    def openable(self) -> list[Any]:
        return [*self.shown.values(), self.more, self.grid]

    def opened(self, named: Mapping[str, Any]) -> Updates:
        """Only what the chosen guiders heed is shown."""
        return guidance_showing.opened(self, named)

    def problems(self, error: StudioError, engine: str = "") -> dict[str, Markup]:
        """The numbers stand in a record of their own, which a person does not see."""
        told = problems(error, {*self.notes, "settings"})
        found = {name.removeprefix("settings."): note for name, note in told.items()}
        of_both = found.get("w2") or found.get("w1")
        return found | ({"w": of_both} if of_both else {})  # one of the two places is shown
