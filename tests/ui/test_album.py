"""What the pane says of a set, from the set alone."""

import re

import pytest

from studio.training.edits import Edits
from studio.training.reading import Reading
from studio.ui import picture_cards
from studio.ui.album import SHOWS, album
from tests.training.sets import write_set

NASTY = "<img src=x onerror=alert(1)>\"'"


@pytest.fixture
def reading(tmp_path):
    files = {"a.png": 1, "a.txt": "a fox", "b.png": 2, "c.png": 1, "d.png": b"no", "e.txt": "lost"}
    found = Reading(write_set(tmp_path / "set", files))
    found.look(30)
    return found


def shown(found, show):
    return [shot.name for shot in found.shown(show)]


def test_counts_and_filters_agree(reading):
    found = album(reading, Edits({}, frozenset({"b.png"})), "", "")
    assert found.line() == "3 pictures, 1 left out, 1 without caption"
    assert {show: shown(found, show) for show in SHOWS} == {
        "all": ["a.png", "b.png", "c.png"],
        "uncaptioned": ["c.png"],
        "remarks": ["c.png"],
        "left_out": ["b.png"],
    }
    assert found.remark_line() == "4 remarks: captions without a picture 1, unreadable 1, doubled 1, no caption 1"


def test_a_copy_is_no_remark_once_the_other_is_left_out(reading):
    assert shown(album(reading, Edits({}, frozenset({"a.png"})), "", ""), "remarks") == []
    assert shown(album(reading, Edits({}, frozenset({"c.png"})), "", ""), "remarks") == []


def test_what_is_trained_stands_beside_what_is_written(reading):
    found = album(reading, Edits({"c.png": "an owl"}), "sks", "a photo of {trigger}")
    assert [(shot.written, shot.trained, shot.changed) for shot in found.shots] == [
        ("a fox", "sks, a fox", False),
        ("", "a photo of sks", False),
        ("an owl", "sks, an owl", True),
    ]


def test_leaving_all_out_is_fatal_and_leaving_one_is_said(reading):
    (problem,) = album(reading, Edits({}, frozenset({"a.png", "b.png", "c.png"})), "", "").fatal
    assert problem.what == "Every picture is left out; take some back."
    one = album(reading, Edits({}, frozenset({"a.png", "b.png"})), "", "")
    assert any("one picture only" in remark.what for remark in one.remarks)


def test_names_and_captions_are_never_markup(tmp_path):
    name = NASTY.replace("/", "") + ".png"
    found = Reading(write_set(tmp_path / "set", {name: 1, "b.png": 2, "b.txt": NASTY}))
    found.look(30)
    whole = album(found, Edits(), NASTY.replace(" ", ""), "")
    for text in (
        picture_cards.head(NASTY, whole, "all"),
        picture_cards.grid(whole, "all", 0, "token", "known"),
        picture_cards.patch(whole.shots, whole, "all", answers=NASTY, serial="1"),
        picture_cards.refusal(NASTY, answers=NASTY, serial="1"),
        picture_cards.nothing(NASTY, NASTY, wrong=True),
    ):
        assert not re.search(r"<img src=x", text)
        assert "onerror" not in re.sub(r"&lt;img src=x onerror", "", text).replace("&lt;imgsrc=xonerror", "")
