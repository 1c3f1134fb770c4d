"""The top of a recipe column: presets to start from, and a file to restore settings from."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.desk import Desk
from studio.ui.form import Form
from studio.ui.markup import tag
from studio.ui.place import place, pressable
from studio.ui.presets import preset_strip


def starts(desk: Desk, form: Form, engine: str, words: str, **more: Any) -> tuple[gr.HTML, gr.UploadButton]:
    """The strip of presets, and the button that takes a file; ``more``: its note's name, and looks of both.

    ``note``: what the sentences about the file are called; ``strip``: the strip's id; the rest goes to the button.
    """
    note, strip = more.pop("note", "restore"), more.pop("strip", f"{engine}-presets")
    looks = {"elem_id": f"restore-{engine}", "elem_classes": "restore-upload", "file_count": "single"} | more
    with gr.Column(elem_classes="starts"):
        with gr.Row(elem_classes="starts-head"):
            place(tag("h3", "Start from"))
            upload = gr.UploadButton(words, size="sm", type="filepath", **looks)
        form.note(note)
        presets = pressable(preset_strip(desk, engine), elem_id=strip)
    return presets, upload
