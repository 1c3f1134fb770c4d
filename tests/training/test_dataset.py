import hashlib
import json
import zipfile

import pytest

from studio.errors import Cancelled, RequestError
from studio.training.dataset import Limits, edited, read_dataset
from studio.training.edits import Edits
from tests.training.sets import encoded, kinds, picture, write_set


@pytest.fixture
def three(tmp_path):
    files = {"a.png": 1, "a.txt": "a red fox", "b.png": 2, "b.caption": "sks, at night", "c.png": 3}
    return write_set(tmp_path, files)


def captions(dataset):
    return {example.name: example.caption for example in dataset.examples}


def test_captions_get_the_trigger_word_and_pictures_without_one_the_template(three):
    dataset = read_dataset(three, trigger="sks")
    assert captions(dataset) == {"a.png": "sks, a red fox", "b.png": "sks, at night", "c.png": "a photo of sks"}
    assert [example.found for example in dataset.examples] == ["a red fox", "sks, at night", None]
    assert kinds(dataset) == ["uncaptioned"]
    assert dataset.fatal == ()
    dataset.check()


def test_an_example_knows_its_size_and_the_hash_of_its_bytes(three):
    first = read_dataset(three).examples[0]
    assert first.size == (64, 48)
    assert first.sha256 == hashlib.sha256((three / "a.png").read_bytes()).hexdigest()
    assert first.path == three / "a.png"


def test_without_trigger_and_caption_a_picture_is_said_to_have_an_empty_prompt(three):
    dataset = read_dataset(three)
    assert captions(dataset)["c.png"] == ""
    assert "empty prompt" in dataset.problems[0].what


def test_reading_changes_nothing_on_the_disk(three):
    before = {path: path.read_bytes() for path in three.iterdir()}
    read_dataset(three, trigger="sks", edits=Edits({"a.png": "other"}, frozenset({"b.png"})))
    assert {path: path.read_bytes() for path in three.iterdir()} == before


def test_kohya_folders_give_repeats_and_words(tmp_path):
    write_set(
        tmp_path, {"10_sks dog/a.png": 1, "10_sks dog/b.png": 2, "10_sks dog/b.txt": "sks dog asleep", "3_cat/c.png": 3}
    )
    dataset = read_dataset(tmp_path)
    assert captions(dataset) == {
        "10_sks dog/a.png": "sks dog",
        "10_sks dog/b.png": "sks dog asleep",
        "3_cat/c.png": "cat",
    }
    assert [example.repeats for example in dataset.examples] == [10, 10, 3]
    assert dataset.per_epoch == 23


def test_the_name_of_a_zip_or_of_a_folder_of_listed_files_means_nothing(tmp_path):
    write_set(tmp_path / "5_fox", {"a.png": 1})
    with zipfile.ZipFile(tmp_path / "5_fox.zip", "w") as archive:
        archive.write(tmp_path / "5_fox" / "a.png", "a.png")
    for source in (tmp_path / "5_fox.zip", tmp_path / "5_fox" / "a.png"):
        assert [(example.repeats, example.found) for example in read_dataset(source).examples] == [(1, None)]


def test_a_kohya_folder_given_itself_counts_as_one(tmp_path):
    write_set(tmp_path / "5_fox", {"a.png": 1, "b.png": 2})
    dataset = read_dataset(tmp_path / "5_fox")
    assert [(example.repeats, example.caption) for example in dataset.examples] == [(5, "fox"), (5, "fox")]


@pytest.mark.parametrize("repeats", [0, 1001, 999999])
def test_a_folder_with_repeats_that_make_no_sense_is_left_out(tmp_path, repeats):
    write_set(tmp_path, {f"{repeats}_fox/a.png": 1, "b.png": 2, "c.png": 3})
    dataset = read_dataset(tmp_path)
    assert [example.name for example in dataset.examples] == ["b.png", "c.png"]
    assert kinds(dataset)[0] == "left_out"


def test_regularisation_pictures_are_no_examples(tmp_path):
    write_set(tmp_path, {"img/2_sks dog/a.png": 1, "img/2_sks dog/b.png": 2, "reg/1_dog/c.png": 3})
    dataset = read_dataset(tmp_path)
    assert len(dataset.examples) == 2
    assert kinds(dataset) == ["left_out"]


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, "empty"),
        ({"notes.md": "nothing"}, "empty"),
        ({"a.txt": "a caption alone"}, "empty"),
        ({"a.heic": b"x"}, "empty"),
        ({"a.png": b"no picture", "b.jpg": b""}, "empty"),
    ],
)
def test_a_set_without_a_readable_picture_is_refused(tmp_path, files, kind):
    dataset = read_dataset(write_set(tmp_path, files))
    assert dataset.examples == ()
    assert [problem.kind for problem in dataset.fatal] == [kind]
    with pytest.raises(RequestError, match=r"^data: .*\.$") as caught:
        dataset.check()
    assert caught.value.field == "data"


def test_a_picture_that_cannot_be_read_is_left_out_and_said(three):
    write_set(three, {"d.png": b"no picture", "e.png": (three / "a.png").read_bytes()[:200], "f.heic": b"x"})
    dataset = read_dataset(three, trigger="sks")
    assert len(dataset.examples) == 3
    assert {problem.file: problem.kind for problem in dataset.problems} == {
        "c.png": "uncaptioned",
        "d.png": "corrupt",
        "e.png": "corrupt",
        "f.heic": "format",
    }
    assert dataset.fatal == ()


def test_one_picture_is_allowed_and_said(tmp_path):
    dataset = read_dataset(write_set(tmp_path, {"a.png": 1, "a.txt": "a fox"}))
    assert kinds(dataset) == ["single"]
    assert dataset.fatal == ()


def test_more_pictures_than_the_limit_are_refused_before_any_is_opened(three):
    steps = []
    dataset = read_dataset(three, limits=Limits(max_pictures=2), on_step=steps.append)
    assert [problem.what for problem in dataset.fatal] == ["There are 3 pictures, and at most 2 are read; choose some."]
    assert steps == []
    assert read_dataset(three, limits=Limits(max_pictures=3)).fatal == ()


def test_the_same_file_twice_is_said_and_kept_with_its_twin(three):
    write_set(three, {"z.png": (three / "a.png").read_bytes(), "z.txt": "again"})
    write_set(three, {"y.jpg": encoded(picture(1), "JPEG"), "y.txt": "alike"})
    dataset = read_dataset(three, trigger="sks")
    said = {problem.file: (problem.kind, problem.what) for problem in dataset.problems}
    assert said["z.png"][0] == "duplicate"
    assert "same file as a.png" in said["z.png"][1]
    assert said["y.jpg"][0] == "similar"
    assert {example.name: example.twin for example in dataset.examples} == {
        "a.png": "",
        "b.png": "",
        "c.png": "",
        "y.jpg": "a.png",
        "z.png": "a.png",
    }


def test_a_picture_that_is_too_small_or_too_large_is_left_out(three):
    write_set(three, {"s.png": encoded(picture(4, (31, 200))), "t.png": encoded(picture(5, (32, 200)))})
    dataset = read_dataset(three, trigger="sks", limits=Limits(max_pixels=6400))
    assert {"s.png": "too_small"}.items() <= {problem.file: problem.kind for problem in dataset.problems}.items()
    assert "t.png" in captions(dataset)
    assert "too_large" in kinds(read_dataset(three, limits=Limits(max_pixels=6399)))


def test_a_file_of_too_many_bytes_is_left_out_unread(three):
    size = max((three / name).stat().st_size for name in ("a.png", "b.png", "c.png"))
    assert kinds(read_dataset(three, trigger="sks", limits=Limits(max_picture_bytes=size))) == ["uncaptioned"]
    assert "corrupt" in kinds(read_dataset(three, limits=Limits(max_picture_bytes=size - 1)))


def test_edits_replace_captions_and_leave_pictures_out(three):
    edits = Edits({"a.png": "a {trigger} fox", "c.png": "the end"}, frozenset({"b.png"}))
    dataset = read_dataset(three, trigger="sks", edits=edits)
    assert captions(dataset) == {"a.png": "a sks fox", "c.png": "sks, the end"}
    assert dataset.problems == ()
    assert dataset.examples[0].found == "a red fox"


def test_editing_a_set_that_was_read_equals_reading_it_with_the_edits(three):
    edits = Edits({"a.png": "other words"}, frozenset({"b.png"}))
    whole = read_dataset(three, trigger="xyz")
    again = edited(whole, edits, trigger="sks", template="a drawing of {trigger}")
    assert again == read_dataset(three, trigger="sks", template="a drawing of {trigger}", edits=edits)


def test_edits_of_a_picture_that_is_not_there_are_said(three):
    assert "edits" in kinds(read_dataset(three, edits=Edits({"gone.png": "x"}, frozenset({"also.png"}))))


def test_leaving_every_picture_out_is_refused(three):
    dataset = read_dataset(three, edits=Edits({}, frozenset({"a.png", "b.png", "c.png"})))
    assert [problem.kind for problem in dataset.fatal] == ["edits"]


def test_the_fingerprint_changes_with_what_is_trained_and_with_nothing_else(three):
    dataset = read_dataset(three, trigger="sks")
    assert dataset.fingerprint == read_dataset(three, trigger="sks").fingerprint
    assert dataset.fingerprint != read_dataset(three, trigger="xyz").fingerprint
    write_set(three, {"notes.md": "no matter"})
    assert dataset.fingerprint == read_dataset(three, trigger="sks").fingerprint
    write_set(three, {"c.png": 9})
    assert dataset.fingerprint != read_dataset(three, trigger="sks").fingerprint


def test_reading_reports_every_picture_and_can_be_stopped(three):
    steps = []
    read_dataset(three, on_step=steps.append)
    assert [(step.index, step.total) for step in steps] == [(0, 3), (1, 3), (2, 3)]

    def stop(step):
        raise Cancelled

    with pytest.raises(Cancelled):
        read_dataset(three, on_step=stop)


@pytest.mark.parametrize("trigger", ["a,b", "{x}", "two\nlines", " sks", "x" * 61])
def test_a_trigger_word_that_cannot_be_used_names_its_field(three, trigger):
    with pytest.raises(RequestError) as caught:
        read_dataset(three, trigger=trigger)
    assert caught.value.field == "trigger"


@pytest.mark.parametrize("template", ["a {word}", "two\nlines", "x" * 201])
def test_a_template_that_cannot_be_used_names_its_field(three, template):
    with pytest.raises(RequestError) as caught:
        read_dataset(three, template=template)
    assert caught.value.field == "template"


def test_all_layouts_of_one_set_read_to_the_same_list(tmp_path):
    words = {"a.png": "a red fox", "b.png": "a blue fox"}
    seeds = {"a.png": 1, "b.png": 2}
    rows = "\n".join(json.dumps({"file_name": name, "text": text}) for name, text in words.items())
    sidecars = {name.replace(".png", ".txt"): text for name, text in words.items()}
    write_set(tmp_path / "txt", {**seeds, **sidecars})
    write_set(tmp_path / "caption", {**seeds, **{name.replace(".txt", ".caption"): t for name, t in sidecars.items()}})
    write_set(tmp_path / "jsonl", {**seeds, "metadata.jsonl": rows})
    read = [read_dataset(tmp_path / layout) for layout in ("txt", "caption", "jsonl")]
    assert len({dataset.fingerprint for dataset in read}) == 1
    assert captions(read[0]) == words
