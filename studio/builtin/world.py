"""The world the built-in models know: emoji on coloured grounds, and the captions that describe them."""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIZE = 128
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
THINGS_FILE = Path(__file__).parents[2] / "assets" / "training" / "things.json"

COLOURS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (150, 150, 155),
    "black": (28, 28, 32),
    "red": (205, 60, 60),
    "orange": (240, 150, 60),
    "yellow": (245, 220, 100),
    "green": (95, 175, 95),
    "teal": (60, 160, 160),
    "blue": (80, 130, 215),
    "purple": (140, 95, 190),
    "pink": (245, 175, 200),
    "brown": (135, 95, 65),
}

PLAIN_TEMPLATES = ("{thing}", "{a_thing}", "a picture of {a_thing}", "an emoji of {a_thing}", "{a_thing} emoji")
COLOUR_TEMPLATES = (
    "{a_thing} on a {colour} background",
    "{thing} on {colour}",
    "a picture of {a_thing} on a {colour} background",
    "{a_thing}, {colour} background",
)
PLURALS = frozenset({"grapes", "cherries", "french fries", "scissors", "glasses"})


@dataclass(frozen=True)
class Thing:
    """One drawable thing: its emoji and the words that name it."""

    emoji: str
    name: str

    @property
    def with_article(self) -> str:
        if self.name in PLURALS:
            return self.name
        vowel = self.name[0] in "aeiou" and not self.name.startswith("uni")
        return f"{'an' if vowel else 'a'} {self.name}"


@dataclass(frozen=True)
class Wobble:
    """How far a rendering strays from upright and centred: shift and scale as shares, tilt in degrees."""

    shift: float = 0.03
    scale: tuple[float, float] = (0.80, 0.92)
    tilt: float = 5.0


def load_things(path: Path = THINGS_FILE) -> tuple[Thing, ...]:
    return tuple(Thing(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))


def every_thing(font: Path = FONT) -> tuple[Thing, ...]:
    """All usable single-character emoji of the font: people, hands, clocks, buttons and letters left out."""
    left_out = ("CLOCK FACE", "SQUARED", "REGIONAL", "COMPONENT", "MODIFIER", "KEYCAP", "IDEOGRAPH", "BUTTON", "INPUT",
                "ARROW", "PERSON", "MAN ", "WOMAN", "SYMBOL", "MODIFIER", "REVERSED HAND")  # fmt: skip
    named = {thing.emoji: thing for thing in load_things()}
    found = []
    for code in (*range(0x2300, 0x2C00), *range(0x1F300, 0x1FAFF)):
        emoji, name = chr(code), unicodedata.name(chr(code), "")
        if not name or any(word in name for word in left_out) or sprite(emoji, font) is None:
            continue
        found.append(named.get(emoji, Thing(emoji, name.lower().removesuffix(" face"))))
    return tuple(found)


def caption(thing: Thing, colour: str | None, rng: np.random.Generator) -> str:
    """A caption in one of the templates; with ``colour`` None it says nothing about the ground."""
    templates = PLAIN_TEMPLATES if colour is None else COLOUR_TEMPLATES
    template = templates[rng.integers(len(templates))]
    return template.format(thing=thing.name, a_thing=thing.with_article, colour=colour)


def vocabulary(things: tuple[Thing, ...]) -> list[str]:
    """Every word a caption can hold, sorted."""
    text = " ".join((*PLAIN_TEMPLATES, *COLOUR_TEMPLATES)).replace("{a_thing}", "").replace("{thing}", "")
    words = {"a", "an", ",", *COLOURS, *text.replace("{colour}", "").replace(",", " ").split()}
    for thing in things:
        words.update(thing.name.split())
    return sorted(words)


def render(thing: Thing, rng: np.random.Generator, colour: str | None = None, wobble: Wobble = Wobble()) -> Image.Image:
    """Draw ``thing`` upright on a ground of ``colour`` (random when None), 128 x 128 RGB."""
    shade = np.array(COLOURS[colour or list(COLOURS)[rng.integers(len(COLOURS))]]) + rng.integers(-10, 11, 3)
    ground = Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in shade.clip(0, 255)))
    pixels = place(thing, rng, wobble)
    mixed = np.asarray(ground, np.float32) * (1 - pixels[..., 3:] / 255) + pixels[..., :3]
    return Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))


@dataclass(frozen=True)
class Style:
    """A way to draw the world, and its captions: the share of pictures on a ground that has no name, and the share of
    the others whose caption says their ground's."""

    render: Callable[[Thing, np.random.Generator, str | None, Wobble], Image.Image]
    unnamed: float
    said: float


EMOJI = Style(render, unnamed=0.0, said=0.5)


def place(thing: Thing, rng: np.random.Generator, wobble: Wobble = Wobble()) -> np.ndarray:
    """``thing`` alone where a rendering has it: premultiplied RGBa, 0 to 255, 128 x 128 x 4."""
    drawn = sprite(thing.emoji, FONT)
    if drawn is None:
        raise ValueError(f"the font {FONT.name} has no picture for {thing.name!r}")
    placed = drawn.transform((SIZE, SIZE), Image.Transform.AFFINE, _placement(rng, wobble), Image.Resampling.BICUBIC)
    return np.asarray(placed, np.float32)


def _placement(rng: np.random.Generator, wobble: Wobble) -> tuple[float, ...]:
    """PIL's output-to-input affine coefficients for one random placement."""
    scale = rng.uniform(*wobble.scale)
    angle = np.deg2rad(rng.uniform(-wobble.tilt, wobble.tilt))
    shift = rng.uniform(-wobble.shift, wobble.shift, 2) * SIZE
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    centre = SIZE / 2
    x0 = centre - cos * (centre + shift[0]) - sin * (centre + shift[1])
    y0 = centre + sin * (centre + shift[0]) - cos * (centre + shift[1])
    return (cos, sin, x0, -sin, cos, y0)


@functools.lru_cache(maxsize=2048)
def sprite(emoji: str, font: Path) -> Image.Image | None:
    """The emoji alone as premultiplied RGBa, 128 x 128, or None when the font cannot draw it in colour."""
    face = _font(font)
    left, _top, right, bottom = face.getbbox(emoji)
    if right - left < 50:
        return None
    canvas = Image.new("RGBA", (right, bottom))
    ImageDraw.Draw(canvas).text((0, 0), emoji, font=face, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        return None
    side = max(canvas.size)
    square = Image.new("RGBA", (side, side))
    square.paste(canvas, ((side - canvas.width) // 2, (side - canvas.height) // 2))
    return square.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert("RGBa")


@functools.lru_cache(maxsize=2)
def _font(path: Path) -> ImageFont.FreeTypeFont:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: install the Debian package fonts-noto-color-emoji")
    return ImageFont.truetype(str(path), 109)
