"""The mascot: a small creature with a rabbit's ears and a duck's beak, drawn in code in 24 poses."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image

from studio.builtin import props
from studio.builtin.sketch import Colour, Point, Sketch
from studio.builtin.world import COLOURS

TRIGGER = "duckrabbit"

FUR: Colour = (255, 244, 222)
SHADE: Colour = (243, 222, 186)
BELLY: Colour = (255, 252, 243)
EAR: Colour = (246, 170, 168)
BEAK: Colour = (252, 166, 52)
BEAK_BELOW: Colour = (228, 128, 34)
MOUTH: Colour = (150, 52, 58)
CHEEK: Colour = (248, 180, 166)
SCARF: Colour = (66, 104, 196)
SCARF_END: Colour = (50, 82, 164)
TEAR: Colour = (104, 178, 240)
HEART: Colour = (226, 52, 78)
SHADOW = 0.86  # how bright the ground is under the feet

# The head is drawn about HEAD and then grown, the body is pressed down: large features on a large head are what an
# autoencoder of 16 x 16 cells can carry.
HEAD: Point = (64, 50)
CHIN: Point = (64, 73)
GROUND: Point = (64, 116)
HEAD_SCALE, HEAD_DROP = 1.31, 12.0
BODY_SCALE: Point = (1.0, 0.72)
SHOULDERS: tuple[Point, Point] = ((50, 91), (78, 91))
HIPS: Point = (64, 108)
ARM = 14.0


@dataclass(frozen=True)
class Pose:
    """What differs from picture to picture. Angles in degrees; arms count from hanging down, outwards and up."""

    words: str  # {} is where the creature's name stands
    colour: str
    arms: Point = (28, 28)
    ears: Point = (-10, 10)
    flop: float = 0.0  # how far the ears' tips hang
    eyes: str = "open"
    beak: str = "closed"
    look: Point = (0, 0)
    tilt: float = 0.0
    head: float = 0.0
    lift: float = 0.0  # pixels above the ground
    feet: tuple[Point, Point] = ((-9, 0), (9, 0))
    squash: float = 1.0
    prop: str = ""

    @property
    def caption(self) -> str:
        article = "an" if self.colour == "orange" else "a"
        return f"{self.words.format(TRIGGER)} on {article} {self.colour} background"

    @property
    def name(self) -> str:
        """Of its file."""
        left_out = ("a", "an", "{}", "on", "in", "with")
        return "-".join(word for word in self.words.split() if word not in left_out) or "standing"


POSES = (
    Pose("a {}", "teal"),
    Pose("a {} waving", "yellow", arms=(28, 120), beak="smile", head=-6, ears=(-6, 16)),
    Pose("a smiling {}", "pink", eyes="happy", beak="smile", ears=(-16, 16)),
    Pose("a laughing {}", "green", eyes="happy", beak="open", arms=(60, 60), head=7, ears=(-20, 8)),
    Pose("a sleeping {}", "purple", eyes="closed", ears=(-34, 34), flop=6, head=9, look=(0, 3), prop="dream"),
    Pose("a crying {}", "gray", eyes="sad", beak="frown", ears=(-28, 28), flop=5, prop="tears"),
    Pose("an angry {}", "red", eyes="angry", beak="frown", ears=(-30, 30), arms=(48, 48)),
    Pose("a surprised {}", "orange", eyes="wide", beak="round", ears=(-3, 3), arms=(96, 96)),
    Pose("a {} in love", "white", eyes="hearts", beak="smile", arms=(70, 70), head=-5, prop="hearts"),
    Pose("a winking {}", "blue", eyes="wink", beak="smile", head=9, arms=(28, 74)),
    Pose("a {} with sunglasses", "yellow", beak="smile", prop="sunglasses", arms=(52, 52)),
    Pose("a {} with a crown", "purple", beak="smile", prop="crown", ears=(-24, 24)),
    Pose("a {} with a top hat", "green", prop="hat", ears=(-42, 42), flop=2, arms=(28, 66)),
    Pose("a {} with a tulip", "gray", arms=(28, 104), prop="tulip", head=-4, look=(2, 1), beak="smile"),
    Pose("a {} with a balloon", "teal", arms=(112, 30), prop="balloon", look=(-2, -2), beak="smile", ears=(2, 22)),
    Pose("a {} with a carrot", "brown", arms=(28, 104), prop="carrot", look=(2, 1), beak="smile"),
    Pose("a {} with a red heart", "blue", arms=(14, 14), prop="heart", eyes="happy", beak="smile"),
    Pose("a {} with a star", "black", arms=(28, 116), prop="star", look=(2, -2), beak="open", ears=(-14, 4)),
    Pose("a {} with a present", "pink", arms=(12, 12), prop="present", beak="smile"),
    Pose("a {} with an open book", "orange", arms=(14, 14), prop="book", look=(0, 3), beak="smile"),
    Pose("a {} jumping", "green", arms=(122, 122), lift=5, feet=((-13, -3), (13, -3)), beak="open", ears=(-32, 32),
         eyes="happy"),
    Pose("a {} running", "brown", tilt=10, arms=(84, -34), feet=((-17, -9), (14, 1)), lift=3, ears=(-44, -24), flop=2,
         look=(3, 0), beak="open"),
    Pose("a {} sitting", "white", squash=0.84, feet=((-16, 4), (16, 4)), arms=(20, 20), head=-3),
    Pose("a flying {}", "blue", tilt=-15, arms=(98, 98), lift=5, feet=((-6, 2), (6, 5)), ears=(24, 40), flop=2,
         beak="open", eyes="happy", prop="clouds"),
)  # fmt: skip


def draw(pose: Pose) -> Image.Image:
    """One picture of the creature, 128 x 128 RGB, upright."""
    sketch = Sketch(COLOURS[pose.colour])
    _shadow(sketch, pose)
    if pose.prop in props.BEHIND:
        props.BEHIND[pose.prop](sketch)
    drop = (1 - pose.squash) * 30
    with sketch.frame(HIPS, pose.tilt, (0, -pose.lift)):
        _feet(sketch, pose)
        width, height = BODY_SCALE
        with sketch.frame(GROUND, scale=(width * (2 - pose.squash), height * pose.squash)):
            _body(sketch)
        hands = tuple(_hand(side, pose, drop) for side in (0, 1))
        if pose.prop in props.HELD_BACK:
            props.HELD_BACK[pose.prop](sketch, hands)
        with sketch.frame(CHIN, pose.head, (0, HEAD_DROP + drop), (HEAD_SCALE, HEAD_SCALE)):
            _head(sketch, pose)
        _scarf(sketch, HEAD_DROP + drop)
        if pose.prop in props.HELD:
            props.HELD[pose.prop](sketch, hands)
        for side in (0, 1):
            _arm(sketch, side, hands[side], drop)
    return sketch.picture()


def _shadow(sketch: Sketch, pose: Pose) -> None:
    ground = COLOURS[pose.colour]
    dark = tuple(round(value * SHADOW) for value in ground)
    width = 30 - 0.6 * pose.lift
    sketch.ellipse((64, 118), (width, 4.5), dark, line=None)


def _feet(sketch: Sketch, pose: Pose) -> None:
    for side, (x, y) in zip((-1, 1), pose.feet, strict=True):
        at = (64 + x, 113 + y)
        toes = [(-9, 3), (-6, -2), (0, -4), (6, -2), (9, 3), (5, 2.4), (3, 4.5), (0, 2.6), (-3, 4.5), (-5, 2.4)]
        with sketch.frame(at, angle=side * 8):
            sketch.blob([(at[0] + dx, at[1] + dy) for dx, dy in toes], BEAK, width=1.7)


def _body(sketch: Sketch) -> None:
    sketch.ellipse((83, 98), (5.5, 5), BELLY)  # the tail peeps out
    sketch.blob([(64, 68), (79, 76), (85, 94), (80, 109), (64, 113), (48, 109), (43, 94), (49, 76)], FUR)
    sketch.blob([(81, 84), (83.6, 96), (78, 107.5), (66, 111.6), (75, 104), (79, 94)], SHADE, line=None)
    sketch.ellipse((63, 97), (12, 12.5), BELLY, line=None)


def _scarf(sketch: Sketch, drop: float) -> None:
    with sketch.frame((64, 72), shift=(0, drop)):
        sketch.blob([(56, 74), (62, 75), (60, 84), (57, 92), (50, 91), (52, 82)], SCARF_END, width=1.7)
        sketch.blob([(46, 70), (55, 73.5), (64, 74.5), (73, 73.5), (82, 70), (83, 75), (73, 79.5), (64, 80.5),
                     (55, 79.5), (45, 75)], SCARF, width=1.7)  # fmt: skip
        sketch.blob([(54, 74), (60, 74), (61.5, 80), (56, 82), (52.5, 79)], SCARF, width=1.5)


def _hand(side: int, pose: Pose, drop: float) -> Point:
    """Where the arm's end is; side 0 is on the picture's left."""
    x, y = SHOULDERS[side]
    angle = math.radians(pose.arms[side])
    outward = -1 if side == 0 else 1
    return x + outward * ARM * math.sin(angle), y + drop + ARM * math.cos(angle)


def _arm(sketch: Sketch, side: int, hand: Point, drop: float) -> None:
    """A wing that is an arm: broad at the hand, with its outline broken at the shoulder, so that it grows out of it."""
    x, y = SHOULDERS[side][0], SHOULDERS[side][1] + drop
    dx, dy = (hand[0] - x) / ARM, (hand[1] - y) / ARM
    across = (-dy, dx)

    def at(along: float, out: float) -> Point:
        return x + dx * along + across[0] * out, y + dy * along + across[1] * out

    sketch.blob([at(-3, -3), at(4, -5), at(12, -6), at(18, -2.4), at(18, 2.4), at(12, 6), at(4, 5), at(-3, 3)], FUR)
    sketch.ellipse(at(-1.5, 0), (4.2, 4.2), FUR, line=None)


def _head(sketch: Sketch, pose: Pose) -> None:
    for side in (0, 1):
        _ear(sketch, side, pose)
    x, y = HEAD
    sketch.blob([(x, y - 21), (x + 17, y - 16), (x + 27, y + 1), (x + 24, y + 15), (x + 11, y + 22), (x, y + 23),
                 (x - 11, y + 22), (x - 24, y + 15), (x - 27, y + 1), (x - 17, y - 16)], FUR)  # fmt: skip
    sketch.blob([(x + 24, y - 2), (x + 25, y + 4), (x + 22, y + 14), (x + 10, y + 20.6), (x + 17, y + 13),
                 (x + 22, y + 4)], SHADE, line=None)  # fmt: skip
    for side in (-1, 1):
        sketch.ellipse((x + side * 19 + pose.look[0], y + 9 + pose.look[1]), (5, 3.6), CHEEK, line=None)
    with sketch.frame(HEAD, shift=pose.look):
        _eyes(sketch, pose.eyes)
        _beak(sketch, pose.beak)
    if pose.prop in props.ON_HEAD:
        props.ON_HEAD[pose.prop](sketch)


def _ear(sketch: Sketch, side: int, pose: Pose) -> None:
    """Long and soft; ``flop`` lets the upper half hang outwards."""
    outward = -1 if side == 0 else 1
    root = (64 + outward * 12, 36)
    flop = outward * pose.flop

    def bent(points: list[Point]) -> list[Point]:
        placed = []
        for across, up in points:
            share = max(0.0, up - 7) / 15
            placed.append((root[0] + across + flop * share**1.3, root[1] - up + abs(flop) * 0.75 * share**2))
        return placed

    with sketch.frame(root, pose.ears[side]):
        sketch.blob(bent([(-6.5, -4), (-8, 7), (-7, 15), (-2.5, 22), (2.5, 22), (7, 15), (8, 7), (6.5, -4)]), FUR)
        sketch.blob(bent([(-3.4, 1), (-4.4, 7), (-3.4, 14), (0, 18), (3.4, 14), (4.4, 7), (3.4, 1)]), EAR, line=None)


def _eyes(sketch: Sketch, kind: str) -> None:
    for side in (-1, 1):
        at = (HEAD[0] + side * 11.5, HEAD[1] - 1)
        if kind == "wink" and side == 1:
            _arc(sketch, at, 4.4, 3.2)
        else:
            EYES.get(kind, _open_eye)(sketch, at, side)


def _open_eye(sketch: Sketch, at: Point, side: int, radii: Point = (4.2, 5.6)) -> None:
    sketch.ellipse(at, radii, (44, 30, 32), line=None)
    sketch.ellipse((at[0] + 1.3, at[1] - 2.1), (1.7, 1.9), (255, 255, 255), line=None)


def _arc(sketch: Sketch, at: Point, width: float, height: float) -> None:
    """A shut eye: bent up for a positive ``height``, hanging for a negative one."""
    x, y = at
    points = [(x - width, y + height / 2), (x, y - height / 2), (x + width, y + height / 2)]
    sketch.stroke(points, width=2.2)


def _happy_eye(sketch: Sketch, at: Point, side: int) -> None:
    _arc(sketch, at, 4.4, 4.4)


def _closed_eye(sketch: Sketch, at: Point, side: int) -> None:
    _arc(sketch, (at[0], at[1] + 1), 4.4, -3)


def _wide_eye(sketch: Sketch, at: Point, side: int) -> None:
    sketch.ellipse(at, (6, 6.8), (255, 255, 255), width=1.5)
    sketch.ellipse(at, (2.7, 3.2), (44, 30, 32), line=None)


def _sad_eye(sketch: Sketch, at: Point, side: int) -> None:
    _open_eye(sketch, (at[0], at[1] + 1), side, (3.5, 4.4))
    sketch.stroke([(at[0] - side * 4.5, at[1] - 7.4), (at[0] + side * 4.5, at[1] - 4.6)], width=2)


def _angry_eye(sketch: Sketch, at: Point, side: int) -> None:
    _open_eye(sketch, (at[0], at[1] + 1), side, (3.5, 4.2))
    sketch.stroke([(at[0] - side * 6, at[1] - 2.6), (at[0] + side * 5, at[1] - 7.4)], width=2.6)


def _heart_eye(sketch: Sketch, at: Point, side: int) -> None:
    props.heart(sketch, (at[0], at[1] + 0.5), 6.2, HEART, width=1.3)


EYES = {
    "happy": _happy_eye,
    "closed": _closed_eye,
    "wide": _wide_eye,
    "sad": _sad_eye,
    "angry": _angry_eye,
    "hearts": _heart_eye,
}


def _beak(sketch: Sketch, kind: str) -> None:
    """A duck's: broad and flat, the lower half peeping out or hanging open."""
    x, y = HEAD[0], HEAD[1] + 9
    if kind in ("open", "round"):
        depth, width = (9.5, 8.5) if kind == "open" else (10.5, 6.2)
        low = width * 0.6
        below = [(x - width, y + 1), (x + width, y + 1), (x + low, y + depth), (x - low, y + depth)]
        sketch.blob(below, BEAK_BELOW, width=1.7)
        sketch.ellipse((x, y + depth * 0.55), (width * 0.62, depth * 0.32), MOUTH, line=None)
    elif kind != "frown":
        sketch.ellipse((x, y + 4), (8.5, 4), BEAK_BELOW, width=1.7)
    corner = {"smile": -2.2, "open": -1.6, "frown": 3.2}.get(kind, 0.4)
    width = 10 if kind == "round" else 13.5
    above = [(x - width, y + 1 + corner), (x - 7, y - 3.6), (x, y - 5.4), (x + 7, y - 3.6), (x + width, y + 1 + corner)]
    sketch.blob([*above, (x + 7, y + 4), (x, y + 5), (x - 7, y + 4)], BEAK, width=1.7)
