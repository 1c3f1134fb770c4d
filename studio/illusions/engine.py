"""From a request to illusions: terms per view, one denoise loop, pictures, scores."""

from __future__ import annotations

import time

import torch

from studio.devices import PeakMemory
from studio.illusions import adapters, metrics, reductions, study
from studio.illusions.drawing import Drawing, Drawn, Picture
from studio.illusions.failures import diagnose
from studio.illusions.request import IllusionRequest
from studio.illusions.result import Candidate, IllusionResult
from studio.imaging import to_picture
from studio.models.clip import ClipScorer
from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore

SCORER = "builtin:clip"


def run(request: IllusionRequest, models: ModelStore, *, on_step: OnStep = ignore) -> IllusionResult:
    """Make ``request.candidates`` illusions, scored and ranked.

    Raises StudioError for views or models that cannot be used; whatever ``on_step`` raises stops the run.
    """
    start = time.perf_counter()
    adapters.check(request, models.assets, models.models_dir)
    steps = request.steps * request.candidates * len(study.settings(request))
    on_step(Step(0, steps, note="Loading the model", labels=request.prompts))
    peak = PeakMemory(models.device)
    columns = _draw(request, models, on_step)
    steps, evaluations = (sum(getattr(c.drawn, name) for c in columns) for name in ("steps", "evaluations"))
    on_step(Step(steps, steps, note="Scoring", evaluations=evaluations, labels=request.prompts))
    scored = models.with_model(SCORER, lambda scorer: tuple(_scored_column(column, scorer) for column in columns))
    asked = next(index for index, column in enumerate(columns) if study.asked_for(request, column.setting))
    drawing, found = columns[asked].drawn, scored[asked].cells
    return IllusionResult(
        request=request,
        candidates=tuple(sorted(found, key=lambda candidate: -candidate.score)),
        views=drawing.views,
        scorer=SCORER,
        seconds=time.perf_counter() - start,
        evaluations=evaluations,
        notes=drawing.notes,
        study=study.Study(request, scored, SCORER) if request.adapter_study else None,
        peak_memory=peak.bytes,
    )


def _draw(request: IllusionRequest, models: ModelStore, on_step: OnStep) -> tuple[study.Column, ...]:
    """The pictures, of each setting of a study; the scorer is at hand meanwhile when it is to weigh the views."""
    files = adapters.files(request, models.assets, models.models_dir)

    def draw(scorer: ClipScorer | None) -> tuple[study.Column, ...]:
        def drawn(network: Network) -> tuple[study.Column, ...]:
            with models.adapters(network, files):
                return study.draw(request, lambda own, step: Drawing(own, network, scorer, step).candidates(), on_step)

        return models.network(request.model, drawn)

    if not reductions.is_measured(request.reduction, request.weights):
        return draw(None)
    return models.with_model(SCORER, draw)


def _scored_column(column: study.Column, scorer: ClipScorer) -> study.Scored:
    setting, drawn = column.setting, column.drawn
    cells = tuple(_scored(setting.request, picture, scorer, drawn) for picture in drawn.pictures)
    return study.Scored(setting, cells, drawn.evaluations, column.seconds)


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
