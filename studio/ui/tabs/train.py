"""Train: not there yet."""

from __future__ import annotations

from studio.ui.tabs import later


def draw() -> None:
    later.draw(
        "Train", "Here you will teach a model a subject or a style from a few pictures, as a small LoRA adapter."
    )
