"""The pictures of a comparison as they are drawn: kept in the run's folder, and taken over by a run that goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import StudioError
from studio.guidance.grid import Column
from studio.guidance.request import GuidanceRequest
from studio.imaging import write_png
from studio.runs import writing

PLACE, LOG = "cells", "cells.jsonl"
OF_A_CELL = {"model", "adapters", "scales", "negative_prompt", "scheduler", "size"}  # beside what a column says


@dataclass(frozen=True)
class Spot:
    """Where a picture stands in the comparison."""

    prompt: int
    seed: int
    column: int


@dataclass(frozen=True)
class Cell:
    """One picture, and what it took."""

    picture: Image.Image
    evaluations: int
    seconds: float


class _Kept(BaseModel):
    """A line of the log: the picture, which is named by its key, is whole by the time that it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key: str = Field(pattern="^[0-9a-f]{64}$")
    evaluations: int
    seconds: float

    @property
    def file(self) -> str:
        return f"{self.key}.png"


class Cells(dict[Spot, Cell]):
    """Everything drawn so far. ``folder`` is the run's, or None; ``hashes`` are those of the adapters' files."""

    def __init__(
        self, request: GuidanceRequest, columns: tuple[Column, ...], hashes: Mapping[str, str], folder: Path | None
    ) -> None:
        super().__init__()
        self.request, self.columns, self.hashes = request, columns, dict(hashes)
        self.place = None if folder is None else folder / PLACE
        self._known = _read(Path(request.resume).expanduser() / PLACE) if request.resume else {}
        if self.place is not None:
            with writing():
                self.place.mkdir(parents=True, exist_ok=True)

    def recipe(self, spot: Spot) -> dict[str, Any]:
        """The request that draws this picture alone."""
        column = self.columns[spot.column]
        alone = self.request.model_copy(
            update={
                "guiders": (column.guider,),
                "settings": column.settings,
                "sweep": (),
                "prompts": (self.request.prompts[spot.prompt],),
                "seed": spot.seed,
                "seeds": 1,
                "resume": "",
            }
        )
        return {"version": 1, "engine": "guidance", "seed": spot.seed, "request": alone.model_dump(mode="json")}

    def key(self, spot: Spot) -> str:
        """What the picture depends on, the adapters' bytes with it, and no setting that its guider does not heed."""
        request = self.request.model_dump(mode="json", include=OF_A_CELL)
        parts = request | {"prompt": self.request.prompts[spot.prompt], "seed": spot.seed}
        parts |= {"column": self.columns[spot.column].drawn}
        return hashlib.sha256(json.dumps([parts, self.hashes], sort_keys=True).encode()).hexdigest()

    def keep(self, spot: Spot, cell: Cell) -> None:
        self[spot] = cell
        if self.place is None:
            return
        kept = _Kept(key=self.key(spot), evaluations=cell.evaluations, seconds=cell.seconds)
        with writing():
            write_png(cell.picture, self.place / kept.file, self.recipe(spot))
            self._note(kept)

    def take_over(self, spot: Spot) -> bool:
        """Whether an earlier run drew this very picture; then it is here now."""
        found = self._known.get(self.key(spot))
        if found is None:
            return False
        path, kept = found
        try:
            with Image.open(path) as picture:
                self.keep(spot, Cell(picture.convert("RGB"), kept.evaluations, kept.seconds))
        except (OSError, ValueError):
            return False  # half written when its machine went down: drawn again
        return True

    def _note(self, kept: _Kept) -> None:
        with (self.place / LOG).open("a", encoding="utf-8") as file:
            file.write(kept.model_dump_json() + "\n")


def _read(place: Path) -> dict[str, tuple[Path, _Kept]]:
    """An earlier run's cells by their keys; lines that were not finished are left out."""
    try:
        lines = (place / LOG).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise StudioError(
            f"There are no cells to go on from in {place.parent} ({error.strerror}); leave resume empty.",
            field="resume",
        ) from None
    found = {}
    for line in lines:
        try:
            kept = _Kept.model_validate_json(line)
        except ValidationError:
            continue
        found[kept.key] = (place / kept.file, kept)
    return found
