"""Animations pause at every reading, go on forever and stay small."""

from __future__ import annotations

import time

import numpy as np
import pytest
from PIL import Image

from studio.illusions.animate import PAUSE, TICK, frames, save_gif, save_webp
from studio.imaging import to_picture, to_tensor
from studio.views.view import View, build


def picture(side: int = 128) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)


def of(*texts: str, cells: int = 16, cell: int = 8) -> list[View]:
    return [build(text, cells, cell) for text in texts]


def seen(view: View, of_picture: Image.Image) -> Image.Image:
    return to_picture(view.picture(to_tensor(of_picture)))


def same(one: Image.Image, other: Image.Image) -> bool:
    return one.tobytes() == other.tobytes()


@pytest.mark.parametrize(
    "texts",
    [
        ("identity", "rotate_180"),
        ("rotate_90", "jigsaw(seed=3)"),
        ("identity", "flip_vertical", "inner_circle"),
        ("high_pass", "low_pass"),
        ("rotate_90+negate", "skew", "identity", "square_hinge"),
    ],
)
def test_the_loop_pauses_at_exactly_what_each_view_shows_in_order(texts):
    views = of(*texts)
    pauses = [frame.picture for frame in frames(picture(), views) if frame.milliseconds == PAUSE]
    assert len(pauses) == len(views)
    assert all(same(pause, seen(view, picture())) for pause, view in zip(pauses, views, strict=True))


def test_the_first_frame_is_the_first_reading_and_the_way_back_mirrors_the_way_there():
    loop = frames(picture(), of("identity", "rotate_90"), n_per_transition=5)
    assert [frame.milliseconds for frame in loop] == [PAUSE, *[TICK] * 6, PAUSE, *[TICK] * 5]
    there, back = [f.picture for f in loop[2:7]], [f.picture for f in loop[8:]]
    assert all(one is other for one, other in zip(there, reversed(back), strict=True))


def test_between_two_moved_readings_the_picture_comes_by():
    loop = frames(picture(), of("rotate_90", "flip_vertical"), n_per_transition=3)
    assert same(loop[0].picture, seen(build("rotate_90", 16, 8), picture()))
    assert same(loop[4].picture, picture())
    assert len(loop) == 2 * (1 + 3 + 1 + 3)


def test_a_composition_moves_step_by_step():
    loop = frames(picture(), of("identity", "rotate_90+negate"), n_per_transition=4)
    turned = seen(build("rotate_90", 16, 8), picture())
    assert any(same(frame.picture, turned) for frame in loop)


def test_one_view_alone_is_a_single_frame():
    assert len(frames(picture(), of("identity"))) == 1


def test_captions_stand_below_and_leave_the_picture_alone():
    views = of("identity", "rotate_180")
    plain, captioned = frames(picture(), views), frames(picture(), views, ["a fox", "a very long prompt " * 20])
    assert captioned[0].picture.width == 128
    assert captioned[0].picture.height > 128
    for bare, told in zip(plain, captioned, strict=True):
        assert same(told.picture.crop((0, 0, 128, 128)), bare.picture)
    strips = [np.asarray(frame.picture)[128:] for frame in captioned if frame.milliseconds == PAUSE]
    assert all(strip.min() < 120 for strip in strips)
    assert (strips[0] != strips[1]).any()


def test_large_pictures_are_animated_smaller_and_still_exactly():
    large = picture(512)
    views = of("identity", "square_hinge", cells=64, cell=8)
    pauses = [frame.picture for frame in frames(large, views, n_per_transition=2) if frame.milliseconds == PAUSE]
    assert pauses[0].size == (256, 256)
    assert same(pauses[1], seen(build("square_hinge", 64, 4), large.reduce(2)))


@pytest.mark.parametrize(("save", "kind"), [(save_webp, "WEBP"), (save_gif, "GIF")])
def test_files_play_forever_with_a_pause_at_each_reading(tmp_path, save, kind):
    loop = frames(picture(), of("identity", "rotate_90"), ["a fox", "a penguin"])
    save(loop, tmp_path / "moving")
    with Image.open(tmp_path / "moving") as file:
        assert file.format == kind
        assert file.info["loop"] == 0
        durations = []
        for index in range(file.n_frames):
            file.seek(index)
            file.load()
            durations.append(file.info["duration"])
    assert sum(durations) == sum(frame.milliseconds for frame in loop)
    assert sum(duration >= PAUSE for duration in durations) == 2
    assert (tmp_path / "moving").stat().st_size < 400_000


@pytest.mark.parametrize("save", [save_webp, save_gif])
def test_a_single_reading_is_saved_too(tmp_path, save):
    save(frames(picture(), of("identity")), tmp_path / "still")
    assert Image.open(tmp_path / "still").size == (128, 128)


def test_a_gif_shows_the_readings_in_nearly_their_own_colours(tmp_path):
    calm = picture().resize((3, 3)).resize((128, 128), Image.Resampling.BICUBIC)
    save_gif(frames(calm, of("identity", "negate")), tmp_path / "moving.gif")
    with Image.open(tmp_path / "moving.gif") as file:
        shown = np.asarray(file.convert("RGB"), np.float32)
    assert np.abs(shown - np.asarray(calm, np.float32)).mean() < 4


def test_a_small_animation_and_both_its_files_take_about_a_second_at_most(tmp_path):
    def seconds() -> float:
        start = time.process_time()
        loop = frames(picture(), of("identity", "jigsaw"), ["a fox", "a penguin"])
        save_webp(loop, tmp_path / "moving.webp")
        save_gif(loop, tmp_path / "moving.gif")
        return time.process_time() - start

    assert min(seconds() for _ in range(3)) < 1
