"""Finished results that ship with the studio: ``assets/examples/<engine>/<slug>/``, folders as a run leaves them.

``result.json`` and the files it names are needed; ``request.json`` holds the settings, or else the preset of that slug.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
PREFIX = "example:"
FIRST = "first"  # the slug of what a first visit finds on show
NAMED = {"train": "files"}  # what a result of an engine has to name; "candidates" where nothing is said


@dataclass(frozen=True)
class Example:
    slug: str
    folder: Path
    request: Mapping[str, Any]
    summary: Mapping[str, Any]
    engine: str = "illusion"


class Examples:
    """Examples, read once; a folder that cannot be read is logged and left out."""

    def __init__(self, folder: Path, presets: Mapping[str, Mapping[str, Any]]) -> None:
        self._found: dict[str, Example] = {}
        self.add(folder, presets)

    def add(self, folder: Path, presets: Mapping[str, Mapping[str, Any]], engine: str = "illusion") -> None:
        """Those of another engine; their slugs begin with its name, so that one address serves all."""
        before = "" if engine == "illusion" else f"{engine}."
        for path in sorted(folder.glob("*/result.json"), key=lambda path: (path.parent.name != FIRST, path)):
            try:
                example = _read(path.parent, presets.get(path.parent.name), f"{before}{path.parent.name}", engine)
                self._found[example.slug] = example
            except (OSError, ValueError) as error:
                log.warning("left out the example %s: %s", path.parent.name, error)

    def find(self, key: str) -> Example | None:
        """By slug, or by the key that a page names it with."""
        return self._found.get(key.removeprefix(PREFIX))

    def of(self, engine: str) -> list[Example]:
        """Those of one engine, in the same order."""
        return [example for example in self if example.engine == engine]

    def __iter__(self) -> Iterator[Example]:
        """The one that a first visit shows comes first, the others by slug."""
        return iter(self._found.values())


def key(slug: str) -> str:
    """How a page names an example where a job id may stand as well."""
    return f"{PREFIX}{slug}"


def _read(folder: Path, preset: Mapping[str, Any] | None, slug: str, engine: str) -> Example:
    summary = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    own = folder / "request.json"
    request = json.loads(own.read_text(encoding="utf-8")) if own.exists() else dict(preset or {})
    named = NAMED.get(engine, "candidates")
    if not isinstance(summary, dict) or not isinstance(request, dict) or not summary.get(named):
        raise ValueError(f"result.json names no {named}")
    return Example(slug, folder, request, summary, engine)
