"""What a training writes while it runs, into its run's folder: curves, samples and the adapter at every checkpoint.

All of it is there also when the machine goes down. Without a folder it is kept in memory and lost with the process.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError

from studio.imaging import write_png
from studio.runs import writing
from studio.training import checkpoints
from studio.training.checkpoints import State
from studio.training.folder import LOG, PLACE, SAMPLES
from studio.training.learning import Learned
from studio.training.loop import Point

OF_STEP = re.compile(r"(?:.*-)?(\d{8})(?:-\d+)?\.(?:png|safetensors)")


class Journal:
    """``place`` is the folder "training" in the run's."""

    def __init__(self, folder: Path | None, recipe: dict[str, object]) -> None:
        self.place = None if folder is None else folder / PLACE
        self.recipe = recipe
        self.samples: dict[int, tuple[Image.Image, ...]] = {}
        self.kept: dict[int, str] = {}  # step -> the adapter's file

    def begin(self, points: Iterable[Point] = (), earlier: Path | None = None) -> None:
        """Start empty, or with what an ``earlier`` run's folder holds up to the last of ``points``."""
        points = list(points)
        last = points[-1].step if points else 0
        if self.place is not None:
            if earlier is None or (earlier / PLACE).resolve() != self.place.resolve():
                shutil.rmtree(self.place, ignore_errors=True)
            (self.place / SAMPLES).mkdir(parents=True, exist_ok=True)
        if earlier is not None:
            self._take_over(earlier / PLACE, last)
        if self.place is not None:
            lines = (json.dumps(asdict(point)) + "\n" for point in points)
            (self.place / LOG).write_text("".join(lines), encoding="utf-8")

    def log(self, point: Point) -> None:
        """One line of the curves."""
        if self.place is not None:
            with _writing(), (self.place / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(point)) + "\n")

    def keep_samples(self, step: int, pictures: tuple[Image.Image, ...]) -> None:
        self.samples[step] = pictures
        if self.place is not None:
            with _writing():
                for index, picture in enumerate(pictures):
                    write_png(picture, self.place / SAMPLES / f"{step:08d}-{index}.png", self.recipe)

    def keep(self, state: State, adapter: Learned, name: str, notes: dict[str, str]) -> None:
        """A checkpoint: all that is needed to go on, and the adapter as it can be used already."""
        if self.place is None:
            return
        checkpoints.save(self.place, state)
        file = f"{name}-{state.step:08d}.safetensors"
        with _writing():
            adapter.save_kohya(self.place / file, notes)
        self.kept[state.step] = file

    def _take_over(self, place: Path, last: int) -> None:
        """Samples and adapters of an earlier run, but for those of steps that are done again."""
        for path in sorted([*place.glob(f"{SAMPLES}/*.png"), *place.glob("*.safetensors")]):
            match = OF_STEP.fullmatch(path.name)
            if match is None or int(match[1]) > last:
                continue
            own = None if self.place is None else self.place / path.relative_to(place)
            if own is not None and own.resolve() != path.resolve():
                shutil.copyfile(path, own)
            if path.suffix == ".png":
                with Image.open(path) as picture:
                    self.samples[int(match[1])] = (*self.samples.get(int(match[1]), ()), picture.convert("RGB"))
            elif own is not None:
                self.kept[int(match[1])] = path.name


@contextmanager
def _writing() -> Iterator[None]:
    """``runs.writing``, also of what safetensors says of a disk that is full."""
    with writing():
        try:
            yield
        except SafetensorError as error:
            raise OSError(checkpoints.why(error)) from error
