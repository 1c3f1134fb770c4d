"""What was learned, put into the forms of the tabs that can use it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from studio.ui import adapter_fields
from studio.ui.form import Updates, Values
from studio.ui.guidance_form import GuidanceForm
from studio.ui.illusion_form import IllusionForm
from studio.ui.markup import tag
from studio.ui.merge_form import MergeForm

Used = tuple[Updates, str]
"""The changes, and the sentence that says what happened."""


def in_illusions(form: IllusionForm, values: Values, request: Mapping[str, Any], path: Path) -> Used:
    """Among the adapters, under a name of its own, on the model that learned."""
    held = adapter_fields.read(form.named(values))["adapters"]
    name = adapter_name(request, path, held)
    files = {**held, name: str(path)}
    said = f"{name} is among the adapters, under More"
    word = word_for(request)
    said += f"; write “{word}” in a prompt to see it." if word else "."
    note = form.written({"adapters": tag("p", said, cls="is-done")})
    changed = {"model": request.get("model", ""), "adapters": adapter_fields.written_files(files)}
    return form.updates(changed) | note | {form.more: gr.update(open=True)}, said


def in_merge(form: MergeForm, values: Values, request: Mapping[str, Any], path: Path) -> Used:
    """Joined with others where LoRAs are being joined, else baked into the model that learned."""
    named = form.named(values)
    held = [each for each in named.get("adapters") or [] if each != str(path)]
    if named.get("task") == "join":
        said = f"{path.name} is among the LoRAs to join."
        return form.updates({"adapters": [*held, str(path)]}) | _said(form, said), said
    said = f"{path.name} is to be baked into {request.get('model', '')}."
    filled = form.filled({"task": "bake", "models": [request.get("model", "")], "adapters": [str(path)], "parts": {}})
    return filled | _said(form, said), said


def in_guidance(form: GuidanceForm, values: Values, request: Mapping[str, Any], path: Path) -> Used:
    """As the LoRA whose guidance is compared, on the model that learned and with what was drawn of it."""
    name = adapter_name(request, path, {})
    prompts = list(request.get("sample_prompts") or ()) or [word_for(request) or "a picture"]
    said = f"{path.name} is the LoRA to compare guidance for."
    asked = {"model": request.get("model", ""), "adapters": {name: str(path)}, "prompts": prompts[:1]}
    kept = {field: value for field, value in form.request(values).items() if field not in ("adapters", "scales")}
    return form.filled({**kept, **asked}) | form.written({"restore": tag("p", said, cls="is-done")}), said


def adapter_name(request: Mapping[str, Any], path: Path, held: Mapping[str, str]) -> str:
    """A short word that no other adapter has; the same again for the same file."""
    same = next((name for name, file in held.items() if file == str(path)), None)
    stem = re.sub(r"[^a-z0-9]+", "_", str(request.get("trigger") or path.stem).lower()).strip("_")[:24] or "learned"
    free = (name for name in (stem, *(f"{stem}_{number}" for number in range(2, 100))) if name not in held)
    return same or next(free, stem)


def word_for(request: Mapping[str, Any]) -> str:
    """What a prompt has to hold for it to show."""
    return str(request.get("trigger") or request.get("instance_prompt") or "")


def _said(form: MergeForm, said: str) -> Updates:
    return form.written({"restore": tag("p", said, cls="is-done")})
