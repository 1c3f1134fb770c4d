"""Where a training stands, on the disk: complete or not there, and all that is needed to go on as if it never stopped.

No state of a random generator is among it: whatever is drawn is drawn from the run's seed and the number of the step.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from studio.errors import StudioError
from studio.models.streams import sync_folder
from studio.training.folder import FACTS, PLACE, TENSORS
from studio.training.folder import checkpoints as listed
from studio.training.going_on import nothing_there

VERSION = 2
KEPT = 2  # the last one may turn out damaged


@dataclass(frozen=True)
class State:
    """``tensors`` by "<what>/<name>"; ``facts`` are JSON."""

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    def held(self, what: str) -> dict[str, Tensor]:
        """The tensors of one kind, by their own names."""
        return {key.partition("/")[2]: value for key, value in self.tensors.items() if key.startswith(f"{what}/")}


def save(place: Path, state: State) -> Path:
    """Write ``state`` below ``place`` under another name, then rename it; of the older ones the latest stays."""
    target = place / f"state-{state.step:08d}"
    fresh = place / f".{target.name}.new"
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        held = {key: value.detach().cpu().contiguous().clone() for key, value in state.tensors.items()}
        save_file(held, fresh / TENSORS)
        facts = {"version": VERSION, "step": state.step, **state.facts}
        (fresh / FACTS).write_text(json.dumps(facts, allow_nan=False), encoding="utf-8")
        for name in (TENSORS, FACTS):
            _sync(fresh / name)
        shutil.rmtree(target, ignore_errors=True)  # of a run that went on from here before
        fresh.rename(target)
        sync_folder(place)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise StudioError(
            f"The checkpoint cannot be written ({why(error)}); make room and go on from the last one."
        ) from error
    for older in listed(place)[:-KEPT]:
        shutil.rmtree(older, ignore_errors=True)
    return target


def why(error: OSError | SafetensorError) -> str:
    """What is wrong with the disk; safetensors says it in an exception of its own."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def latest(folder: Path) -> State:
    """The last sound checkpoint of a run's folder. Raises RequestError when there is none."""
    for path in reversed(listed(folder / PLACE)):
        found = _read(path)
        if found is not None:
            return found
    raise nothing_there(folder)


def _read(path: Path) -> State | None:
    """What lies there; None for what cannot be read."""
    try:
        facts = json.loads((path / FACTS).read_text(encoding="utf-8"))
        tensors = load_file(path / TENSORS)
        whole = facts["version"] == VERSION
    except (OSError, ValueError, LookupError, TypeError, SafetensorError):
        return None
    return State(facts["step"], tensors, facts) if whole else None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
