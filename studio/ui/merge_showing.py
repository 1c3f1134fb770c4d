"""What of a merge's form is shown: only what the task and the method ask for, within the method's limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.merging.catalogue import METHODS
from studio.ui.form import Updates
from studio.ui.markup import NOTHING, Markup, tag
from studio.ui.merge_data import OPTIONS, PARTS, SLOTS, is_unusual, limits_of, method_of, slots, zips

if TYPE_CHECKING:
    from studio.ui.merge_form import MergeForm

DRAWABLE = ("checkpoints", "bake")
ALWAYS_SHOWN = ("unet", "text_encoder", "vae")
LETTERS = "ABC"
ROLES = {
    "bake": ("Checkpoint", "B", "C"),
    "join": ("Checkpoint that the LoRAs are for", "B", "C"),
    "extract": ("A, the base", "B, what was made from it", "C"),
}
"""Task -> what its checkpoints are called; elsewhere they are A, B and C."""


def opened(form: MergeForm, named: Mapping[str, Any]) -> Updates:
    """Updates of all that can be shown or hidden, and of the sliders whose limits the method knows."""
    task, method, most = named.get("task") or "checkpoints", method_of(named), slots(named)
    merging, draws = task == "checkpoints", task in DRAWABLE
    has_alpha = merging and method.alpha is not None
    visible = {f"models.{index}": index < most for index in range(SLOTS)} | {"further": most > SLOTS}
    visible |= {"adapters": task in ("join", "bake"), "method": merging, "alpha": has_alpha}
    visible |= {f"options.{name}": merging and name in method.options.model_fields for name in OPTIONS}
    visible |= {"drawing": draws, "drawn": draws, "alphas": task == "bake" or has_alpha}
    visible |= {"parts": merging, "blocks": has_alpha, "rules": has_alpha}
    visible |= {f"parts.{part}": is_shown(part, named) for part in PARTS}
    visible |= {"join": task == "join", "zip": zips(named), "learning": zips(named)}
    visible |= {"rank": task in ("join", "extract"), "verify": bool(named.get("verify"))}
    updates: Updates = {form.shown[name]: gr.update(visible=yes) for name, yes in visible.items() if name in form.shown}
    updates |= _labels(form, task, method.models[0]) | _limits(form, named)
    updates |= {form.method_help: method_help(named) if merging else NOTHING}
    updates |= {form.searching: gr.update(visible=draws and (has_alpha or not merging))}
    updates |= {form.preview: gr.update(visible=draws)}
    return updates | {form.save: gr.update(variant="secondary" if draws else "primary")}


def is_shown(part: str, named: Mapping[str, Any], there: tuple[str, ...] = ALWAYS_SHOWN) -> bool:
    """Whether a part has its field: what A has, and what something is asked of."""
    return part in there or is_unusual(part, named.get(f"parts.{part}"))


def method_help(named: Mapping[str, Any]) -> Markup:
    """One line of what the method does, and where it comes from."""
    method = method_of(named)
    return tag("p", method.help, tag("small", method.reference), cls="method-help")


def _labels(form: MergeForm, task: str, needed: int) -> Updates:
    roles = ROLES.get(task, (*LETTERS[:2], "C" if needed > 2 else "C, if there is one"))
    return {form.controls[f"models.{index}"]: gr.update(label=role) for index, role in enumerate(roles)}


def _limits(form: MergeForm, named: Mapping[str, Any]) -> Updates:
    method = method_of(named)
    updates: Updates = {}
    if method.alpha is not None:
        low, high = method.alpha
        updates[form.controls["alpha"]] = gr.update(minimum=low, maximum=high, **_within(named.get("alpha"), low, high))
    for name in method.options.model_fields:
        low, high = limits_of(method.options, name)
        control = form.controls[f"options.{name}"]
        updates[control] = gr.update(minimum=low, maximum=high, **_within(named.get(f"options.{name}"), low, high))
    return updates


def _within(value: Any, low: float, high: float) -> dict[str, float]:
    """What brings a slider's value between its new limits; nothing where it lies there already."""
    if not isinstance(value, int | float) or low <= value <= high:
        return {}
    return {"value": min(high, max(low, value))}


KNOWN_METHODS = [(method.title, method.name) for method in METHODS.values()]
