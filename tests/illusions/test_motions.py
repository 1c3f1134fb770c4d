"""Every view moves in its own way, and arrives where it should."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from studio.illusions.motions import GROUND, motion_of
from studio.imaging import to_picture, to_tensor
from studio.views.specs import VIEWS
from studio.views.view import build

MOVING = [entry.name for entry in VIEWS if entry.motion != "none"]


def picture(side: int = 64) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def drawn(name: str, share: float, before: Image.Image) -> Image.Image:
    view = build(name, 16, cell=before.width // 16)
    draw = motion_of(view, before, to_picture(view.picture(to_tensor(before))))
    return draw(share)


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())


@pytest.mark.parametrize("name", MOVING)
def test_a_motion_leaves_from_the_picture_and_arrives_at_the_view(name):
    before = picture()
    view = build(name, 16, cell=4)
    after = to_picture(view.picture(to_tensor(before)))
    draw = motion_of(view, before, after)
    start, middle, end = draw(1e-4), draw(0.5), draw(1 - 1e-4)
    assert difference(start, before) < 3
    assert difference(end, after) < 3
    assert difference(middle, before) > 2
    assert start.size == middle.size == end.size == before.size


def test_a_flip_is_squashed_to_a_line_halfway():
    pixels = np.asarray(drawn("flip_vertical", 0.5, Image.new("RGB", (64, 64), "black")))
    dark = (pixels < 128).all(2)
    assert dark[32].any() or dark[31].any()
    assert not dark[:28].any()
    assert not dark[36:].any()


def test_a_quarter_turn_passes_an_eighth_clockwise_within_its_frame():
    before = Image.new("RGB", (64, 64), "white")
    before.paste("black", (0, 0, 64, 32))
    pixels = np.asarray(drawn("rotate_90", 0.5, before))[:, :, 0]
    assert pixels[20, 44] < 60  # the upper half has come to the upper right
    assert pixels[44, 20] > 250
    assert tuple(np.asarray(drawn("rotate_90", 0.5, before))[0, 0]) == GROUND


def test_a_disc_turns_while_the_rest_stays():
    before = picture()
    pixels, rest = np.asarray(drawn("inner_circle", 0.3, before)), np.asarray(before)
    assert (pixels[:4] == rest[:4]).all()
    assert (pixels[24:40, 24:40] != rest[24:40, 24:40]).any()


def test_no_holes_open_in_turning_pieces():
    white = np.asarray(Image.new("RGB", (64, 64), GROUND))
    pixels = np.asarray(drawn("square_hinge(squares=2)", 0.37, Image.new("RGB", (64, 64), "black")))
    open_ground = (pixels == white).all(2)
    assert not open_ground[10:22, 10:22].any()
    assert not open_ground[42:54, 10:22].any()


def test_walking_away_makes_the_picture_small():
    pixels = np.asarray(drawn("low_pass", 0.5, Image.new("RGB", (64, 64), "black")))
    assert (pixels < 100).all(2).sum() == 16 * 16


def test_a_fade_meets_halfway():
    halfway = np.asarray(drawn("negate", 0.5, Image.new("RGB", (64, 64), (200, 10, 90))))
    assert halfway.mean() == pytest.approx(127, abs=1)


def test_as_it_is_has_no_motion():
    assert motion_of(build("high_pass", 16, 4), picture(), picture()) is None


def test_thousands_of_pieces_fly_at_once():
    before = picture(128)
    view = build("pixel_permute", 128)
    draw = motion_of(view, before, to_picture(view.picture(to_tensor(before))))
    assert difference(draw(0.5), before) > 5
