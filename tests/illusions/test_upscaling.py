"""A second pass at twice the size, under exactly the views of the first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio import illusions
from studio.illusions.puzzle import cut
from studio.illusions.request import IllusionRequest
from studio.illusions.result import Upscaled
from studio.illusions.upscaling import anchored, coarse, enlarged, larger
from studio.imaging import to_tensor
from studio.sampling import Moment, clean_estimate, from_clean
from studio.views.admission import measure
from studio.views.permutations import TURN_OFFSETS
from studio.views.specs import VIEWS
from studio.views.view import build

CELLS = 16
ORTHOGONAL = [entry.name for entry in VIEWS if entry.kind == "orthogonal"]
PUZZLES = ["jigsaw", "jigsaw(seed=3)", "patch_permute", "square_hinge", "rings", "inner_circle"]


def request(**changes) -> IllusionRequest:
    return IllusionRequest(**({"steps": 3, "seed": 5, "upscale": 2, "views": ("identity", "jigsaw")} | changes))


@pytest.mark.parametrize("spec", [*ORTHOGONAL, "rotate_90+jigsaw", "jigsaw(seed=3)+negate"])
def test_an_enlarged_view_does_to_codes_what_the_view_does_to_pictures(spec):
    view, x = build(spec, CELLS, 2), torch.randn(1, 3, 2 * CELLS, 2 * CELLS)
    assert torch.equal(enlarged(build(spec, CELLS), 2).show(x), view.picture(x))


@pytest.mark.parametrize("spec", ORTHOGONAL)
def test_an_enlarged_view_keeps_noise_white_and_finds_its_way_back(spec):
    assert measure(enlarged(build(spec, CELLS), 2)).is_white


@pytest.mark.parametrize("spec", [*ORTHOGONAL, "low_pass", "motion", "grayscale"])
def test_a_viewer_of_the_enlarged_picture_sees_the_same_rearrangement(spec):
    x = torch.rand(1, 3, 4 * CELLS, 4 * CELLS) * 2 - 1
    torch.testing.assert_close(enlarged(build(spec, CELLS, 2), 2).picture(x), build(spec, CELLS, 4).picture(x))


@pytest.mark.parametrize("family", [("low_pass", "high_pass"), ("grayscale", "colour"), ("motion", "motion_residual")])
def test_enlarged_parts_still_sum_to_the_whole(family):
    x = torch.randn(1, 4, 2 * CELLS, 2 * CELLS)
    parts = [enlarged(build(spec, CELLS), 2) for spec in family]
    torch.testing.assert_close(sum(part.bring_back(part.show(x)) for part in parts), x)


def test_once_as_wide_is_the_view_itself():
    view = build("jigsaw", CELLS)
    assert enlarged(view, 1) is view


@pytest.mark.parametrize("spec", PUZZLES)
def test_the_pieces_of_a_puzzle_move_as_rigid_bodies_at_either_size(spec):
    view = build(spec, CELLS, 8)
    puzzle, move = cut([build("identity", CELLS, 8), view]), enlarged(view, 2).rearrangement
    printed = puzzle.printed.repeat(2, 0).repeat(2, 1)
    laid = printed.reshape(-1)[move.source].reshape(printed.shape)
    assert np.array_equal(laid, puzzle.layouts[1].piece.repeat(2, 0).repeat(2, 1))
    source = np.stack(np.divmod(move.source.reshape(laid.shape), len(laid)), -1)
    turns = puzzle.layouts[1].turns[laid[:, 1:]]
    same = laid[:, 1:] == laid[:, :-1]
    assert np.array_equal((source[:, 1:] - source[:, :-1])[same], TURN_OFFSETS[turns][..., 1][same])


@pytest.mark.parametrize("spec", ORTHOGONAL)
def test_the_coarse_part_is_the_same_through_every_view(spec):
    view, x = enlarged(build(spec, CELLS), 2), torch.randn(1, 4, 2 * CELLS, 2 * CELLS)
    torch.testing.assert_close(view.show(coarse(x, 2)), coarse(view.show(x), 2))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_an_anchored_run_keeps_the_coarse_part_of_the_picture_and_what_is_finer_of_the_prediction(kind):
    code, own, x = (torch.randn(1, 4, 8, 8) for _ in range(3))
    at = Moment(x, 1.3)
    plan = anchored(lambda step, sigma: [], code, 2, kind)(0, 1.3)
    found = clean_estimate(plan.join([from_clean(own, x, 1.3, kind)], at), x, 1.3, kind)
    torch.testing.assert_close(coarse(found, 2), coarse(code, 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found - coarse(found, 2), own - coarse(own, 2), atol=1e-4, rtol=1e-4)


def test_a_larger_picture_stays_within_bounds_and_keeps_its_mean():
    pixels = torch.rand(3, 16, 16) * 2 - 1
    found = larger(pixels, 2)
    assert found.shape == (1, 3, 32, 32)
    assert found.abs().max() <= 1
    assert abs(found.mean() - pixels.mean()) < 0.02


@pytest.fixture(scope="module")
def upscaled(models):
    steps = []
    return illusions.run(request(puzzle=True), models, on_step=steps.append), steps


def test_an_upscaled_illusion_is_twice_as_wide_and_its_views_are_exact(upscaled):
    found = upscaled[0].candidates[0]
    assert found.image.size == (256, 256)
    view = build("jigsaw", CELLS, 16)
    assert torch.equal(to_tensor(found.views[1]), view.picture(to_tensor(found.image)))


def test_the_second_pass_is_counted_in_evaluations_and_progress(upscaled):
    result, steps = upscaled
    assert result.evaluations == 4 * (3 + 1)
    assert [step.index for step in steps if step.clean is not None] == [1, 2, 3, 7]
    assert {step.total for step in steps} == {7}
    assert [step.note for step in steps if step.clean is not None][-1] == "at twice the size"
    assert steps[-1].index == 7


def test_previews_of_the_second_pass_are_rearranged_as_well(upscaled):
    last = [step for step in upscaled[1] if step.clean is not None][-1]
    upright, shuffled = last.pictures()
    assert upright.size == (128, 128)
    assert np.array_equal(np.sort(np.asarray(upright), None), np.sort(np.asarray(shuffled), None))


def test_what_it_read_as_before_is_in_the_summary_and_the_notes(upscaled, tmp_path):
    summary = upscaled[0].save(tmp_path)
    figures = summary["candidates"][0]["upscaled"]
    assert set(figures) == {"before", "drawn", "grown", "kept"}
    assert figures[figures["kept"]]["alignment"] == summary["candidates"][0]["alignment"]
    assert any(note.startswith("Before upscaling alignment was") for note in summary["notes"])
    assert set(summary["candidates"][0]["puzzle"]) == {"a4", "letter", "svg"}
    with Image.open(tmp_path / summary["candidates"][0]["image"]) as saved:
        assert saved.size == (256, 256)


def test_before_upscaling_it_is_the_picture_that_is_made_without(upscaled, models):
    plain = illusions.run(request(upscale=1), models).candidates[0]
    assert upscaled[0].candidates[0].upscaled.before == pytest.approx((plain.alignment, plain.concealment))
    assert plain.upscaled is None


def test_the_picture_that_reads_better_is_kept_and_the_other_one_is_told_of():
    drawn = Upscaled(before=(0.3, 0.6), drawn=(0.31, 0.7), grown=(0.3, 0.6))
    assert drawn.is_drawn
    assert drawn.words == "Before upscaling alignment was 0.30 and concealment 0.60, now 0.31 and 0.70."
    only_grown = Upscaled(before=(0.3, 0.6), drawn=(0.1, 0.9), grown=(0.29, 0.6))
    assert not only_grown.is_drawn
    assert "now 0.29 and 0.60. Drawn over it read worse (0.10 and 0.90)" in only_grown.words


@pytest.mark.parametrize("changes", [{"scheduler": "dpm++2m"}, {"scheduler": "euler", "reduction": "weighted"}])
def test_equal_requests_are_equal_pictures_with_every_scheduler(changes, models):
    asked = request(views=("identity", "rotate_180"), steps=2, **changes)
    first, again = (illusions.run(asked, models).candidates[0] for _ in range(2))
    assert first.image.size == (256, 256)
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
