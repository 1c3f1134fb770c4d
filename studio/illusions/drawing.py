"""One request on one network: views built and checked, candidates denoised one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from studio.devices import seeded_noise
from studio.illusions import course, joining, metrics, reductions, search, upscaling
from studio.illusions.admission import admit, check_set
from studio.illusions.carrying import check_carried
from studio.illusions.failures import Noise, Watch
from studio.illusions.puzzle import cut
from studio.illusions.request import IllusionRequest
from studio.illusions.views import View, build
from studio.imaging import to_picture
from studio.models.clip import ClipScorer
from studio.models.networks import Network
from studio.progress import OnStep, Step
from studio.sampling import Start, Term, build_scheduler, denoise, guidance


@dataclasses.dataclass(frozen=True)
class Picture:
    """One drawn picture (3 x H x W in [-1, 1]) and what was measured while it formed.

    ``request`` makes it alone. With upscaling ``pixels`` are those drawn over at the larger size, ``small`` what it was
    before, and ``grown`` the same made larger by the autoencoder alone.
    """

    request: IllusionRequest
    pixels: Tensor
    noise: Noise
    weights: tuple[float, ...] | None
    small: Tensor | None = None
    grown: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """A candidate that was stopped: what it was becoming (3 x H x W), and its score against the best at that step."""

    request: IllusionRequest
    pixels: Tensor
    step: int
    score: float
    best: float


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Pictures, the views at picture size (``small_views`` before upscaling), and what it took."""

    pictures: tuple[Picture, ...]
    stopped: tuple[Unfinished, ...]
    views: tuple[View, ...]
    small_views: tuple[View, ...]
    evaluations: int
    steps: int
    notes: tuple[str, ...]


class Drawing:
    """One request on one network: views built, checked, and the candidates denoised one after the other."""

    def __init__(self, request: IllusionRequest, network: Network, scorer: ClipScorer | None, on_step: OnStep) -> None:
        self.request, self.network, self.scorer, self.on_step = request, network, scorer, on_step
        self.cells = network.cells(request.size)
        self.views = self._built(1)
        self.reduction = reductions.resolve(request.reduction, check_set(self.views), request.weights)
        for view in self.views:
            admit(view)
        if request.puzzle:
            cut(self.views)
        self.notes = check_carried(self.views, network)
        self.large = tuple(upscaling.enlarged(view, request.upscale) for view in self.views)
        tries = course.tries(request)
        self.alone, self.tries, self.race = tries[0], tries, search.Race(0.0 if scorer is None else scorer.temperature)
        self.course = course.Course(course.work(request), len(tries))
        self.evaluations = 0

    def candidates(self) -> Drawn:
        """Every try, finished or stopped early."""
        pictures, stopped = [], []
        for alone in self.tries:
            self.alone = alone
            try:
                pictures.append(self._draw())
                self.course.finish()
            except search.Stopped as seen:
                step = search.judged_step(self.request.steps)
                stopped.append(Unfinished(alone, self._decoded(seen.clean), step, seen.score, seen.best))
                self.course.stop(step)
        views, steps = self._built(self.request.upscale), self.course.total
        return Drawn(tuple(pictures), tuple(stopped), views, self.views, self.evaluations, steps, self.notes)

    def _draw(self) -> Picture:
        """The picture of ``alone``, at its own size and, if that is asked for, once more at a larger one."""
        latents, noise, weights = self._denoised(self.views)
        self.on_step(self._step(Step(0, 0, note="Decoding"), self.request.steps))
        pixels = self._decoded(latents)
        if self.request.upscale == 1:
            return Picture(self.alone, pixels, noise, weights)
        first = self.request.steps - course.second_steps(self.request)
        start = Start(upscaling.grown(self.network, pixels, self.request.upscale), first)
        latents, _, weights = self._denoised(self.large, start, weights)
        self.on_step(self._step(Step(0, 0, note="Decoding"), self.course.each))
        return Picture(self.alone, self._decoded(latents), noise, weights, pixels, self._decoded(start.clean))

    def _denoised(
        self, views: Sequence[View], start: Start | None = None, weights: Sequence[float] | None = None
    ) -> tuple[Tensor, Noise, tuple[float, ...] | None]:
        """Latents, what was measured of their noise, and the last weights; ``weights`` are those to begin with."""
        request, network = self.request, self.network
        noise = seeded_noise((1, network.channels, *[views[0].cells] * 2), self.alone.seed, network.device)
        scheduler = build_scheduler(request.scheduler, network.scheduler_config, request.steps, network.device)
        by_view = view_terms(self.alone, views)
        weigh = None if self.scorer is None else self._weigh
        guider = joining.guider(self.reduction, by_view, network.prediction, request.weights, weigh)
        if isinstance(guider, joining.Joint) and weights is not None:
            guider.weights = tuple(weights)
        together = self.reduction.kind == "orthogonal" and self.reduction.weights != "turns"
        watch = Watch(network.prediction, by_view if together else ())
        watched = watch.over(guider)
        if start is not None:
            watched = upscaling.anchored(watched, start.clean, request.upscale, network.prediction)
        latents = denoise(network, scheduler, watched, noise, self._reporting(start), start)
        return latents, watch.noise(), guider.weights if isinstance(guider, joining.Joint) else None

    def _decoded(self, latents: Tensor) -> Tensor:
        with torch.inference_mode():
            return self.network.decode(latents)[0].cpu()

    def _weigh(self, clean: Tensor, step: int) -> tuple[float, ...]:
        """``joining.Weigh``: what the scorer reads in the cheap preview of every view, once that tells anything."""
        share = (step + 1) / self.request.steps
        if share <= joining.WEIGHED_FROM:
            return (1 / len(self.views),) * len(self.views)
        similarities = self.scorer.similarities(torch.stack(self._seen(clean)), self.alone.prompts)
        own = similarities.diagonal().tolist()
        return joining.balanced(own, self.scorer.temperature, share)

    def _judge(self, clean: Tensor) -> None:
        """Raises ``search.Stopped`` for a candidate that is not worth finishing."""
        similarities = self.scorer.similarities(torch.stack(self._seen(clean)), self.alone.prompts)
        self.race.judge(self.alone.prompts, metrics.score(similarities, self.scorer.temperature), clean)

    def _reporting(self, start: Start | None) -> OnStep:
        """The loop's ``on_step``, for the pass at the request's size or the one that has a start."""
        before, judged = self.evaluations, search.judged_step(self.request.steps)

        def report(step: Step) -> None:
            self.evaluations = before + step.evaluations
            passed = self.request.steps + self.request.upscale**2 * step.index if start else step.index
            self.on_step(self._step(step, passed))
            if self.request.stop_early and start is None and step.index == judged < self.request.steps:
                self._judge(step.clean)

        return report

    def _step(self, step: Step, passed: int) -> Step:
        """The loop's step, counted over all candidates, with previews that are drawn when somebody asks."""
        number = f"Candidate {self.course.number} of {self.course.tries}" if self.course.tries > 1 else ""
        larger = "at twice the size" if passed > self.request.steps else ""
        note = step.note or ", ".join(part for part in (number, larger) if part)
        clean = step.clean
        return dataclasses.replace(
            step,
            index=self.course.done + passed,
            total=self.course.total,
            note=note,
            evaluations=self.evaluations,
            pictures=None if clean is None else lambda: self._previews(clean),
            labels=self.alone.prompts,
        )

    def _previews(self, clean: Tensor) -> tuple[Image.Image, ...]:
        return tuple(to_picture(seen) for seen in self._seen(clean))

    def _seen(self, clean: Tensor) -> list[Tensor]:
        """A cheap preview of the clean estimate (B x C x h x w; of its first picture), in every view."""
        small = self.network.preview(clean[:1])[0].cpu()
        return [build(spec, self.cells, small.shape[-1] // self.cells).picture(small) for spec in self.request.views]

    def _built(self, times: int) -> tuple[View, ...]:
        """The views of pictures ``times`` as wide as the request's own."""
        return tuple(build(spec, self.cells, self.network.factor * times) for spec in self.request.views)


def view_terms(request: IllusionRequest, views: Sequence[View]) -> list[list[Term]]:
    """Each view's guidance terms, of weight 1 together."""
    return [
        guidance(prompt, request.negative_prompt, request.guidance_scale, 1.0, view)
        for prompt, view in zip(request.prompts, views, strict=True)
    ]
