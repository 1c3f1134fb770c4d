"""Animations that turn one reading of an illusion into the others, for any number of views; WebP and GIF by Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from studio.illusions.motions import GROUND, eased, motion_of
from studio.imaging import to_picture, to_tensor
from studio.views.specs import ViewSpec
from studio.views.view import View, build

TICK = 40  # milliseconds a frame of a movement stays; browsers slow GIFs faster than 20 ms down
PAUSE = 1400  # milliseconds a reading stays
LARGEST = 384  # pixels; larger pictures are animated smaller, so that the files can be sent around
INK = (70, 70, 74)
SAMPLES = (128, 48)  # pixels along a side of the copies of readings and other frames that make a GIF's palette


class Frame(NamedTuple):
    picture: Image.Image
    milliseconds: int


class Caption(NamedTuple):
    """A prompt drawn as a mask, and how much of it is to be seen, from 0 to 1."""

    mask: Image.Image
    strength: float


def frames(
    picture: Image.Image, views: Sequence[View], prompts: Sequence[str] = (), n_per_transition: int = 14
) -> list[Frame]:
    """A loop that starts at the first view and pauses at each: from one reading back to the picture, on to the next.

    ``picture`` is as wide as the views were built for. With ``prompts``, one per view, each reading has its caption
    below. Movements have ``n_per_transition`` frames between their ends, which are the exact pictures.
    """
    picture, views = _reduced(picture, list(views))
    masks = _caption_masks(prompts, picture.width)
    at_rest = next((i for i, view in enumerate(views) if _is_still(view)), None)
    loop: list[Frame] = []
    for index, view in enumerate(views):
        away = _excursion(picture, view, n_per_transition)
        way = [(seen, (i + 1) / (len(away) + 1)) for i, seen in enumerate(away)]
        moving = [
            Frame(_captioned(seen, masks, {index: 3 * share - 2, at_rest: 1 - 3 * share}), TICK)
            for seen, share in ([(picture, 0.0), *way] if way else [])
        ]
        pause = Frame(_captioned(to_picture(view.picture(to_tensor(picture))), masks, {index: 1.0}), PAUSE)
        loop += [*moving, pause, *moving[:0:-1]]
    first = next(i for i, frame in enumerate(loop) if frame.milliseconds == PAUSE)
    return loop[first:] + loop[:first]


def save_webp(frames: Sequence[Frame], path: Path) -> None:
    """Write an endless animated WebP."""
    first, *others = (frame.picture for frame in frames)
    durations = [frame.milliseconds for frame in frames]
    first.save(path, "WEBP", save_all=True, append_images=others, duration=durations, loop=0, quality=80, method=1)


def save_gif(frames: Sequence[Frame], path: Path) -> None:
    """Write an endless GIF whose frames share one palette, so that colours do not flicker."""
    different = {id(frame.picture): frame.picture for frame in frames}
    palette = _palette(frames)
    plain = Image.Dither.NONE  # dots would flicker from frame to frame and nearly double the file
    indexed = {key: picture.quantize(palette=palette, dither=plain) for key, picture in different.items()}
    first, *others = (indexed[id(frame.picture)] for frame in frames)
    durations = [frame.milliseconds for frame in frames]
    first.save(path, "GIF", save_all=True, append_images=others, duration=durations, loop=0, optimize=False)


def _reduced(picture: Image.Image, views: list[View]) -> tuple[Image.Image, list[View]]:
    """A picture at most LARGEST wide where whole cells allow it, and the views built for it."""
    cells, cell = views[0].cells, views[0].cell
    smaller = [k for k in range(1, cell + 1) if cell % k == 0 and picture.width <= k * LARGEST]
    if picture.width <= LARGEST or not smaller:
        return picture, views
    return picture.reduce(smaller[0]), [build(view.spec, cells, cell // smaller[0]) for view in views]


def _is_still(view: View) -> bool:
    return all(step.entry.motion == "none" for step in view.spec.steps)


def _excursion(picture: Image.Image, view: View, count: int) -> list[Image.Image]:
    """The frames between the picture and what the view makes of it, ends left out; a composition step by step."""
    shots: list[Image.Image] = []
    before, pixels = picture, to_tensor(picture)
    for step in view.spec.steps:
        alone = build(ViewSpec((step,)), view.cells, view.cell)
        pixels = alone.picture(pixels)
        after = to_picture(pixels)
        draw = motion_of(alone, before, after)
        if draw is not None:
            shots += [before] if shots else []
            shots += [draw(eased((i + 1) / (count + 1))) for i in range(count)]
        before = after
    return shots


def _caption_masks(prompts: Sequence[str], width: int) -> list[Image.Image]:
    """Every prompt on one line, shortened until it fits, as masks of a strip ``width`` pixels wide."""
    size = max(11, width // 18)
    font = ImageFont.load_default(size)
    return [_caption_mask(prompt, width, font, 2 * size) for prompt in prompts]


def _caption_mask(prompt: str, width: int, font: ImageFont.FreeTypeFont, height: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    text = " ".join(prompt.split())
    if font.getlength(text) > width - 8:
        while text and font.getlength(text + "…") > width - 8:
            text = text[:-1]
        text += "…"
    ImageDraw.Draw(mask).text((width / 2, height / 2), text, fill=255, font=font, anchor="mm")
    return mask


def _captioned(picture: Image.Image, masks: Sequence[Image.Image], strengths: dict[int | None, float]) -> Image.Image:
    """The picture above the captions of the views in ``strengths``; as it is when there are no captions."""
    if not masks:
        return picture
    sheet = Image.new("RGB", (picture.width, picture.height + masks[0].height), GROUND)
    sheet.paste(picture)
    for index, strength in strengths.items():
        if index is not None and strength > 0:
            ink = Image.new("RGB", masks[index].size, INK)
            sheet.paste(ink, (0, picture.height), masks[index].point(lambda value, s=strength: round(value * s)))
    return sheet


def _palette(frames: Sequence[Frame]) -> Image.Image:
    """A palette of 256 colours for all the frames, in which readings weigh more than movements."""
    sides = {id(frame.picture): (frame.picture, SAMPLES[frame.milliseconds < PAUSE]) for frame in frames}
    small = [picture.resize((side, side), Image.Resampling.NEAREST) for picture, side in sides.values()]
    colours = np.concatenate([np.asarray(picture).reshape(-1, 16, 3) for picture in small])
    return Image.fromarray(colours).quantize(256, Image.Quantize.MEDIANCUT)
