"""The pictures of a set with their captions, for the result column: ``build()`` returns the ``Pane``.

What stands in it is drawn by ``train_pictures_events.Pictures``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.ui.place import FORWARD_PRESSES, place, pressable

# A caption comes as an event of its own: it is longer than what a press may carry.
FORWARD_CAPTIONS = f"""{FORWARD_PRESSES}
element.addEventListener('duck-caption', (event) => trigger('caption', event.detail));
"""
POLL = 0.5  # seconds between two looks at a large set


@dataclass(frozen=True)
class Pane:
    """``view``: which pictures and which page of them is shown; ``patch``: what changed since the grid was drawn."""

    head: gr.HTML
    grid: gr.HTML
    patch: gr.HTML
    timer: gr.Timer
    view: gr.State

    @property
    def parts(self) -> list[Any]:
        return [self.head, self.grid, self.timer, self.view]


def build() -> Pane:
    """The pane, empty until its tab is opened."""
    with gr.Column(elem_id="pictures", elem_classes="pictures"):
        head = pressable(elem_id="pictures-head")
        grid = gr.HTML(
            "", js_on_load=FORWARD_CAPTIONS, apply_default_css=False, elem_id="pictures-grid", elem_classes="stage-like"
        )
        patch = place(elem_id="pictures-patch")
    return Pane(head, grid, patch, gr.Timer(POLL, active=False), gr.State({"show": "all", "page": 0}))
