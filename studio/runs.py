"""Run folders, the studio's only database: ``outputs/<engine>/<time>-<id>/{request.json, job.json, result.json, ...}``.

Whatever has its final name is complete: files and folders are written under another name and renamed. A run with
a result.json is done, whatever its job.json says.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from studio.errors import StudioError

log = logging.getLogger(__name__)

ENGINE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
RUN_NAME = re.compile(r"\d{8}-\d{6}-[0-9a-f]{16}")
ANOTHERS_FOR = 900.0  # seconds
NEW, PARTIAL, TRASH = ".new-", ".partial", ".trash"


class Saveable(Protocol):
    """What an engine returns."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Write every output into ``folder`` and return the JSON summary that names them."""
        ...


@dataclass(frozen=True)
class Run:
    """What lies in one run folder; ``result`` is None until it is done."""

    folder: Path
    job: dict[str, Any]
    request: dict[str, Any]
    result: dict[str, Any] | None


def create(folder: Path, request: dict[str, Any], job: dict[str, Any]) -> None:
    """Make a run folder, with its request and job already inside when it appears."""
    fresh = folder.with_name(NEW + folder.name)
    fresh.mkdir(parents=True)
    write_json(fresh / "request.json", request)
    write_json(fresh / "job.json", job)
    fresh.rename(folder)


def run_folder(root: Path, engine: str, run_id: str, created: float) -> Path:
    """Where a run belongs; no part of the name comes from a visitor."""
    folder = root / engine / f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(created))}-{run_id}"
    if not ENGINE_NAME.fullmatch(engine) or not RUN_NAME.fullmatch(folder.name):
        raise ValueError(f"{engine!r} and {run_id!r} make no run folder")
    return folder


def keep(folder: Path, result: Saveable) -> dict[str, Any]:
    """Save ``result`` into ``folder`` so that it is there completely or not at all; returns its summary."""
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        summary = result.save(partial)
        write_json(partial / "result.json", summary)
        for path in sorted(partial.iterdir(), key=lambda path: path.name == "result.json"):
            if (folder / path.name).is_dir():  # of an earlier result in a folder that a person named
                shutil.rmtree(folder / path.name)
            path.replace(folder / path.name)  # result.json is the last: with it the run is done
    except OSError as error:
        if error.errno is None:  # not the disk's, such as a picture that PIL cannot encode
            raise
        raise StudioError(f"The result cannot be written ({error.strerror}); make room and run it again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return summary


@contextmanager
def writing() -> Iterator[None]:
    """A disk that is full or closed ends what is being kept in a run's folder in words."""
    try:
        yield
    except OSError as error:
        words = error.strerror or str(error)
        raise StudioError(f"The run's folder cannot be written ({words}); make room and go on from there.") from error


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write JSON that is never seen half."""
    text = json.dumps(data, indent=1, ensure_ascii=False)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def read_all(root: Path) -> Iterator[Run]:
    """Every run under ``root``, oldest first; what cannot be read is logged, left where it lies, and left out."""
    folders = [path.parent for path in root.glob("*/*/job.json") if RUN_NAME.fullmatch(path.parent.name)]
    for folder in sorted(folders, key=lambda folder: folder.name):
        try:
            yield _read(folder)
        except (OSError, ValueError) as error:
            log.warning("left out the damaged run %s: %s", folder, error)


def sweep(root: Path) -> None:
    """Remove what a killed studio left: half results and its trash. What is new may be another studio's at work."""
    for leftover in (*root.glob(f"*/{NEW}*"), *root.glob(f"*/*/{PARTIAL}"), *root.glob(f"{TRASH}/*/*")):
        if time.time() - leftover.stat().st_ctime > ANOTHERS_FOR:
            shutil.rmtree(leftover, ignore_errors=True)


def discard(root: Path, folder: Path) -> Path:
    """Move a run to the trash; returns where it lies now."""
    return _moved(folder, root / TRASH / folder.parent.name / folder.name)


def recover(root: Path, trashed: Path) -> Path:
    """Move a run back from the trash; returns where it lies now."""
    return _moved(trashed, root / trashed.parent.name / trashed.name)


def remove(folder: Path) -> None:
    """Delete a run for good."""
    shutil.rmtree(folder, ignore_errors=True)


def _read(folder: Path) -> Run:
    result = folder / "result.json"
    return Run(
        folder=folder,
        job=_object(folder / "job.json"),
        request=_object(folder / "request.json"),
        result=_object(result) if result.exists() else None,
    )


def _object(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} holds no object")
    return data


def _moved(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return source.rename(target)
