"""SHA-256 of large files that were hashed before: merges read gigabytes, again and again from the same few files."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from studio.runs import write_json

MOST = 2_000  # files that are remembered
SETTLED = 2 * 10**9  # nanoseconds; of a file that changed later than that, a later change might show no other time


class KnownHashes:
    """By a file's place, size, number and times, one of which differs after a change.

    Kept in the file ``place`` if one is given; what cannot be read or written there is only not remembered.
    """

    def __init__(self, place: Path | None = None) -> None:
        self._place = place
        self._known: dict[str, list[object]] | None = None if place else {}

    def of(self, path: Path) -> str | None:
        """The SHA-256 of a file that is as it was when it was hashed; else None."""
        entry = self._all().get(str(path.resolve()))
        return str(entry[1]) if entry and entry[0] == _state(path) else None

    def keep(self, path: Path, sha256: str) -> None:
        """Remember what was found by reading all of ``path`` just now."""
        state = _state(path)
        if time.time_ns() - max(state[2:]) < SETTLED:
            return
        known = self._all()
        known.pop(str(path.resolve()), None)
        known[str(path.resolve())] = [state, sha256]
        while len(known) > MOST:
            del known[next(iter(known))]
        self._write()

    def _all(self) -> dict[str, list[object]]:
        if self._known is None:
            self._known = self._read()
        return self._known

    def _read(self) -> dict[str, list[object]]:
        if self._place is None:
            return {}
        try:
            found = json.loads(self._place.read_text(encoding="utf-8"))
            return {str(path): [list(state), str(sha256)] for path, (state, sha256) in found.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def _write(self) -> None:
        if self._place is None:
            return
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._place, dict(self._all()))
        except OSError:
            self._place = None  # a disk that is full or closed: what is known stays in memory


def _state(path: Path) -> list[int]:
    about = os.stat(path)
    return [about.st_size, about.st_ino, about.st_mtime_ns, about.st_ctime_ns]
