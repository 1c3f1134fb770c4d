"""How a picture gets from one reading to the next: every view moves in its own way.

A motion is prepared from a view of one step, the picture before and the picture after it; it then draws what lies at a
share in (0, 1) of the way. Flips and turns move the whole picture, shuffles fly their pieces as rigid bodies.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from studio.views.permutations import dihedral, skew_shifts
from studio.views.specs import Motion
from studio.views.view import View

GROUND = (246, 246, 244)
FAR = 0.25  # how small a picture gets when walking away from it
ARC = 0.12  # how far a flight bends from the straight line, as a share of its length
SHADE = 0.35  # how much the rims of flying pieces darken, so that pieces of one colour can be told apart
QUARTERS = np.array([0.0, 0.5, 1.0, -0.5]) * math.pi
CORNERS = np.array([-0.25, 0.25])

Angle = float | NDArray[np.float64]
Draw = Callable[[float], Image.Image]
Prepare = Callable[[View, Image.Image, Image.Image], Draw]


def motion_of(view: View, before: Image.Image, after: Image.Image) -> Draw | None:
    """The drawing of a one-step view's own motion; None when nothing is to be seen of it."""
    kind = view.spec.steps[0].entry.motion
    return None if kind == "none" else MOTIONS[kind](view, before, after)


def eased(share: float) -> float:
    return share * share * (3 - 2 * share)


def fade(view: View, before: Image.Image, after: Image.Image) -> Draw:
    return lambda share: Image.blend(before, after, share)


def flip(view: View, before: Image.Image, after: Image.Image) -> Draw:
    """The picture squashes to a line across its mirror axis and opens on the other side."""
    mirror = _matrix(view)
    across = (np.eye(2) - mirror) / 2

    def draw(share: float) -> Image.Image:
        width = math.cos(math.pi * share)
        return _placed(before, np.eye(2) + across * (math.copysign(max(abs(width), 0.02), width) - 1))

    return draw


def turn(view: View, before: Image.Image, after: Image.Image) -> Draw:
    """The picture turns, stepping back as far as its corners need."""
    whole = QUARTERS[view.rearrangement.turn[0]]
    return lambda share: _placed(before, _rotation(whole * share) * _room(whole * share))


def skew(view: View, before: Image.Image, after: Image.Image) -> Draw:
    """Every column slides a little further."""
    pixels = np.asarray(before)
    side = len(pixels)
    shifts = np.repeat(skew_shifts(view.spec.steps[0].parameters.slope, view.cells) * view.cell, view.cell)

    def draw(share: float) -> Image.Image:
        rows = (np.arange(side)[:, None] - np.round(shifts * share).astype(int)) % side
        return Image.fromarray(np.take_along_axis(pixels, rows[:, :, None], axis=0))

    return draw


def away(view: View, before: Image.Image, after: Image.Image) -> Draw:
    """The viewer walks away until detail is lost, then what remains is brought near."""

    def draw(share: float) -> Image.Image:
        seen = before if share < 0.5 else after
        side = max(1, round(before.width * (1 - (1 - FAR) * math.sin(math.pi * share))))
        ground = Image.new("RGB", before.size, GROUND)
        ground.paste(seen.resize((side, side), Image.Resampling.LANCZOS), ((before.width - side) // 2,) * 2)
        return ground

    return draw


def shake(view: View, before: Image.Image, after: Image.Image) -> Draw:
    """The picture is moved to and fro until only its blur is left."""
    parameters = view.spec.steps[0].parameters
    axis = 1 if parameters.direction == "horizontal" else 0

    def draw(share: float) -> Image.Image:
        seen = np.asarray(Image.blend(before, after, share))
        swing = round(parameters.length * len(seen) * math.sin(6 * math.pi * share) * (1 - share))
        places = (np.arange(len(seen)) + swing).clip(0, len(seen) - 1)
        return Image.fromarray(seen.take(places, axis=axis))

    return draw


def pieces(view: View, before: Image.Image, after: Image.Image) -> Draw:
    return _flight(view, after, np.ones_like)


def discs(view: View, before: Image.Image, after: Image.Image) -> Draw:
    """Discs and rings turn in their place, over the picture and not over a hole."""
    return _flight(view, after, np.ones_like, ground=after)


def hinge(view: View, before: Image.Image, after: Image.Image) -> Draw:
    """Hinged squares spread while they turn; seen from as far away as that takes, each shrinks in its place."""
    return _flight(view, after, _room)


def _flight(
    view: View, after: Image.Image, scale: Callable[[NDArray], NDArray], ground: Image.Image | None = None
) -> Draw:
    """Pieces fly from where they come from to where they go, turning on the way; ``scale`` of an angle shrinks them.

    Drawn forwards: every moving pixel of ``after`` is thrown to its place on the way. Where pieces turn it is thrown as
    four, half a pixel apart, so that no hole can open.
    """
    label, centre, start, turns = _bodies(view)
    angles = QUARTERS[turns]
    moving = (turns != 0) | (np.abs(centre - start).max(1) > 0)
    colours = _packed(after)
    still = _packed(ground or Image.new("RGB", after.size, GROUND)).copy()
    still[~moving[label]] = colours[~moving[label]]
    which = np.flatnonzero(moving[label])
    which = which[np.argsort(label[which], kind="stable")]
    place, body, colour, rim = _points(which, after.width, label, colours, bool(turns.any()))
    offset = (place - centre[body]).astype(np.float32)
    path = centre - start
    bend = ARC * path[:, ::-1] * (1, -1)

    def draw(share: float) -> Image.Image:
        shaded = _shaded(colour, rim, SHADE * math.sin(math.pi * share))
        middle = (start + path * share + bend * math.sin(math.pi * share)).astype(np.float32)[body]
        if not turns.any():
            return _thrown(still, middle + offset, shaded, after.width)
        matrix = (_rotation(angles * (share - 1)) * scale(angles * share)).astype(np.float32)[:, :, body]
        turned = matrix[:, 0] * offset[:, 0] + matrix[:, 1] * offset[:, 1]
        return _thrown(still, middle + turned.T, shaded, after.width)

    return draw


def _bodies(view: View) -> tuple[NDArray[np.int32], NDArray, NDArray, NDArray[np.uint8]]:
    """Of every pixel its rigid piece; of every piece its centre (row, column in pixels) after and before, its turns."""
    move, n, cell = view.rearrangement, view.cells, view.cell
    _, first, label = np.unique(move.piece, return_index=True, return_inverse=True)
    count = np.bincount(label)

    def centres(places: NDArray) -> NDArray:
        row, column = np.divmod(places, n)
        sums = np.stack([np.bincount(label, row), np.bincount(label, column)], 1)
        return (sums / count[:, None] + 0.5) * cell

    pixel_label = label.reshape(n, n).repeat(cell, 0).repeat(cell, 1).reshape(-1)
    return pixel_label, centres(np.arange(n * n)), centres(move.source), move.turn[first]


def _packed(picture: Image.Image) -> NDArray[np.uint32]:
    """Every pixel's colour as one number."""
    return np.asarray(picture.convert("RGBX")).view(np.uint32).reshape(-1)


def _points(which: NDArray, side: int, label: NDArray, colours: NDArray, dense: bool) -> tuple[NDArray, ...]:
    """Place (row, column), piece and colour of the points to throw for the pixels ``which``; the indices on rims."""
    place = np.stack(np.divmod(which, side), 1) + 0.5
    if dense:
        corners = np.stack(np.meshgrid(CORNERS, CORNERS, indexing="ij"), -1).reshape(4, 2)
        place = (place[:, None] + corners).reshape(-1, 2)
        which = which.repeat(4)
    return place, label[which], colours[which], np.flatnonzero(_rims(label.reshape(side, side))[which])


def _rims(label: NDArray) -> NDArray[np.bool_]:
    """Which pixels have a neighbour of another piece or none; nothing where pieces are all rim."""
    padded = np.pad(label, 1, constant_values=-1)
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    rims = np.logical_or.reduce([label != neighbour for neighbour in around]).reshape(-1)
    return rims if rims.mean() < 0.5 else np.zeros_like(rims)


def _shaded(colours: NDArray[np.uint32], which: NDArray, shade: float) -> NDArray[np.uint32]:
    shaded = colours.copy()
    rim = colours[which].view(np.uint8)
    shaded[which] = (rim * (1 - shade)).astype(np.uint8).view(np.uint32)
    return shaded


def _thrown(still: NDArray[np.uint32], at: NDArray, colour: NDArray[np.uint32], side: int) -> Image.Image:
    row, column = np.floor(at).astype(np.int32).T
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    canvas = still.copy()
    canvas[(row * side + column)[inside]] = colour[inside]
    return Image.fromarray(canvas.view(np.uint8).reshape(side, side, 4)[:, :, :3])


def _matrix(view: View) -> NDArray:
    """The 2 x 2 matrix on (row, column) offsets that takes the picture before to the picture after."""
    code = int(view.rearrangement.turn[0])
    corner = dihedral(np.arange(9).reshape(3, 3), code)
    rows = [np.argwhere(corner == index)[0] - 1 for index in (7, 5)]
    return np.stack(rows, 1).astype(float)


def _rotation(angle: Angle) -> NDArray:
    """2 x 2 matrices (x the shape of ``angle``) that turn (row, column) offsets counter-clockwise."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def _room(angle: Angle) -> Angle:
    """How small a square must be to fit into its own place when turned by ``angle``."""
    return 1 / (np.abs(np.cos(angle)) + np.abs(np.sin(angle)))


def _placed(picture: Image.Image, matrix: NDArray) -> Image.Image:
    """The picture moved by a matrix on (row, column) offsets from its centre, drawn twice as large for smooth edges."""
    (a, b), (c, d) = np.linalg.inv(matrix)[::-1, ::-1] / 2
    middle, large = picture.width / 2, 2 * picture.width
    shift_x, shift_y = middle - (a + b) * picture.width, middle - (c + d) * picture.width
    data = (a, b, shift_x, c, d, shift_y)
    drawn = picture.transform((large, large), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=GROUND)
    return drawn.reduce(2)


MOTIONS: dict[Motion, Prepare] = {
    "flip": flip,
    "turn": turn,
    "fade": fade,
    "skew": skew,
    "pieces": pieces,
    "discs": discs,
    "hinge": hinge,
    "away": away,
    "shake": shake,
}
