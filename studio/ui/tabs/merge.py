"""Merge: not there yet."""

from __future__ import annotations

from studio.ui.tabs import later


def draw() -> None:
    later.draw(
        "Merge", "Here you will blend two or three checkpoints into one and compare every blend under the same seeds."
    )
