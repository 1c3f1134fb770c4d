"""Invariants over the whole table of views, at every size."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch

from studio.views import view as views
from studio.views.specs import VIEWS, parse_spec
from studio.views.view import build

ORTHOGONAL = [entry.name for entry in VIEWS if entry.kind == "orthogonal"]
FAMILIES = sorted({entry.family for entry in VIEWS if entry.family})
SIDES = (64, 128, 256, 512, 1024)
CODES = {
    "flip_vertical": lambda x: x.flip(-2),
    "flip_horizontal": lambda x: x.flip(-1),
    "flip_diagonal": lambda x: x.mT,
    "flip_antidiagonal": lambda x: x.rot90(2, (-2, -1)).mT,
    "rotate_90": lambda x: x.rot90(-1, (-2, -1)),
    "rotate_180": lambda x: x.rot90(2, (-2, -1)),
    "rotate_270": lambda x: x.rot90(1, (-2, -1)),
    "negate": lambda x: -x,
    "identity": lambda x: x,
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def enlarged(x: torch.Tensor, cell: int) -> torch.Tensor:
    return x.repeat_interleave(cell, -2).repeat_interleave(cell, -1)


def test_there_are_at_least_twenty_views_with_unique_names_and_words():
    assert len({entry.name for entry in VIEWS}) == len(VIEWS) >= 20
    assert all(entry.title and entry.help.endswith(".") and entry.reference for entry in VIEWS)
    assert all(field.description for entry in VIEWS for field in entry.parameters.model_fields.values())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ORTHOGONAL)
def test_bringing_back_what_was_shown_is_exact_and_noise_stays_white(name, side):
    view, x = build(name, side), noise(max(1, 256 // side) ** 2, 3, side, side)
    seen = view.show(x)
    assert torch.equal(view.bring_back(seen), x)
    assert torch.equal(view.picture(x), seen)
    assert abs(seen.var().item() - 1) < 0.02


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_of_a_family_sum_to_the_whole(family, side):
    x = noise(1, 1 if side > 256 else 4, side, side)
    parts = [build(name, side) for name in family]
    assert all(view.show(x) is x and view.family == family for view in parts)
    assert (sum(view.bring_back(x) for view in parts) - x).abs().max() < 1e-5


@pytest.mark.parametrize("entry", VIEWS, ids=lambda entry: entry.name)
def test_every_view_is_built_for_1024_cells_in_a_fifth_of_a_second(entry):
    def seconds() -> float:
        views._built.cache_clear()
        start = time.process_time()
        build(entry.name, 1024)
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 0.2


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_the_picture_of_enlarged_codes_is_the_enlarged_view_of_the_codes(name):
    view, codes = build(name, 16, cell=8), noise(2, 3, 16, 16)
    assert torch.equal(view.picture(enlarged(codes, 8)), enlarged(view.show(codes), 8))


@pytest.mark.parametrize("name", CODES)
def test_whole_views_are_the_flips_and_turns_they_are_called(name):
    picture = noise(2, 3, 32, 32)
    assert torch.equal(build(name, 32).show(picture), CODES[name](picture))
    assert torch.equal(build(name, 4, cell=8).picture(picture), CODES[name](picture))


def test_a_quarter_turn_goes_clockwise():
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert build("rotate_90", 2).show(x).tolist() == [[[3.0, 1.0], [4.0, 2.0]]]


@pytest.mark.parametrize("name", ["inner_circle", "rings", "square_hinge", "jigsaw(seed=2)"])
def test_pieces_are_turned_inside_their_cells_too(name):
    """Were cells only moved, neighbouring pixels of the picture would no longer be neighbours."""
    rows = torch.arange(64.0)
    picture = torch.stack(torch.meshgrid(rows, rows, indexing="ij")).unsqueeze(0).expand(1, 2, 64, 64)
    seen = build(name, 8, cell=8).picture(torch.cat([picture, picture[:, :1]], 1))[:, :2]
    inside = [seen[..., 1:8], seen[..., 0:7]]
    steps = (inside[0] - inside[1]).abs().sum(1)
    assert (steps == 1).all()


def test_steps_of_a_composition_are_taken_one_after_the_other():
    x = noise(1, 4, 16, 16)
    both = build("rotate_90+skew+negate", 16)
    assert torch.equal(both.show(x), -build("skew", 16).show(build("rotate_90", 16).show(x)))
    assert torch.equal(both.bring_back(both.show(x)), x)


def test_compositions_turn_the_insides_of_cells_as_the_steps_would():
    picture = noise(1, 3, 64, 64)
    steps = "flip_diagonal+jigsaw+rotate_90+square_hinge"
    one_by_one = picture
    for step in steps.split("+"):
        one_by_one = build(step, 8, cell=8).picture(one_by_one)
    assert torch.equal(build(steps, 8, cell=8).picture(picture), one_by_one)


def test_colours_swap_in_both_orders_and_come_back():
    x = torch.arange(4.0).reshape(4, 1, 1).expand(4, 2, 2)
    twice = build("channel_permutation(order=gbr)+channel_permutation(order=rbg)", 2)
    assert build("channel_permutation(order=gbr)", 2).show(x)[:, 0, 0].tolist() == [1, 2, 0, 3]
    assert twice.show(x)[:, 0, 0].tolist() == [1, 0, 2, 3]
    assert torch.equal(twice.bring_back(twice.show(x)), x)
    with pytest.raises(ValueError, match="three channels"):
        twice.show(x[:2])


def test_a_moved_part_and_its_partner_still_sum_to_the_whole():
    x = noise(1, 4, 16, 16)
    near, far = build("high_pass", 16), build("low_pass+rotate_180", 16)
    assert torch.equal(far.show(x), x.rot90(2, (-2, -1)))
    assert (near.bring_back(near.show(x)) + far.bring_back(far.show(x)) - x).abs().max() < 1e-5


def test_a_viewer_sees_the_blurred_or_gray_picture_and_fine_parts_as_they_are():
    picture = noise(1, 3, 64, 64)
    assert torch.equal(build("high_pass", 8, cell=8).picture(picture), picture)
    assert build("low_pass", 8, cell=8).picture(picture).std() < 0.3
    gray = build("grayscale", 8, cell=8).picture(picture)
    assert torch.allclose(gray[:, 0], picture.mean(1))
    assert torch.equal(gray[:, 0], gray[:, 2])


def test_a_part_of_half_precision_codes_stays_in_half_precision():
    x = noise(1, 4, 16, 16).to(torch.bfloat16)
    assert build("low_pass", 16).bring_back(x).dtype == torch.bfloat16


def test_a_view_is_built_once_for_equal_texts():
    assert build("jigsaw(seed=0)", 16, 8) is build(parse_spec(" jigsaw "), 16, cell=8)


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="built for pictures 128 pixels wide"):
        build("negate", 16, 8).picture(torch.zeros(3, 64, 64))


def test_views_can_be_named_and_built_without_torch():
    code = "import sys; from studio.views.view import build; build('jigsaw', 16); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
