"""The same world in ink: brush lines along edges, solid blacks and flat washes by tone, one ink on warm paper.

Only image processing: lines are thresholded gradients of the blurred picture at two scales (the outline from the
coverage, the detail from the colours), tone is its blurred luminance cut into a few steps. Lines are about as thick as
half a latent cell, the finest that the autoencoder carries well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from studio.builtin.world import COLOURS, Style, Thing, Wobble, place

PAPER = (246, 238, 214)
INK = (22, 36, 76)
TINT = 0.25  # share of a named ground's colour in its paper
LUMINANCE = (0.299, 0.587, 0.114)  # Rec. 601
TONE_BLUR = 1.2
# Luminance at which an area begins and is fully in the step, and how much ink it then holds beside the steps before.
TONES = ((0.82, 0.72, 0.16), (0.62, 0.52, 0.17), (0.46, 0.36, 0.20), (0.34, 0.24, 0.47))


@dataclass(frozen=True)
class Line:
    """A line's scale (sigma in pixels), the edge contrast at which it begins and is full, and its ink when full."""

    sigma: float
    begins: float
    full: float
    ink: float


OUTLINE = Line(sigma=2.4, begins=0.25, full=0.75, ink=1.0)
DETAIL = Line(sigma=1.6, begins=0.25, full=0.70, ink=0.80)


def render(thing: Thing, rng: np.random.Generator, colour: str | None = None, wobble: Wobble = Wobble()) -> Image.Image:
    """Draw ``thing`` upright in ink on plain paper, or on paper with a breath of ``colour``: 128 x 128 RGB."""
    return on_paper(density(place(thing, rng, wobble) / 255), colour)


def density(drawn: np.ndarray) -> np.ndarray:
    """Ink from 0 (paper) to 1 (black) for a drawing that is premultiplied RGBa in [0, 1]: H x W x 4 -> H x W."""
    coverage = drawn[..., 3]
    on_white = np.clip(drawn[..., :3] + 1 - coverage[..., None], 0, 1)
    tone = blurred(on_white @ np.array(LUMINANCE, np.float32), TONE_BLUR)
    wash = sum(ink * smooth_step(tone, begins, full) for begins, full, ink in TONES) * coverage
    return np.clip(np.maximum.reduce([line(coverage, OUTLINE), line(on_white, DETAIL), wash]), 0, 1)


def line(values: np.ndarray, kind: Line) -> np.ndarray:
    """Ink along the edges of ``values`` (H x W, or H x W x C: the strongest channel's)."""
    down, right = np.gradient(blurred(values, kind.sigma), axis=(0, 1))
    # A blurred unit step rises by 1 / (sigma sqrt(2 pi)) a pixel: this makes it 1 at every scale.
    contrast = np.hypot(down, right) * kind.sigma * math.sqrt(2 * math.pi)
    strongest = contrast if contrast.ndim == 2 else contrast.max(axis=2)
    return kind.ink * smooth_step(strongest, kind.begins, kind.full)


def blurred(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur over the first two axes, edges repeated."""
    reach = math.ceil(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(values.dtype)
    for axis in (0, 1):
        size = values.shape[axis]
        around = [(reach, reach) if a == axis else (0, 0) for a in range(values.ndim)]
        padded = np.moveaxis(np.pad(values, around, mode="edge"), axis, 0)
        values = np.moveaxis(sum(w * padded[i : i + size] for i, w in enumerate(weights)), 0, axis)
    return values


def smooth_step(values: np.ndarray, start: float, end: float) -> np.ndarray:
    """0 before ``start``, 1 beyond ``end``, a cubic between; ``end`` may be the smaller of the two."""
    share = np.clip((values - start) / (end - start), 0, 1)
    return share * share * (3 - 2 * share)


def paper(colour: str | None = None) -> np.ndarray:
    """The sheet's RGB, 0 to 255."""
    plain = np.array(PAPER, np.float32)
    return plain if colour is None else (1 - TINT) * plain + TINT * np.array(COLOURS[colour], np.float32)


def on_paper(ink: np.ndarray, colour: str | None = None) -> Image.Image:
    """Densities H x W as a picture."""
    mixed = paper(colour) + (np.array(INK, np.float32) - paper(colour)) * ink[..., None]
    return Image.fromarray(mixed.round().astype(np.uint8))


def off_ink(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far pixels (... x 3, 0 to 255) are from any mixture of plain paper and ink, in levels, and how much ink that
    mixture holds, 0 to 1. A level is the root mean square over the three channels."""
    span = np.array(INK, np.float32) - np.array(PAPER, np.float32)
    beyond = pictures - np.array(PAPER, np.float32)
    share = np.clip(beyond @ span / (span @ span), 0, 1)
    return np.sqrt(np.square(beyond - share[..., None] * span).mean(-1)), share


# A caption that names no ground means plain paper, so a tinted one is always named.
STYLE = Style(render, unnamed=0.6, said=1.0)
