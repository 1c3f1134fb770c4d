"""Safetensors files in and out, streamed: read by place, written tensor by tensor, nothing held whole, never torch."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from studio.errors import ModelFileError, StudioError
from studio.models.files import ITEM_BYTES, Header
from studio.models.hashing import Hashing

PIECE = 8 * 1024**2  # bytes that are read or hashed at a time
AHEAD = 32 * 1024**2  # bytes that the system is asked to fetch before they are read
SPARE = 64 * 1024**2  # bytes that must stay free on the disk
FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True)
class Entry:
    """Where a tensor's bytes lie: ``start`` counts from the beginning of the file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def is_float(self) -> bool:
        return self.dtype in FLOATS


def entries_of(path: Path, header: Header) -> dict[str, Entry]:
    """A file's tensors in the order of their bytes. ModelFileError for a kind of number that nothing here reads."""
    with path.open("rb") as file:
        data = 8 + int.from_bytes(file.read(8), "little")
    found = {}
    for key, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = entry["data_offsets"]
        if ITEM_BYTES.get(entry["dtype"], 0) * _count(entry["shape"]) != end - start:
            raise ModelFileError(
                f"{path.name} holds {key!r} as {entry['dtype']} {entry['shape']}, which cannot be read here: "
                "convert it to fp16 or fp32 first.",
                field="models",
            )
        found[key] = Entry(path, entry["dtype"], tuple(entry["shape"]), data + start, end - start)
    return found


class Reader:
    """One file, open until ``close``. Its SHA-256 comes from the bytes that are read, as far as they come in order.

    ``tick`` is called between pieces of whatever must be read for the hash alone, so that a stop is never far. Without
    ``hashed`` nothing is read but what is asked for, in any order, and there is no ``sha256``.
    """

    def __init__(self, path: Path, tick: Callable[[], None] = lambda: None, *, hashed: bool = True) -> None:
        self.path, self._tick = path, tick
        self._file = path.open("rb", buffering=0)
        self._state, self._asked = self._look(), 0
        self._hash, self._hashed = Hashing(), 0 if hashed else sys.maxsize

    def read(self, start: int, size: int) -> bytearray:
        """``size`` bytes from ``start`` on, in memory of their own."""
        self._hash_up_to(start)
        data = self._raw(start, size)
        if start <= self._hashed < start + size:
            self._hash.update(memoryview(data)[self._hashed - start :])
            self._hashed = start + size
        return data

    def sha256(self) -> str:
        """Of the whole file; raises ModelFileError when it changed since it was opened."""
        if self._hashed == sys.maxsize:
            raise ValueError(f"{self.path.name} was opened without a hash")
        self._hash_up_to(self._state[0])
        self.check()
        return self._hash.hexdigest()

    def check(self) -> None:
        if self._look() != self._state:
            raise ModelFileError(f"{self.path.name} changed while it was read: try again when it is complete.")

    def close(self) -> None:
        self._hash.close()
        self._file.close()

    def _hash_up_to(self, end: int) -> None:
        while self._hashed < end:
            piece = min(PIECE, end - self._hashed)
            self._hash.update(self._raw(self._hashed, piece))
            self._hashed += piece
            self._tick()

    def _raw(self, start: int, size: int) -> bytearray:
        data = bytearray(size)
        left = memoryview(data)
        self._announce(start + size)
        self._file.seek(start)
        while left:
            got = self._file.readinto(left)
            if not got:
                raise ModelFileError(f"{self.path.name} changed while it was read: try again when it is complete.")
            left = left[got:]
        return data

    def _announce(self, end: int) -> None:
        """Let the system fetch what will be read next while other work is done, where it can be told."""
        if sys.platform == "linux" and end > self._asked - AHEAD // 2:
            self._asked = end + AHEAD
            os.posix_fadvise(self._file.fileno(), end, AHEAD, os.POSIX_FADV_WILLNEED)

    def _look(self) -> tuple[int, int]:
        about = os.stat(self.path)
        return about.st_size, about.st_mtime_ns


def sha256_of(path: Path, tick: Callable[[], None] = lambda: None) -> str:
    """The SHA-256 of a file's bytes."""
    reader = Reader(path, tick)
    try:
        return reader.sha256()
    finally:
        reader.close()


class Writer:
    """A .safetensors file that appears under its name complete or not at all: ``with Writer(...) as out``.

    Tensors are written in the order of ``order(...)``. The notes may be replaced until the end by ones that take no
    more room, which is how hashes get there that are known only then.
    """

    def __init__(
        self, path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], notes: Mapping[str, str]
    ) -> None:
        self.path, self._tensors = path, tensors
        self._fresh = path.with_name(f".{path.name}.partial")
        self._head = _header(tensors, notes)
        self._promised, self._written = _bytes_of(tensors), 0

    @property
    def keys(self) -> list[str]:
        """The tensors in the order in which they are to be written."""
        return list(self._tensors)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._hash.update(data)
        self._written += len(data)

    def data_sha256(self) -> str:
        """Of all the tensors' bytes so far: ``modelspec.hash_sha256``."""
        return self._hash.hexdigest()

    def annotate(self, notes: Mapping[str, str]) -> None:
        """Replace the notes; ValueError when these take more room than those that the file began with."""
        head = _header(self._tensors, notes)
        if len(head) > len(self._head):
            raise ValueError("the new notes are longer than the room that was left for them")
        self._hash.wait()
        self._file.seek(8)
        self._file.write(head.ljust(len(self._head)))
        self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Writer:
        self._file = self._fresh.open("wb")
        self._file.write(len(self._head).to_bytes(8, "little") + self._head)
        self._hash = Hashing(self._file.write)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            with self._file, self._hash:
                if kind is None:
                    self._finish()
            if kind is None:
                os.replace(self._fresh, self.path)
                sync_folder(self.path.parent)
        finally:
            self._fresh.unlink(missing_ok=True)

    def _finish(self) -> None:
        self._hash.wait()
        if self._written != self._promised:
            raise ValueError(f"{self._written} bytes were written where the header promises {self._promised}")
        self._file.flush()
        os.fsync(self._file.fileno())


def order(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    """The keys as they stand where every tensor then begins at a multiple of its item's size, else widest first."""
    at = 0
    for dtype, shape in tensors.values():
        if at % ITEM_BYTES[dtype]:
            return sorted(tensors, key=lambda key: -ITEM_BYTES[tensors[key][0]])
        at += ITEM_BYTES[dtype] * _count(shape)
    return list(tensors)


def check_room(folder: Path, size: int) -> None:
    """Raises StudioError when ``size`` more bytes do not fit on the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise StudioError(
            f"The result needs {size / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB left: make room there, or "
            "choose another folder.",
            field="target",
        )


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` outlast a power cut, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], notes: Mapping[str, str]) -> bytes:
    """As the safetensors format has it: JSON, filled with spaces to a multiple of eight."""
    header: dict[str, object] = {"__metadata__": dict(notes)} if notes else {}
    at = 0
    for key, (dtype, shape) in tensors.items():
        size = ITEM_BYTES[dtype] * _count(shape)
        header[key] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    return text.ljust(-(-len(text) // 8) * 8)


def _bytes_of(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> int:
    return sum(ITEM_BYTES[dtype] * _count(shape) for dtype, shape in tensors.values())


def _count(shape: Iterable[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
