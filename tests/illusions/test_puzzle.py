"""Pieces, their outlines and the sheets: what is cut out and laid again must be the reading."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from studio.errors import RequestError
from studio.illusions.preflight import check
from studio.illusions.puzzle import MOST_PIECES, PRINT_SIDE, anchors, cut, outlines
from studio.illusions.request import IllusionRequest
from studio.illusions.sheets import PAPERS, Reading, pages, save_sheets, svg
from studio.imaging import to_picture, to_tensor
from studio.views.permutations import dihedral
from studio.views.view import build

CELL = 4


def views(*specs, cells=16):
    return [build(spec, cells, CELL) for spec in specs]


def picture(cells=16):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (cells * CELL,) * 2 + (3,), np.uint8))


def laid(source, puzzle, layout):
    """The reading laid with scissors: every piece taken from the sheet, turned, and put down whole."""
    sheet, table = np.asarray(source), np.zeros_like(np.asarray(source))
    of_sheet, of_table = (np.kron(piece, np.ones((CELL, CELL), int)) for piece in (puzzle.printed, layout.piece))
    for label in range(puzzle.count):
        cut_out, place = _box(sheet, of_sheet == label), of_table == label
        turned, shape = (dihedral(part, int(layout.turns[label])) for part in cut_out)
        rows, columns = np.nonzero(place)
        top, left = rows.min(), columns.min()
        assert np.array_equal(shape, place[top : rows.max() + 1, left : columns.max() + 1])
        table[top : rows.max() + 1, left : columns.max() + 1][shape] = turned[shape]
    return table


def _box(sheet, mask):
    rows, columns = np.nonzero(mask)
    box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    return sheet[box], mask[box]


SETS = [
    ("identity", "jigsaw(seed=3)"),
    ("identity", "patch_permute", "square_hinge+rotate_90"),
    ("rotate_90", "rings"),
    ("identity", "inner_circle(angle=90)"),
    ("identity", "jigsaw(seed=1)+rotate_180", "jigsaw(seed=2)"),
    ("identity", "flip_vertical+square_hinge+flip_vertical"),
]


@pytest.mark.parametrize("specs", SETS)
@pytest.mark.parametrize("cells", [16, 19])
def test_pieces_cut_from_the_sheet_and_laid_by_the_guide_are_the_reading(specs, cells):
    made = views(*specs, cells=cells)
    puzzle, source = cut(made), picture(cells)
    assert len(puzzle.layouts) == len(specs)
    for layout in puzzle.layouts:
        seen = np.asarray(to_picture(made[layout.view].picture(to_tensor(source))))
        assert np.array_equal(laid(source, puzzle, layout), seen)


@pytest.mark.parametrize("specs", SETS)
def test_every_piece_is_in_one_part_and_numbers_have_no_gaps(specs):
    printed = cut(views(*specs)).printed
    for label in range(printed.max() + 1):
        waiting = [tuple(np.argwhere(printed == label)[0])]
        found = set(waiting)
        while waiting:
            row, column = waiting.pop()
            for at in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                if min(at) >= 0 and max(at) < len(printed) and printed[at] == label and at not in found:
                    found.add(at)
                    waiting.append(at)
        assert len(found) == (printed == label).sum() > 0


def test_a_jigsaw_of_four_by_four_has_sixteen_pieces_in_reading_order():
    puzzle = cut(views("identity", "jigsaw(seed=3)"))
    assert puzzle.count == 16
    assert puzzle.printed[[1, 1, 14, 14], [1, 14, 1, 14]].tolist() == [0, 3, 12, 15]


def test_rings_are_rings_and_four_corners():
    assert cut(views("identity", "rings")).count == 3 + 4


@pytest.mark.parametrize("specs", SETS)
def test_cut_lines_are_every_edge_between_pieces_once(specs):
    printed = cut(views(*specs)).printed
    framed = np.pad(printed, 1, constant_values=-1)
    wanted = (framed[1:] != framed[:-1]).sum() + (framed[:, 1:] != framed[:, :-1]).sum()
    edges = []
    for line in outlines(printed):
        for (x0, y0), (x1, y1) in pairwise(line):
            assert (x0 == x1) != (y0 == y1)
            length = abs(x1 - x0) + abs(y1 - y0)
            steps = [(x0 + (x1 - x0) * i // length, y0 + (y1 - y0) * i // length) for i in range(length + 1)]
            edges += [frozenset(pair) for pair in pairwise(steps)]
    assert len(edges) == len(set(edges)) == wanted


def test_cut_lines_of_two_halves_are_a_border_and_one_line_between():
    lines = outlines(np.array([[0, 1], [0, 1]]))
    assert [(1, 0), (1, 2)] in [sorted(line) for line in lines]
    assert len(lines) == 3


def test_numbers_stand_inside_their_pieces():
    printed = cut(views("identity", "rings")).printed
    for label, (x, y, depth) in enumerate(anchors(printed)):
        assert printed[int(y), int(x)] == label
        assert depth >= 1


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        (("identity", "rotate_180"), "nothing to cut"),
        (("identity", "flip_vertical"), "nothing to cut"),
        (("identity", "jigsaw+negate"), "nothing to cut"),
        (("identity", "square_hinge(squares=32)"), "too many or too small"),
    ],
)
def test_views_that_no_scissors_can_make_are_refused_with_the_reason(specs, says):
    with pytest.raises(RequestError, match=says) as refused:
        cut(views(*specs, cells=32))
    assert refused.value.field == "puzzle"
    assert str(MOST_PIECES) in str(refused.value) or "choose jigsaw" in str(refused.value)


@pytest.mark.parametrize("specs", [("identity", "rotate_180"), ("low_pass", "high_pass")])
def test_a_puzzle_that_cannot_be_is_refused_before_anything_is_loaded(specs):
    asked = {"prompts": ("a fox", "a penguin"), "views": specs}
    with pytest.raises(RequestError, match="moves pieces"):
        check(IllusionRequest(**asked, puzzle=True))
    check(IllusionRequest(**asked))
    check(IllusionRequest(prompts=("a fox", "a penguin"), views=("identity", "jigsaw"), puzzle=True))


def test_sheets_are_three_pages_of_each_paper_and_an_svg(tmp_path):
    made = views("identity", "jigsaw(seed=3)")
    readings = [Reading("a fox", view.title, picture()) for view in made]
    files = save_sheets(cut(made), picture(), readings, tmp_path / "candidate-0")
    assert sorted(files) == ["a4", "letter", "svg"]
    for name, size in (("a4", "595.2 841.92"), ("letter", "612.0 792.0")):
        content = (tmp_path / files[name]).read_bytes()
        assert content.startswith(b"%PDF")
        boxes = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+ [\d.]+)", content)
        assert [box.decode() for box in boxes] == [size] * 3
    lines = (tmp_path / files["svg"]).read_text()
    assert 'width="180mm" height="180mm" viewBox="0 0 180 180"' in lines


def test_the_svg_has_a_path_for_every_line_at_the_size_of_print():
    puzzle = cut(views("identity", "patch_permute(patches=2)"))
    paths = re.findall(r' d="M([^"]+)"', svg(puzzle))
    assert len(paths) == len(outlines(puzzle.printed)) == 8
    numbers = [float(number) for path in paths for number in re.findall(r"[\d.]+", path)]
    assert (min(numbers), max(numbers)) == (0.0, PRINT_SIDE)
    assert PRINT_SIDE / 2 in numbers


def test_front_and_back_lie_upon_each_other():
    made = views("identity", "rings")
    readings = [Reading("a fox", view.title, picture()) for view in made]
    white = Image.new("RGB", picture().size, "white")
    front, back, _ = pages(cut(made), white, readings, PAPERS[0])
    dark = [
        page.crop((0, 400, page.width, 2700)).convert("L").point(lambda v: 255 * (v < 110)) for page in (front, back)
    ]
    behind = np.asarray(ImageOps.mirror(dark[1]).filter(ImageFilter.MaxFilter(7)))
    assert (behind[np.asarray(dark[0]) > 0] > 0).all()
