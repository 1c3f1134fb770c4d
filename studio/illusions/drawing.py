"""One request on one network: views built and checked, candidates denoised one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from studio.devices import seeded_noise
from studio.illusions import adapters, joining, picture_space, reductions, spaces
from studio.illusions.admission import admit, check_set, check_specs
from studio.illusions.failures import Noise, Watch
from studio.illusions.puzzle import cut
from studio.illusions.request import IllusionRequest
from studio.illusions.views import View, build, parse_spec
from studio.imaging import to_picture
from studio.models.clip import ClipScorer
from studio.models.networks import Network
from studio.passes import IN_PICTURES, NOWHERE
from studio.progress import OnStep, Step
from studio.sampling import Predictor, Seen, Term, build_scheduler, denoise, guidance


@dataclasses.dataclass(frozen=True)
class Picture:
    """One drawn picture (3 x H x W in [-1, 1]) and what was measured while it formed."""

    seed: int
    pixels: Tensor
    noise: Noise
    weights: tuple[float, ...] | None


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Pictures, the views at picture size, and what it took."""

    pictures: tuple[Picture, ...]
    views: tuple[View, ...]
    evaluations: int
    steps: int
    notes: tuple[str, ...]


class Drawing:
    """One request on one network: views built, checked, and the candidates denoised one after the other."""

    def __init__(self, request: IllusionRequest, network: Network, scorer: ClipScorer | None, on_step: OnStep) -> None:
        self.request, self.network, self.scorer, self.on_step = request, network, scorer, on_step
        self.cells = network.cells(request.size)
        kind = check_specs([parse_spec(spec) for spec in request.views])
        self.reduction = reductions.resolve(request.reduction, kind, request.weights)
        self.space = spaces.choose(request.space, request.views, network, self.cells)
        self.views, self.notes = self.space.views, list(self.space.notes)
        check_set(self.views)
        for view in self.views:
            admit(view)
        if request.puzzle:
            cut(self.views)
        self.travel = IN_PICTURES if self.space.in_pictures else NOWHERE
        self.passes = self.travel.passes(request.steps)
        self._last = Step(0, self.passes * request.candidates, labels=request.prompts)
        self.predict = Predictor.for_run(network, self.cells * network.factor, 2 * len(self.views), self._say)
        self.evaluations = 0

    def candidates(self) -> Drawn:
        seeds = [(self.request.seed + i) % 2**32 for i in range(self.request.candidates)]
        pictures = tuple(self._draw(index, seed) for index, seed in enumerate(seeds))
        notes = (*self.notes, *self.predict.notes())
        return Drawn(pictures, self.views, self.evaluations, self.passes * len(seeds), notes)

    def _draw(self, index: int, seed: int) -> Picture:
        draw = self._draw_in_pictures if self.space.in_pictures else self._draw_in_codes
        return draw(index, seed)

    def _draw_in_pictures(self, index: int, seed: int) -> Picture:
        """The views act on decoded pictures: see ``picture_space``."""
        network, request = self.network, self.request
        by_view = view_terms(request, picture_space.tracks(self.views))
        guider = picture_space.InPictures(network, self.views, by_view, self.reduction, request.weights)
        guider.weigh = None if self.scorer is None else self._weigh
        noise = guider.noise_of(seed, self.cells)
        report = self._reporting(index, self.evaluations, lambda: guider.picture)
        travel = dataclasses.replace(self.travel, seed=seed)
        latents = denoise(network, self._scheduler(), guider, noise, report, travel, self.predict)
        self._decoding(index)
        with torch.inference_mode():
            pixels = guider.finished(latents).cpu()
        if not index:
            self.notes.append(f"For each candidate, {guider.cost(request.steps)}.")
        return Picture(seed, pixels, guider.noise(), guider.weights if self.reduction.weighable else None)

    def _draw_in_codes(self, index: int, seed: int) -> Picture:
        network = self.network
        noise = seeded_noise((1, network.channels, self.cells, self.cells), seed, network.device)
        acting = tuple(map(spaces.pixel_by_pixel, self.views)) if network.in_pixels else self.views
        by_view = view_terms(self.request, acting)
        weigh = None if self.scorer is None else self._weigh
        guider = joining.guider(self.reduction, by_view, network.prediction, self.request.weights, weigh)
        together = self.reduction.kind == "orthogonal" and self.reduction.weights != "turns"
        watch = Watch(network.prediction, by_view if together else (), network.noise_scale)
        report = self._reporting(index, self.evaluations)
        latents = denoise(network, self._scheduler(), watch.over(guider), noise, report, predict=self.predict)
        self._decoding(index)
        with torch.inference_mode():
            pixels = network.decode(latents)[0].cpu()
        weights = guider.weights if isinstance(guider, joining.Joint) else None
        return Picture(seed, pixels, watch.noise(), weights)

    def _scheduler(self) -> Any:
        return build_scheduler(
            self.request.scheduler, self.network.scheduler_config, self.request.steps, self.network.device
        )

    def _decoding(self, index: int) -> None:
        self.on_step(self._step(Step((index + 1) * self.passes, 0, note="Decoding"), 0, self.evaluations))

    def _weigh(self, clean: Tensor, step: int) -> tuple[float, ...]:
        """``joining.Weigh``: what the scorer reads in the cheap preview of every view."""
        similarities = self.scorer.similarities(torch.stack(self._seen(clean)), self.request.prompts)
        own = similarities.diagonal().tolist()
        return joining.balanced(own, self.scorer.temperature, (step + 1) / self.request.steps)

    def _reporting(self, index: int, before: int, joined: Callable[[], Tensor | None] | None = None) -> OnStep:
        """Counts over all candidates; ``joined`` has the picture to show in place of the clean estimate's codes."""

        def report(step: Step) -> None:
            self.evaluations = before + step.evaluations
            step = step if joined is None else dataclasses.replace(step, clean=joined())
            self._last = self._step(step, index * self.passes, self.evaluations)
            self.on_step(self._last)

        return report

    def _say(self, words: str) -> None:
        """Tell what the next step waits for."""
        self.on_step(dataclasses.replace(self._last, note=words))

    def _step(self, step: Step, done: int, evaluations: int) -> Step:
        """The loop's step, counted over all candidates, with previews that are drawn when somebody asks."""
        candidates = self.request.candidates
        note = step.note or (f"Candidate {done // self.passes + 1} of {candidates}" if candidates > 1 else "")
        clean = step.clean
        return dataclasses.replace(
            step,
            index=done + step.index,
            total=self.passes * candidates,
            note=note,
            evaluations=evaluations,
            pictures=None if clean is None else lambda: self._previews(clean),
            labels=self.request.prompts,
        )

    def _previews(self, clean: Tensor) -> tuple[Image.Image, ...]:
        return tuple(to_picture(seen) for seen in self._seen(clean))

    def _seen(self, clean: Tensor) -> list[Tensor]:
        """A cheap preview of the clean estimate (B x C x h x w; of its first picture), in every view.

        Where views act on pictures, the estimate is one (1 x 3 x H x W).
        """
        if self.space.in_pictures or self.network.in_pixels:
            return [view.picture(clean[0].clamp(-1, 1).cpu()) for view in self.views]
        small = self.network.preview(clean[:1])[0].cpu()
        scale = self.network.preview_scale
        return [build(spec, self.cells, scale).picture(small) for spec in self.request.views]


def view_terms(request: IllusionRequest, views: Sequence[Seen]) -> list[list[Term]]:
    """Each view's guidance terms, of weight 1 together, with the adapters it wears."""
    bare = [
        guidance(prompt, request.negative_prompt, request.guidance_scale, 1.0, view)
        for prompt, view in zip(request.prompts, views, strict=True)
    ]
    return [
        [dataclasses.replace(term, adapters=worn) for term in terms]
        for terms, worn in zip(bare, adapters.worn(request), strict=True)
    ]
