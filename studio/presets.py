"""Presets: requests worth starting from, as ``presets/<engine>/<slug>.json``."""

from __future__ import annotations

import json
import logging
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from studio import runs
from studio.errors import RequestError, UnknownNameError
from studio.requests import parse

log = logging.getLogger(__name__)

SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class PresetFile(BaseModel):
    """What lies in a preset's file; ``picture`` is a path beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = Field(min_length=1, max_length=80)
    description: str = Field("", max_length=400)
    expect: str = Field("", max_length=400, description="What it reproduces, so that a change for the worse shows.")
    picture: str | None = None
    request: dict[str, Any]


@dataclass(frozen=True)
class Preset:
    """A preset as it is offered: ``request`` is a bare request, ``picture`` a file that exists, or None."""

    engine: str
    slug: str
    title: str
    description: str
    expect: str
    request: dict[str, Any]
    picture: Path | None


def list_presets(root: Path, engine: str) -> tuple[Preset, ...]:
    """All presets of an engine by slug; a damaged one is logged and left out."""
    found = []
    for path in sorted((root / engine).glob("*.json")):
        try:
            found.append(read_preset(path))
        except RequestError as error:
            log.warning("left out a preset: %s", error)
    return tuple(found)


def load(root: Path, engine: str, slug: str) -> Preset:
    """One preset by name."""
    known = [path.stem for path in sorted((root / engine).glob("*.json"))]
    if slug not in known:
        raise UnknownNameError("preset", slug, known, field="preset")
    return read_preset(root / engine / f"{slug}.json")


def read_preset(path: Path) -> Preset:
    """A preset file; what is wrong with it is said in one RequestError that names the file."""
    try:
        content = parse(PresetFile, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path.name}: this is no JSON file that can be read ({error}).") from None
    except RequestError as error:
        raise RequestError(f"{path.name}: {error}", field=error.field) from None
    return Preset(
        engine=path.parent.name,
        slug=path.stem,
        title=content.title,
        description=content.description,
        expect=content.expect,
        request=content.request,
        picture=_picture(path.parent, content.picture),
    )


def save(root: Path, engine: str, content: PresetFile) -> Preset:
    """Write a new preset, named after its title. Raises RequestError when one of that name is there."""
    slug = slug_of(content.title)
    if not runs.ENGINE_NAME.fullmatch(engine) or not SLUG.fullmatch(slug):
        raise RequestError("title: use some letters or digits in it.", field="title")
    path = root / engine / f"{slug}.json"
    if path.exists():
        raise RequestError(f"title: there is a preset {slug!r} already; choose another title.", field="title")
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(path, content.model_dump(exclude_none=True))
    return read_preset(path)


def slug_of(title: str) -> str:
    """A file name made of small letters, digits and dashes only."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:60].strip("-")


def _picture(folder: Path, name: str | None) -> Path | None:
    """The picture beside a preset; never one outside of its folder."""
    path = (folder / name).resolve() if name else None
    return path if path and path.is_relative_to(folder.resolve()) and path.is_file() else None
