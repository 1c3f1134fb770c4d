"""Score: not there yet."""

from __future__ import annotations

from studio.ui.tabs import later


def draw() -> None:
    later.draw("Score", "Here a judge that sees pictures will say whether it finds both readings of your illusion.")
