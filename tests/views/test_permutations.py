"""Rearrangements as such: true permutations of rigid pieces at every size."""

from __future__ import annotations

import numpy as np
import pytest

from studio.errors import RequestError
from studio.views.permutations import Rearrangement, dihedral, skew_shifts
from studio.views.specs import parse_spec

ODD_SIDES = (7, 10, 16, 33, 64, 100, 129)
PIECEWISE = ("patch_permute", "jigsaw", "square_hinge(squares=3)", "inner_circle", "inner_circle(angle=90)", "rings")


def made(text: str, n: int) -> Rearrangement:
    step = parse_spec(text).steps[0]
    return step.entry.build(step.parameters, n)


@pytest.mark.parametrize("n", ODD_SIDES)
@pytest.mark.parametrize("text", [*PIECEWISE, "skew(slope=-2.3)", "pixel_permute"])
def test_every_cell_is_shown_exactly_once_at_any_size(text, n):
    assert (np.sort(made(text, n).source) == np.arange(n * n)).all()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("pieces", "n"), [(2, 16), (3, 48), (4, 1024), (5, 64), (8, 128), (16, 16)])
def test_a_jigsaw_is_a_true_permutation_for_every_seed_and_number_of_pieces(seed, pieces, n):
    assert (np.sort(made(f"jigsaw(seed={seed},pieces={pieces})", n).source) == np.arange(n * n)).all()


@pytest.mark.parametrize("text", PIECEWISE)
def test_pieces_move_as_rigid_bodies(text):
    n = 32
    move = made(text, n)
    for label in np.unique(move.piece):
        places = np.flatnonzero(move.piece == label)
        to, source = np.stack(np.divmod(places, n), 1), np.stack(np.divmod(move.source[places], n), 1)
        assert len(set(move.turn[places])) == 1
        apart, was_apart = to - to[0], source - source[0]
        assert (np.square(apart).sum(1) == np.square(was_apart).sum(1)).all()


def test_jigsaw_pieces_have_tabs_and_all_sixteen_have_about_the_same_area():
    piece = made("jigsaw", 64).piece
    areas = np.bincount(piece)
    assert len(areas) == 16
    assert areas.max() > 256 > areas.min()


def test_seeds_give_different_shuffles_and_leave_the_global_generator_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    one, other = made("jigsaw(seed=1)", 32), made("jigsaw(seed=2)", 32)
    assert (one.source != other.source).any()
    assert (made("jigsaw(seed=1)", 32).source == one.source).all()
    assert (np.random.get_state()[1] == before).all()


def test_cells_that_no_square_covers_stay_where_they_are():
    move = made("square_hinge(squares=3)", 64)
    last = np.arange(64 * 63, 64 * 64)
    assert (move.source[last] == last).all()
    assert not move.turn[last].any()


def test_an_inner_circle_leaves_the_corners_and_turns_its_middle():
    source = made("inner_circle", 8).source.reshape(8, 8)
    assert source[0, 0] == 0
    assert source[3, 3] == 4 * 8 + 4


def test_a_hinged_square_turns_right_and_its_neighbour_left():
    source = made("square_hinge(squares=2)", 4).source.reshape(4, 4)
    assert source[:2, :2].tolist() == [[4, 0], [5, 1]]
    assert source[:2, 2:].tolist() == [[3, 7], [2, 6]]


def test_skewed_columns_slide_in_proportion_to_their_distance_from_the_middle():
    assert skew_shifts(2.0, 4).tolist() == [-3, -1, 1, 3]
    assert made("skew(slope=2)", 4).source.reshape(4, 4)[0].tolist() == [12, 5, 14, 7]


def test_turning_inside_composes_like_the_symmetries_of_a_square():
    square = np.arange(9).reshape(3, 3)
    for first in range(8):
        for second in range(8):
            alone = [Rearrangement(np.zeros(1, np.int32), np.array([code]), np.zeros(1)) for code in (first, second)]
            both = alone[0].then(alone[1]).turn[0]
            assert (dihedral(square, both) == dihedral(dihedral(square, first), second)).all()


def test_more_pieces_than_cells_are_refused_with_the_bound():
    with pytest.raises(RequestError, match="patches=32 is too many for this picture: choose at most 16") as error:
        made("patch_permute(patches=32)", 16)
    assert error.value.field == "views"
