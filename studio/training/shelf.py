"""Sets of pictures that were looked at lately, so that a page can ask at every key what training on them would be."""

from __future__ import annotations

import time
from pathlib import Path

from studio.errors import RequestError
from studio.progress import Step
from studio.training.dataset import edited, read_dataset
from studio.training.edits import Edits
from studio.training.records import Dataset, Limits
from studio.training.sources import list_files

PATIENCE = 8.0  # seconds that a page waits for pictures to be looked at
KEPT = 4
Signature = tuple[tuple[str, int, int], ...]


class TooMany(Exception):
    """The set takes longer to look at than a page can wait; ``count`` files are in it."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count


class Shelf:
    """Datasets by their places, each as long as no file of it changes."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._held: dict[Path, tuple[Signature, Dataset | None]] = {}

    def dataset(self, place: Path, trigger: str, template: str, edits: Edits = Edits()) -> Dataset:
        """The set at ``place`` with these words in its captions. Raises TooMany for one that takes too long to read."""
        signature = _signature(place)
        known, whole = self._held.pop(place, (None, None))
        if known != signature:
            whole = self._read(place)
        while len(self._held) >= KEPT:
            self._held.pop(next(iter(self._held)), None)
        self._held[place] = (signature, whole)
        if whole is None:
            raise TooMany(len(signature))
        return edited(whole, edits, trigger=trigger, template=template)

    def _read(self, place: Path) -> Dataset | None:
        until = time.monotonic() + self._patience

        def look(step: Step) -> None:
            if time.monotonic() > until:
                raise TooMany(step.total)

        try:
            return read_dataset(place, on_step=look)
        except TooMany:
            return None


def _signature(place: Path) -> Signature:
    """What changes when a file of the set does; empty for a place that cannot be listed, as reading it will say."""
    try:
        found, _ = list_files(place, Limits())
        return tuple((file.name, file.size, file.path.stat().st_mtime_ns) for file in found)
    except (RequestError, OSError):
        return ()
