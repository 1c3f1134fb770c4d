"""Views that move the cells of a picture, turning each inside, and may negate it or swap its colour channels.

Latents are a coarse grid of cells (8 x 8 pixels each in Stable Diffusion), so a view is built once on the n x n grid of
cells: moved as one code per cell on latents, moved and turned inside on pictures. Both are the same rearrangement of
the same physical picture. Everything here is an orthogonal matrix: A A^T = I (Geng et al. 2024, arXiv 2311.17919).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from studio.errors import RequestError

CHANNELS = "rgb"
TURN_OFFSETS = np.array([[[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]]], np.int32)
"""For q quarter turns counter-clockwise: the (row, column) offset shown at an offset v is TURN_OFFSETS[q] @ v."""


class Parameters(BaseModel):
    """What can be set of a view; most have nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ChannelOrder(Parameters):
    order: Literal["gbr", "brg", "bgr", "rbg", "grb"] = Field("gbr", description="What red, green and blue become.")


class Skew(Parameters):
    slope: float = Field(1.5, ge=-4, le=4, description="How far neighbouring columns slide apart, in their width.")


class Shuffle(Parameters):
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Same seed, same shuffle.")


class Patches(Shuffle):
    patches: int = Field(4, ge=2, le=64, description="Patches along each side.")


class Jigsaw(Shuffle):
    pieces: int = Field(4, ge=2, le=16, description="Puzzle pieces along each side.")


class InnerCircle(Parameters):
    radius: float = Field(0.375, ge=0.1, le=0.5, description="Radius of the disc as a share of the picture's side.")
    angle: Literal[90, 180, 270] = Field(180, description="Degrees the disc turns clockwise.")


class Rings(Parameters):
    rings: int = Field(3, ge=2, le=8, description="Rings from the centre to the edge.")


class SquareHinge(Parameters):
    squares: int = Field(4, ge=2, le=32, description="Hinged squares along each side.")


@dataclass(frozen=True, eq=False)
class Rearrangement:
    """Where every cell of an n x n grid comes from; arrays hold the cells in reading order.

    ``source[i]`` is the cell shown at place i, ``turn[i]`` how its inside is turned (quarter turns counter-clockwise,
    plus 4 when mirrored left to right afterwards), ``piece[i]`` a label shared by the cells that move as one body.
    Channel k shows channel ``channels[k]``, times ``sign``.
    """

    source: NDArray[np.int32]
    turn: NDArray[np.uint8]
    piece: NDArray[np.int32]
    channels: tuple[int, int, int] = (0, 1, 2)
    sign: int = 1

    @functools.cached_property
    def is_still(self) -> bool:
        """Whether every cell stays where and as it is."""
        return not self.turn.any() and bool((self.source == np.arange(self.source.size)).all())

    def then(self, after: Rearrangement) -> Rearrangement:
        """This rearrangement followed by ``after``."""
        turn = _products()[after.turn, self.turn[after.source]]
        channels = tuple(self.channels[k] for k in after.channels)
        return Rearrangement(self.source[after.source], turn, after.piece, channels, self.sign * after.sign)

    def inverse_source(self) -> NDArray[np.int32]:
        inverse = np.empty_like(self.source)
        inverse[self.source] = np.arange(self.source.size, dtype=np.int32)
        return inverse

    def pixel_source(self, cell: int) -> NDArray[np.int32]:
        """For each pixel of the picture, cell x cell pixels a cell, the flat index of the pixel it shows."""
        n = round(self.source.size**0.5)
        if cell == 1:
            return self.source
        inside = np.stack([dihedral(np.arange(cell**2).reshape(cell, cell), code) for code in range(8)])
        row, column = np.divmod(inside[self.turn].reshape(n, n, cell, cell), cell)
        from_row, from_column = np.divmod(self.source.reshape(n, n, 1, 1), n)
        index = (from_row * cell + row) * (n * cell) + from_column * cell + column
        return index.transpose(0, 2, 1, 3).reshape(-1).astype(np.int32)


def dihedral(grid: NDArray, code: int) -> NDArray:
    """One of the 8 symmetries of a square: ``code % 4`` quarter turns counter-clockwise, mirrored when code >= 4."""
    turned = np.rot90(grid, code % 4)
    return turned[:, ::-1] if code >= 4 else turned


@functools.cache
def _products() -> NDArray[np.uint8]:
    """The 8 x 8 table of the square's symmetries: entry [a, b] is first b, then a."""
    corners = [dihedral(np.arange(4).reshape(2, 2), code).ravel() for code in range(8)]
    codes = {tuple(corner): code for code, corner in enumerate(corners)}
    return np.array([[codes[tuple(b[a])] for b in corners] for a in corners], np.uint8)


def still(_: Parameters, n: int) -> Rearrangement:
    return Rearrangement(np.arange(n * n, dtype=np.int32), np.zeros(n * n, np.uint8), np.zeros(n * n, np.int32))


def whole(code: int, parameters: Parameters, n: int) -> Rearrangement:
    """The whole picture flipped or turned by a symmetry of the square."""
    source = dihedral(np.arange(n * n, dtype=np.int32).reshape(n, n), code).reshape(-1)
    return replace(still(parameters, n), source=source, turn=np.full(n * n, code, np.uint8))


def negate(parameters: Parameters, n: int) -> Rearrangement:
    return replace(still(parameters, n), sign=-1)


def channel_permutation(parameters: ChannelOrder, n: int) -> Rearrangement:
    red, green, blue = (CHANNELS.index(letter) for letter in parameters.order)
    return replace(still(parameters, n), channels=(red, green, blue))


def skew_shifts(slope: float, n: int) -> NDArray[np.int32]:
    """How many cells each column slides down."""
    return np.round(slope * (np.arange(n) - (n - 1) / 2)).astype(np.int32)


def skew(parameters: Skew, n: int) -> Rearrangement:
    rows = (np.arange(n)[:, None] - skew_shifts(parameters.slope, n)) % n
    return replace(still(parameters, n), source=(rows * n + np.arange(n)).astype(np.int32).reshape(-1))


def pixel_permute(parameters: Shuffle, n: int) -> Rearrangement:
    order = np.random.default_rng(parameters.seed).permutation(n * n).astype(np.int32)
    return replace(still(parameters, n), source=order, piece=np.arange(n * n, dtype=np.int32))


def patch_permute(parameters: Patches, n: int) -> Rearrangement:
    piece, centres = _blocks("patches", parameters.patches, n)
    order = np.random.default_rng(parameters.seed).permutation(parameters.patches**2)
    return _moved(piece, centres, order, np.zeros_like(order))


def square_hinge(parameters: SquareHinge, n: int) -> Rearrangement:
    """Squares hinged at their corners, turning a quarter by turns left and right."""
    piece, centres = _blocks("squares", parameters.squares, n)
    row, column = np.divmod(np.arange(parameters.squares**2), parameters.squares)
    return _moved(piece, centres, np.arange(row.size), np.where((row + column) % 2 == 0, 3, 1))


def inner_circle(parameters: InnerCircle, n: int) -> Rearrangement:
    piece = (_distance(n) >= 2 * parameters.radius).astype(np.int32)
    return _moved(piece, np.full((1, 2), n - 1), np.arange(1), np.array([4 - parameters.angle // 90]))


def rings(parameters: Rings, n: int) -> Rearrangement:
    """Concentric rings turn a quarter, by turns left and right; the corners outside stay."""
    count = parameters.rings
    piece = np.minimum((_distance(n) * count).astype(np.int32), count)
    turns = np.where(np.arange(count) % 2 == 0, 3, 1)
    return _moved(piece, np.full((count, 2), n - 1), np.arange(count), turns)


def jigsaw(parameters: Jigsaw, n: int) -> Rearrangement:
    """Pieces with tabs change places, turned, wherever the shapes fit: a true permutation at every size.

    Every inner piece has two tabs opposite each other and two sockets, so that all of them are congruent; tabs of
    neighbouring pieces alternate in direction. Corners trade with corners, borders with borders of their shape.
    """
    per_side = parameters.pieces
    piece, centres = _blocks("pieces", per_side, n)
    sides = [_jigsaw_sides(*divmod(index, per_side), per_side) for index in range(per_side**2)]
    order, turns = _fitting(sides, np.random.default_rng(parameters.seed))
    return _moved(_with_tabs(piece, per_side, n // per_side), centres, order, turns)


def _jigsaw_sides(row: int, column: int, per_side: int) -> tuple[int, int, int, int]:
    """Tab (1), socket (-1) or straight (0) at the top, right, bottom and left of a piece."""
    across = 1 if (row + column) % 2 == 0 else -1
    last = per_side - 1
    return (-across * (row > 0), across * (column < last), -across * (row < last), across * (column > 0))


def _fitting(sides: list[tuple[int, ...]], rng: np.random.Generator) -> tuple[NDArray, NDArray]:
    """For every place a random piece that fits it and the quarter turns counter-clockwise that make it fit."""
    order, turns = np.arange(len(sides)), np.zeros(len(sides), np.int64)
    shapes = [min(side[q:] + side[:q] for q in range(4)) for side in sides]
    for shape in sorted(set(shapes)):
        places = [index for index, own in enumerate(shapes) if own == shape]
        for place, source in zip(places, rng.permutation(places), strict=True):
            fits = [q for q in range(4) if sides[source][q:] + sides[source][:q] == sides[place]]
            order[place], turns[place] = source, fits[rng.integers(len(fits))]
    return order, turns


def _with_tabs(piece: NDArray[np.int32], per_side: int, side: int) -> NDArray[np.int32]:
    """Hand the cells of every tab to the neighbour it grows from; ``side`` is a block's side in cells."""
    n = len(piece)
    margin = (n - per_side * side) // 2
    block, at = np.divmod(np.arange(n) - margin, side)
    row, column = np.broadcast_arrays(block[:, None], block[None, :])
    near = at + 0.5
    upright = ((row + column) % 2 == 0) & (piece < per_side**2)
    level = ~upright & (piece < per_side**2)
    edges = (
        (upright & (row > 0), near[None, :], near[:, None], -per_side),
        (upright & (row < per_side - 1), near[None, :], side - near[:, None], per_side),
        (level & (column > 0), near[:, None], near[None, :], -1),
        (level & (column < per_side - 1), near[:, None], side - near[None, :], 1),
    )
    owner = piece.copy()
    for has_socket, along, depth, neighbour in edges:
        inside = (along - side / 2) ** 2 + (depth - 0.14 * side) ** 2 < (0.18 * side) ** 2
        owner[inside & has_socket] += neighbour
    return owner


def _distance(n: int) -> NDArray[np.float64]:
    """Distance of each cell of the grid from its centre, in half sides."""
    offset = (2 * np.arange(n) - (n - 1)) / n
    return np.hypot(offset[:, None], offset[None, :])


def _blocks(name: str, per_side: int, n: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Label the grid's square blocks, leftover cells at the edges last; and the blocks' centres in half cells."""
    if per_side > n:
        raise RequestError(f"{name}={per_side} is too many for this picture: choose at most {n}.", field="views")
    side = n // per_side
    block = (np.arange(n) - (n - per_side * side) // 2) // side
    inside = (block >= 0) & (block < per_side)
    labels = np.where(inside[:, None] & inside, block[:, None] * per_side + block, per_side**2)
    middle = 2 * ((n - per_side * side) // 2 + np.arange(per_side) * side) + side - 1
    centres = np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)
    return labels.astype(np.int32), centres


def _moved(piece: NDArray[np.int32], centres: NDArray, order: NDArray, turns: NDArray) -> Rearrangement:
    """Rigid pieces: place p shows piece order[p], turned; a last label beyond them stays where it is.

    ``piece`` is the n x n map of places, ``centres`` hold (row, column) in half cells, so that all of it is exact:
    the cell shown at (i, j) is start + matrix @ (i, j), with one start and one matrix per piece.
    """
    n = len(piece)
    label = piece.reshape(-1)
    rest = np.full((1, 2), n - 1)
    turn = np.append(turns, 0).astype(np.uint8)
    matrix = TURN_OFFSETS[turn]
    there, here = np.concatenate([centres[order], rest]), np.concatenate([centres, rest])
    start = (there - (matrix @ here[:, :, None])[:, :, 0]) // 2
    flat = np.array([n, 1])
    along = (flat @ matrix).astype(np.int32)
    i, j = np.arange(n, dtype=np.int32)[:, None], np.arange(n, dtype=np.int32)
    source = (start @ flat).astype(np.int32)[piece] + along[:, 0][piece] * i + along[:, 1][piece] * j
    return Rearrangement(source.reshape(-1), turn[label], label)
