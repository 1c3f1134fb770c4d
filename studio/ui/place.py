"""Places in the page for our own markup."""

from __future__ import annotations

import gradio as gr

# One listener for every button in the markup: what was pressed travels as the button's data-* attributes.
FORWARD_PRESSES = """
element.addEventListener('click', (event) => {
  const pressed = event.target.closest('[data-act]');
  if (pressed) trigger('press', {...pressed.dataset});
});
"""
LONGEST = 120  # characters of a value that a press may carry


def place(value: str = "", *, elem_id: str | None = None, elem_classes: str | None = None) -> gr.HTML:
    """Markup to look at, in the page's own style."""
    return gr.HTML(value, js_on_load=None, apply_default_css=False, elem_id=elem_id, elem_classes=elem_classes)


def pressable(value: str = "", *, elem_id: str, elem_classes: str | None = None) -> gr.HTML:
    """Markup whose buttons with data-act are events: listen with ``.press`` and read them with ``pressed``."""
    return gr.HTML(
        value, js_on_load=FORWARD_PRESSES, apply_default_css=False, elem_id=elem_id, elem_classes=elem_classes
    )


def pressed(event: gr.EventData) -> dict[str, str]:
    """What a press carries. It comes from the browser, so only short texts are taken."""
    data = event._data if isinstance(event._data, dict) else {}
    return {key: value for key, value in data.items() if isinstance(value, str) and len(value) <= LONGEST}
