"""One request on one network: views built and checked, candidates denoised one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from studio.devices import seeded_noise
from studio.illusions import adapters, course, joining, metrics, picture_space, reductions, search, spaces, upscaling
from studio.illusions.failures import Noise, Watch
from studio.illusions.puzzle import cut
from studio.illusions.request import IllusionRequest
from studio.imaging import to_picture
from studio.models.clip import ClipScorer
from studio.models.networks import Network
from studio.passes import IN_PICTURES, NOWHERE
from studio.progress import OnStep, Step
from studio.sampling import Guider, Predictor, Route, Seen, Start, Term, build_scheduler, denoise, guidance
from studio.views.admission import admit, check_set, check_specs
from studio.views.view import View, build, parse_spec


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


@dataclasses.dataclass(frozen=True)
class Formed:
    """What one run of the loop made: the picture (3 x H x W), its noise, its last weights, and what it began from."""

    pixels: Tensor
    noise: Noise
    weights: tuple[float, ...] | None
    began_from: Tensor | None = None


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
        self.large = tuple(upscaling.enlarged(view, request.upscale) for view in self.views)
        self.travel = IN_PICTURES if self.space.in_pictures else NOWHERE
        tries = course.tries(request)
        self.alone, self.tries, self.race = tries[0], tries, search.Race(0.0 if scorer is None else scorer.temperature)
        self.course = course.Course(course.work(request, self.travel), len(tries))
        self._last = Step(0, self.course.total, labels=self.alone.prompts)
        side = self.cells * network.factor * request.upscale
        self.predict = Predictor.for_run(network, side, 2 * len(self.views), self._say)
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
                pixels = self._shown(seen.clean)[0] if self._shows_pixels else self._decoded(seen.clean)
                stopped.append(Unfinished(alone, pixels, step, seen.score, seen.best))
                self.course.stop(self._judged)
        return Drawn(
            pictures=tuple(pictures),
            stopped=tuple(stopped),
            views=tuple(build(view.spec, view.cells, view.cell * self.request.upscale) for view in self.views),
            small_views=self.views,
            evaluations=self.evaluations,
            steps=self.course.total,
            notes=(*self.notes, *self.predict.notes()),
        )

    def _draw(self) -> Picture:
        """The picture of ``alone``, at its own size and, if that is asked for, once more at a larger one."""
        first = self._formed(self.views)
        if self.request.upscale == 1:
            return Picture(self.alone, first.pixels, first.noise, first.weights)
        larger = upscaling.larger(first.pixels, self.request.upscale)
        second = self._formed(self.large, larger, first.weights)
        return Picture(self.alone, second.pixels, first.noise, second.weights, first.pixels, second.began_from)

    def _formed(
        self, views: Sequence[View], larger: Tensor | None = None, weights: Sequence[float] | None = None
    ) -> Formed:
        """One run of the loop, begun from the noised picture ``larger`` (1 x 3 x H x W) if there is one.

        ``weights`` are those to begin with.
        """
        form = self._formed_in_pictures if self.space.in_pictures else self._formed_in_codes
        return form(views, larger, weights)

    @torch.inference_mode()
    def _formed_in_pictures(
        self, views: Sequence[View], larger: Tensor | None, weights: Sequence[float] | None
    ) -> Formed:
        """The views act on decoded pictures: see ``picture_space``."""
        network, request = self.network, self.request
        by_view = view_terms(self.alone, picture_space.tracks(views))
        guider = picture_space.InPictures(network, views, by_view, self.reduction, weights or request.weights)
        guider.weigh = None if self.scorer is None else self._weigh
        noise = guider.noise_of(self.alone.seed, views[0].cells * views[0].cell // network.factor)
        start = None if larger is None else self._start(guider.codes_of(larger.to(network.device)))
        latents = self._denoised(guider, noise, start, lambda: guider.picture)
        weights = guider.weights if self.reduction.weighable else None
        pixels, began = guider.finished(latents).cpu(), None if start is None else guider.finished(start.clean).cpu()
        if start is None and self.course.number == 1:
            self.notes.append(f"For each candidate, {guider.cost(request.steps)}.")
        return Formed(pixels, guider.noise(), weights, began)

    @torch.inference_mode()
    def _formed_in_codes(self, views: Sequence[View], larger: Tensor | None, weights: Sequence[float] | None) -> Formed:
        network = self.network
        cells = views[0].cells * views[0].cell // network.factor
        noise = seeded_noise((1, network.channels, cells, cells), self.alone.seed, network.device)
        by_view = view_terms(self.alone, tuple(map(spaces.pixel_by_pixel, views)) if network.in_pixels else views)
        weigh = None if self.scorer is None else self._weigh
        guider = joining.guider(self.reduction, by_view, network.prediction, self.request.weights, weigh)
        if isinstance(guider, joining.Joint) and weights is not None:
            guider.weights = tuple(weights)
        together = self.reduction.kind == "orthogonal" and self.reduction.weights != "turns"
        watch = Watch(network.prediction, by_view if together else (), network.noise_scale)
        start = None if larger is None else self._start(network.encode(larger))
        latents = self._denoised(watch.over(guider), noise, start)
        weights = guider.weights if isinstance(guider, joining.Joint) else None
        began = None if start is None else self._decoded(start.clean)
        return Formed(self._decoded(latents), watch.noise(), weights, began)

    def _denoised(
        self, guider: Guider, noise: Tensor, start: Start | None, joined: Callable[[], Tensor | None] | None = None
    ) -> Tensor:
        """Clean latents; ``joined`` has the picture to show in place of the clean estimate's codes."""
        network, request = self.network, self.request
        if start is not None:
            guider = upscaling.anchored(guider, start.clean, request.upscale, network.prediction)
        scheduler = build_scheduler(request.scheduler, network.scheduler_config, request.steps, network.device)
        route = Route(start, dataclasses.replace(self.travel, seed=self.alone.seed), self.predict)
        latents = denoise(network, scheduler, guider, noise, self._reporting(start, joined), route)
        self.on_step(self._step(Step(0, 0, note="Decoding"), self._first if start is None else self.course.each))
        return latents

    def _start(self, code: Tensor) -> Start:
        return Start(code, self.request.steps - course.second_steps(self.request))

    @property
    def _first(self) -> int:
        """Passes at the request's own size."""
        return self.travel.passes(self.request.steps)

    @property
    def _judged(self) -> int:
        """The pass after which candidates are held against each other."""
        return self.travel.passes(self.request.steps, end=search.judged_step(self.request.steps))

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

    def _reporting(self, start: Start | None, joined: Callable[[], Tensor | None] | None) -> OnStep:
        """The loop's ``on_step``, for the run at the request's size or the one that has a start."""
        before = self.evaluations

        def report(step: Step) -> None:
            self.evaluations = before + step.evaluations
            step = step if joined is None else dataclasses.replace(step, clean=joined())
            passed = self._first + self.request.upscale**2 * step.index if start else step.index
            self._last = self._step(step, passed)
            self.on_step(self._last)
            if self.request.stop_early and start is None and step.index == self._judged < self._first:
                self._judge(step.clean)

        return report

    def _say(self, words: str) -> None:
        """Tell what the next step waits for."""
        self.on_step(dataclasses.replace(self._last, note=words))

    def _step(self, step: Step, passed: int) -> Step:
        """The loop's step, counted over all candidates, with previews that are drawn when somebody asks."""
        number = f"Candidate {self.course.number} of {self.course.tries}" if self.course.tries > 1 else ""
        larger = "at twice the size" if passed > self._first else ""
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

    @property
    def _shows_pixels(self) -> bool:
        """Whether clean estimates come as pictures."""
        return self.space.in_pictures or self.network.in_pixels

    def _shown(self, clean: Tensor) -> Tensor:
        """A clean estimate that comes as a picture (1 x 3 x H x W), within bounds."""
        return clean[:1].clamp(-1, 1).cpu()

    def _seen(self, clean: Tensor) -> list[Tensor]:
        """A cheap preview of the clean estimate (B x C x h x w; of its first picture), in every view."""
        if self._shows_pixels:
            pixels = self._shown(clean)[0]
            views = self.views if pixels.shape[-1] == self.views[0].cells * self.views[0].cell else self.large
            return [view.picture(pixels) for view in views]
        small = self.network.preview(clean[:1])[0].cpu()
        return [build(spec, self.cells, small.shape[-1] // self.cells).picture(small) for spec in self.request.views]


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
