"""Train: not there yet."""

from __future__ import annotations

from studio.ui.tabs import later


def draw() -> None:
    later.draw("Train", "Here you will teach a model a subject or a style as a small LoRA adapter, from a few pictures.")
