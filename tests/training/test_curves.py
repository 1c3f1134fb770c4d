"""Curves stay small however long a run is, and say the same from memory as from the log on the disk."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from studio.training import curves, folder
from studio.training.curves import MOST, Curves
from studio.training.loop import Point


def points(count, every=50):
    """Losses that fall as 1 / step, measured every so many steps."""
    return [Point(step, 1 / step, 2 / step, 1e-3, 3 / step if step % every == 0 else None) for step in range(1, count)]


def filled(found):
    curve = Curves()
    for point in found:
        curve.add(point)
    return curve


def save_log(root, found, tail=""):
    (root / folder.PLACE).mkdir(parents=True)
    text = "".join(json.dumps(asdict(point)) + "\n" for point in found)
    (root / folder.PLACE / folder.LOG).write_text(text + tail)
    return root


@pytest.mark.parametrize("count", [2, 100, 2 * MOST, 5_000, 30_001])
def test_a_curve_never_has_more_than_twice_as_many_points_and_ends_with_the_last_step(count):
    data = filled(points(count)).data()
    assert len(data["points"]) <= 2 * MOST
    assert data["points"][-1] == (count - 1, 1 / (count - 1), 2 / (count - 1), 1e-3)
    steps = [point[0] for point in data["points"]]
    assert steps == sorted(set(steps))


def test_thinning_keeps_the_best_and_the_last_validation():
    curve = Curves(most=10)
    values = [(step, abs(step - 37) + 0.5) for step in range(1, 200)]
    for step, value in values:
        curve.take(step, (1.0, 1.0, 1.0), value)
    data = curve.data()
    assert len(data["validation"]) < 20
    assert min(data["validation"], key=lambda each: each[1]) == (37, 0.5)
    assert data["validation"][-1] == (199, 162.5)


def test_a_log_is_read_as_the_run_that_wrote_it_had_it_but_for_a_half_written_line(tmp_path):
    found = points(1_000)
    save_log(tmp_path, found, tail='{"step": 1000, "lo')
    assert curves.read(tmp_path) == filled(found).data()


@pytest.mark.parametrize("text", ["", "nonsense\n", "[1]\n", '{"step": 1}\n'])
def test_a_log_that_says_nothing_makes_empty_curves(tmp_path, text):
    (tmp_path / folder.PLACE).mkdir()
    (tmp_path / folder.PLACE / folder.LOG).write_text(text)
    assert curves.read(tmp_path)["points"] == ()
    assert curves.read(tmp_path / "nowhere")["points"] == ()


def test_the_summary_s_curves_are_few_and_short():
    data = curves.of(points(100_001), 0.123456789, 120)
    assert len(json.dumps(data)) < 20_000
    assert data["points"][-1][0] == 100_000
    assert data["before"] == 0.123456789


def test_samples_and_checkpoints_of_a_run_are_listed_by_step_and_nothing_else_is(tmp_path):
    place = tmp_path / folder.PLACE
    for name in ("00000000-0.png", "00000000-1.png", "00000020-0.png", "x.png", "00000020-0.png.new"):
        (place / folder.SAMPLES).mkdir(parents=True, exist_ok=True)
        (place / folder.SAMPLES / name).touch()
    assert folder.samples(tmp_path) == {0: ["00000000-0.png", "00000000-1.png"], 20: ["00000020-0.png"]}
    assert folder.sample(tmp_path, "../../request.json") is None
    assert folder.reached(tmp_path) is None
    for name in ("state-00000020", "state-00000100", ".state-00000140.new"):
        (place / name).mkdir()
    assert folder.reached(tmp_path) == 100
