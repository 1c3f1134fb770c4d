"""What a person puts in: copied, never overwritten, never lost, and never outside of its set."""

import json
import zipfile

import pytest

from studio.errors import PolicyError, RequestError
from studio.policy import LOCAL, Limits
from studio.training import uploads
from studio.training.dataset import read_dataset
from studio.training.uploads import Given
from tests.training.sets import encoded, picture, write_set

NAME = "upload:" + "0" * 32


@pytest.fixture
def chosen(tmp_path):
    """Makes files as a browser would send them: ``chosen({"cats/a.png": 1})``; each lies in a folder of its own."""

    def make(files):
        given = []
        for number, (name, content) in enumerate(files.items()):
            folder = tmp_path / "sent" / f"{len(list(tmp_path.rglob('*')))}-{number}"
            last = name.rpartition("/")[2]
            write_set(folder, {last: content})
            given.append(Given(folder / last, name))
        return given

    return make


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "datasets" / ("0" * 32)


def zipped(entries):
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def held(folder):
    files = folder / "files"
    return {path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()}


def captions(folder):
    return {example.name: example.found for example in read_dataset(folder / "files").examples}


def test_files_are_copied_and_what_was_chosen_stays(chosen, folder):
    given = chosen({"a.png": 1, "a.txt": "a fox"})
    before = [each.path.read_bytes() for each in given]
    assert uploads.put_in(given, folder, LOCAL) == ()
    assert [each.path.read_bytes() for each in given] == before
    assert held(folder) == dict(zip(("a.png", "a.txt"), before, strict=True))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_more_files_come_beside_those_that_are_there_and_captions_find_their_pictures(chosen, folder):
    uploads.put_in(chosen({"a.png": 1, "b.png": 2}), folder, LOCAL)
    uploads.put_in(chosen({"b.txt": "an owl", "c.png": 3}), folder, LOCAL)
    assert captions(folder) == {"a.png": None, "b.png": "an owl", "c.png": None}


def test_of_two_pictures_with_one_name_the_later_lies_apart_with_its_captions(chosen, folder):
    uploads.put_in(chosen({"1.png": 1, "1.txt": "a fox", "2.png": 5}), folder, LOCAL)
    first = held(folder)
    uploads.put_in(chosen({"1.png": 2, "1.txt": "an owl", "3.png": 3}), folder, LOCAL)
    assert captions(folder) == {"1.png": "a fox", "2.png": None, "2/1.png": "an owl", "3.png": None}
    assert first.items() <= held(folder).items()


def test_rows_for_a_picture_that_lies_apart_do_not_speak_of_the_one_before(chosen, folder):
    row = json.dumps({"file_name": "1.png", "text": "an owl"})
    uploads.put_in(chosen({"1.png": 1, "1.txt": "a fox"}), folder, LOCAL)
    uploads.put_in(chosen({"1.png": 2, "metadata.jsonl": row}), folder, LOCAL)
    assert captions(folder) == {"1.png": "a fox", "2/1.png": "an owl"}


def test_the_same_files_again_change_nothing(chosen, folder):
    files = {"a.png": 1, "a.txt": "a fox", "metadata.jsonl": '{"file_name": "a.png", "text": "b"}'}
    uploads.put_in(chosen(files), folder, LOCAL)
    before = held(folder)
    uploads.put_in(chosen(files), folder, LOCAL)
    assert held(folder) == before
    assert not (folder / "earlier").exists()


def test_a_caption_that_gives_way_to_a_later_one_is_kept(chosen, folder):
    uploads.put_in(chosen({"a.png": 1, "a.txt": "a fox"}), folder, LOCAL)
    uploads.put_in(chosen({"a.txt": "a red fox"}), folder, LOCAL)
    assert captions(folder) == {"a.png": "a red fox"}
    assert [path.read_text() for path in (folder / "earlier").iterdir()] == ["a fox"]


def test_rows_of_a_second_metadata_file_come_after_the_first_ones(chosen, folder):
    rows = [json.dumps({"file_name": name, "text": text}) for name, text in (("a.png", "x"), ("b.png", "y"))]
    uploads.put_in(chosen({"a.png": 1, "b.png": 2, "metadata.jsonl": rows[0]}), folder, LOCAL)
    uploads.put_in(chosen({"metadata.jsonl": rows[1]}), folder, LOCAL)
    assert captions(folder) == {"a.png": "x", "b.png": "y"}


def test_a_folder_s_own_name_is_left_off_but_for_repeats(chosen, folder, tmp_path):
    uploads.put_in(chosen({"cats/a.png": 1, "cats/b/c.png": 2}), folder, LOCAL)
    assert set(held(folder)) == {"a.png", "b/c.png"}
    other = folder.with_name("1" * 32)
    uploads.put_in(chosen({"set/10_sks dog/a.png": 1, "set/10_sks dog/b.png": 2}), other, LOCAL)
    assert {example.repeats for example in read_dataset(other / "files").examples} == {10}


def test_a_zip_is_read_by_the_rules_for_zips(chosen, folder):
    inside = {"cats/a.png": encoded(picture(1)), "cats/a.txt": "a fox", "cats/x.heic": "?", "cats/README.md": "hi"}
    assert uploads.put_in(chosen({"cats.zip": zipped(inside)}), folder, LOCAL) == ("cats/x.heic",)
    assert captions(folder) == {"a.png": "a fox"}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"../a.png": encoded(picture(1))}, "points outside of it"),
        ({"/etc/a.png": encoded(picture(1))}, "points outside of it"),
        ({"a.png": b"\0" * 40_000_000}, "would grow"),
        ({"a/b.txt.exe": "x"}, "no picture or caption"),
    ],
)
def test_a_zip_that_means_no_good_is_one_sentence_and_leaves_nothing(chosen, folder, entries, words):
    given = chosen(
        {"b.png": 2, "a.zip": zipped(entries)} if words != "no picture or caption" else {"a.zip": zipped(entries)}
    )
    with pytest.raises(RequestError, match=words) as refused:
        uploads.put_in(given, folder, LOCAL)
    assert refused.value.field == "data"
    assert list(folder.parent.glob("*")) == []


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../../b.png", "..", "/".join("abcdefghij") + ".png", "x" * 250 + ".png"]
)
def test_a_name_that_points_elsewhere_is_refused(chosen, folder, name):
    (given,) = chosen({"a.png": 1})
    with pytest.raises(RequestError) as refused:
        uploads.put_in([Given(given.path, name)], folder, LOCAL)
    assert refused.value.field == "data"
    assert not folder.exists()


@pytest.mark.parametrize("name", ["/etc/cron.d/a.png", "C:\\Users\\a.png", "\\\\host\\share\\a.png"])
def test_an_absolute_name_lies_inside_the_set_all_the_same(chosen, folder, name):
    (given,) = chosen({"a.png": 1})
    uploads.put_in([Given(given.path, name)], folder, LOCAL)
    assert set(held(folder)) == {"a.png"}


def test_other_files_are_named_and_left_out(chosen, folder):
    assert uploads.put_in(chosen({"a.png": 1, "b.exe": "x", ".DS_Store": "x"}), folder, LOCAL) == ("b.exe",)
    with pytest.raises(RequestError, match=r"no picture or caption among these files \(b.exe\)"):
        uploads.put_in(chosen({"b.exe": "x"}), folder, LOCAL)


def test_limits_count_what_is_there_already_and_a_refusal_changes_nothing(chosen, folder):
    limits = Limits(max_set_files=3, max_set_bytes=100_000)
    uploads.put_in(chosen({"a.png": 1, "b.png": 2}), folder, limits)
    uploads.put_in(chosen({"a.png": 1, "b.png": 2}), folder, limits)
    before = held(folder)
    with pytest.raises(PolicyError, match="at most 3 files here, not 4"):
        uploads.put_in(chosen({"c.png": 3, "d.png": 4}), folder, limits)
    with pytest.raises(PolicyError, match="at most 0 MB"):
        uploads.put_in(chosen({"c.txt": "x" * 200_000}), folder, limits)
    assert held(folder) == before


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(chosen, folder):
    with pytest.raises(PolicyError, match=r"the picture big.png has more than 0 million pixels"):
        uploads.put_in(chosen({"big.png": 1, "a.png": 2}), folder, Limits(max_set_pixels=1000))
    assert not folder.exists()


def test_a_damaged_picture_is_let_in_to_be_named_beside_the_others(chosen, folder):
    uploads.put_in(chosen({"a.png": 1, "b.png": b"\x89PNG\r\n\x1a\nno"}), folder, Limits(max_set_pixels=10_000))
    assert "corrupt" in {problem.kind for problem in read_dataset(folder / "files").problems}


def test_a_set_is_called_after_its_zip_or_folder(chosen):
    assert uploads.title_of(chosen({"my cats.zip": "x"})) == "my cats"
    assert uploads.title_of(chosen({"cats/a.png": 1, "cats/b.png": 2})) == "cats"
    assert uploads.title_of(chosen({"a.png": 1, "b.png": 2})).startswith("Pictures of ")


@pytest.mark.parametrize("name", ["upload:../../etc", "upload:", "upload:" + "A" * 32, "upload:" + "0" * 31, "x", ""])
def test_only_a_set_s_own_name_finds_its_folder(tmp_path, name):
    (tmp_path / "files").mkdir()
    assert uploads.folder_of(name, tmp_path) is None
    assert uploads.files_of(NAME, None) is None
