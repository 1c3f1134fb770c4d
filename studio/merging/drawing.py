"""Pictures of a merge and of its parents: one prompt and one seed at a time, by the one loop, on whatever network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from studio.devices import seeded_noise
from studio.imaging import to_picture
from studio.merging.trials_request import Trials
from studio.models.clip import ClipScorer
from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.progress import OnStep, Step
from studio.sampling import Predictor, Route, Upright, build_scheduler, denoise, guidance

SCHEDULER = "ddim"
Rows = list[list[Tensor]]


class Course:
    """Where a run of many pictures stands: steps and evaluations over all of them, said to ``on_step``."""

    def __init__(self, on_step: OnStep, pictures: int, steps: int) -> None:
        self.on_step, self.pictures, self.steps = on_step, pictures, steps
        self.drawn, self.evaluations = 0, 0
        self.note, self.label = "", ""

    def say(self, note: str) -> None:
        """Tell what is being done between pictures; whatever ``on_step`` raises stops the run."""
        self.on_step(self._at(Step(0, 0, note=note)))

    def reporting(self, network: Network) -> OnStep:
        """The loop's ``on_step`` for the next picture."""
        before = self.evaluations

        def report(step: Step) -> None:
            self.evaluations = before + step.evaluations
            clean = step.clean
            shown = dataclasses.replace(
                self._at(step), pictures=lambda: (_preview(network, clean),), labels=(self.label,)
            )
            self.on_step(shown)

        return report

    def _at(self, step: Step) -> Step:
        return dataclasses.replace(
            step,
            index=self.drawn * self.steps + step.index,
            total=self.pictures * self.steps,
            note=step.note or self.note,
            evaluations=self.evaluations,
        )


class Artist:
    """Draws a request's pictures with one network after the other, all in the same way."""

    def __init__(self, request: Trials, course: Course) -> None:
        self.request, self.course = request, course
        self.notes: dict[str, None] = {}  # what memory made different, in sentences

    def drawing(self, seeds: Sequence[int], note: str) -> Callable[[Network], Rows]:
        """Work for a network: a picture (3 x H x W in [-1, 1]) for every prompt (rows) and seed (columns).

        One after the other: in a batch the last bits of a picture would depend on how many others were drawn with it.
        """
        first = self.course.drawn

        def draw(network: Network) -> Rows:
            self.course.drawn, self.course.note = first, note  # a second attempt with more memory begins anew
            side = network.cells(None) * network.factor
            predict = Predictor.for_run(network, side, 2, self.course.say)
            rows = []
            for prompt in self.request.prompts:
                self.course.label = f"{prompt}, {note}"
                rows.append([self._picture(network, predict, prompt, seed) for seed in seeds])
            self.notes |= dict.fromkeys(predict.notes())
            return rows

        return draw

    @torch.inference_mode()
    def _picture(self, network: Network, predict: Predictor, prompt: str, seed: int) -> Tensor:
        request, cells = self.request, network.cells(None)
        terms = guidance(prompt, request.negative_prompt, request.guidance_scale, 1.0, Upright())
        noise = seeded_noise((1, network.channels, cells, cells), seed, network.device)
        scheduler = build_scheduler(SCHEDULER, network.scheduler_config, request.steps, network.device)
        report = self.course.reporting(network)
        latents = denoise(network, scheduler, lambda step, sigma: terms, noise, report, Route(predict=predict))
        pixels = network.decode(latents)[0].cpu()
        self.course.drawn += 1
        return pixels


def alignments(models: ModelStore, scorer: str, rows: Rows, prompts: Sequence[str]) -> list[list[float]]:
    """The cosine of every picture with its own prompt, as alignment is of an illusion with one view.

    NaN for pixels that are not finite.
    """

    def read(clip: ClipScorer) -> list[list[float]]:
        with torch.inference_mode():
            texts = clip.text_features(prompts)
            return [(clip.features(torch.stack(row)) @ text).tolist() for row, text in zip(rows, texts, strict=True)]

    return models.scorer(scorer, read)


def picture_of(pixels: Tensor) -> Image.Image:
    """The pixels as a picture, grey where they are not finite."""
    return to_picture(torch.nan_to_num(pixels))


def _preview(network: Network, clean: Tensor) -> Image.Image:
    return picture_of((clean[0].clamp(-1, 1) if network.in_pixels else network.preview(clean[:1])[0]).cpu())
