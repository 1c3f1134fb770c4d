"""A training by ``accelerate launch``, outside the studio: started as a list of arguments, followed by its events.

It lives in a session of its own and needs nobody who follows it: a studio that ends leaves it at work, and one that
starts finds it again by its run's folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import Cancelled, Closing, RequestError, StudioError
from studio.progress import OnStep, Step, ignore
from studio.runs import write_json
from studio.settings import Launch, Settings, environment_of_child, machine_arguments
from studio.training.events import EVENTS, NEAR, Process, Tail, last_lines
from studio.training.request import TrainRequest

if TYPE_CHECKING:
    from PIL import Image

PLACE = "launch"  # in a run's folder
REQUEST, PROCESS, OUTPUT = "run.json", "process.json", "output.txt"
RESULT = "result.json"
PAUSE = 0.25  # seconds between two looks
STOPS_WITHIN = 900.0  # seconds; a step, its checkpoint and its files take less
LONGEST = 600  # characters of output in an error


@dataclass(frozen=True)
class Finished:
    """What a launched training has written into its folder itself."""

    folder: Path

    def save(self, folder: Path) -> dict[str, Any]:
        """Nothing is left to write; returns the summary."""
        return json.loads((self.folder / RESULT).read_text(encoding="utf-8"))


def run(request: TrainRequest, settings: Settings, *, on_step: OnStep = ignore, folder: Path) -> Finished:
    """Train as ``request`` says in ``settings.launch``'s processes; returns or raises what the engine here would.

    Raises RequestError where there is no such way, StudioError with the last lines of output when it fell over.
    """
    if settings.launch is None or sys.platform == "win32":
        raise RequestError(
            "processes: trainings are launched on Linux and macOS alone; leave it out.", field="processes"
        )
    place = folder / PLACE
    on_step(Step(0, request.steps, note="Launching the training"))
    try:
        place.mkdir(parents=True, exist_ok=True)
        for left in (EVENTS, PROCESS, OUTPUT):  # of a run in the same folder before
            (place / left).unlink(missing_ok=True)
        write_json(place / REQUEST, request.model_dump(mode="json"))
        process = _start(command(settings, folder), place)
    except OSError as error:
        raise StudioError(f"The training cannot be launched ({error.strerror or error}); look at the folder.") from None
    return Follower(folder, process).run(on_step)


def command(settings: Settings, folder: Path) -> list[str]:
    """The arguments of the process, each as it is: there is no shell to read them."""
    place = folder / PLACE
    launch = [sys.executable, "-m", "accelerate.commands.launch", *_how(settings.launch or Launch(), settings.threads)]
    train = ["-m", "studio", "train", str(place / REQUEST), "--out", str(folder), "--events", str(place / EVENTS)]
    return [*launch, *train, *machine_arguments(settings)]


def outlived(folder: Path) -> Callable[[OnStep], Finished] | None:
    """How to follow a training of an earlier studio on; None where none was launched or it is at work no more."""
    follower = Follower(folder)
    return follower.run if follower.living else None


def last_words(folder: Path) -> str:
    """Why a launched training ended without a result, as one sentence; empty where none was launched."""
    if not (folder / PLACE / PROCESS).exists():
        return ""
    return _last_words(folder, "The training ended without a result")


class Follower:
    """Reads what a launched training tells, and passes it on; a stop becomes a signal that it answers."""

    def __init__(self, folder: Path, child: subprocess.Popen[bytes] | None = None) -> None:
        self.folder, self.child = folder, child
        self._tail = Tail(folder / PLACE / EVENTS)
        self._launcher = _process(folder / PLACE / PROCESS)
        self._worker: Process | None = None
        self._error: StudioError | None = None
        self._step = Step(0, 0, note="Launching the training")
        self._read()

    @property
    def living(self) -> bool:
        if self.child is not None:
            self.child.poll()  # or it stays as a zombie
        return any(process is not None and process.living for process in (self._launcher, self._worker))

    def run(self, on_step: OnStep) -> Finished:
        """Until it has ended. What ``on_step`` raises stops it, but for Closing, which leaves it at work."""
        try:
            while self.living:
                self._read()
                on_step(self._step)
                time.sleep(PAUSE)
        except Closing:
            raise
        except (Cancelled, KeyboardInterrupt):
            self._stop()
            raise Cancelled(kept=Finished(self.folder) if self._finished else None) from None
        self._read()
        if self._finished:
            return Finished(self.folder)
        raise self._error or StudioError(_last_words(self.folder, "The training ended without a result"))

    @property
    def _finished(self) -> bool:
        """Whether its result is there, and not an earlier one's in the same folder."""
        try:
            written = (self.folder / RESULT).stat().st_mtime
        except OSError:
            return False
        return self._launcher is None or written >= self._launcher.started - NEAR

    def _read(self) -> None:
        for event in self._tail.news():
            if event["kind"] == "process":
                self._worker = Process.read(event)
            elif event["kind"] == "step":
                self._step = self._as_step(event)
            elif event["kind"] == "error":
                self._error = _error(event)

    def _as_step(self, event: dict[str, Any]) -> Step:
        index, total, evaluations = (int(event.get(name) or 0) for name in ("step", "total", "evaluations"))
        labels = tuple(map(str, event.get("labels") or ()))
        pictures = (lambda: self._samples()) if labels else None
        return Step(index, total, str(event.get("note", "")), evaluations=evaluations, pictures=pictures, labels=labels)

    def _samples(self) -> tuple[Image.Image, ...]:
        """The latest that it drew."""
        from PIL import Image

        found = sorted((self.folder / "training" / "samples").glob("????????-*.png"))
        latest = [path for path in found if path.name[:8] == found[-1].name[:8]]
        pictures = []
        for path in latest:
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        return tuple(pictures)

    def _stop(self) -> None:
        """Ask, and wait for the checkpoint and the LoRA; end all of it when there is no answer."""
        worker = None if self._worker is None else self._worker.living
        if worker is not None:
            worker.terminate()  # the one that counts tells the others
        else:
            self._signal(signal.SIGTERM)
        deadline = time.monotonic() + STOPS_WITHIN
        while self.living and time.monotonic() < deadline:
            self._read()
            time.sleep(PAUSE)
        if self.living:
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        """To the launcher and all that it started, which are one group."""
        if self._launcher is not None and self._launcher.living:
            os.killpg(self._launcher.pid, number)


def _how(launch: Launch, threads: int | None) -> list[str]:
    """The launcher's own arguments; a file of accelerate's decides everything that is not given beside it."""
    if launch.config is not None:
        count = [] if launch.processes is None else ["--num_processes", str(launch.processes)]
        return ["--config_file", str(launch.config), *count]
    processes = launch.processes or 1
    threads = threads or max(1, (os.cpu_count() or 1) // processes)
    given = {"num_processes": processes, "num_machines": 1, "mixed_precision": "no", "dynamo_backend": "no"}
    given["num_cpu_threads_per_process"] = threads
    single = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    return [*single, "--multi_gpu", "--main_process_port", "0"] if processes > 1 else single


def _start(arguments: list[str], place: Path) -> subprocess.Popen[bytes]:
    with (place / OUTPUT).open("ab") as output:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment_of_child(),
            start_new_session=True,
        )
    found = Process.this(child.pid)
    write_json(place / PROCESS, {"pid": found.pid, "started": found.started})
    return child


def _process(path: Path) -> Process | None:
    try:
        return Process.read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _error(event: dict[str, Any]) -> StudioError:
    field = event.get("field")
    return RequestError(str(event.get("message", "")), field=field if isinstance(field, str) else None)


def _last_words(folder: Path, what: str) -> str:
    lines = last_lines(folder / PLACE / OUTPUT)[-LONGEST:]
    return f"{what}; the last that it said: {lines}" if lines else f"{what}, and said nothing."
