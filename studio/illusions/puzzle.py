"""Pieces to cut out: what of a picture stays together under all of its views, where each piece lies, and its outline.

A piece is a connected set of cells that every view moves as one rigid body, turned by quarters and never mirrored, so
that paper can do it. All of it is counted in cells of the model's codes and therefore exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from studio.errors import RequestError
from studio.views.permutations import TURN_OFFSETS
from studio.views.specs import ViewSpec
from studio.views.view import View

PRINT_SIDE = 180.0  # millimetres of the printed picture, which fits both A4 and Letter
SMALLEST = 25.0  # square millimetres of a piece that fingers can hold
MOST_PIECES = 400
IN_PIECES = ("pieces", "discs", "hinge", "skew")  # motions of views that take a picture apart

Line = list[tuple[int, int]]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """One reading: the piece at every cell (n x n), and each piece's quarter turns counter-clockwise since printing."""

    view: int
    piece: Labels
    turns: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Puzzle:
    """``printed`` holds the piece at every cell (n x n) of the sheet; there is one layout for every view that can be
    laid with paper."""

    printed: Labels
    layouts: tuple[Layout, ...]

    @property
    def cells(self) -> int:
        return len(self.printed)

    @property
    def count(self) -> int:
        return int(self.printed.max()) + 1


def check_specs(specs: Sequence[ViewSpec]) -> None:
    """Refuse views that no scissors can make, as far as their words tell; ``cut`` knows for sure."""
    apart = [spec for spec in specs if any(step.entry.motion in IN_PIECES for step in spec.steps)]
    if not any(spec.kind == "orthogonal" for spec in apart):
        raise RequestError(
            "puzzle: none of these views moves pieces that can be cut out; "
            "choose jigsaw, patch_permute, square_hinge, rings or inner_circle.",
            field="puzzle",
        )


def cut(views: Sequence[View]) -> Puzzle:
    """The pieces that all views of paper share. RequestError (field "puzzle") where there is nothing to cut."""
    of_paper = [(index, view) for index, view in enumerate(views) if _is_of_paper(view)]
    printed = _pieces([view for _, view in of_paper], views[0].cells)
    count = int(printed.max()) + 1
    if count < 2:
        raise RequestError(
            "puzzle: there is nothing to cut: these views keep the sheet whole, mirror it or change its colours; "
            "choose jigsaw, patch_permute, square_hinge, rings or inner_circle.",
            field="puzzle",
        )
    smallest = np.bincount(printed.reshape(-1)).min() * (PRINT_SIDE / len(printed)) ** 2
    if count > MOST_PIECES or smallest < SMALLEST:
        raise RequestError(
            f"puzzle: {count} pieces, the smallest of {smallest:.0f} square millimetres, are too many or too small to "
            f"cut; at most {MOST_PIECES} pieces of at least {SMALLEST:.0f} are made: choose fewer pieces.",
            field="puzzle",
        )
    return Puzzle(printed, tuple(_layout(printed, index, view) for index, view in of_paper))


def outlines(piece: Labels) -> list[Line]:
    """The cut lines of an n x n map of pieces, its border among them: corners (x, y) in cells, every edge once.

    Lines end where three or more pieces meet; those that end nowhere are closed. Straight runs have no inner corners.
    """
    edges = _edges(np.pad(piece, 1, constant_values=-1))
    neighbours: dict[tuple[int, int], set[tuple[int, int]]] = defaultdict(set)
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    knots = [corner for corner, others in neighbours.items() if len(others) != 2]
    lines = []
    for start in [*knots, *neighbours]:
        while neighbours[start]:
            lines.append(_straightened(_walk(start, neighbours, set(knots))))
    return lines


def anchors(piece: Labels) -> list[tuple[float, float, float]]:
    """Of every piece the place (x, y in cells) deepest inside it and how deep that is: where its number fits."""
    depth = _depths(piece)
    found = []
    for label in range(int(piece.max()) + 1):
        rows, columns = np.nonzero(piece == label)
        depths = depth[rows, columns]
        deepest = depths == depths.max()
        y, x = rows[deepest].mean(), columns[deepest].mean()
        if piece[round(y), round(x)] != label:  # a ring: its deepest cells lie all around
            y, x = rows[deepest][0], columns[deepest][0]
        found.append((x + 0.5, y + 0.5, float(depths.max())))
    return found


def _is_of_paper(view: View) -> bool:
    move = view.rearrangement
    coloured = move.sign != 1 or move.channels != (0, 1, 2)
    return view.part is None and not coloured and int(move.turn.max()) < 4


def _pieces(views: Sequence[View], n: int) -> Labels:
    """Pieces of the printed sheet, numbered in reading order."""
    keys = [_scattered(_rigid(view), view) for view in views]
    together = _unique(np.stack(keys, 1)) if keys else np.zeros(n * n, np.int64)
    connected = _connected(together.reshape(n, n))
    rows, columns = np.divmod(np.arange(n * n), n)
    size = np.bincount(connected)
    middle = np.bincount(connected, rows) / size, np.bincount(connected, columns) / size
    band = np.floor((middle[0] + 0.5) * round(len(size) ** 0.5) / n)
    rank = np.empty(len(size), np.int64)
    rank[np.lexsort((middle[1], band))] = np.arange(len(size))
    return rank[connected].reshape(n, n)


def _rigid(view: View) -> NDArray[np.int64]:
    """For every place of the reading a key shared by the places that its steps move as one body."""
    n, move = view.cells, view.rearrangement
    label = np.zeros(n * n, np.int64)
    for step in view.spec.steps:
        one = step.entry.build(step.parameters, n)
        label = _unique(np.stack([label[one.source], one.piece], 1))
    place, source = (np.stack(np.divmod(cells, n), 1) for cells in (np.arange(n * n), move.source))
    start = source - (TURN_OFFSETS[move.turn] @ place[:, :, None])[:, :, 0]
    return _unique(np.column_stack([label, move.turn, start]))


def _scattered(key: NDArray[np.int64], view: View) -> NDArray[np.int64]:
    """Keys of places in the reading, laid back where those places were printed."""
    printed = np.empty_like(key)
    printed[view.rearrangement.source] = key
    return printed


def _unique(rows: NDArray) -> NDArray[np.int64]:
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def _connected(key: Labels) -> NDArray[np.int64]:
    """Labels of the connected areas of equal keys: the smallest index spreads until nothing changes."""
    label = np.arange(key.size).reshape(key.shape)
    down, across = key[1:] == key[:-1], key[:, 1:] == key[:, :-1]
    while True:
        before = label.copy()
        for near, far, same in ((label[:-1], label[1:], down), (label[:, :-1], label[:, 1:], across)):
            least = np.minimum(near, far)
            np.minimum(near, least, out=near, where=same)  # again: ``far`` of one pair is ``near`` of the next
            np.minimum(far, least, out=far, where=same)
        if (label == before).all():
            return np.unique(label, return_inverse=True)[1].reshape(-1)


def _layout(printed: Labels, index: int, view: View) -> Layout:
    move = view.rearrangement
    piece = printed.reshape(-1)[move.source]
    turns = np.zeros(int(printed.max()) + 1, np.uint8)
    turns[piece] = move.turn
    return Layout(index, piece.reshape(printed.shape), turns)


def _edges(framed: Labels) -> list[Line]:
    """Unit edges between cells of different pieces; ``framed`` has a border of one cell around the map."""
    upright = np.argwhere(framed[1:-1, 1:] != framed[1:-1, :-1]).tolist()
    level = np.argwhere(framed[1:, 1:-1] != framed[:-1, 1:-1]).tolist()
    return [[(x, y), (x, y + 1)] for y, x in upright] + [[(x, y), (x + 1, y)] for y, x in level]


def _walk(start: tuple[int, int], neighbours: dict[tuple[int, int], set[tuple[int, int]]], knots: set) -> Line:
    """Take edges away from ``start`` on, up to the next knot or back to the start."""
    line = [start]
    while neighbours[line[-1]]:
        here = line[-1]
        there = neighbours[here].pop()
        neighbours[there].discard(here)
        line.append(there)
        if there in knots or there == start:
            break
    return line


def _straightened(line: Line) -> Line:
    kept = line[:1]
    for before, here, after in zip(line, line[1:], line[2:], strict=False):
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            kept.append(here)
    return [*kept, line[-1]]


def _depths(piece: Labels) -> Labels:
    """How many cells each cell is away from the nearest other piece or the border: 1 at the rim."""
    depth = np.zeros_like(piece)
    inside = np.ones(piece.shape, bool)
    while inside.any():
        depth += inside
        framed, alive = np.pad(piece, 1, constant_values=-1), np.pad(inside, 1)
        around = [(slice(0, -2), slice(1, -1)), (slice(2, None), slice(1, -1))]
        around += [(columns, rows) for rows, columns in around]
        inside = inside & np.logical_and.reduce([alive[at] & (framed[at] == piece) for at in around])
    return depth
