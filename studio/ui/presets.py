"""Presets as small pictures to start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from studio.imaging import jpeg_data_uri
from studio.ui.drawings import drawing_of
from studio.ui.markup import NOTHING, Markup, tag

if TYPE_CHECKING:
    from studio.presets import Preset
    from studio.ui.desk import Desk

COVER = 192  # pixels
PLAIN = {"illusion": "⇅"}
"""Engine -> what stands on the cover of a preset without a picture."""


def preset_strip(desk: Desk, engine: str) -> Markup:
    """The engine's presets; one without a picture has a plain cover."""
    presets = desk.workbench.presets(engine)
    if not presets:
        return NOTHING
    return tag("div", *[_preset(desk, preset) for preset in presets], cls="presets", role="group", aria_label="Presets")


def _preset(desk: Desk, preset: Preset) -> Markup:
    cover = _cover(desk, preset)
    return tag(
        "button",
        tag("span", tag("img", src=cover, alt="") if cover else PLAIN.get(preset.engine, "⇄"), cls="cover"),
        tag("span", preset.title),
        type="button",
        cls="preset",
        title=preset.description,
        data_act="preset",
        data_slug=preset.slug,
    )


def _cover(desk: Desk, preset: Preset) -> str | None:
    """A small picture as a data URI: the preset's own, or else that of its example's result."""
    example = next((each for each in desk.examples.of(preset.engine) if each.folder.name == preset.slug), None)
    shown = drawing_of(preset.engine).cover(example.summary) if example else None
    path = preset.picture or (example.folder / shown if example and shown else None)
    if not path or not path.is_file():
        return None
    with Image.open(path) as picture:
        return jpeg_data_uri(picture, COVER)
