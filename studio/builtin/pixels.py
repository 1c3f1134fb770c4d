"""Pixel art of the things that the built-in model knows, derived from its own renderings: few cells, few colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from studio.builtin.world import COLOURS, FONT, SIZE, Thing, sprite

CELLS = 16  # along a picture's side, as many as the built-in autoencoder's: smaller ones would be smoothed away
CELL = 8  # pixels of one cell's side
PALETTE = 10  # colours of a thing, its outline not counted
SOLID = 0.5  # from which share of cover a cell belongs to the thing
INK = 0.34  # how bright the outline is, of the colour beside it
SHARPEN = ImageFilter.UnsharpMask(radius=6, percent=110, threshold=0)  # so that eyes outlive the averaging
NEARBY = ImageFilter.BoxBlur(8)
VIVID = 1.2  # saturation, since averaging over cells dulls

# Things whose shapes are still told apart on so few cells, with grounds on which they stand out.
CHOSEN = {
    "fox": "blue", "dog": "teal", "panda": "orange", "lion": "purple", "frog": "pink", "penguin": "yellow",
    "baby chick": "blue", "duck": "yellow", "unicorn": "teal", "dinosaur": "orange", "tropical fish": "purple",
    "whale": "white", "rooster": "gray", "swan": "purple", "flamingo": "teal", "red apple": "white", "pear": "purple",
    "banana": "red", "watermelon": "yellow", "strawberry": "gray", "eggplant": "orange", "avocado": "pink",
    "mushroom": "green", "hamburger": "teal", "ice cream": "brown", "cupcake": "green", "tulip": "white",
    "sunflower": "blue", "fir tree": "pink", "ghost": "purple", "skull": "red", "taxi": "gray", "rocket": "black",
    "castle": "green", "crescent moon": "black", "rainbow": "white", "red heart": "brown", "gem": "yellow",
    "hourglass": "orange", "crown": "red",
}  # fmt: skip


@dataclass(frozen=True)
class Pixel:
    """One picture to be drawn: a thing on a ground of a named colour."""

    thing: Thing
    colour: str

    @property
    def caption(self) -> str:
        article = "an" if self.colour == "orange" else "a"
        return f"{self.thing.with_article} on {article} {self.colour} background"

    @property
    def name(self) -> str:
        return self.thing.name.replace(" ", "-")


def chosen(things: tuple[Thing, ...]) -> tuple[Pixel, ...]:
    """The chosen ones among all things of the world. Raises KeyError for one that is not there."""
    named = {thing.name: thing for thing in things}
    return tuple(Pixel(named[name], colour) for name, colour in CHOSEN.items())


def draw(pixel: Pixel) -> Image.Image:
    """128 x 128 RGB: cells of 8 x 8 pixels, with an outline of one cell."""
    colours, solid = _cells(pixel.thing)
    reduced = _reduced(colours, solid)
    sheet = np.empty((CELLS, CELLS, 3), np.uint8)
    sheet[:] = COLOURS[pixel.colour]
    sheet[solid] = reduced[solid]
    edge = _grown(solid) & ~solid
    sheet[edge] = _inked(reduced, solid)[edge]
    picture = Image.new("RGB", (SIZE, SIZE), COLOURS[pixel.colour])
    large = Image.fromarray(sheet).resize((CELLS * CELL, CELLS * CELL), Image.Resampling.NEAREST)
    picture.paste(large, ((SIZE - large.width) // 2, (SIZE - large.height) // 2))
    return picture


def _cells(thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour of each cell (cells x cells x 3, uint8) and which cells belong to the thing (cells x cells, bool)."""
    drawn = sprite(thing.emoji, FONT)
    if drawn is None:
        raise ValueError(f"the font {FONT.name} has no picture for {thing.name!r}")
    box = drawn.getbbox() or (0, 0, *drawn.size)
    side = max(box[2] - box[0], box[3] - box[1])
    left, top = (box[0] + box[2] - side) // 2, (box[1] + box[3] - side) // 2
    inner = CELLS - 2  # the outline needs a cell on every side
    square = drawn.crop((left, top, left + side, top + side))
    colours = np.asarray(_filled(square).filter(SHARPEN).resize((inner, inner), Image.Resampling.BOX))
    cover = np.asarray(square.resize((inner, inner), Image.Resampling.BOX))[..., 3]
    colours, cover = np.pad(colours, ((1, 1), (1, 1), (0, 0))).astype(np.float32), np.pad(cover, 1)
    grey = colours.mean(axis=-1, keepdims=True)
    vivid = grey + (colours - grey) * VIVID
    return vivid.clip(0, 255).round().astype(np.uint8), cover >= 255 * SOLID


def _filled(square: Image.Image) -> Image.Image:
    """Premultiplied RGBa on a ground of the colours nearby, so that neither averaging nor sharpening sees an edge."""
    values, blurred = (np.asarray(each, np.float32) for each in (square, square.filter(NEARBY)))
    nearby = blurred[..., :3] * 255 / np.maximum(blurred[..., 3:], 1)
    mixed = values[..., :3] + nearby * (1 - values[..., 3:] / 255)
    return Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))


def _reduced(colours: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """The thing's cells in at most ``PALETTE`` colours, spread over those it has, then by k-means (Lloyd 1982)."""
    inside = Image.fromarray(colours[solid][None])
    palette = inside.quantize(PALETTE, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
    reduced = colours.copy()
    reduced[solid] = np.asarray(palette.convert("RGB"))[0]
    return reduced


def _grown(solid: np.ndarray) -> np.ndarray:
    """The cells and their neighbours above, below, left and right."""
    grown = solid.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            grown |= np.roll(solid, step, axis)
    return grown


def _inked(colours: np.ndarray, solid: np.ndarray) -> np.ndarray:
    """For each cell the colour of its first neighbour in the thing (below, above, right, left), darkened.

    One neighbour and not their mean, so that there are no more inks than colours.
    """
    ink, found = np.zeros(colours.shape, np.float32), np.zeros(solid.shape, bool)
    for axis in (0, 1):
        for step in (-1, 1):
            beside = np.roll(solid, step, axis) & ~found
            ink[beside] = np.roll(colours, step, axis)[beside] * INK
            found |= beside
    return ink.round().astype(np.uint8)
