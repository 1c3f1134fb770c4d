"""What a person changed about a set in the page: a file in the studio's own folder, so that no original changes.

The page goes on changing one file, ``edits.json``. A run names a copy that never changes, by its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.errors import RequestError
from studio.policy import KEPT_EDITS
from studio.runs import write_json

EDITS_FILE = "edits.json"
KEPT = "kept"  # the folder of what never changes
VERSION = 1
MAX_BYTES = 64 * 1024**2
PATIENCE = 5.0  # seconds after which a lock was left behind by a studio that was killed


@dataclass(frozen=True)
class Edits:
    """Captions by the pictures' names, and the names of pictures that are left out."""

    captions: Mapping[str, str] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()

    def with_caption(self, name: str, caption: str) -> Edits:
        return Edits({**self.captions, name: caption}, self.left_out)

    def without_caption(self, name: str) -> Edits:
        """Back to the caption that was found."""
        return Edits({key: value for key, value in self.captions.items() if key != name}, self.left_out)

    def leaving_out(self, name: str) -> Edits:
        """Its caption is kept, so that taking it back brings that too."""
        return Edits(self.captions, self.left_out | {name})

    def taking_back(self, name: str) -> Edits:
        return Edits(self.captions, self.left_out - {name})


def write_edits(folder: Path, edits: Edits) -> None:
    """``edits.json`` in ``folder``, never seen half."""
    write_json(folder / EDITS_FILE, _written(edits))


def read_edits(folder: Path) -> Edits:
    """What ``write_edits`` wrote; no edits when nothing was. Raises RequestError for a file that is not one of ours."""
    path = folder / EDITS_FILE
    return _read(path) if path.exists() else Edits()


def change_edits(folder: Path, change: Callable[[Edits], Edits]) -> Edits:
    """Read, change, write: no other change comes in between, also where two pages are open on one set."""
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        edits = change(read_edits(folder))
        write_edits(folder, edits)
    return edits


def keep_edits(root: Path, edits: Edits) -> str:
    """A copy under ``root`` that never changes; returns its name, which is empty for no edits."""
    if edits == Edits():
        return ""
    data = _written(edits)
    name = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    path = root / KEPT / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):
        if path.exists():
            os.utime(path)  # it was of use just now
        else:
            write_json(path, data)
    return name


def named_edits(name: str, root: Path | None) -> Edits:
    """What a request's ``edits`` means: none, a name of ``keep_edits`` under ``root``, a file, or a folder of one."""
    if not name:
        return Edits()
    if not KEPT_EDITS.fullmatch(name):
        path = Path(name).expanduser()
        path = path / EDITS_FILE if path.is_dir() else path
        if not path.is_file():
            raise RequestError(f"edits: there is no file {path}; name an edits.json or leave it empty.", field="edits")
        return _read(path)
    path = None if root is None else root / KEPT / f"{name}.json"
    if path is None or not path.is_file():
        raise RequestError(
            "edits: these edited captions are not here any more; leave edits empty for the captions as found.",
            field="edits",
        )
    return _read(path)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One writer at a time in ``folder``, be it of another thread or another studio."""
    lock, until = folder / ".lock", time.monotonic() + PATIENCE
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            if time.monotonic() > until:
                lock.unlink(missing_ok=True)
            time.sleep(0.01)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _written(edits: Edits) -> dict[str, Any]:
    captions = {name: edits.captions[name] for name in sorted(edits.captions)}
    return {"version": VERSION, "captions": captions, "left_out": sorted(edits.left_out)}


def _read(path: Path) -> Edits:
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError):
        data = None
    if not isinstance(data, dict) or data.get("version") != VERSION:
        raise _damaged()
    return parse_edits(data.get("captions", {}), data.get("left_out", []))


def parse_edits(captions: object, left_out: object) -> Edits:
    """Edits from JSON values. Raises RequestError."""
    if not isinstance(captions, dict) or not isinstance(left_out, list):
        raise _damaged()
    if not all(isinstance(text, str) for text in (*captions, *captions.values(), *left_out)):
        raise _damaged()
    return Edits(captions, frozenset(left_out))


def _damaged() -> RequestError:
    return RequestError(f"data: {EDITS_FILE} is damaged; delete it to begin with the captions as found.", field="data")
