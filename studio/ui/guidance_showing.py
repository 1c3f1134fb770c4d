"""What of a comparison's form is shown: only what the chosen guiders heed and the grid does not set itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.guidance.guiders import GUIDERS
from studio.ui.form import Updates, hint
from studio.ui.guidance_data import AXES, BOTH, heeded, is_heeded, swept
from studio.ui.markup import Markup, tag

if TYPE_CHECKING:
    from studio.ui.guidance_form import GuidanceForm

UNDER_MORE = {
    "interval": ("low", "high"),
    "every": ("every",),
    "agreement": ("agreement",),
    "rescale": ("rescale",),
    "apg": ("eta", "norm", "momentum"),
}
"""Column -> the settings in it: shown where one of them is heeded."""
TITLES = {
    "w": "Guidance, w1 and w2 (w)",
    "gamma": "Beyond the LoRA (gamma)",
    "lora_scale": "LoRA scale",
    "w1": "Guidance of the base model (w1)",
    "w2": "Guidance with the LoRA (w2)",
    "low": "Interval: lower sigma (low)",
    "high": "Interval: upper sigma (high)",
    "every": "Refresh every so many steps (every)",
    "agreement": "Agreed from this cosine on (agreement)",
    "rescale": "Share that is rescaled (phi)",
    "eta": "Part along the estimate that is kept (eta)",
    "norm": "Longest guidance (norm)",
    "steps": "Steps",
}
"""What a grid can change, in plain words with the field's own."""


def opened(form: GuidanceForm, named: Mapping[str, Any]) -> Updates:
    """Updates of all that can be shown or hidden."""
    there, apart = heeded(named.get("guiders") or ()), bool(named.get("apart"))
    visible = {name: any(each in there for each in settings) for name, settings in UNDER_MORE.items()}
    visible |= {"w": not apart, "own-w": apart, "apart": bool(there & set(BOTH))}
    visible |= {f"values.{axis}": bool(named.get(f"axis.{axis}")) for axis in AXES}
    visible["axis.1"] = any(named.get(f"axis.{axis}") for axis in AXES)
    return {form.shown[name]: gr.update(visible=yes) for name, yes in visible.items() if name in form.shown}


def hints(named: Mapping[str, Any]) -> dict[str, Markup]:
    """A word beside what has no effect as things stand."""
    guiders = named.get("guiders") or ()
    set_by_grid = swept(named)
    found = {}
    for name in ("gamma", "w", *BOTH, "lora_scale", "steps"):
        if name in set_by_grid:
            found[name] = hint("The grid below sets this.")
        elif guiders and not is_heeded(name, guiders):
            found[name] = hint("No effect: none of the chosen guiders uses it.")
    ignored = [str(named[f"axis.{axis}"]) for axis in AXES if named.get(f"axis.{axis}")]
    ignored = [name for name in ignored if guiders and not is_heeded(name, guiders)]
    if ignored:
        found["sweep"] = hint(f"No effect: none of the chosen guiders uses {' or '.join(ignored)}.")
    return found


def explained() -> Markup:
    """What every guider does, where it comes from and what it evaluates, folded."""
    items = [
        part
        for entry in GUIDERS.values()
        for part in (tag("dt", entry.title), tag("dd", entry.help, tag("small", entry.reference)))
    ]
    return tag("details", tag("summary", "What each of them does"), tag("dl", *items), cls="explained")
