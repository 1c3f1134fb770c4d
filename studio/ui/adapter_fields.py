"""Adapters as a person writes them: one file a line, and one line of scales per view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from studio.illusions.request import IllusionRequest
from studio.ui.form import Form

NONE = "-"  # a view that wears nothing


def build(form: Form, request: IllusionRequest) -> None:
    """The controls of ``adapters``, ``view_adapters`` and ``adapter_study``, each with its place for sentences."""
    files, scales = written_files(request.adapters), written_scales(request.view_adapters)
    with gr.Column(elem_classes="field"):
        info = "One LoRA a line with a name for it, such as ink = loras/ink.safetensors."
        form.add("adapters", gr.Textbox(files, label="Adapters", info=info, lines=2, elem_id="adapters"))
        form.note("adapters")
    with gr.Column(elem_classes="field"):
        info = f"One line per view, or one for all, such as ink 1, wash 0.8 ({NONE} for none); left empty all count 1."
        form.add("view_adapters", gr.Textbox(scales, label="Scales in each view", info=info, lines=2))
        form.note("view_adapters")
    with gr.Column(elem_classes="field"):
        info = "The bare model, each adapter alone and all together, from the same seeds."
        form.add("adapter_study", gr.Checkbox(request.adapter_study, label="Also compare adapters", info=info))
        form.note("adapter_study")


def written(full: Mapping[str, Any]) -> dict[str, Any]:
    """A request's fields as the controls show them."""
    texts = {"adapters": written_files(full["adapters"]), "view_adapters": written_scales(full["view_adapters"])}
    return texts | {"adapter_study": full["adapter_study"]}


def read(named: Mapping[str, Any]) -> dict[str, Any]:
    """The controls as a request's fields; what is no number is left as it is, to be refused with a sentence."""
    files = (line.partition("=") for line in _lines(named["adapters"]))
    return {
        "adapters": {name.strip(): path.strip() for name, _, path in files},
        "view_adapters": [_scales(line) for line in _lines(named["view_adapters"])],
        "adapter_study": bool(named["adapter_study"]),
    }


def written_files(files: Mapping[str, str]) -> str:
    return "\n".join(f"{name} = {path}" for name, path in files.items())


def written_scales(by_view: Sequence[Mapping[str, float]]) -> str:
    return "\n".join(", ".join(f"{name} {scale}" for name, scale in scales.items()) or NONE for scales in by_view)


def _scales(line: str) -> dict[str, str]:
    pairs = (part.strip().rpartition(" ") for part in line.split(",") if part.strip() not in ("", NONE))
    return {name.strip() or number: number if name else "1" for name, _, number in pairs}


def _lines(text: Any) -> list[str]:
    return [line.strip() for line in str(text or "").splitlines() if line.strip()]
