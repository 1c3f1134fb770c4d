"""What a run and the one that goes on from it must have in common, as far as no model is needed to see it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.errors import RequestError
from studio.training.folder import FACTS, PLACE, checkpoints
from studio.training.request import TrainRequest

# What may differ between a run and the one that goes on from it: nothing that the weights depend on. (Earlier LoRAs
# are known by their bytes instead of their names.)
FREE = {
    "steps",
    "epochs",
    "resume",
    "data",
    "edits",
    "title",
    "file_precision",
    "cache",
    "patience",
    "checkpoint_every",
    "validate_every",
}
FREE |= {"earlier", "sample_prompts", "sample_every", "sample_steps", "sample_guidance", "trackers"}


def settings_of(request: TrainRequest) -> dict[str, Any]:
    """The settings that have to stay."""
    settings = request.model_dump(mode="json", exclude=FREE)
    for task in settings["tasks"]:
        del task["data"]  # free as well: what lies there counts
    return settings


def check_settings(now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Raises RequestError that names the first setting that differs."""
    for name, value in now.items():
        was = before.get(name, TrainRequest.model_fields[name].default)  # of a setting younger than the checkpoint
        if was != value:
            raise RequestError(
                f"{name}: was {was!r} in the run to go on from, here it is {value!r}; set it back, or leave "
                "resume empty.",
                field=name,
            )


def check_data(now: str, before: str) -> None:
    """Raises RequestError where pictures or captions are others; both are a dataset's fingerprint."""
    if before != now:
        raise RequestError(
            "data: pictures or captions changed since the checkpoint; put them back, or leave resume empty.",
            field="data",
        )


def check_steps(done: int, steps: int) -> None:
    """Raises RequestError where nothing is left to do."""
    if done >= steps:
        raise RequestError(f"steps: {done} are done already; give more, or leave resume empty.", field="steps")


def nothing_there(folder: Path) -> RequestError:
    return RequestError(
        f"resume: {folder} holds no checkpoint; name the folder of a run that was stopped, or leave it empty.",
        field="resume",
    )


def check(request: TrainRequest, fingerprint: str, steps: int) -> int:
    """The step that ``request`` goes on from, 0 for a new run; ``fingerprint``: its dataset's, ``steps``: its plan's.

    Raises RequestError as the run would, but for a model that changed: seeing that takes its weights.
    """
    if not request.resume:
        return 0
    folder = Path(request.resume).expanduser()
    kept = checkpoints(folder / PLACE)
    if not kept:
        raise nothing_there(folder)
    facts = kept[-1] / FACTS
    try:
        step, before = _begun(facts, facts.stat().st_mtime_ns)
    except (OSError, ValueError, LookupError, TypeError):
        return 0  # damaged: the run looks for an older one
    check_settings(settings_of(request), before["settings"])
    check_data(fingerprint, before["data"])
    check_steps(step, steps)
    return step


@lru_cache(maxsize=8)
def _begun(facts: Path, changed: int) -> tuple[int, Mapping[str, Any]]:
    """Step and fingerprint of a checkpoint, read once: all points of the curves stand beside them."""
    found = json.loads(facts.read_text(encoding="utf-8"))
    before = found["fingerprint"]
    return int(found["step"]), {"settings": dict(before["settings"]), "data": str(before["data"])}
