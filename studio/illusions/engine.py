"""From a request to illusions: terms per view, one denoise loop, pictures, scores."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from studio.devices import seeded_noise
from studio.illusions import metrics
from studio.illusions.admission import admit, check_set, resolve_reduction
from studio.illusions.carrying import check_carried
from studio.illusions.request import IllusionRequest
from studio.illusions.result import Candidate, IllusionResult
from studio.illusions.views import View, build
from studio.imaging import to_picture
from studio.models.clip import ClipScorer
from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.progress import OnStep, Step, ignore
from studio.sampling import Guider, Term, build_scheduler, denoise, guidance

SCORER = "builtin:clip"


def run(request: IllusionRequest, models: ModelStore, *, on_step: OnStep = ignore) -> IllusionResult:
    """Make ``request.candidates`` illusions, scored and ranked.

    Raises StudioError for views or models that cannot be used; whatever ``on_step`` raises stops the run.
    """
    start = time.perf_counter()
    on_step(Step(0, request.steps * request.candidates, note="Loading the model", labels=request.prompts))
    drawing = models.network(request.model, lambda network: _Drawing(request, network, on_step).candidates())
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
    )


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Pictures (3 x H x W in [-1, 1]) by seed, the views at picture size, and what it took."""

    pictures: tuple[tuple[int, Tensor], ...]
    views: tuple[View, ...]
    evaluations: int
    steps: int
    notes: tuple[str, ...]


class _Drawing:
    """One request on one network: views built, checked, and the candidates denoised one after the other."""

    def __init__(self, request: IllusionRequest, network: Network, on_step: OnStep) -> None:
        self.request, self.network, self.on_step = request, network, on_step
        self.cells = network.cells(request.size)
        self.views = tuple(build(spec, self.cells, network.factor) for spec in request.views)
        self.reduction = resolve_reduction(request.reduction, check_set(self.views))
        for view in self.views:
            admit(view)
        self.notes = check_carried(self.views, network)
        self.evaluations = 0

    def candidates(self) -> Drawn:
        seeds = [(self.request.seed + i) % 2**32 for i in range(self.request.candidates)]
        pictures = tuple((seed, self._draw(index, seed)) for index, seed in enumerate(seeds))
        steps = self.request.steps * len(seeds)
        return Drawn(pictures, self.views, self.evaluations, steps, self.notes)

    def _draw(self, index: int, seed: int) -> Tensor:
        network = self.network
        noise = seeded_noise((1, network.channels, self.cells, self.cells), seed, network.device)
        scheduler = build_scheduler(
            self.request.scheduler, network.scheduler_config, self.request.steps, network.device
        )
        latents = denoise(network, scheduler, self._guider(), noise, self._reporting(index, self.evaluations))
        self.on_step(self._step(Step((index + 1) * self.request.steps, 0, note="Decoding"), 0, self.evaluations))
        with torch.inference_mode():
            return network.decode(latents)[0].cpu()

    def _guider(self) -> Guider:
        by_view = view_terms(self.request, self.views, self.reduction)
        if self.reduction == "alternate":
            return lambda step, sigma: by_view[step % len(by_view)]
        every = [term for terms in by_view for term in terms]
        return lambda step, sigma: every

    def _reporting(self, index: int, before: int) -> OnStep:
        def report(step: Step) -> None:
            self.evaluations = before + step.evaluations
            self.on_step(self._step(step, index * self.request.steps, self.evaluations))

        return report

    def _step(self, step: Step, done: int, evaluations: int) -> Step:
        """The loop's step, counted over all candidates, with previews that are drawn when somebody asks."""
        candidates = self.request.candidates
        note = step.note or (f"Candidate {done // self.request.steps + 1} of {candidates}" if candidates > 1 else "")
        clean = step.clean
        return dataclasses.replace(
            step,
            index=done + step.index,
            total=self.request.steps * candidates,
            note=note,
            evaluations=evaluations,
            pictures=None if clean is None else lambda: self._previews(clean),
            labels=self.request.prompts,
        )

    def _previews(self, clean: Tensor) -> tuple[Image.Image, ...]:
        small = self.network.preview(clean[:1])[0].cpu()
        scale = self.network.preview_scale
        return tuple(to_picture(build(spec, self.cells, scale).picture(small)) for spec in self.request.views)


def view_terms(request: IllusionRequest, views: Sequence[View], reduction: str) -> list[list[Term]]:
    """Each view's guidance terms: weight 1/N for the mean, 1 for the sum of components and for alternating views."""
    weight = 1 / len(views) if reduction == "mean" else 1.0
    return [
        guidance(prompt, request.negative_prompt, request.guidance_scale, weight, view)
        for prompt, view in zip(request.prompts, views, strict=True)
    ]


def _scored(request: IllusionRequest, drawn: tuple[int, Tensor], scorer: ClipScorer, drawing: Drawn) -> Candidate:
    seed, picture = drawn
    seen = [view.picture(picture) for view in drawing.views]
    with torch.inference_mode():
        similarities = scorer.similarities(torch.stack(seen), request.prompts)
    return Candidate(
        seed=seed,
        image=to_picture(picture),
        views=tuple(to_picture(view) for view in seen),
        alignment=metrics.alignment(similarities),
        concealment=metrics.concealment(similarities, scorer.temperature),
        similarities=tuple(tuple(row) for row in similarities.tolist()),
        score=metrics.score(similarities, scorer.temperature),
    )
