"""Guidance: not there yet."""

from __future__ import annotations

from studio.ui.tabs import later


def draw() -> None:
    later.draw(
        "Guidance", "Here you will compare AutoLoRA guidance with plain guidance, its cost shown beside its quality."
    )
