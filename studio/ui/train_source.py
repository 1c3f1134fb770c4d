"""Where the pictures of a training come from: fields ``data``, ``trigger``, ``template``, and where to drop files.

For the recipe column: ``build(form, desk)`` adds the fields to the form and returns the ``Source`` that
``train_pictures_events.Pictures`` listens to.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import gradio as gr

from studio.training.captions import MAX_TEMPLATE, MAX_TRIGGER, TEMPLATE
from studio.training.request import TrainRequest
from studio.ui import fields
from studio.ui.desk import Desk
from studio.ui.form import Form
from studio.ui.markup import Markup, tag
from studio.ui.place import place
from studio.workbench import new_owner

NEW_SET = ("New set: drop pictures", "")
DROP = "Drop pictures here, or choose them"
HINT = "Anywhere on this tab; captions (.txt, metadata.jsonl), folders and a .zip as well."
AT_HOME = "A set, or the path of a folder or .zip of this machine."
FOR_STRANGERS = "A built-in set, or pictures of your own; nobody else can see these, and they are gone after a day."


@dataclass(frozen=True)
class Source:
    """``names`` holds the names of the files in ``drop`` with their folders, which a browser tells the page alone."""

    form: Form
    data: gr.Dropdown
    drop: gr.UploadButton
    names: gr.Textbox
    said: gr.HTML


def build(form: Form, desk: Desk) -> Source:
    """The controls, filled with the first built-in set."""
    first = TrainRequest.model_fields["data"].default
    shared = desk.workbench.settings.profile != "local"
    with gr.Column(elem_classes="field"):
        data = gr.Dropdown(
            choices(desk, ""),
            value=first,
            label="Pictures",
            info=FOR_STRANGERS if shared else AT_HOME,
            allow_custom_value=True,  # what may be named says the policy, with a sentence beside the pictures
            elem_id="train-data",
        )
        form.add("data", data)
        form.note("data", "edits")
    with gr.Column(elem_classes="field"):
        drop = gr.UploadButton(DROP, file_count="multiple", elem_id="train-drop", elem_classes="drop-area")
        names = gr.Textbox("", label="Names of the files", visible="hidden", elem_id="train-names")
        said = place(said_of(HINT, desk), elem_id="train-said")
    limits = {"max_length": MAX_TRIGGER}
    help_trigger = "A rare word for what is new, such as sks; it is put before every caption that lacks it."
    fields.text(form, "trigger", "Trigger word", "", help_trigger, placeholder="none", **limits)
    help_template = "For pictures without a caption; {trigger}, or {name} of the file."
    fields.text(form, "template", "Caption where there is none", TEMPLATE, help_template, max_length=MAX_TEMPLATE)
    return Source(form, data, drop, names, said)


def choices(desk: Desk, owner: str) -> list[tuple[str, str]]:
    """What the picker offers: sets, and a new one."""
    return [*desk.workbench.sets(owner or new_owner()).choices(), NEW_SET]


def said_of(words: str, desk: Desk, error: bool = False) -> Markup:
    """What stands under the drop area; it also tells the page how large a file may be that it sends.

    With a number of its own: the page writes there as well, and gradio leaves alone what it was sent last.
    """
    limits = {"data_most": desk.workbench.limits.max_file_bytes, "data_serial": time.time_ns()}
    return tag("p", words, cls="is-error" if error else "hint", role="status", **limits)
