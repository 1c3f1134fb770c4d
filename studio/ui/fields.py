"""The kinds of fields that forms are made of, each with its place for sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from studio.ui.form import BoundedByRequest, Form
from studio.ui.markup import tag
from studio.ui.place import place

Choices = Sequence[tuple[str, str]] | Sequence[str]


@contextmanager
def group(title: str) -> Iterator[gr.Column]:
    """Some fields under a heading of their own."""
    with gr.Column(elem_classes="more-group") as column:
        place(tag("h4", title))
        yield column


def check(form: Form, name: str, label: str, value: bool, info: str) -> None:
    with gr.Column(elem_classes="field"):
        form.add(name, gr.Checkbox(value, label=label, info=info))
        form.note(name)


def text(form: Form, name: str, label: str, value: str, info: str, lines: int = 1, **more: Any) -> None:
    with gr.Column(elem_classes="field"):
        form.add(name, gr.Textbox(value, label=label, info=info, lines=lines, **more))
        form.note(name)


def number(form: Form, name: str, label: str, value: float | None, info: str | None = None, **more: Any) -> None:
    """A whole number."""
    with gr.Column(elem_classes="field"):
        form.add(name, gr.Number(value, label=label, info=info, precision=0, **more))
        form.note(name)


def slider(
    form: Form,
    name: str,
    label: str,
    least: float,
    most: float,
    value: float,
    info: str | None = None,
    *,
    step: float = 1,
    **more: Any,
) -> None:
    with gr.Column(elem_classes="field"):
        control = BoundedByRequest(
            least, max(most, least + step), value=value, step=step, label=label, info=info, buttons=[], **more
        )
        form.add(name, control)
        form.note(name)


def choice(form: Form, name: str, label: str, choices: Choices, value: str, info: str | None, **more: Any) -> None:
    with gr.Column(elem_classes="field"):
        form.add(name, gr.Dropdown(list(choices), value=value, label=label, info=info, **more))
        form.note(name)


def listed(values: Sequence[object] | None) -> str:
    """Numbers as a person writes them, in as few digits as say the same."""
    return ", ".join(map(written, values or ()))


def written(value: object) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def parts(text: Any) -> list[str]:
    """What a person wrote between commas; what is no number is refused with a sentence."""
    return [part.strip() for part in str(text or "").replace(";", ",").split(",") if part.strip()]


def lines(text: Any) -> list[str]:
    """What a person wrote, one a line."""
    return [line.strip() for line in str(text or "").splitlines() if line.strip()]
