"""From a request to illusions: terms per view, one denoise loop, pictures, scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.devices import PeakMemory
from studio.illusions import course, metrics, reductions, study
from studio.illusions.drawing import Drawing, Drawn, Picture, Unfinished
from studio.illusions.failures import diagnose
from studio.illusions.request import IllusionRequest
from studio.illusions.result import Candidate, IllusionResult, Stopped, Upscaled
from studio.imaging import to_picture
from studio.models import kinds, wearing
from studio.models.clip import ClipScorer
from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore
from studio.views.view import View

SCORER = "builtin:clip"


def run(request: IllusionRequest, models: ModelStore, *, on_step: OnStep = ignore) -> IllusionResult:
    """Make every illusion that ``request`` tries, scored and ranked.

    Raises StudioError for views or models that cannot be used; whatever ``on_step`` raises stops the run.
    """
    begun = time.perf_counter()
    kinds.check_draws(request.model, models.assets, models.models_dir)
    kinds.check_scores(request.scorer, models.assets, models.models_dir)
    wearing.check(request.adapters, request.model, models.assets, models.models_dir)
    steps = course.expected(request) * len(study.settings(request))
    on_step(Step(0, steps, note="Loading the model", labels=request.prompts))
    if request.scorer != SCORER:
        models.scorer(request.scorer, lambda scorer: None)  # what cannot be loaded is refused before the work
    peak = PeakMemory(models.device)
    columns = _draw(request, models, on_step)
    steps, evaluations = (sum(getattr(c.drawn, name) for c in columns) for name in ("steps", "evaluations"))
    on_step(Step(steps, steps, note="Scoring", evaluations=evaluations, labels=request.prompts))
    scored = models.scorer(request.scorer, lambda scorer: tuple(_scored_column(column, scorer) for column in columns))
    asked = next(index for index, column in enumerate(columns) if study.asked_for(request, column.setting))
    drawing, found = columns[asked].drawn, scored[asked].cells
    return IllusionResult(
        request=request,
        candidates=tuple(sorted(found, key=lambda candidate: -candidate.score)),
        stopped=tuple(sorted((_listed(p, drawing) for p in drawing.stopped), key=lambda stopped: -stopped.score)),
        views=drawing.views,
        scorer=request.scorer,
        seconds=time.perf_counter() - begun,
        evaluations=evaluations,
        notes=drawing.notes,
        study=study.Study(request, scored, request.scorer) if request.adapter_study else None,
        peak_memory=peak.bytes,
    )


def _draw(request: IllusionRequest, models: ModelStore, on_step: OnStep) -> tuple[study.Column, ...]:
    """The pictures, of each setting of a study.

    The scorer is at hand meanwhile when it is to weigh the views or to stop candidates.
    """
    files = wearing.files(request.adapters, models.assets, models.models_dir)

    def draw(scorer: ClipScorer | None) -> tuple[study.Column, ...]:
        def drawn(network: Network) -> tuple[study.Column, ...]:
            with models.adapters(network, files):
                return study.draw(request, lambda own, step: Drawing(own, network, scorer, step).candidates(), on_step)

        return models.network(request.model, drawn)

    if not (request.stop_early or reductions.is_measured(request.reduction, request.weights)):
        return draw(None)
    return models.scorer(request.scorer, draw)


def _scored_column(column: study.Column, scorer: ClipScorer) -> study.Scored:
    cells = tuple(_scored(picture, scorer, column.drawn) for picture in column.drawn.pictures)
    return study.Scored(column.setting, cells, column.drawn.evaluations, column.seconds)


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
