"""A set that is looked at bit by bit comes to what one look comes to, and nothing is looked at twice."""

import os
import time

import numpy as np
import pytest
from PIL import Image

from studio.training import reading as module
from studio.training.dataset import read_dataset
from studio.training.edits import Edits
from studio.training.reading import Reading
from studio.training.records import Limits
from studio.ui.album import album
from tests.training.sets import encoded, picture, write_set

PLAIN = encoded(picture(1, (32, 32)))

FILES = {"a.png": 1, "a.txt": "a fox", "b.png": 2, "c.png": 1, "d.png": b"no picture", "0_x/e.png": 4, "lost.txt": "x"}


@pytest.fixture
def folder(tmp_path):
    return write_set(tmp_path / "set", FILES)


@pytest.fixture
def looks(monkeypatch):
    """The names of the files that are decoded, in order."""
    seen = []
    real = module._seen
    monkeypatch.setattr(module, "_seen", lambda file, limits: seen.append(file.name) or real(file, limits))
    return seen


def to_the_end(reading):
    while not reading.done:
        reading.advance()
    return reading.dataset


def test_bit_by_bit_is_the_same_as_at_once(folder):
    found, whole = to_the_end(Reading(folder)), read_dataset(folder)
    assert [example.name for example in found.examples] == [example.name for example in whole.examples]
    assert [example.found for example in found.examples] == ["a fox", None, None]
    assert {problem.kind for problem in found.problems} == {"orphan", "corrupt", "left_out", "duplicate"}


def test_what_was_seen_so_far_can_be_shown_meanwhile(folder):
    reading = Reading(folder)
    assert (reading.done, reading.looked_at, len(reading.pictures)) == (False, 0, 5)
    reading.advance()
    reading.advance()
    assert [example.name for example in reading.dataset.examples] == ["a.png"]
    assert not reading.done


def test_a_later_reading_looks_at_new_and_changed_files_alone(folder, looks):
    first = Reading(folder)
    to_the_end(first)
    assert sorted(looks) == ["a.png", "b.png", "c.png", "d.png"]
    looks.clear()
    write_set(folder, {"f.png": 6, "b.png": 7})
    os.utime(folder / "b.png", ns=(1, 1))
    second = Reading(folder, earlier=first.seen)
    to_the_end(second)
    assert sorted(looks) == ["b.png", "f.png"]
    assert second.state != first.state


def test_a_look_ends_in_time_and_only_one_thread_takes_it(folder):
    reading = Reading(folder)
    reading.look(0.0)
    assert reading.looked_at == 0
    reading._turn.clear()  # as long as another thread is at it
    reading.look(5.0)
    assert reading.looked_at == 0
    reading._turn.append(None)
    reading.look(5.0)
    assert reading.done


@pytest.mark.parametrize("files", [{}, {"a.txt": "a fox"}])
def test_a_set_without_pictures_is_over_at_once_with_one_sentence(tmp_path, files):
    (tmp_path / "set").mkdir()
    reading = Reading(write_set(tmp_path / "set", files))
    assert reading.done
    assert [problem.kind for problem in reading.dataset.fatal] == ["empty"]


def test_more_pictures_than_are_read_is_one_sentence(tmp_path):
    folder = write_set(tmp_path / "many", {f"{index}.png": PLAIN for index in range(30)})
    assert len(Reading(folder, Limits(max_pictures=30)).pictures) == 30
    (problem,) = Reading(folder, Limits(max_pictures=29)).dataset.fatal
    assert problem.what == "There are 30 pictures, and at most 29 are read; choose some."


@pytest.mark.slow
def test_ten_thousand_pictures_are_looked_at_in_short_turns(tmp_path):
    draw = np.random.default_rng(0)
    for index in range(10_000):
        colours = Image.fromarray(draw.integers(0, 256, (4, 4, 3)).astype(np.uint8)).resize((32, 32))
        write_set(tmp_path, {f"{index:05}.png": encoded(colours, compress_level=1)})
    start = time.process_time()
    reading = Reading(tmp_path)
    turns = [time.process_time() - start]
    while not reading.done:
        start = time.process_time()
        reading.look(0.2)
        turns.append(time.process_time() - start)
    assert len(reading.dataset.examples) == 10_000
    assert max(turns) < 5.0, "the first lists them, the last compares them all"
    start = time.process_time()
    whole = album(reading, Edits(), "sks", "a photo of {trigger}")
    assert (len(whole.shots), whole.line()) == (10_000, "10,000 pictures, 10,000 without caption")
    assert time.process_time() - start < 2.0
