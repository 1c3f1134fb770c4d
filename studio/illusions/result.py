"""What an illusion run gives back: ranked candidates with their views and scores, and the files they become."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from studio.illusions import adapters
from studio.illusions.animate import frames, save_gif, save_webp
from studio.illusions.failures import Failure
from studio.illusions.puzzle import cut
from studio.illusions.request import IllusionRequest
from studio.illusions.sheets import Reading, save_sheets
from studio.illusions.study import Study
from studio.illusions.views import View
from studio.imaging import grid, write_png
from studio.models.memory import gigabytes


@dataclass(frozen=True)
class Candidate:
    """One seed's picture, what each view makes of it, and how well the views read."""

    seed: int
    image: Image.Image
    views: tuple[Image.Image, ...]
    alignment: float
    concealment: float
    similarities: tuple[tuple[float, ...], ...]
    score: float
    weights: tuple[float, ...] | None = None
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class IllusionResult:
    """Candidates best first; ``views`` are built for the picture's size."""

    request: IllusionRequest
    candidates: tuple[Candidate, ...]
    views: tuple[View, ...]
    scorer: str
    seconds: float
    evaluations: int
    notes: tuple[str, ...]
    study: Study | None = None
    peak_memory: int | None = None  # bytes on the GPU, or of the whole process where there is none

    def save(self, folder: Path) -> dict[str, Any]:
        """Write pictures, grids and animations into ``folder``; returns the summary that goes to result.json."""
        saved = [self._save_candidate(folder, i, found) for i, found in enumerate(self.candidates)]
        if self.request.puzzle:
            saved[0]["puzzle"] = self._save_puzzle(folder / "candidate-0")
        return {
            "candidates": saved,
            "scorer": self.scorer,
            "seconds": round(self.seconds, 3),
            "evaluations": self.evaluations,
            "peak_memory": self.peak_memory,
            "notes": [*self.notes, *self._said()],
            "prompts": list(self.request.prompts),
            "views": list(self.request.views),
            "model": self.request.model,
            "adapters": self.request.adapters,
            "view_adapters": [dict(worn) for worn in adapters.worn(self.request)],
            "study": None if self.study is None else self.study.save(folder),
        }

    def _said(self) -> list[str]:
        """The memory used, how the best candidate stands with each of the failure modes, and what the views weighed."""
        best = self.candidates[0]
        said = [] if self.peak_memory is None else [f"Memory: {gigabytes(self.peak_memory)} at the most."]
        said += [f"{failure.title}: {failure.words}" for failure in best.failures]
        if best.weights is not None:
            shares = ", ".join(f"{share:.0%}" for share in best.weights)
            said.append(f"At the end of the run the views counted {shares}.")
        return said + (self.study.said() if self.study is not None else [])

    def _save_candidate(self, folder: Path, index: int, found: Candidate) -> dict[str, Any]:
        name = f"candidate-{index}"
        recipe = self._recipe(found)
        write_png(found.image, folder / f"{name}.png", recipe)
        view_files = [f"{name}-view-{i}.png" for i in range(len(found.views))]
        for picture, file in zip(found.views, view_files, strict=True):
            write_png(picture, folder / file, recipe)
        write_png(grid(found.views), folder / f"{name}-grid.png", recipe)
        moving = frames(found.image, list(self.views), list(self.request.prompts))
        save_webp(moving, folder / f"{name}.webp")
        save_gif(moving, folder / f"{name}.gif")
        return {
            "seed": found.seed,
            "image": f"{name}.png",
            "views": view_files,
            "grid": f"{name}-grid.png",
            "webp": f"{name}.webp",
            "gif": f"{name}.gif",
            "alignment": round(found.alignment, 4),
            "concealment": round(found.concealment, 4),
            "similarities": [[round(value, 4) for value in row] for row in found.similarities],
            "weights": None if found.weights is None else [round(weight, 4) for weight in found.weights],
            "failures": [failure.summary() for failure in found.failures],
        }

    def _save_puzzle(self, stem: Path) -> dict[str, str]:
        """The best candidate's sheets; the file names by kind: a4, letter and svg."""
        best = self.candidates[0]
        readings = [
            Reading(prompt, view.title, seen)
            for prompt, view, seen in zip(self.request.prompts, self.views, best.views, strict=True)
        ]
        return save_sheets(cut(self.views), best.image, readings, stem)

    def _recipe(self, found: Candidate) -> dict[str, Any]:
        """The request that makes this very candidate alone."""
        alone = self.request.model_copy(update={"seed": found.seed, "candidates": 1, "adapter_study": False})
        return {"version": 1, "engine": "illusion", "seed": found.seed, "request": alone.model_dump(mode="json")}
