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
from studio.imaging import grid, write_png
from studio.models.memory import gigabytes
from studio.views.view import View

MOST_MOVING = 16  # candidates that are animated; a search may finish many more


@dataclass(frozen=True)
class Upscaled:
    """Alignment and concealment of a picture before upscaling, drawn over at its new size, and only grown to it."""

    before: tuple[float, float]
    drawn: tuple[float, float]
    grown: tuple[float, float]

    @property
    def is_drawn(self) -> bool:
        """Whether the picture that was drawn over reads no worse than the one that only grew; the better one is kept.

        Models draw poorly at sizes they never saw, and then a second pass takes away what the first has made.
        """
        return (_product(self.drawn), self.drawn[0]) >= (_product(self.grown), self.grown[0])

    @property
    def words(self) -> str:
        a, c = self.drawn if self.is_drawn else self.grown
        said = f"Before upscaling alignment was {self.before[0]:.2f} and concealment {self.before[1]:.2f}, "
        said += f"now {a:.2f} and {c:.2f}."
        if not self.is_drawn:
            said += (
                f" Drawn over it read worse ({self.drawn[0]:.2f} and {self.drawn[1]:.2f}), so the picture was only "
                "grown: this model may not know that size; try a smaller upscale_strength."
            )
        return said

    def summary(self) -> dict[str, Any]:
        figures = {name: _figures(*getattr(self, name)) for name in ("before", "drawn", "grown")}
        return figures | {"kept": "drawn" if self.is_drawn else "grown"}


@dataclass(frozen=True)
class Candidate:
    """One picture, what each view makes of it, and how well the views read.

    ``prompts`` are the request's own when left out.
    """

    seed: int
    image: Image.Image
    views: tuple[Image.Image, ...]
    alignment: float
    concealment: float
    similarities: tuple[tuple[float, ...], ...]
    score: float
    weights: tuple[float, ...] | None = None
    failures: tuple[Failure, ...] = ()
    prompts: tuple[str, ...] | None = None
    upscaled: Upscaled | None = None


@dataclass(frozen=True)
class Stopped:
    """A candidate that was not worth finishing: how it looked and was read at a step, and the best of that step."""

    request: IllusionRequest
    views: tuple[Image.Image, ...]
    step: int
    score: float
    best: float

    @property
    def why(self) -> str:
        return (
            f"After {self.step} of {self.request.steps} steps its preview scored {self.score:.3f}; "
            f"the best of the same prompts had {self.best:.3f} at that step."
        )


@dataclass(frozen=True)
class IllusionResult:
    """Candidates best first, then those that were stopped; ``views`` are built for the picture's size."""

    request: IllusionRequest
    candidates: tuple[Candidate, ...]
    views: tuple[View, ...]
    scorer: str
    seconds: float
    evaluations: int
    notes: tuple[str, ...]
    stopped: tuple[Stopped, ...] = ()
    study: Study | None = None
    peak_memory: int | None = None  # bytes on the GPU, or of the whole process where there is none

    def save(self, folder: Path) -> dict[str, Any]:
        """Write pictures, grids and animations into ``folder``; returns the summary that goes to result.json."""
        saved = [self._save_candidate(folder, i, found) for i, found in enumerate(self.candidates)]
        if self.request.puzzle:
            saved[0]["puzzle"] = self._save_puzzle(folder / "candidate-0")
        return {
            "candidates": saved,
            "stopped": [self._save_stopped(folder, i, left) for i, left in enumerate(self.stopped)],
            "scorer": self.scorer,
            "seconds": round(self.seconds, 3),
            "evaluations": self.evaluations,
            "peak_memory": self.peak_memory,
            "notes": [*self.notes, *self._said()],
            "prompts": list(self._alone(self.candidates[0]).prompts),
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
        said += self._searched() + [f"{failure.title}: {failure.words}" for failure in best.failures]
        if best.weights is not None:
            shares = ", ".join(f"{share:.0%}" for share in best.weights)
            said.append(f"At the end of the run the views counted {shares}.")
        if best.upscaled is not None:
            said.append(best.upscaled.words)
        return said + (self.study.said() if self.study is not None else [])

    def _searched(self) -> list[str]:
        """What a search came to, in a sentence; nothing where nothing was compared."""
        tried = len(self.candidates) + len(self.stopped)
        said = [f"{len(self.stopped)} of {tried} candidates were stopped early."] if self.stopped else []
        if self.request.partners:
            best = self._alone(self.candidates[0]).prompts[-1]
            tries = len(dict.fromkeys((self.request.prompts[-1], *self.request.partners)))
            said.append(f"Of {tries} prompts for the last view, “{best}” went best with the others.")
        return said

    def _alone(self, found: Candidate) -> IllusionRequest:
        """The request that makes this very candidate alone."""
        own = {"seed": found.seed, "prompts": found.prompts or self.request.prompts}
        searched = {"candidates": 1, "partners": (), "stop_early": False, "adapter_study": False}
        return self.request.model_copy(update=own | searched)

    def _save_candidate(self, folder: Path, index: int, found: Candidate) -> dict[str, Any]:
        name = f"candidate-{index}"
        recipe = _recipe(self._alone(found))
        write_png(found.image, folder / f"{name}.png", recipe)
        view_files = [f"{name}-view-{i}.png" for i in range(len(found.views))]
        for picture, file in zip(found.views, view_files, strict=True):
            write_png(picture, folder / file, recipe)
        write_png(grid(found.views), folder / f"{name}-grid.png", recipe)
        return {
            "seed": found.seed,
            "prompts": list(self._alone(found).prompts),
            "image": f"{name}.png",
            "views": view_files,
            "grid": f"{name}-grid.png",
            **(self._save_moving(folder, name, found) if index < MOST_MOVING else {}),
            "alignment": round(found.alignment, 4),
            "concealment": round(found.concealment, 4),
            "similarities": [[round(value, 4) for value in row] for row in found.similarities],
            "weights": None if found.weights is None else [round(weight, 4) for weight in found.weights],
            "failures": [failure.summary() for failure in found.failures],
            "upscaled": None if found.upscaled is None else found.upscaled.summary(),
        }

    def _save_moving(self, folder: Path, name: str, found: Candidate) -> dict[str, str]:
        moving = frames(found.image, list(self.views), list(self._alone(found).prompts))
        save_webp(moving, folder / f"{name}.webp")
        save_gif(moving, folder / f"{name}.gif")
        return {"webp": f"{name}.webp", "gif": f"{name}.gif"}

    def _save_stopped(self, folder: Path, index: int, left: Stopped) -> dict[str, Any]:
        """Its picture carries the recipe that finishes it."""
        name = f"stopped-{index}.png"
        write_png(grid(left.views), folder / name, _recipe(left.request))
        return {
            "seed": left.request.seed,
            "prompts": list(left.request.prompts),
            "grid": name,
            "step": left.step,
            "score": round(left.score, 4),
            "best": round(left.best, 4),
            "why": left.why,
        }

    def _save_puzzle(self, stem: Path) -> dict[str, str]:
        """The best candidate's sheets; the file names by kind: a4, letter and svg."""
        best = self.candidates[0]
        readings = [
            Reading(prompt, view.title, seen)
            for prompt, view, seen in zip(self._alone(best).prompts, self.views, best.views, strict=True)
        ]
        return save_sheets(cut(self.views), best.image, readings, stem)


def _recipe(alone: IllusionRequest) -> dict[str, Any]:
    return {"version": 1, "engine": "illusion", "seed": alone.seed, "request": alone.model_dump(mode="json")}


def _figures(alignment: float, concealment: float) -> dict[str, float]:
    return {"alignment": round(alignment, 4), "concealment": round(concealment, 4)}


def _product(figures: tuple[float, float]) -> float:
    """What candidates are ranked by, of alignment and concealment."""
    return max(figures[0], 0.0) * figures[1]
