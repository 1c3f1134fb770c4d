"""Hashes of large files that are remembered until a file changes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from studio.models import known_hashes
from studio.models.known_hashes import KnownHashes


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(known_hashes, "SETTLED", 0)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


SHA = hashlib.sha256(b"weights").hexdigest()


def test_a_file_as_it_was_is_known_and_another_is_not(file: Path, tmp_path: Path) -> None:
    known = KnownHashes()
    assert known.of(file) is None
    known.keep(file, SHA)
    assert known.of(file) == SHA
    (tmp_path / "other").write_bytes(b"weights")
    assert known.of(tmp_path / "other") is None


def test_other_bytes_are_noticed_even_when_size_and_time_are_the_same(file: Path) -> None:
    known, before = KnownHashes(), os.stat(file)
    known.keep(file, SHA)
    time.sleep(0.02)
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(file).st_mtime_ns == before.st_mtime_ns
    assert known.of(file) is None


def test_another_file_put_in_its_place_is_noticed(file: Path, tmp_path: Path) -> None:
    known = KnownHashes()
    known.keep(file, SHA)
    (tmp_path / "new").write_bytes(b"WEIGHTS")
    os.replace(tmp_path / "new", file)
    assert known.of(file) is None


def test_a_file_that_changed_a_moment_ago_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(b"weights")
    known = KnownHashes()
    known.keep(path, SHA)
    assert known.of(path) is None


def test_what_is_known_outlives_the_process_and_is_found_by_any_path_to_the_file(file: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache" / "hashes.json"
    KnownHashes(place).keep(file, SHA)
    (tmp_path / "link").symlink_to(file)
    assert KnownHashes(place).of(tmp_path / "link") == SHA


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": [1, 2, 3]}', "[" * 100_000])
def test_a_damaged_memory_is_an_empty_one(file: Path, tmp_path: Path, text: str) -> None:
    place = tmp_path / "hashes.json"
    place.write_text(text)
    known = KnownHashes(place)
    assert known.of(file) is None
    known.keep(file, SHA)
    assert KnownHashes(place).of(file) == SHA


def test_a_memory_that_cannot_be_written_works_until_the_process_ends(file: Path, tmp_path: Path) -> None:
    (tmp_path / "no-folder").write_text("in the way")
    known = KnownHashes(tmp_path / "no-folder" / "hashes.json")
    known.keep(file, SHA)
    assert known.of(file) == SHA


def test_the_oldest_of_too_many_is_forgotten(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hashes, "MOST", 2)
    known = KnownHashes()
    for name in "abc":
        (tmp_path / name).write_bytes(b"x")
        known.keep(tmp_path / name, name * 64)
    assert [known.of(tmp_path / name) for name in "abc"] == [None, "b" * 64, "c" * 64]
