"""The look: every colour is a custom property of css/tokens.css; gradio's own variables point at those."""

from __future__ import annotations

from pathlib import Path

from gradio.themes import Base
from gradio.themes.utils import colors, fonts, sizes

HERE = Path(__file__).parent
STYLES = tuple(
    HERE / "css" / f"{name}.css"
    for name in (
        *("pieces", "frame", "form", "action", "stage", "result"),
        *("merge", "strip", "train", "pictures", "guidance", "history"),
    )
)
OUTER_STYLE = HERE / "css" / "tokens.css"
SCRIPTS = tuple(HERE / f"{name}.js" for name in ("page", "merge", "pictures", "guidance"))
FAVICON = HERE / "favicon.png"

# gradio ships these two families and LocalFont serves them from here. Of most families it ships, and of the semibold of
# this one, only a few letters are there; regular and bold are complete.
TEXT_FONT = fonts.LocalFont("IBM Plex Sans", weights=(400, 700))
CODE_FONT = fonts.LocalFont("IBM Plex Mono", weights=(400,))

# gradio variable -> value, the same in light and dark: the properties themselves change with .dark.
VARIABLES = {
    "body_background_fill": "var(--ground)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--ink-soft)",
    "background_fill_primary": "var(--paper)",
    "background_fill_secondary": "var(--ground)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "border_color_accent_subdued": "var(--line)",
    "color_accent_soft": "var(--accent-tint)",
    "link_text_color": "var(--accent)",
    "link_text_color_active": "var(--accent)",
    "link_text_color_hover": "var(--accent-strong)",
    "link_text_color_visited": "var(--accent)",
    "block_background_fill": "transparent",
    "block_border_color": "transparent",
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_info_text_color": "var(--ink-soft)",
    "block_label_background_fill": "transparent",
    "block_label_border_width": "0px",
    "block_label_text_color": "var(--ink)",
    "block_title_background_fill": "transparent",
    "block_title_text_color": "var(--ink)",
    "panel_background_fill": "transparent",
    "panel_border_width": "0px",
    "accordion_text_color": "var(--ink)",
    "error_background_fill": "var(--paper)",
    "error_border_color": "var(--danger)",
    "error_text_color": "var(--danger)",
    "error_icon_color": "var(--danger)",
    "input_background_fill": "var(--field)",
    "input_background_fill_focus": "var(--field)",
    "input_background_fill_hover": "var(--field)",
    "input_border_color": "var(--edge)",
    "input_border_color_focus": "var(--accent)",
    "input_border_color_hover": "var(--ink-faint)",
    "input_border_width": "1px",
    "input_placeholder_color": "var(--ink-faint)",
    "input_shadow": "none",
    "input_shadow_focus": "var(--focus)",
    "loader_color": "var(--accent)",
    "slider_color": "var(--accent)",
    "stat_background_fill": "var(--accent)",
    "button_border_width": "1px",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent-strong)",
    "button_primary_border_color": "var(--accent)",
    "button_primary_border_color_hover": "var(--accent-strong)",
    "button_primary_text_color": "var(--on-accent)",
    "button_primary_text_color_hover": "var(--on-accent)",
    "button_secondary_background_fill": "var(--paper)",
    "button_secondary_background_fill_hover": "var(--sunken)",
    "button_secondary_border_color": "var(--line-strong)",
    "button_secondary_border_color_hover": "var(--ink-faint)",
    "button_secondary_text_color": "var(--ink)",
    "button_secondary_text_color_hover": "var(--ink)",
    "checkbox_background_color": "var(--field)",
    "checkbox_border_color": "var(--edge)",
}

# These have no dark twin.
PLAIN_VARIABLES = {
    "block_padding": "0px",
    "block_radius": "0px",
    "block_info_text_size": "13px",
    "block_label_text_size": "13px",
    "block_title_text_size": "13px",
    "block_title_text_weight": "600",
    "input_radius": "8px",
    "input_padding": "8px 12px",
    "input_text_size": "15px",
    "layout_gap": "16px",
    "form_gap_width": "0px",
    "container_radius": "8px",
    "button_large_radius": "8px",
    "button_medium_radius": "8px",
    "button_small_radius": "8px",
    "button_large_text_size": "15px",
    "button_large_text_weight": "600",
    "button_medium_text_weight": "600",
    "button_small_text_weight": "600",
    "button_transition": "background-color .12s, border-color .12s",
}


def theme() -> Base:
    """gradio's plainest theme with this page's colours, font and spacing."""
    base = Base(
        primary_hue=colors.emerald,
        neutral_hue=colors.neutral,
        spacing_size=sizes.spacing_md,
        radius_size=sizes.radius_md,
        text_size=sizes.text_md,
        font=(TEXT_FONT, "system-ui", "sans-serif"),
        font_mono=(CODE_FONT, "ui-monospace", "monospace"),
    )
    dark = {f"{name}_dark": value for name, value in VARIABLES.items()}
    return base.set(**VARIABLES, **dark, **PLAIN_VARIABLES)


def head() -> str:
    """What the page's head holds beyond gradio's own: the outer style and the scripts."""
    style, *scripts = (path.read_text(encoding="utf-8") for path in (OUTER_STYLE, *SCRIPTS))
    return f"<style>{style}</style>" + "".join(f"<script>{script}</script>" for script in scripts)
