import json
import os
import stat
import struct
import warnings
import zipfile

import pytest

from studio.training.dataset import Limits, read_dataset
from studio.training.pictures import load
from tests.training.sets import encoded, kinds, picture, write_set


def zipped(path, entries, **settings):
    """Entries by name (or ZipInfo); bytes or text."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **settings) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def refused(source, **limits):
    dataset = read_dataset(source, limits=Limits(**limits))
    assert dataset.examples == ()
    assert [problem.fatal for problem in dataset.problems] == [True]
    assert dataset.problems[0].what.endswith(".")
    return dataset.problems[0].what


FOX = encoded(picture(1))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_reads_as_the_folder_that_it_was_made_of(tmp_path, method):
    folder = write_set(
        tmp_path / "set", {"3_fox/a.png": 1, "3_fox/a.txt": "a fox", "b.jpg": encoded(picture(2), "JPEG")}
    )
    archive = tmp_path / "set.zip"
    with zipfile.ZipFile(archive, "w", method) as made:
        for path in sorted(folder.rglob("*")):
            made.write(path, path.relative_to(folder))  # folders are entries too
    inside, outside = read_dataset(archive), read_dataset(folder)
    assert inside.fingerprint == outside.fingerprint
    assert [example.repeats for example in inside.examples] == [3, 1]
    assert load(inside.examples[0]).tobytes() == load(outside.examples[0]).tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.zip"]


def test_a_zip_in_front_of_which_other_bytes_stand_is_read(tmp_path):
    inner = zipped(tmp_path / "inner.zip", [("a.png", FOX), ("b.png", encoded(picture(2)))])
    outer = tmp_path / "outer.zip"
    outer.write_bytes(b"#!self-extracting" * 9 + inner.read_bytes())
    assert len(read_dataset(outer).examples) == 2


@pytest.mark.parametrize(
    "name",
    ["../a.png", "x/../../a.png", "/etc/a.png", "C:/a.png", "c:a.png", "\\\\server\\a.png", "x\\..\\..\\a.png", ".."],
)
def test_a_zip_with_an_entry_that_points_outside_is_refused(tmp_path, name):
    what = refused(zipped(tmp_path / "set.zip", [("ok.png", FOX), (name, FOX)]))
    assert "points outside" in what


def test_a_zip_with_a_link_is_refused(tmp_path):
    link = zipfile.ZipInfo("a.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "is a link" in refused(zipped(tmp_path / "set.zip", [("ok.png", FOX), (link, "/etc/passwd")]))


def test_a_bomb_is_refused_by_its_ratio(tmp_path):
    path = zipped(tmp_path / "set.zip", [("a.bmp", bytes(20_000_000))])
    assert path.stat().st_size < 30_000
    assert "-fold" in refused(path)


def test_what_packs_well_but_is_small_is_no_bomb(tmp_path):
    path = zipped(tmp_path / "set.zip", [("a.png", FOX), ("b.png", encoded(picture(2))), ("a.txt", "fox " * 1000)])
    assert len(read_dataset(path).examples) == 2


def test_a_zip_of_too_many_bytes_or_files_is_refused(tmp_path):
    path = zipped(tmp_path / "set.zip", [("a.png", FOX), ("b.png", FOX)])
    assert "unpack to" in refused(path, max_archive_bytes=2 * len(FOX) - 1)
    assert "2 files" in refused(path, max_files=1)
    assert len(read_dataset(path, limits=Limits(max_archive_bytes=2 * len(FOX), max_files=2)).examples) == 2


def test_a_zip_with_a_password_is_refused(tmp_path):
    path = zipped(tmp_path / "set.zip", [("a.png", FOX)])
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    data[central + 8] |= 1
    path.write_bytes(data)
    assert "password" in refused(path)


def test_a_zip_packed_in_a_rare_way_is_refused(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", FOX)
    assert "deflate" in refused(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"PK\x05\x06" + bytes(17)])
def test_a_damaged_zip_is_refused(tmp_path, content):
    path = tmp_path / "set.zip"
    path.write_bytes(content)
    assert "cannot be opened" in refused(path)


def test_a_damaged_entry_is_left_out_and_the_rest_is_read(tmp_path):
    path = zipped(
        tmp_path / "set.zip", [("a.png", FOX), ("b.png", encoded(picture(2))), ("c.png", encoded(picture(3)))]
    )
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x03\x04", data.index(b"b.png")) - 40
    data[start : start + 8] = b"\xff" * 8
    path.write_bytes(data)
    dataset = read_dataset(path)
    assert [example.name for example in dataset.examples] == ["a.png", "c.png"]
    assert {problem.file: problem.kind for problem in dataset.problems}["b.png"] == "corrupt"


def test_an_entry_that_lies_about_its_length_gives_no_more_than_it_said(tmp_path):
    path = zipped(tmp_path / "set.zip", [("a.png", FOX + bytes(5_000_000)), ("b.png", FOX)])
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    dataset = read_dataset(path)
    assert [example.name for example in dataset.examples] == ["b.png"]
    assert "corrupt" in kinds(dataset)


def test_of_two_entries_of_one_name_the_last_is_read(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = zipped(tmp_path / "set.zip", [("a.png", b"no picture"), ("a.png", FOX)])
    assert [example.name for example in read_dataset(path).examples] == ["a.png"]


def test_what_systems_leave_behind_is_not_looked_at(tmp_path):
    entries = [("a.png", FOX), ("__MACOSX/._a.png", b"x"), (".hidden.png", b"x"), ("x/Thumbs.db", b"x")]
    assert kinds(read_dataset(zipped(tmp_path / "set.zip", entries))) == ["uncaptioned", "single"][::-1]


def test_a_list_of_files_pairs_captions_by_name(tmp_path):
    write_set(tmp_path, {"1/a.png": 1, "2/a.txt": "a fox", "3/b.png": 2, "4/a.png": 3, "5/a.txt": "another"})
    dataset = read_dataset([tmp_path / name for name in ("1/a.png", "2/a.txt", "3/b.png", "4/a.png", "5/a.txt")])
    assert {example.name: example.found for example in dataset.examples} == {
        "a.png": "a fox",
        "a-2.png": "another",
        "b.png": None,
    }


def test_a_list_of_one_zip_is_that_zip(tmp_path):
    archive = zipped(tmp_path / "set.zip", [("a.png", FOX)])
    upload = tmp_path / "upload"
    upload.write_bytes(archive.read_bytes())
    assert len(read_dataset([archive]).examples) == len(read_dataset(upload).examples) == 1


def test_one_picture_given_itself_is_a_set_of_one(tmp_path):
    write_set(tmp_path, {"a.png": 1, "b.png": 2})
    assert [example.name for example in read_dataset(tmp_path / "a.png").examples] == ["a.png"]


def test_archives_beside_pictures_or_of_other_kinds_are_refused(tmp_path):
    write_set(tmp_path, {"a.png": 1, "b.zip": b"x", "c.tar.gz": b"x", "d.rar": b"x"})
    assert "b.zip" in refused([tmp_path / "a.png", tmp_path / "b.zip"])
    assert "c.tar.gz" in refused(tmp_path / "c.tar.gz")
    assert "d.rar" in refused([tmp_path / "d.rar"])


def test_an_empty_list_is_an_empty_set():
    assert [problem.kind for problem in read_dataset([]).fatal] == ["empty"]


def test_what_is_not_there_is_refused(tmp_path):
    assert "no such folder" in refused(tmp_path / "gone")
    assert "no file gone.png" in refused([tmp_path / "gone.png"])


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_that_no_disk_takes_is_refused(tmp_path, name):
    assert "cannot be listed" in refused(tmp_path / name)
    assert refused([tmp_path / name])


def test_names_are_compared_as_people_read_them(tmp_path):
    apart, composed = "e\u0301te\u0301.png", "\u00e9t\u00e9.png"
    write_set(tmp_path, {apart: 1, "metadata.jsonl": json.dumps({"file_name": composed, "text": "summer"})})
    (example,) = read_dataset(tmp_path).examples
    assert (example.name, example.found) == (composed, "summer")
    assert load(example).size == (64, 48)


def test_a_name_that_is_no_utf8_is_spelled_out(tmp_path):
    write_set(tmp_path, {os.fsdecode(b"caf\xe9.png"): 1})
    dataset = read_dataset(tmp_path)
    assert [example.name for example in dataset.examples] == ["caf\\udce9.png"]
    assert len(dataset.fingerprint) == 64
    assert load(dataset.examples[0]).size == (64, 48)


def test_a_folder_of_too_many_files_is_refused_without_walking_it_to_the_end(tmp_path):
    write_set(tmp_path, {f"{index}.md": "x" for index in range(5)})
    assert "more than 4 files" in refused(tmp_path, max_files=4)


def test_links_to_folders_are_not_followed(tmp_path):
    write_set(tmp_path / "set", {"a.png": 1})
    (tmp_path / "set" / "loop").symlink_to(tmp_path / "set", target_is_directory=True)
    assert [example.name for example in read_dataset(tmp_path / "set").examples] == ["a.png"]
