"""Curves and samples in a tracker that somebody uses already, through accelerate's own; none costs a run its result.

What is sent: losses, rates, samples, and those settings that name no place on this machine.
"""

from __future__ import annotations

import importlib.util
import logging
import netrc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import RequestError
from studio.settings import environment
from studio.training.request import TrackerName, TrainRequest

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker
    from PIL import Image

    from studio.training.loop import Point

log = logging.getLogger(__name__)

PROJECT = "duckrabbit"
NOT_TOLD = {"data", "edits", "model", "resume", "earlier", "tasks", "trackers", "class_prompt", "instance_prompt"}
WANDB_HOST, WANDB_KEY = "api.wandb.ai", "WANDB_API_KEY"
TRACKIO_AWAY = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
# Nothing of the machine, the command line, the code or the terminal.
WANDB_QUIET = {
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "silent": True,
    "init_timeout": 30,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
}


@dataclass(frozen=True)
class Run:
    """What a tracker is begun with; ``folder`` is the run's, ``online`` whether anything may be sent away."""

    name: str
    folder: Path
    online: bool


@dataclass(frozen=True)
class Entry:
    """One line of the table. ``begin`` makes accelerate's tracker, ``draw`` gives it pictures where it takes any."""

    title: str
    help: str
    reference: str
    package: str
    begin: Callable[[Run], GeneralTracker]
    draw: Callable[[Any, int, Sequence[Image.Image]], None] | None = None

    @property
    def here(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


def check(names: Sequence[str]) -> None:
    """Raises RequestError for a tracker that is not installed."""
    for name in names:
        entry = TRACKERS[name]
        if not entry.here:
            raise RequestError(
                f"trackers: {entry.title} is not installed; pip install {entry.package}, or leave {name} out.",
                field="trackers",
            )


class Trackers:
    """Those that a request names. One that fails is left alone from then on, and ``remarks`` says so."""

    def __init__(self, request: TrainRequest, folder: Path | None, *, offline: bool = False) -> None:
        self.request, self.folder, self.offline = request, folder, offline
        self.remarks: list[str] = []
        self._begun: dict[str, GeneralTracker] = {}

    def begin(self, name: str) -> None:
        """``name`` is what the run is called there."""
        if self.request.trackers and self.folder is None:
            self.remarks.append("Without a folder for the run nothing was given to trackers.")
            return
        for tracker in self.request.trackers:
            self._try(tracker, self._begin, Run(name, self.folder, not self.offline))

    def log(self, point: Point) -> None:
        """One step of the curves."""
        values = {"loss": point.loss, "loss/smoothed": point.smoothed, "learning_rate": point.rate}
        if point.validation is not None:
            values["loss/validation"] = point.validation
        for name in tuple(self._begun):
            self._try(name, lambda name: self._begun[name].log(values, step=point.step))

    def draw(self, step: int, pictures: Sequence[Image.Image]) -> None:
        """The samples of a step, where a tracker takes pictures."""
        for name in tuple(self._begun):
            draw = TRACKERS[name].draw
            if draw is not None and pictures:
                self._try(name, lambda name, draw=draw: draw(self._begun[name], step, pictures))

    def close(self) -> None:
        """End all of them; the second time there is nothing left to do."""
        for name in tuple(self._begun):
            self._try(name, lambda name: self._begun[name].finish())
            self._begun.pop(name, None)

    def _begin(self, name: str, run: Run) -> None:
        tracker = TRACKERS[name].begin(run)
        tracker.start()
        self._begun[name] = tracker
        tracker.store_init_configuration(told(self.request))

    def _try(self, name: str, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(name, *arguments)
        except Exception as error:  # noqa: BLE001  a service may fail in any way of its own
            kind = type(error).__name__  # its text may hold a key
            log.warning("the tracker %s failed (%s)", name, kind)
            self._begun.pop(name, None)
            self.remarks.append(f"{TRACKERS[name].title} failed ({kind}) and was left alone; the training went on.")


def told(request: TrainRequest) -> dict[str, str | int | float | bool]:
    """The settings that trackers are told: no place on this machine, every value one that all of them take."""
    data = request.model_dump(mode="json", exclude=NOT_TOLD)
    plain = {key: value if isinstance(value, str | int | float | bool) else str(value) for key, value in data.items()}
    return plain | {"model": request.model.rstrip("/\\").replace("\\", "/").rpartition("/")[2]}


def is_logged_in(env: Mapping[str, str]) -> bool:
    """Whether somebody logged in to Weights & Biases here; the key itself is never looked at."""
    if env.get(WANDB_KEY):
        return True
    try:
        return netrc.netrc(env.get("NETRC")).authenticators(WANDB_HOST) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _tensorboard(run: Run) -> GeneralTracker:
    from accelerate.tracking import TensorBoardTracker

    return TensorBoardTracker(run.name, logging_dir=run.folder / "tensorboard")


def _wandb(run: Run) -> GeneralTracker:
    from accelerate.tracking import WandBTracker

    env = environment()
    online = run.online and env.get("WANDB_MODE", "online") == "online" and is_logged_in(env)
    mode = "online" if online else "offline"
    return WandBTracker(PROJECT, name=run.name, dir=str(run.folder), mode=mode, settings=dict(WANDB_QUIET))


def _trackio(run: Run) -> GeneralTracker:
    from accelerate.tracking import TrackioTracker

    if not run.online and any(environment().get(name) for name in TRACKIO_AWAY):
        raise ConnectionError("trackio is set to send curves away, and this studio is offline")
    return TrackioTracker(PROJECT, name=run.name, embed=False, auto_log_gpu=False, auto_log_cpu=False)


def _draw_in_tensorboard(tracker: Any, step: int, pictures: Sequence[Image.Image]) -> None:
    import numpy as np

    tracker.log_images({"samples": np.stack([np.asarray(picture) for picture in pictures])}, step, dataformats="NHWC")


def _draw_in_wandb(tracker: Any, step: int, pictures: Sequence[Image.Image]) -> None:
    tracker.log_images({"samples": list(pictures)}, step)


TRACKERS: Mapping[TrackerName, Entry] = {
    "tensorboard": Entry(
        "TensorBoard",
        "Files in the run's folder: tensorboard --logdir outputs.",
        "https://www.tensorflow.org/tensorboard",
        "tensorboard",
        _tensorboard,
        _draw_in_tensorboard,
    ),
    "wandb": Entry(
        "Weights & Biases",
        "Sent where somebody is logged in; else kept in the run's folder for wandb sync.",
        "https://docs.wandb.ai",
        "wandb",
        _wandb,
        _draw_in_wandb,
    ),
    "trackio": Entry(
        "Trackio",
        "On this machine: trackio show.",
        "https://github.com/gradio-app/trackio",
        "trackio",
        _trackio,
    ),
}
