"""What a training keeps in its run's folder while it learns, and how a page reads it without torch."""

from __future__ import annotations

import re
from pathlib import Path

PLACE = "training"  # in a run's folder: checkpoints, and what is written while it learns
LOG, SAMPLES = "log.jsonl", "samples"
TENSORS, FACTS = "state.safetensors", "state.json"  # of a checkpoint
CHECKPOINT = re.compile(r"state-(\d{8})")
SAMPLE = re.compile(r"(\d{8})-(\d)\.png")


def checkpoints(place: Path) -> list[Path]:
    """Complete checkpoints below ``place``, oldest first."""
    found = [path for path in place.glob("state-*") if CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=lambda path: path.name)


def reached(folder: Path) -> int | None:
    """The step from which the run in ``folder`` can go on; None where nothing was kept."""
    kept = checkpoints(folder / PLACE)
    return int(kept[-1].name.removeprefix("state-")) if kept else None


def samples(folder: Path) -> dict[int, list[str]]:
    """Step -> the names of the samples drawn then, in the order of their prompts."""
    found: dict[int, list[str]] = {}
    for path in sorted((folder / PLACE / SAMPLES).glob("*.png")):
        match = SAMPLE.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), []).append(path.name)
    return found


def sample(folder: Path, name: str) -> Path | None:
    """The file of a sample that was drawn while the run learned; None for any other name."""
    return folder / PLACE / SAMPLES / name if SAMPLE.fullmatch(name) else None
