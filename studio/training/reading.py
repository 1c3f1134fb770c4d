"""Looking at the pictures of a set, as many at a time as there is time for; what was looked at once is remembered."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.errors import RequestError
from studio.training import layouts, sources
from studio.training.duplicates import Print, print_of, twins
from studio.training.pictures import PictureError, decode
from studio.training.records import Dataset, Example, File, Kind, Limits, Problem

SINGLE = "There is one picture only: it will be learned by heart; 5 to 30 different ones are usual."
Key = tuple[str, int, int, int]  # a file's path, its place in a zip, its bytes, when it was changed (ns)


@dataclass(frozen=True)
class Seen:
    """What the bytes of one picture came to: ``fault`` says why it cannot be trained on, else the rest is there."""

    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    likeness: Print | None = None
    changes: tuple[str, ...] = ()
    fault: tuple[str, Kind] | None = None


class Reading:
    """A set that is being looked at. Making one lists its files and reads its captions; ``advance`` takes a picture.

    ``earlier`` is what an earlier reading of the same files has ``seen``. Nothing is written, nothing is raised: what
    is wrong is among the problems of ``dataset``, which holds no captions but those that were found.
    """

    def __init__(
        self, source: Path | Sequence[Path], limits: Limits = Limits(), earlier: Mapping[Key, Seen] | None = None
    ) -> None:
        self.source, self.limits = source, limits
        self.seen: dict[Key, Seen] = {}
        self._earlier = earlier or {}
        self._examples: list[Example] = []
        self._likenesses: list[Print] = []
        self._problems: list[Problem] = []
        self._whole: Dataset | None = None
        self._turn = deque([None])  # who takes it is the one who advances; taking is atomic
        self.pictures: list[File] = []
        self.by_id: dict[str, File] = {}
        self.looked_at = 0
        self.root = source if isinstance(source, Path) else Path()
        try:
            files, self.root = sources.list_files(source, limits)
        except RequestError as error:
            self.state: tuple[Key, ...] = ()
            self._refused([Problem("", str(error), fatal=True)])
        else:
            self.state = tuple(map(key_of, files))
            self._list(files)

    @property
    def done(self) -> bool:
        return self._whole is not None

    @property
    def dataset(self) -> Dataset:
        """What was found; as long as it is not ``done``, in the pictures that were looked at so far."""
        if self._whole is not None:
            return self._whole
        return Dataset(tuple(self._examples), tuple(self._problems), self.root)

    def advance(self) -> None:
        """Look at the next picture; after the last one compare them all."""
        if self.looked_at < len(self.pictures):
            self._take(self.pictures[self.looked_at])
            self.looked_at += 1
        if self.looked_at == len(self.pictures) and not self.done:
            self._finish()

    def look(self, seconds: float) -> None:
        """Advance for so long, or to the end. Where another thread is at it already, nothing is done."""
        try:
            self._turn.pop()
        except IndexError:
            return
        try:
            until = time.monotonic() + seconds
            while not self.done and time.monotonic() < until:
                self.advance()
        finally:
            self._turn.append(None)

    def _list(self, files: Sequence[File]) -> None:
        self.pictures, problems = _pictures(files, self.limits)
        if any(problem.fatal for problem in problems):
            self.pictures = []
            self._refused(problems)
            return
        self.by_id = {picture_id(file.name): file for file in self.pictures}
        self._folder = self.root.name if self.root.is_dir() and self.root == self.source else ""
        self._found = layouts.find_captions(self.pictures, files, self.limits, self._folder)
        self._problems = [*problems, *self._found.problems]

    def _refused(self, problems: Sequence[Problem]) -> None:
        self._whole = Dataset((), tuple(problems), self.root)

    def _take(self, file: File) -> None:
        repeats = layouts.folder_words(file, self._folder)[0]
        if not 1 <= repeats <= layouts.MAX_REPEATS:
            what = f"lies in a folder of {repeats:,} repeats, so it is left out; name it 1_... to 1000_..."
            self._problems.append(Problem(file.name, what, kind="left_out"))
            return
        key = key_of(file)
        seen = self.seen[key] = self._earlier.get(key) or _seen(file, self.limits)
        if seen.fault is not None:
            self._problems.append(Problem(file.name, seen.fault[0], kind=seen.fault[1]))
            return
        found = self._found.by_name.get(file.name)
        self._examples.append(Example(file, "", found, seen.size, seen.sha256, repeats))
        self._likenesses.append(seen.likeness)
        self._problems += [Problem(file.name, f"{change}.", kind="converted") for change in seen.changes]

    def _finish(self) -> None:
        examples = _with_twins(self._examples, self._likenesses, self._problems)
        self._whole = Dataset(tuple(examples), (*self._problems, *_about(examples)), self.root)
        self._likenesses = []


def picture_id(name: str) -> str:
    """A picture's name as it may stand in an address: 20 hexadecimal digits."""
    return hashlib.sha256(name.encode()).hexdigest()[:20]


def key_of(file: File) -> Key:
    """What changes when the file does."""
    place = -1 if file.entry is None else file.entry.offset
    try:
        changed = file.path.stat().st_mtime_ns
    except OSError:  # gone since it was listed; reading it says so
        changed = 0
    return str(file.path), place, file.size, changed


def _pictures(files: Sequence[File], limits: Limits) -> tuple[list[File], list[Problem]]:
    """The files that are pictures by their names, and what is said of the others."""
    pictures = [file for file in files if file.suffix in sources.PICTURES]
    problems = [_foreign(file) for file in files if file.suffix in sources.FOREIGN]
    aside = [file for file in pictures if layouts.is_regularisation(file)]
    if aside:
        pictures = [file for file in pictures if file not in set(aside)]
        what = f"{len(aside):,} regularisation pictures here are left out; they are no examples of the subject."
        problems.append(Problem(aside[0].folder, what, kind="left_out"))
    if not pictures:
        what = "There is no picture here; give a folder, a zip or files with pictures (PNG, JPEG, WEBP ...)."
        problems.append(Problem("", what, fatal=True, kind="empty"))
    elif len(pictures) > limits.max_pictures:
        what = f"There are {len(pictures):,} pictures, and at most {limits.max_pictures:,} are read; choose some."
        problems.append(Problem("", what, fatal=True, kind="too_many"))
    return pictures, problems


def _seen(file: File, limits: Limits) -> Seen:
    try:
        data = file.read(limits.max_picture_bytes)
    except OSError as error:
        words = error.strerror or str(error)
        return Seen(fault=(f"cannot be read ({words}), so it is left out; save it anew.", "corrupt"))
    try:
        picture, changes = decode(data, limits)
    except PictureError as error:
        return Seen(fault=(str(error), error.kind))
    return Seen(picture.size, hashlib.sha256(data).hexdigest(), print_of(picture), changes)


def _with_twins(examples: Sequence[Example], likenesses: Sequence[Print], problems: list[Problem]) -> list[Example]:
    """The examples with the first of their like; both stay, since only a person knows whether that was meant."""
    seen: list[Example] = []
    for example, other in zip(examples, twins(likenesses), strict=True):
        if other is not None:
            first = seen[other]
            same = first.sha256 == example.sha256
            what = f"{'is the same file as' if same else 'looks the same as'} {first.name}, so it counts twice;"
            kind = "duplicate" if same else "similar"
            problems.append(Problem(example.name, f"{what} leave one out unless that is meant.", kind=kind))
            example = dataclasses.replace(example, twin=first.twin or first.name)
        seen.append(example)
    return seen


def _about(examples: Sequence[Example]) -> Iterator[Problem]:
    """What is said of the set as a whole."""
    if not examples:
        yield Problem("", "None of the pictures here can be read; see what is said of each.", fatal=True, kind="empty")
    elif len(examples) == 1:  # a subject cannot be told from its picture
        yield Problem("", SINGLE, kind="single")


def _foreign(file: File) -> Problem:
    return Problem(file.name, f"is a {file.suffix[1:]} file, so it is left out; save it as PNG or JPEG.", kind="format")
