import json

import numpy as np
import pytest
from PIL import Image

from studio.builtin import datasets, mascot, pixels
from studio.builtin.sketch import Sketch, curve
from studio.builtin.world import COLOURS, FONT, load_things
from studio.training.dataset import read_dataset

needs_font = pytest.mark.skipif(not FONT.exists(), reason="needs the Debian package fonts-noto-color-emoji")


@pytest.mark.parametrize(("name", "trigger", "count"), [("mascot", mascot.TRIGGER, 24), ("pixel", "", 40)])
def test_a_set_that_ships_reads_without_a_problem(assets, name, trigger, count):
    dataset = read_dataset(assets / "datasets" / name, trigger=trigger)
    assert dataset.problems == ()
    assert len(dataset.examples) == count
    assert {example.size for example in dataset.examples} == {(128, 128)}
    assert all(example.caption == example.found for example in dataset.examples)  # the trigger is there already


def test_the_sets_are_small_and_say_where_they_come_from(assets):
    for name in ("mascot", "pixel"):
        folder = assets / "datasets" / name
        assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
        assert "under its terms" in (folder / "README.md").read_text()
    assert "SIL Open Font License" in (assets / "datasets" / "pixel" / "README.md").read_text()


def test_captions_of_the_sets_fit_the_built_in_model(assets):
    """Its 16 tokens with the two at the ends, and words that it knows but for one trigger and six poses."""
    tokenizer = json.loads((assets / "models" / "emoji" / "tokenizer" / "tokenizer.json").read_text())
    known = set(tokenizer["model"]["vocab"])
    words = [pose.caption.split() for pose in mascot.POSES] + [each.caption.split() for each in _pixels()]
    assert max(map(len, words)) <= 14
    strange = {word for caption in words for word in caption} - known
    assert strange == {"duckrabbit", "waving", "laughing", "winking", "jumping", "running", "sitting"}


def test_poses_have_names_of_their_own_and_every_ground_is_there():
    assert len({pose.name for pose in mascot.POSES}) == len(mascot.POSES) == 24
    assert {pose.colour for pose in mascot.POSES} == set(COLOURS)
    assert [pose.name for pose in mascot.POSES][:2] == ["standing", "waving"]


def test_the_mascot_that_ships_is_the_one_that_the_code_draws(assets):
    for number in (1, 14, 24):
        pose = mascot.POSES[number - 1]
        shipped = Image.open(assets / "datasets" / "mascot" / f"{number:02d}-{pose.name}.png")
        assert _difference(shipped, mascot.draw(pose)) < 1  # other releases of PIL may round otherwise


@pytest.mark.parametrize("pose", mascot.POSES, ids=lambda pose: pose.name)
def test_a_pose_stays_inside_its_picture(pose):
    edge = np.asarray(mascot.draw(pose))
    border = np.concatenate([edge[0], edge[-1], edge[:, 0], edge[:, -1]])
    assert np.abs(border.astype(int) - COLOURS[pose.colour]).max() <= 2


@needs_font
def test_the_pixel_art_that_ships_is_the_one_that_the_code_draws(assets):
    for pixel in _pixels()[::9]:
        assert _difference(Image.open(assets / "datasets" / "pixel" / f"{pixel.name}.png"), pixels.draw(pixel)) < 4


@pytest.mark.parametrize("name", pixels.CHOSEN)
def test_pixel_art_has_cells_of_one_colour_and_few_colours(assets, name):
    values = np.asarray(Image.open(assets / "datasets" / "pixel" / f"{name.replace(' ', '-')}.png").convert("RGB"))
    cells = values.reshape(16, 8, 16, 8, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    assert len(np.unique(values.reshape(-1, 3), axis=0)) <= 2 * pixels.PALETTE + 1
    assert (values == COLOURS[pixels.CHOSEN[name]]).all(axis=-1).mean() > 0.15


def test_an_unknown_thing_is_an_error():
    with pytest.raises(KeyError):
        pixels.chosen(())


def test_writing_the_mascot_leaves_other_files_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    datasets.write_mascot(tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == len(list(tmp_path.glob("[0-9]*.txt"))) == 24
    assert (tmp_path / "mine.txt").read_text() == "x"


def test_frames_turn_scale_and_shift_what_is_drawn_in_them():
    sketch = Sketch((0, 0, 0))
    with sketch.frame((64, 64), 90, (10, 0)), sketch.frame((64, 64), scale=(2, 2)):
        sketch.shape([(70, 63), (72, 63), (72, 65), (70, 65)], (255, 0, 0), line=None)
    # Doubled about (64, 64): (76..80, 62..66); turned clockwise: (62..66, 76..80); shifted: (72..76, 76..80).
    drawn = Image.fromarray((np.asarray(sketch.picture())[..., 0] > 127).astype(np.uint8))
    assert drawn.getbbox() == pytest.approx((72, 76, 76, 80), abs=1)


def test_a_curve_goes_through_its_points():
    points = [(0.0, 0.0), (10.0, 0.0), (10.0, 10.0)]
    for closed in (True, False):
        found = curve(points, closed=closed)
        assert all(min(abs(x - a) + abs(y - b) for a, b in found) < 1e-9 for x, y in points)


def _pixels():
    return pixels.chosen(load_things())


def _difference(first, second):
    a, b = (np.asarray(image.convert("RGB"), int) for image in (first, second))
    return np.abs(a - b).mean()
