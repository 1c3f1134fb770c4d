"""One moment of a job, as everybody outside its thread sees it, and the record of it that lies in its run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from studio import runs

log = logging.getLogger(__name__)

Lane = Literal["gpu", "net"]
Status = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]
UNSETTLED = ("queued", "running", "interrupted")  # what it came to may be found out later


@dataclass(frozen=True)
class JobError:
    """Why a job failed, as text only: a kept exception keeps the tensors of its frames alive."""

    type: str
    message: str
    field: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """One moment of a job. Times are seconds since the epoch, ``eta`` seconds from then; ``position`` 1 runs next.

    ``revision`` grows with every change, also across a restart of the studio. ``folder`` holds the files that
    ``summary`` names; ``data`` is what the engine told of itself last, gone with the process.
    """

    id: str
    engine: str
    title: str
    owner: str
    folder: Path
    request: dict[str, Any]
    created: float
    status: Status = "queued"
    lane: Lane = "gpu"
    revision: int = 0
    step: int = 0
    total: int = 0
    note: str = ""
    evaluations: int = 0
    previews: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    started: float | None = None
    finished: float | None = None
    eta: float | None = None
    position: int = 0
    error: JobError | None = None
    summary: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.status not in ("queued", "running")

    @property
    def reason(self) -> str:
        """Why there is no result, in one sentence; empty when nothing went wrong."""
        if self.error is not None:
            return self.error.message
        return self.note if self.status in ("cancelled", "interrupted") else ""


class Record(BaseModel):
    """What job.json holds of a snapshot: all that the other files of the run folder do not say."""

    id: str
    engine: str
    title: str
    owner: str
    lane: Lane
    status: Status
    created: float
    started: float | None = None
    finished: float | None = None
    step: int = 0
    total: int = 0
    evaluations: int = 0
    note: str = ""
    labels: tuple[str, ...] = ()
    error: JobError | None = None

    @classmethod
    def of(cls, snapshot: Snapshot) -> Record:
        return cls(**{name: getattr(snapshot, name) for name in cls.model_fields})


def write(snapshot: Snapshot) -> None:
    """Note the snapshot in its run folder. A full disk is logged: what is in memory is right, and work goes on."""
    try:
        runs.write_json(snapshot.folder / "job.json", Record.of(snapshot).model_dump())
    except (OSError, ValueError):
        log.exception("the state of job %s could not be written", snapshot.id)


def read_all(root: Path, last_words: Callable[[Path], str] = lambda folder: "") -> Iterator[Snapshot]:
    """The jobs of earlier studios, oldest first. One that was to finish is interrupted, unless its result is there.

    ``last_words`` says of a run's folder why work that went on without a studio ended; nothing for all other work.
    """
    for run in runs.read_all(root):
        try:
            snapshot = _remembered(run)
        except ValueError as error:
            log.warning("left out the damaged run %s: %s", run.folder, error)
            continue
        settled = _settled(snapshot, last_words) if snapshot.status in UNSETTLED else snapshot
        if settled != snapshot:
            write(settled)
        yield settled


def _settled(snapshot: Snapshot, last_words: Callable[[Path], str]) -> Snapshot:
    status: Status = "interrupted" if snapshot.summary is None else "done"
    ended = replace(snapshot, status=status, finished=snapshot.finished or time.time())
    said = last_words(snapshot.folder) if status == "interrupted" else ""
    return replace(ended, note=said or closing_note(ended))


def first_revision() -> int:
    """Milliseconds since the epoch: beyond any revision of the same job before a restart, and safe in JavaScript."""
    return time.time_ns() // 1_000_000


def closing_note(snapshot: Snapshot) -> str:
    """What became of a job that ended without a result and without an error."""
    if snapshot.status == "cancelled" and snapshot.started is None:
        return "Stopped before it began; its settings are kept."
    if snapshot.status == "cancelled":
        return f"Stopped after step {snapshot.step} of {snapshot.total}; no result was saved, its settings are kept."
    if snapshot.status == "interrupted":
        return "The studio ended before this was done; its settings are kept, run it again."
    return ""


def _remembered(run: runs.Run) -> Snapshot:
    record = Record.model_validate(run.job)
    values = {name: getattr(record, name) for name in Record.model_fields}
    return Snapshot(**values, folder=run.folder, request=run.request, summary=run.result, revision=first_revision())
