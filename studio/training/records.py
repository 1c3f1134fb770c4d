"""What a set of pictures is to everything that trains on it: examples, problems, the limits they are read within."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.errors import RequestError
from studio.training.archives import Entry, read_entry

FIELD = "data"  # of the request, for errors

Kind = Literal[
    "source",  # the folder, zip or list as a whole
    "empty",
    "too_many",
    "corrupt",
    "format",  # a picture of a kind that is not read
    "too_small",
    "too_large",
    "duplicate",
    "similar",
    "converted",  # read, but not as it lies there: first frame, other colours, turned upright
    "uncaptioned",
    "caption",  # a caption that is damaged, cut or doubtful
    "orphan",  # a caption without its picture
    "left_out",
    "single",
    "edits",
]


@dataclass(frozen=True)
class Limits:
    """What is read at most. Bytes, pixels, and pixels of a side; ``min_side`` is the least that is trained on."""

    max_pictures: int = 10_000
    max_files: int = 50_000
    max_picture_bytes: int = 200 * 1024**2
    max_pixels: int = 120_000_000
    max_archive_bytes: int = 20 * 1024**3  # of all entries, unpacked
    max_archive_ratio: float = 200.0  # unpacked over packed, of an entry of a megabyte or more
    min_side: int = 32
    max_caption: int = 2_000  # characters


@dataclass(frozen=True)
class File:
    """One file of a set. ``name`` is its path inside the set, with slashes; ``path`` the file or the zip it lies in."""

    name: str
    path: Path
    size: int
    entry: Entry | None = None

    @property
    def stem(self) -> str:
        """The name without its last suffix, by which captions find their picture."""
        folder, slash, last = self.name.rpartition("/")
        return f"{folder}{slash}{last.rpartition('.')[0] or last}"

    @property
    def suffix(self) -> str:
        last = self.name.rpartition("/")[2]
        return f".{last.rpartition('.')[2].lower()}" if "." in last.lstrip(".") else ""

    @property
    def folder(self) -> str:
        """The set's folder that the file lies in; empty for the topmost."""
        return self.name.rpartition("/")[0]

    def read(self, most: int) -> bytes:
        """All bytes, from the zip where they lie in one. Raises OSError, also for more than ``most`` of them."""
        if self.size > most:
            raise OSError(f"it has more than {most / 1024**2:,.0f} MB")
        if self.entry is not None:
            return read_entry(self.path, self.entry)
        with self.path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:  # it has grown since it was listed
            raise OSError(f"it has more than {most / 1024**2:,.0f} MB")
        return data


@dataclass(frozen=True)
class Problem:
    """One sentence about one file (empty: about the whole set). A ``fatal`` one must be solved before training.

    A picture that ``what`` calls left out is not among the examples.
    """

    file: str
    what: str
    fatal: bool = False
    kind: Kind = "source"


@dataclass(frozen=True)
class Example:
    """One picture with its caption. ``pictures.load(example)`` gives its pixels, upright and in sRGB."""

    file: File
    caption: str
    """What is trained: the caption that was found or edited, with the trigger word in it."""
    found: str | None
    """The caption as it was found, before edits and trigger; None when there was none."""
    size: tuple[int, int]
    """Width and height in pixels, upright."""
    sha256: str
    """Of the file's bytes."""
    repeats: int = 1
    """How often it counts in one epoch (kohya's ``10_name`` folders)."""
    twin: str = ""
    """The name of the first picture that this one equals or nearly equals; they belong on one side of a split."""

    @property
    def name(self) -> str:
        """Its path inside the set; unique there, and what edits refer to."""
        return self.file.name

    @property
    def path(self) -> Path:
        """The picture's file, or the zip that it lies in."""
        return self.file.path


@dataclass(frozen=True)
class Dataset:
    """Examples in the order of their names, and everything that was found on the way."""

    examples: tuple[Example, ...]
    problems: tuple[Problem, ...]
    root: Path

    @property
    def per_epoch(self) -> int:
        """Pictures in one epoch, repeats counted."""
        return sum(example.repeats for example in self.examples)

    @property
    def fatal(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.fatal)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what is trained on: files' bytes, names, captions and repeats."""
        sha = hashlib.sha256()
        for example in self.examples:
            for value in (example.name, example.sha256, example.caption, str(example.repeats)):
                sha.update(len(value.encode()).to_bytes(8, "little") + value.encode())
        return sha.hexdigest()

    def check(self) -> None:
        """Raises one RequestError with every fatal problem."""
        if self.fatal:
            raise RequestError(f"{FIELD}: {' '.join(_sentences(self.fatal))}", field=FIELD)


def clean_name(name: str) -> str:
    """A file's name as text that can be compared and written: composed (NFC), bytes that are no UTF-8 spelled out.

    macOS takes letters apart ("e" and an accent), and a metadata.jsonl does not.
    """
    return unicodedata.normalize("NFC", name.encode("utf-8", "backslashreplace").decode())


def _sentences(problems: tuple[Problem, ...]) -> Iterator[str]:
    for problem in problems:
        yield f"{problem.file}: {problem.what}" if problem.file else problem.what
