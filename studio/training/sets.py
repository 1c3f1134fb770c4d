"""The sets that one person may train on, what was seen in them, and what that person changed about them.

Everything is asked of ``OwnSets``, which belongs to an owner: nobody names another's set or edits, nor, where
strangers visit, any path.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studio import policy
from studio.errors import RequestError
from studio.runs import write_json
from studio.training import captions, edits, uploads
from studio.training.dataset import edited
from studio.training.edits import Edits
from studio.training.preflight import data_place
from studio.training.reading import Reading
from studio.training.records import FIELD, Dataset
from studio.training.uploads import UPLOAD, Given
from studio.upload_rules import check_sets

if TYPE_CHECKING:
    from studio.settings import Settings

BUILTIN = policy.BUILTIN
RECORD = "set.json"
EDITS = "edits"  # the folder of what was changed about sets that lie elsewhere
READINGS_KEPT = 4  # sets; one of 10,000 pictures takes some 20 MB
SWEEP_EVERY = 600.0  # seconds


@dataclass(frozen=True)
class Uploaded:
    """What lies in a set's record. ``created`` is in seconds since 1970."""

    owner: str
    title: str
    created: float


class Library:
    """All sets of a studio, and what was seen in those that were looked at last."""

    def __init__(self, settings: Settings, limits: policy.Limits) -> None:
        self.root, self.assets, self.limits = settings.datasets, settings.assets, limits
        self._readings: OrderedDict[str, Reading] = OrderedDict()
        self._swept = 0.0

    def of(self, owner: str) -> OwnSets:
        return OwnSets(self, owner)

    def builtin(self) -> list[str]:
        return sorted(BUILTIN + path.name for path in (self.assets / "datasets").glob("*") if path.is_dir())

    def reading(self, data: str, place: Path, *, fresh: bool) -> Reading:
        """What was seen of a set; with ``fresh`` its files are listed again, and only what is new is looked at."""
        before = self._readings.get(data)
        if before is not None and not fresh:
            return before
        reading = Reading(place, earlier=before.seen if before else None)  # within the limits of a training
        if before is not None and before.state == reading.state and before.state:
            return before
        self._readings[data] = reading
        while len(self._readings) > READINGS_KEPT:
            self._readings.pop(next(iter(self._readings)), None)
        return reading

    def uploads(self) -> Iterator[tuple[str, Path, Uploaded]]:
        """Every set that was put in, oldest first: its name, folder and record."""
        found = []
        for path in self.root.glob(f"*/{RECORD}"):
            name = UPLOAD + path.parent.name
            record = record_of(path.parent)
            if record is not None and uploads.folder_of(name, self.root) is not None:
                found.append((name, path.parent, record))
        return iter(sorted(found, key=lambda each: each[2].created))

    def sweep(self) -> None:
        """Where sets are kept for a while only: remove those that nobody has looked at for that long."""
        now = time.time()
        if self.limits.sets_kept_for is None or now - self._swept < SWEEP_EVERY:
            return
        self._swept = now
        before = now - self.limits.sets_kept_for
        for _, folder, _ in self.uploads():
            if (folder / RECORD).stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)
        for path in (*self.root.glob(f"{edits.KEPT}/*.json"), *self.root.glob(f"{EDITS}/*/{edits.EDITS_FILE}")):
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)


class OwnSets:
    """One owner's view of a library. Errors are RequestErrors about the field ``data``."""

    def __init__(self, library: Library, owner: str) -> None:
        self._library, self._owner = library, owner

    def choices(self) -> list[tuple[str, str]]:
        """(title, name) of every set to choose from: built-in ones, then the owner's, newest first."""
        builtin = [(name.removeprefix(BUILTIN).capitalize(), name) for name in self._library.builtin()]
        own = [(record.title, name) for name, _, record in self._own()]
        return builtin + own[::-1]

    def title(self, data: str) -> str:
        """What a set is called."""
        if data.startswith(UPLOAD):
            folder = self._folder(data)
            record = record_of(folder)
            return record.title if record else "Pictures"
        return data.removeprefix(BUILTIN).capitalize() if data.startswith(BUILTIN) else Path(data).name or data

    def place(self, data: str) -> Path:
        """Where a set's pictures lie, for its owner alone."""
        policy.check_data(data, self._library.limits)
        if data.startswith(UPLOAD):
            self._folder(data)
        elif not data.strip():
            raise RequestError("data: choose a set, or drop pictures.", field=FIELD)
        return data_place(data, self._library.assets, self._library.root)

    def reading(self, data: str, *, fresh: bool = False) -> Reading:
        """What was seen of a set so far; ``look`` at it until it is ``done``."""
        place = self.place(data)
        if fresh and data.startswith(UPLOAD):
            os.utime(self._folder(data) / RECORD)
        return self._library.reading(data, place, fresh=fresh)

    def dataset(self, data: str, trigger: str = "", template: str = captions.TEMPLATE) -> Dataset:
        """The set as it would be trained on, as far as it was looked at: edits, trigger word and template put in."""
        return edited(self.reading(data).dataset, self.edits(data), trigger=trigger, template=template)

    def add(self, given: Sequence[Given], data: str = "") -> tuple[str, tuple[str, ...]]:
        """Put files into ``data``, an upload of this owner's, or else into a new set.

        Returns the set's name, and the names of files that no set can hold.
        """
        library = self._library
        library.sweep()
        if not given:
            raise RequestError("data: no file has arrived; drop the pictures again.", field=FIELD)
        own = {name: folder for name, folder, _ in self._own()}
        name = data if data in own else uploads.new_name()
        if data not in own:
            held = sum(uploads.size_of(folder) for _, folder, _ in library.uploads()) if self._is_shared else 0
            check_sets(len(own), held, library.limits)
        folder = library.root / name.removeprefix(UPLOAD)
        others = uploads.put_in(given, folder, library.limits)
        if data not in own:
            title = _unused(uploads.title_of(given), {title for title, _ in self.choices()})
            write_json(folder / RECORD, asdict(Uploaded(self._owner, title, time.time())))
        return name, others

    def edits(self, data: str) -> Edits:
        """What the owner changed about a set."""
        return edits.read_edits(self._edits_folder(data))

    def change(self, data: str, change: Callable[[Edits], Edits]) -> Edits:
        """Change it, and nothing of the set itself."""
        return edits.change_edits(self._edits_folder(data), change)

    def kept_edits(self, data: str) -> str:
        """The owner's edits of a set as they are now, under a name for a request's ``edits``; empty for none."""
        return edits.keep_edits(self._library.root, self.edits(data))

    def take_up(self, data: str, name: str) -> None:
        """Make the edits that a request named the owner's own again, so that the page shows what was trained."""
        policy.check_data(data, self._library.limits, name)
        found = edits.named_edits(name, self._library.root)
        if found != self.edits(data):
            self.kept_edits(data)  # what was there is not lost
            self.change(data, lambda _: found)

    def check(self, data: str) -> None:
        """Raises RequestError for a set of another owner's."""
        if data.startswith(UPLOAD):
            os.utime(self._folder(data) / RECORD)

    @property
    def _is_shared(self) -> bool:
        return self._library.limits.max_sets_bytes is not None

    def _own(self) -> list[tuple[str, Path, Uploaded]]:
        return [each for each in self._library.uploads() if each[2].owner == self._owner]

    def _folder(self, data: str) -> Path:
        folder = uploads.folder_of(data, self._library.root)
        record = record_of(folder) if folder else None
        if folder is None or record is None or record.owner != self._owner:
            raise RequestError("data: these pictures are not here any more; drop them again.", field=FIELD)
        return folder

    def _edits_folder(self, data: str) -> Path:
        place = self.place(data)
        if data.startswith(UPLOAD):
            return self._folder(data)
        whose = f"{self._owner}\n{data if data.startswith(BUILTIN) else place.resolve()}"
        return self._library.root / EDITS / hashlib.sha256(whose.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def _unused(title: str, taken: Collection[str]) -> str:
    """``cats``, or ``cats 2`` where there are cats already."""
    number = 2
    found = title
    while found in taken:
        found, number = f"{title} {number}", number + 1
    return found


def record_of(folder: Path) -> Uploaded | None:
    """A set's record; None where it is damaged or missing."""
    try:
        return Uploaded(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
