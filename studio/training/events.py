"""What a training in a process of its own tells whoever follows it: lines of JSON in a file that only grows."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from studio.errors import Cancelled, StudioError
from studio.progress import OnStep, Step

log = logging.getLogger(__name__)

EVENTS = "events.jsonl"
EVERY = 0.2  # seconds between two steps that are told
NEAR = 2.0  # seconds by which a clock that is set may move when a process began
DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True)
class Process:
    """A process that can be found again: numbers are given anew, but not with the same time of birth (since 1970)."""

    pid: int
    started: float

    @classmethod
    def this(cls, pid: int | None = None) -> Process:
        found = psutil.Process(pid)
        return cls(found.pid, found.create_time())

    @classmethod
    def read(cls, data: object) -> Process | None:
        """From JSON; None for anything else."""
        if not isinstance(data, dict):
            return None
        pid, started = data.get("pid"), data.get("started")
        return cls(pid, started) if isinstance(pid, int) and pid > 1 and isinstance(started, int | float) else None

    @property
    def living(self) -> psutil.Process | None:
        """The process itself while it works."""
        with contextlib.suppress(psutil.Error):
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.started) <= NEAR and found.status() not in DEAD:
                return found
        return None


class Teller:
    """Tells a file who works, how far it is, and why it failed. A disk that is full costs no run its result."""

    def __init__(self, path: Path) -> None:
        self.path, self._told = path, 0.0
        mine = Process.this()
        self._tell("process", pid=mine.pid, started=mine.started)

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if now - self._told < EVERY and step.index < step.total:
            return
        self._told = now
        facts = {"step": step.index, "total": step.total, "note": step.note, "evaluations": step.evaluations}
        self._tell("step", **facts, labels=step.labels)

    def fail(self, error: StudioError) -> None:
        self._tell("error", type=type(error).__name__, message=str(error), field=error.field)

    def _tell(self, kind: str, **facts: Any) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, **facts}) + "\n")
        except OSError as error:
            log.warning("an event could not be written (%s)", error.strerror)


class Tail:
    """What was told since it was last asked."""

    def __init__(self, path: Path) -> None:
        self.path, self._place = path, 0

    def news(self) -> list[dict[str, Any]]:
        """Whole lines only; what is no event of ours is left out."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._place)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        return [event for event in map(_event, whole.splitlines()) if event is not None]


@contextlib.contextmanager
def told(path: Path | None, show: OnStep, *, several: bool = False) -> Iterator[OnStep]:
    """``on_step`` for a training on the command line: it shows, tells ``path``, and stops it when a signal asks to.

    SIGTERM takes effect at the next step, and of ``several`` processes Ctrl+C too, which reaches all of them.
    """
    with _signals(signal.SIGTERM, *([signal.SIGINT] if several else [])) as asked:
        tell = None if path is None else Teller(path)  # from now on somebody may send a signal

        def on_step(step: Step) -> None:
            show(step)
            if tell is not None:
                tell(step)
            if asked:
                raise Cancelled

        try:
            yield on_step
        except StudioError as error:
            if tell is not None:
                tell.fail(error)
            raise


@contextlib.contextmanager
def _signals(*numbers: int) -> Iterator[list[int]]:
    """Those that came in meanwhile; what was to happen on them before happens again afterwards."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_lines(path: Path, count: int = 4, most: int = 4096) -> str:
    """The end of a program's output as one line of text."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - most))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [" ".join(line.split()) for line in text.replace("\r", "\n").splitlines()]
    return " / ".join([line for line in lines if line][-count:])


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) and isinstance(data.get("kind"), str) else None
