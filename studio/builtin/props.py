"""What the mascot wears and holds: tables of small drawings, by where they are drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping

from studio.builtin.sketch import LINE, Colour, Point, Sketch

Hands = tuple[Point, Point]
HANDY: Point = (1.25, 1.25)  # how much larger than life things in a hand are
LAP: Point = (64, 108)

GOLD: Colour = (250, 204, 62)
RED: Colour = (222, 56, 62)
DARK: Colour = (46, 42, 56)
WHITE: Colour = (255, 255, 255)
BLUE: Colour = (104, 178, 240)
GREEN: Colour = (88, 164, 82)
ORANGE: Colour = (240, 126, 46)
PINK: Colour = (240, 98, 128)
PAPER: Colour = (252, 247, 236)


def heart(sketch: Sketch, at: Point, size: float, fill: Colour, width: float = 1.7) -> None:
    """A heart ``2 * size`` wide."""
    x, y = at
    lobes = [
        (0, -0.45),
        (0.45, -0.9),
        (0.95, -0.55),
        (0.85, 0.1),
        (0, 0.95),
        (-0.85, 0.1),
        (-0.95, -0.55),
        (-0.45, -0.9),
    ]
    sketch.blob([(x + size * dx, y + size * dy) for dx, dy in lobes], fill, width=width)


def star(sketch: Sketch, at: Point, size: float) -> None:
    corners = []
    for index in range(10):
        reach = size if index % 2 == 0 else size * 0.48
        angle = math.tau * index / 10 - math.tau / 4
        corners.append((at[0] + reach * math.cos(angle), at[1] + reach * math.sin(angle)))
    sketch.shape(corners, GOLD)


def _hearts(sketch: Sketch) -> None:
    for x, y, size in ((20, 34, 6), (106, 28, 7.5), (15, 64, 4.5), (112, 60, 5)):
        heart(sketch, (x, y), size, PINK, width=1.4)


def _dream(sketch: Sketch) -> None:
    """Z for z, larger as they rise."""
    for x, y, size in ((27, 31, 4.5), (17, 17, 6.5)):
        corners = [(x - size, y - size), (x + size, y - size), (x - size, y + size), (x + size, y + size)]
        for start, end in itertools.pairwise(corners):
            sketch.stroke([start, end], WHITE, 3.6)


def _clouds(sketch: Sketch) -> None:
    for x, y, size in ((22, 24, 1.0), (106, 96, 1.15), (16, 100, 0.8)):
        bumps = [(-13, 4), (-10, -3), (-4, -7), (3, -6), (8, -4), (13, 3), (9, 6), (-9, 6)]
        sketch.blob([(x + size * dx, y + size * dy) for dx, dy in bumps], WHITE, line=None)


def _balloon(sketch: Sketch, hands: Hands) -> None:
    top = (16, 36)
    sketch.stroke([hands[0], (24, 80), (16, 58)], LINE, 1.7)
    sketch.shape([(13, 54), (19, 54), (16, 48)], RED, width=1.7)
    sketch.ellipse(top, (12.5, 14.5), RED)
    sketch.ellipse((12, 30), (2.8, 4.2), (250, 150, 150), angle=25, line=None)


def _tulip(sketch: Sketch, hands: Hands) -> None:
    x, y = hands[1]
    with sketch.frame((x, y), 16, scale=HANDY):
        sketch.stroke([(x, y + 9), (x, y - 14)], GREEN, 3.4)
        sketch.blob([(x, y + 2), (x + 9, y - 9), (x + 7, y), (x + 1, y + 6)], GREEN, width=1.7)
        cup = [(x - 8, y - 27), (x - 4, y - 22), (x, y - 28), (x + 4, y - 22), (x + 8, y - 27), (x + 7, y - 16)]
        sketch.shape([*cup, (x, y - 12), (x - 7, y - 16)], PINK)


def _carrot(sketch: Sketch, hands: Hands) -> None:
    x, y = hands[1]
    with sketch.frame((x, y), 24, scale=HANDY):
        for dx in (-4, 0, 4):
            sketch.blob(
                [(x, y - 14), (x + dx - 2, y - 22), (x + dx * 1.6, y - 26), (x + dx + 2, y - 20)], GREEN, width=1.4
            )
        sketch.blob([(x - 6, y - 13), (x, y - 16), (x + 6, y - 13), (x + 4, y), (x, y + 14), (x - 4, y)], ORANGE)
        for dy, dx in ((-8, -4), (-2, 3), (4, -2)):
            sketch.stroke([(x + dx, y + dy), (x + dx * 0.2, y + dy)], (200, 90, 30), 1.2)


def _star(sketch: Sketch, hands: Hands) -> None:
    star(sketch, (hands[1][0] + 5, hands[1][1] - 10), 18)


def _heart(sketch: Sketch, hands: Hands) -> None:
    heart(sketch, (64, 97), 16, RED)
    sketch.ellipse((56, 90), (2.8, 3.8), (250, 150, 150), angle=30, line=None)


def _present(sketch: Sketch, hands: Hands) -> None:
    with sketch.frame(LAP, shift=(0, 3), scale=HANDY):
        sketch.shape([(51, 86), (77, 86), (77, 106), (51, 106)], (96, 186, 168))
        sketch.shape([(49, 83), (79, 83), (79, 89), (49, 89)], (122, 206, 188))
        sketch.shape([(61.5, 83), (66.5, 83), (66.5, 106), (61.5, 106)], RED, width=1.4)
        for side in (-1, 1):
            sketch.blob([(64, 83), (64 + side * 4, 77), (64 + side * 10, 77), (64 + side * 8, 82)], RED, width=1.4)


def _book(sketch: Sketch, hands: Hands) -> None:
    with sketch.frame(LAP, shift=(0, 3), scale=HANDY):
        sketch.shape([(44, 86), (64, 90), (84, 86), (84, 105), (64, 109), (44, 105)], RED)
        for side in (-1, 1):
            page = [
                (64, 89),
                (64 + side * 9, 85),
                (64 + side * 18, 85),
                (64 + side * 18, 102),
                (64 + side * 9, 102),
                (64, 106),
            ]
            sketch.shape(page, PAPER, width=1.4)
            for dy in (4, 8, 12):
                ends = [(64 + side * 4, 88 + dy - 1), (64 + side * 14, 86 + dy - 1)]
                sketch.stroke(ends, (190, 176, 160), 1.1)


def _sunglasses(sketch: Sketch) -> None:
    for side in (-1, 1):
        x = 64 + side * 12
        sketch.blob([(x - 9, 43), (x, 42), (x + 9, 43), (x + 8, 51), (x, 55), (x - 8, 51)], DARK, DARK, 1.5)
        sketch.stroke([(x - 4, 50), (x + 1, 45)], (120, 120, 150), 1.7)
    sketch.stroke([(58, 44), (64, 43), (70, 44)], DARK, 2.6)
    for side in (-1, 1):
        sketch.stroke([(64 + side * 20, 44), (64 + side * 26, 46)], DARK, 2.4)


def _crown(sketch: Sketch) -> None:
    points = [(48, 34), (46, 16), (55, 24), (64, 12), (73, 24), (82, 16), (80, 34)]
    sketch.shape(points, GOLD)
    for x, colour in ((55, RED), (64, BLUE), (73, RED)):
        sketch.ellipse((x, 29.5), (2.2, 2.2), colour, line=None)


def _hat(sketch: Sketch) -> None:
    sketch.shape([(50, 31), (48, 13), (80, 13), (78, 31)], DARK)
    sketch.shape([(49.6, 30), (49.2, 24), (78.8, 24), (78.4, 30)], RED, width=1.2)
    sketch.ellipse((64, 31.5), (24, 4.4), DARK)


def _tears(sketch: Sketch) -> None:
    for side in (-1, 1):
        x = 64 + side * 15
        for y, size in ((58, 1.0), (68, 0.8)):
            drop = [(0, -5), (2.8, 0), (2.4, 3), (0, 4.4), (-2.4, 3), (-2.8, 0)]
            sketch.blob([(x + side * (y - 58) * 0.35 + size * dx, y + size * dy) for dx, dy in drop], BLUE, width=1.2)


BEHIND: Mapping[str, Callable[[Sketch], None]] = {"hearts": _hearts, "dream": _dream, "clouds": _clouds}
HELD_BACK: Mapping[str, Callable[[Sketch, Hands], None]] = {"balloon": _balloon}
HELD: Mapping[str, Callable[[Sketch, Hands], None]] = {
    "carrot": _carrot,
    "tulip": _tulip,
    "star": _star,
    "heart": _heart,
    "present": _present,
    "book": _book,
}
ON_HEAD: Mapping[str, Callable[[Sketch], None]] = {
    "sunglasses": _sunglasses,
    "crown": _crown,
    "hat": _hat,
    "tears": _tears,
}
