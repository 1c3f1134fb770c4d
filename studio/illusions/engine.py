"""From a request to illusions: terms per view, one denoise loop, pictures, scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.illusions import course, metrics, reductions
from studio.illusions.drawing import Drawing, Drawn, Picture, Unfinished
from studio.illusions.failures import diagnose
from studio.illusions.request import IllusionRequest
from studio.illusions.result import Candidate, IllusionResult, Stopped, Upscaled
from studio.illusions.views import View
from studio.imaging import to_picture
from studio.models.clip import ClipScorer
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore

SCORER = "builtin:clip"


def run(request: IllusionRequest, models: ModelStore, *, on_step: OnStep = ignore) -> IllusionResult:
    """Make every illusion that ``request`` tries, scored and ranked.

    Raises StudioError for views or models that cannot be used; whatever ``on_step`` raises stops the run.
    """
    begun = time.perf_counter()
    steps = course.work(request) * len(course.tries(request))
    on_step(Step(0, steps, note="Loading the model", labels=request.prompts))
    if request.scorer != SCORER:
        models.scorer(request.scorer, lambda scorer: None)  # what cannot be loaded is refused before the work
    drawing = _draw(request, models, on_step)
    on_step(Step(drawing.steps, drawing.steps, note="Scoring", evaluations=drawing.evaluations, labels=request.prompts))
    found = models.scorer(request.scorer, lambda scorer: [_scored(p, scorer, drawing) for p in drawing.pictures])
    return IllusionResult(
        request=request,
        candidates=tuple(sorted(found, key=lambda candidate: -candidate.score)),
        stopped=tuple(sorted((_listed(p, drawing) for p in drawing.stopped), key=lambda stopped: -stopped.score)),
        views=drawing.views,
        scorer=request.scorer,
        seconds=time.perf_counter() - begun,
        evaluations=drawing.evaluations,
        notes=drawing.notes,
    )


def _draw(request: IllusionRequest, models: ModelStore, on_step: OnStep) -> Drawn:
    """The pictures; the scorer is at hand meanwhile when it is to weigh the views or to stop candidates."""

    def draw(scorer: ClipScorer | None) -> Drawn:
        return models.network(request.model, lambda network: Drawing(request, network, scorer, on_step).candidates())

    if not (request.stop_early or reductions.is_measured(request.reduction, request.weights)):
        return draw(None)
    return models.scorer(request.scorer, draw)


def _scored(drawn: Picture, scorer: ClipScorer, drawing: Drawn) -> Candidate:
    tau = scorer.temperature

    def read(pixels: Tensor, views: Sequence[View]) -> Reading:
        return _read(pixels, views, drawn.request, scorer)

    best, upscaled = read(drawn.pixels, drawing.views), None
    if drawn.small is not None:
        before, grown = read(drawn.small, drawing.small_views), read(drawn.grown, drawing.views)
        upscaled = Upscaled(before.figures(tau), best.figures(tau), grown.figures(tau))
        best = best if upscaled.is_drawn else grown
    alignment, concealment = best.figures(tau)
    return Candidate(
        seed=drawn.request.seed,
        prompts=drawn.request.prompts,
        image=to_picture(best.pixels),
        views=tuple(to_picture(view) for view in best.seen),
        alignment=alignment,
        concealment=concealment,
        similarities=tuple(tuple(row) for row in best.similarities.tolist()),
        score=metrics.score(best.similarities, tau),
        weights=drawn.weights,
        failures=diagnose(drawn.noise, best.similarities, tau, drawn.request.prompts),
        upscaled=upscaled,
    )


@dataclass(frozen=True)
class Reading:
    """A picture (3 x H x W), what each view makes of it, and how like every prompt that is (N x N)."""

    pixels: Tensor
    seen: tuple[Tensor, ...]
    similarities: Tensor

    def figures(self, temperature: float) -> tuple[float, float]:
        """Alignment and concealment."""
        return metrics.alignment(self.similarities), metrics.concealment(self.similarities, temperature)


def _read(pixels: Tensor, views: Sequence[View], request: IllusionRequest, scorer: ClipScorer) -> Reading:
    seen = tuple(view.picture(pixels) for view in views)
    with torch.inference_mode():
        return Reading(pixels, seen, scorer.similarities(torch.stack(seen), request.prompts))


def _listed(left: Unfinished, drawing: Drawn) -> Stopped:
    return Stopped(
        request=left.request,
        views=tuple(to_picture(view.picture(left.pixels)) for view in drawing.small_views),
        step=left.step,
        score=left.score,
        best=left.best,
    )
