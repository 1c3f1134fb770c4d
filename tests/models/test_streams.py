"""Safetensors read and written by place: hashes on the way, and files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from studio.errors import ModelFileError, StudioError
from studio.models import hashing, streams
from studio.models.files import read_header
from studio.models.hashing import Hashing
from studio.models.streams import Reader, Writer, check_room, entries_of, order, sha256_of


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "f.safetensors"
    save_file({"a": torch.arange(6.0), "b": torch.ones(3, 2, dtype=torch.float16)}, path)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("sequence", [("a", "b"), ("b", "a"), ("b", "b"), ()])
def test_a_hash_is_right_in_whatever_order_a_file_is_read(file, sequence, monkeypatch):
    monkeypatch.setattr(streams, "PIECE", 5)
    entries = entries_of(file, read_header(file))
    ticks = []
    reader = Reader(file, lambda: ticks.append(1))
    for key in sequence:
        data = reader.read(entries[key].start, entries[key].size)
        assert bytes(data) == load_file(file)[key].numpy().tobytes()
    assert reader.sha256() == digest(file)
    assert ticks
    reader.close()


def test_pieces_are_hashed_in_order_beside_the_work(monkeypatch):
    monkeypatch.setattr(hashing, "SMALL", 10)
    monkeypatch.setattr(hashing, "AHEAD", 100)
    pieces = [bytes([i]) * (7 * i % 40) for i in range(50)]
    with Hashing() as found:
        for piece in pieces:
            found.update(piece)
        assert found.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_a_file_that_changes_while_it_is_read_is_refused(file):
    reader = Reader(file)
    reader.read(0, 8)
    os.utime(file, ns=(1, 1))
    with pytest.raises(ModelFileError, match="changed while it was read"):
        reader.sha256()
    reader.close()


def test_a_file_that_shrinks_while_it_is_read_is_refused(file):
    reader = Reader(file)
    os.truncate(file, 20)
    with pytest.raises(ModelFileError, match="changed while it was read"):
        reader.read(0, 40)
    reader.close()


def write(path, tensors, notes=None, annotate=None):
    shapes = {key: ({8: "I64", 4: "F32", 2: "F16"}[t.element_size()], tuple(t.shape)) for key, t in tensors.items()}
    with Writer(path, {key: shapes[key] for key in order(shapes)}, notes or {}) as out:
        for key in out.keys:
            out.write(tensors[key].numpy().tobytes())
        if annotate:
            out.annotate(annotate)
        return out.data_sha256()


def test_what_is_written_loads_with_the_library(tmp_path):
    tensors = {
        "h": torch.ones(3, dtype=torch.float16),
        "i": torch.arange(2),
        "f": torch.randn(2, 2),
        "s": torch.tensor(5),
    }
    path = tmp_path / "out.safetensors"
    sha256 = write(path, tensors, {"note": "0" * 9}, {"note": "short"})
    found = load_file(path)
    assert all(torch.equal(found[key], value) for key, value in tensors.items())
    with safe_open(path, "pt") as opened:
        assert opened.metadata() == {"note": "short"}
    data = path.read_bytes()
    head = 8 + int.from_bytes(data[:8], "little")
    assert head % 8 == 0
    assert sha256 == hashlib.sha256(data[head:]).hexdigest()
    assert sha256_of(path) == digest(path)


def test_tensors_stay_in_order_unless_one_would_not_be_aligned():
    assert order({"a": ("F16", (4,)), "b": ("F32", (1,))}) == ["a", "b"]
    assert order({"a": ("F16", (3,)), "b": ("F32", (1,))}) == ["b", "a"]


def test_notes_that_take_more_room_are_refused(tmp_path):
    with pytest.raises(ValueError, match="longer"):
        write(tmp_path / "out.safetensors", {"a": torch.ones(1)}, {"x": "1"}, {"x": "1" * 50})
    assert list(tmp_path.iterdir()) == []


def interrupted(path):
    with Writer(path, {"a": ("F32", (2,))}, {}) as out:
        out.write(b"1234")
        raise KeyboardInterrupt


def test_a_stop_leaves_what_was_there_and_nothing_else(file):
    before = file.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        interrupted(file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_disk_that_fills_while_another_thread_writes_ends_the_work_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(hashing, "SMALL", 0)

    def fill():
        with Writer(tmp_path / "out.safetensors", {"a": ("F32", (2,))}, {}) as out:
            out._hash._first = full
            out.write(b"12345678")

    def full(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill()
    assert list(tmp_path.iterdir()) == []


def short(path):
    with Writer(path, {"a": ("F32", (2,))}, {}) as out:
        out.write(b"1234")


def test_fewer_bytes_than_promised_make_no_file(tmp_path):
    with pytest.raises(ValueError, match="4 bytes were written where the header promises 8"):
        short(tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_before_the_work(tmp_path):
    check_room(tmp_path, 1)
    with pytest.raises(StudioError, match=r"needs 1000000.00 GB and its disk has .* make room"):
        check_room(tmp_path, 10**15)


def test_numbers_of_an_unknown_kind_are_refused(tmp_path):
    header = {"x": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}}
    path = tmp_path / "x.safetensors"
    path.write_bytes((0).to_bytes(8, "little"))
    with pytest.raises(ModelFileError, match="'x' as F4"):
        entries_of(path, header)
