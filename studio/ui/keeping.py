"""A form that is still there after a reload: kept in the browser on every change, without asking the server."""

from __future__ import annotations

import gradio as gr

from studio.ui.form import Form
from studio.ui.live import QUIET


def keep(page: gr.Blocks, form: Form, kept: gr.BrowserState) -> None:
    """Write the form's values to ``kept`` whenever one changes, and bring them back when the page opens."""
    controls = list(form.controls.values())
    page.load(form.recalled, kept, [*controls, *form.openable], **QUIET)
    names = ", ".join(f'"{name}"' for name in form.controls)
    gather = f"(...values) => Object.fromEntries([{names}].map((name, index) => [name, values[index]]))"
    gr.on([control.change for control in controls], None, controls, kept, js=gather, **QUIET)
