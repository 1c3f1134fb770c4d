import json

import pytest

from studio.training.dataset import Limits, read_dataset
from tests.training.sets import kinds, write_set


def found(folder):
    return {example.name: example.found for example in read_dataset(folder).examples}


def said(folder, kind):
    return [(problem.file, problem.what) for problem in read_dataset(folder).problems if problem.kind == kind]


def rows(*entries):
    return "\n".join(json.dumps(entry) for entry in entries)


def test_a_text_file_counts_more_than_a_caption_file_and_that_more_than_metadata(tmp_path):
    write_set(tmp_path, {"2_words/a.png": 1, "2_words/b.png": 2, "2_words/c.png": 3, "2_words/d.png": 4})
    names = [f"2_words/{letter}.png" for letter in "abc"]
    write_set(tmp_path, {"metadata.jsonl": rows(*({"file_name": name, "text": "metadata"} for name in names))})
    write_set(tmp_path, {"2_words/a.txt": "txt", "2_words/a.caption": "caption", "2_words/b.caption": "caption"})
    assert list(found(tmp_path).values()) == ["txt", "caption", "metadata", "words"]


def test_metadata_in_a_folder_counts_from_there(tmp_path):
    write_set(tmp_path, {"x/a.png": 1, "x/y/b.png": 2})
    write_set(
        tmp_path,
        {"x/metadata.jsonl": rows({"file_name": "a.png", "text": "A"}, {"file_name": "./y/b.png", "text": "B"})},
    )
    assert found(tmp_path) == {"x/a.png": "A", "x/y/b.png": "B"}


@pytest.mark.parametrize("key", ["text", "caption", "prompt"])
def test_metadata_may_call_its_text_otherwise(tmp_path, key):
    write_set(tmp_path, {"a.png": 1, "metadata.jsonl": rows({"file_name": "a.png", key: "a fox", "width": 64})})
    assert found(tmp_path) == {"a.png": "a fox"}


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"text": "x"}', '{"file_name": "a.png"}', '{"file_name": 3, "text": "x"}']
)
def test_a_line_of_metadata_that_says_nothing_is_named_and_the_others_count(tmp_path, line):
    good = rows({"file_name": "a.png", "text": "a fox"})
    write_set(tmp_path, {"a.png": 1, "metadata.jsonl": f"{good}\n{line}\n\n{line}\n"})
    assert found(tmp_path) == {"a.png": "a fox"}
    assert [(file, what[:18]) for file, what in said(tmp_path, "caption")] == [("metadata.jsonl", "line 2 and 1 more:")]


def test_metadata_of_pictures_that_are_not_there_is_said_and_leads_nowhere(tmp_path):
    lost = rows({"file_name": "../secret.png", "text": "x"}, {"file_name": "gone.png", "text": "x"})
    write_set(tmp_path / "set", {"a.png": 1, "metadata.jsonl": lost})
    write_set(tmp_path, {"secret.png": 2})
    assert found(tmp_path / "set") == {"a.png": None}
    assert said(tmp_path / "set", "orphan") == [
        (
            "metadata.jsonl",
            "names '../secret.png' and 1 more without a picture of that name; add the picture or delete the caption.",
        )
    ]


def test_metadata_that_is_no_text_is_said(tmp_path):
    write_set(tmp_path, {"a.png": 1, "metadata.jsonl": b"\xff\xfe\x00"})
    assert said(tmp_path, "caption")[0][0] == "metadata.jsonl"


def test_a_caption_without_its_picture_is_said_but_not_a_readme(tmp_path):
    write_set(tmp_path, {"a.png": 1, "b.txt": "lost", "README.txt": "x", "LICENSE.txt": "x", "sub/a.txt": "elsewhere"})
    assert [file for file, _ in said(tmp_path, "orphan")] == ["b.txt", "sub/a.txt"]


def test_a_caption_may_carry_the_pictures_whole_name(tmp_path):
    write_set(tmp_path, {"a.b.png": 1, "a.b.png.txt": "one", "c.d.png": 2, "c.d.txt": "two"})
    assert found(tmp_path) == {"a.b.png": "one", "c.d.png": "two"}


def test_the_caption_of_a_picture_that_cannot_be_read_is_no_orphan(tmp_path):
    write_set(tmp_path, {"a.png": 1, "b.png": b"broken", "b.txt": "x"})
    assert kinds(read_dataset(tmp_path, trigger="sks")) == ["corrupt", "single", "uncaptioned"]


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        ("\ufeffa fox\r\nin snow\n".encode(), "a fox in snow"),
        ("a fox".encode("utf-16"), "a fox"),
        ("día de \x00nieve\t".encode(), "día de nieve"),
    ],
)
def test_captions_become_one_line_of_printable_words(tmp_path, data, caption):
    write_set(tmp_path, {"a.png": 1, "a.txt": data})
    assert found(tmp_path) == {"a.png": caption}
    assert said(tmp_path, "caption") == []


def test_a_caption_in_another_encoding_is_read_and_doubted(tmp_path):
    write_set(tmp_path, {"a.png": 1, "a.txt": "un día".encode("latin-1")})
    assert found(tmp_path) == {"a.png": "un día"}
    assert "not UTF-8" in said(tmp_path, "caption")[0][1]


def test_an_empty_caption_counts_as_none(tmp_path):
    write_set(tmp_path, {"a.png": 1, "a.txt": " \n"})
    assert found(tmp_path) == {"a.png": None}
    assert [file for file, _ in said(tmp_path, "caption")] == ["a.txt"]


def test_a_caption_that_is_too_long_is_cut_and_that_is_said(tmp_path):
    write_set(tmp_path, {"a.png": 1, "a.txt": "x" * 21})
    dataset = read_dataset(tmp_path, limits=Limits(max_caption=20))
    assert dataset.examples[0].found == "x" * 20
    assert "more than 20 characters" in dataset.problems[0].what
