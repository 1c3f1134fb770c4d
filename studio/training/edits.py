"""What a person changed about a set in the page: a file of its own in the run's folder, so that no original changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import RequestError
from studio.runs import write_json

EDITS_FILE = "edits.json"
VERSION = 1
MAX_BYTES = 64 * 1024**2


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
    write_json(
        folder / EDITS_FILE,
        {"version": VERSION, "captions": dict(edits.captions), "left_out": sorted(edits.left_out)},
    )


def read_edits(folder: Path) -> Edits:
    """What ``write_edits`` wrote; no edits when nothing was. Raises RequestError for a file that is not one of ours."""
    path = folder / EDITS_FILE
    if not path.exists():
        return Edits()
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
