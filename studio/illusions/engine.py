"""From a request to illusions: terms per view, one denoise loop, pictures, scores."""

from __future__ import annotations

import time

import torch

from studio.devices import PeakMemory
from studio.illusions import metrics, reductions
from studio.illusions.drawing import Drawing, Drawn, Picture
from studio.illusions.failures import diagnose
from studio.illusions.request import IllusionRequest
from studio.illusions.result import Candidate, IllusionResult
from studio.imaging import to_picture
from studio.models.clip import ClipScorer
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore

SCORER = "builtin:clip"


def run(request: IllusionRequest, models: ModelStore, *, on_step: OnStep = ignore) -> IllusionResult:
    """Make ``request.candidates`` illusions, scored and ranked.

    Raises StudioError for views or models that cannot be used; whatever ``on_step`` raises stops the run.
    """
    start = time.perf_counter()
    on_step(Step(0, request.steps * request.candidates, note="Loading the model", labels=request.prompts))
    peak = PeakMemory(models.device)
    drawing = _draw(request, models, on_step)
    on_step(Step(drawing.steps, drawing.steps, note="Scoring", evaluations=drawing.evaluations, labels=request.prompts))
    found = models.with_model(SCORER, lambda scorer: [_scored(request, p, scorer, drawing) for p in drawing.pictures])
    return IllusionResult(
        request=request,
        candidates=tuple(sorted(found, key=lambda candidate: -candidate.score)),
        views=drawing.views,
        scorer=SCORER,
        seconds=time.perf_counter() - start,
        evaluations=drawing.evaluations,
        notes=drawing.notes,
        peak_memory=peak.bytes,
    )


def _draw(request: IllusionRequest, models: ModelStore, on_step: OnStep) -> Drawn:
    """The pictures; the scorer is at hand meanwhile when it is to weigh the views."""

    def draw(scorer: ClipScorer | None) -> Drawn:
        return models.network(request.model, lambda network: Drawing(request, network, scorer, on_step).candidates())

    if not reductions.is_measured(request.reduction, request.weights):
        return draw(None)
    return models.with_model(SCORER, draw)


def _scored(request: IllusionRequest, drawn: Picture, scorer: ClipScorer, drawing: Drawn) -> Candidate:
    seen = [view.picture(drawn.pixels) for view in drawing.views]
    with torch.inference_mode():
        similarities = scorer.similarities(torch.stack(seen), request.prompts)
    return Candidate(
        seed=drawn.seed,
        image=to_picture(drawn.pixels),
        views=tuple(to_picture(view) for view in seen),
        alignment=metrics.alignment(similarities),
        concealment=metrics.concealment(similarities, scorer.temperature),
        similarities=tuple(tuple(row) for row in similarities.tolist()),
        score=metrics.score(similarities, scorer.temperature),
        weights=drawn.weights,
        failures=diagnose(drawn.noise, similarities, scorer.temperature, request.prompts),
    )
