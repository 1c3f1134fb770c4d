"""Small sets of pictures to train on, and requests for them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from studio.models.store import ModelStore
from studio.training.request import TrainRequest


def save_set(folder: Path, count: int = 4, side: int = 32) -> Path:
    """Pictures of plain colours with captions beside them, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        picture = Image.new("RGB", (side, side), (40 + 50 * (index % 4), 200 - 30 * (index // 4), 90))
        picture.paste((255, 255, 0), (2 * index, 3, 2 * index + 9, 20 + index))
        picture.save(folder / f"picture-{index}.png")
        (folder / f"picture-{index}.txt").write_text("a red fox" if index % 2 else "a blue penguin", encoding="utf-8")
    return folder


def asked(data: Path | str, **changes: object) -> TrainRequest:
    """A short training of the tiny model."""
    settings = {"model": "tiny", "steps": 2, "learning_rate": 1e-2, "validation_share": 0.0, "checkpoint_every": 1000}
    return TrainRequest(data=str(data), **settings | changes)


def store_of(assets: Path, folder: Path) -> ModelStore:
    """A store that calls the pipeline in ``folder`` by its name."""
    return ModelStore(assets, folder.parent, device="cpu")
