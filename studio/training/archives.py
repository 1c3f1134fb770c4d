"""Zip files read where they lie: their list is checked as a whole, and nothing is ever unpacked to the disk."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from studio.errors import RequestError

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, ..., length of the name, length of the extra field
LOCAL_SIGNATURE = b"PK\x03\x04"
ENCRYPTED = 0x1
SMALL = 1024**2  # bytes; a smaller entry may be packed as tightly as it likes
DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Entry:
    """Where the bytes of one entry begin in its zip, and what they must come to."""

    offset: int
    packed: int
    size: int
    crc: int
    deflated: bool


def list_entries(path: Path, *, max_files: int, max_bytes: int, max_ratio: float) -> tuple[tuple[str, Entry], ...]:
    """Names (with slashes) and places of all files in a zip; folders are left out. Raises RequestError.

    A zip is refused for one bad entry: whoever made it did not mean well, or it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise _refused("This zip cannot be opened: it is damaged or not finished; make it again.") from None
    if len(infos) > max_files:
        raise _refused(f"This zip holds {len(infos):,} files, and at most {max_files:,} are read; split it.")
    for info in infos:
        _check(info, max_ratio)
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise _refused(
            f"This zip would unpack to {total / 1024**3:,.1f} GB, and at most {max_bytes / 1024**3:,.1f} GB are read; "
            "split it or shrink its pictures."
        )
    return tuple(_listed(infos))


def read_entry(path: Path, entry: Entry) -> bytes:
    """The bytes of one entry, never more than its list promised. Raises OSError when they are damaged."""
    with path.open("rb") as file:
        file.seek(entry.offset)
        header = file.read(LOCAL_HEADER.size)
        if len(header) < LOCAL_HEADER.size or not header.startswith(LOCAL_SIGNATURE):
            raise OSError("its entry in the zip is damaged")
        _, name_length, extra_length = LOCAL_HEADER.unpack(header)
        file.seek(name_length + extra_length, 1)
        packed = file.read(entry.packed)
    data = _inflated(packed, entry.size) if entry.deflated else packed
    if len(data) != entry.size or zlib.crc32(data) != entry.crc:
        raise OSError("its entry in the zip is damaged")
    return data


def _inflated(packed: bytes, size: int) -> bytes:
    """At most ``size`` bytes and one more, so that a bomb's true length shows without being made."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error as error:
        raise OSError("its entry in the zip is damaged") from error


def _check(info: zipfile.ZipInfo, max_ratio: float) -> None:
    name, shown = info.filename.replace("\\", "/"), shown_name(info.filename)
    if name.startswith("/") or DRIVE.match(name) or ".." in name.split("/"):
        raise _refused(f"This zip holds {shown}, which points outside of it; zip the folder itself anew.")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise _refused(f"This zip holds {shown}, which is a link; zip the pictures themselves.")
    if info.flag_bits & ENCRYPTED:
        raise _refused("This zip has a password; make one without.")
    if info.compress_type not in METHODS:
        raise _refused(f"This zip holds {shown}, packed in a way that is not read; zip with the usual deflate.")
    if info.file_size > max(SMALL, max_ratio * info.compress_size):
        raise _refused(
            f"This zip holds {shown}, which would grow {info.file_size / max(info.compress_size, 1):,.0f}-fold: "
            "no picture is packed like that; leave it out."
        )


def _listed(infos: list[zipfile.ZipInfo]) -> Iterator[tuple[str, Entry]]:
    """Of entries with the same name the last counts, as for every program that unpacks them one over the other."""
    for info in {info.filename: info for info in infos}.values():
        deflated = info.compress_type == zipfile.ZIP_DEFLATED
        entry = Entry(info.header_offset, info.compress_size, info.file_size, info.CRC, deflated)
        yield "/".join(part for part in info.filename.replace("\\", "/").split("/") if part not in ("", ".")), entry


def _refused(message: str) -> RequestError:
    return RequestError(message, field="data")


def shown_name(name: str) -> str:
    """A stranger's file name for a sentence: no line breaks or other control characters, at most 80 long."""
    clean = "".join(mark if mark.isprintable() else "?" for mark in name)
    return repr(clean if len(clean) <= 80 else f"{clean[:40]}…{clean[-39:]}")
