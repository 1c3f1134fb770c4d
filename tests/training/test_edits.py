import json

import pytest

from studio.errors import RequestError
from studio.training.edits import Edits, read_edits, write_edits


def test_edits_are_read_as_they_were_written(tmp_path):
    edits = Edits().with_caption("dir/a.png", "día").with_caption("b.png", "").leaving_out("c.png")
    write_edits(tmp_path, edits)
    assert read_edits(tmp_path) == edits
    assert [path.name for path in tmp_path.iterdir()] == ["edits.json"]


def test_without_a_file_there_are_no_edits(tmp_path):
    assert read_edits(tmp_path) == Edits()


def test_a_picture_that_is_taken_back_has_its_caption_still():
    edits = Edits().with_caption("a.png", "x").leaving_out("a.png")
    assert edits.taking_back("a.png") == Edits({"a.png": "x"})
    assert edits.without_caption("a.png") == Edits({}, frozenset({"a.png"}))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"captions": {}}',
        '{"version": 2, "captions": {}}',
        json.dumps({"version": 1, "captions": {"a": 1}}),
        json.dumps({"version": 1, "captions": [], "left_out": []}),
        json.dumps({"version": 1, "captions": {}, "left_out": [1]}),
        json.dumps({"version": 1, "captions": {}, "left_out": "a.png"}),
    ],
)
def test_a_damaged_file_is_refused_in_words(tmp_path, content):
    (tmp_path / "edits.json").write_text(content)
    with pytest.raises(RequestError, match="edits.json is damaged") as caught:
        read_edits(tmp_path)
    assert caught.value.field == "data"
