"""A set that is looked at bit by bit comes to what one look comes to, and nothing is looked at twice."""

import os

import pytest

from studio.training import reading as module
from studio.training.dataset import read_dataset
from studio.training.reading import Reading
from tests.training.sets import write_set

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


def test_ten_thousand_pictures_are_listed_at_once_and_more_are_refused(tmp_path):
    from tests.training.sets import encoded, picture

    data = encoded(picture(1, (32, 32)))
    folder = write_set(tmp_path / "many", {f"{index:05}.png": data for index in range(300)})
    from studio.training.records import Limits

    assert len(Reading(folder).pictures) == 300
    (problem,) = Reading(folder, Limits(max_pictures=299)).dataset.fatal
    assert problem.what == "There are 300 pictures, and at most 299 are read; choose some."
