"""Every cell of a comparison on one network: one prompt and one seed at a time, all columns from the same noise."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from studio.devices import seeded_noise
from studio.guidance.cells import Cell, Cells, Spot
from studio.guidance.guiders import GUIDERS
from studio.guidance.terms import FACTORIES, Cast
from studio.imaging import to_picture
from studio.models.networks import Network
from studio.progress import OnStep, Step
from studio.sampling import Predictor, Route, build_scheduler, denoise

MOST_SHOWN = 12  # pictures of a row that are sent while it forms


class Drawing:
    """``draw`` fills ``cells``; what ``on_step`` raises stops it, and what was drawn stays."""

    def __init__(self, cells: Cells, on_step: OnStep) -> None:
        self.cells, self.request, self.columns, self.on_step = cells, cells.request, cells.columns, on_step
        seeds = range(self.request.seed, self.request.seed + self.request.seeds)
        spots = itertools.product(range(len(self.request.prompts)), seeds, range(len(self.columns)))
        self.spots = tuple(Spot(*spot) for spot in spots)
        self.total = sum(self.columns[spot.column].steps for spot in self.spots)
        self.done = self.evaluations = 0
        self.notes: tuple[str, ...] = ()

    def draw(self, network: Network) -> None:
        """All pictures that no earlier run has drawn."""
        self.done = self.evaluations = 0
        side = network.cells(self.request.size) * network.factor
        rows = max(GUIDERS[column.guider].rows(column.settings) for column in self.columns)
        predict = Predictor.for_run(network, side, rows, self._say)
        for spot in self.spots:
            if spot not in self.cells and not self.cells.take_over(spot):
                self.cells.keep(spot, self._cell(network, predict, spot))
            self.done += self.columns[spot.column].steps
        self.notes = predict.notes()

    @torch.inference_mode()
    def _cell(self, network: Network, predict: Predictor, spot: Spot) -> Cell:
        """Alone, not in a batch with others, whose number its last bits would depend on."""
        column, request = self.columns[spot.column], self.request
        cells = network.cells(request.size)
        noise = seeded_noise((1, network.channels, cells, cells), spot.seed, network.device)
        scheduler = build_scheduler(request.scheduler, network.scheduler_config, column.steps, network.device)
        prompt = request.prompts[spot.prompt]
        cast = Cast(prompt, request.negative_prompt, request.worn, column.settings, network.prediction)
        begun, before = time.perf_counter(), self.evaluations

        def report(step: Step) -> None:
            self.evaluations = before + step.evaluations
            self.on_step(self._reported(step, network, spot))

        latents = denoise(network, scheduler, FACTORIES[column.guider](cast), noise, report, Route(predict=predict))
        picture = to_picture(network.decode(latents)[0].cpu())
        return Cell(picture, self.evaluations - before, time.perf_counter() - begun)

    def _reported(self, step: Step, network: Network, spot: Spot) -> Step:
        clean = step.clean
        around = self._shown(spot)
        return dataclasses.replace(
            step,
            index=self.done + step.index,
            total=self.total,
            note=self._note(spot),
            evaluations=self.evaluations,
            pictures=lambda: tuple(self._pictures(around, spot, network, clean)),
            labels=tuple(self.columns[each].title for each in around),
        )

    def _note(self, spot: Spot) -> str:
        parts = [self.columns[spot.column].title]
        if len(self.request.prompts) > 1:
            parts.append(f"prompt {spot.prompt + 1} of {len(self.request.prompts)}")
        if self.request.seeds > 1:
            parts.append(f"seed {spot.seed}")
        return ", ".join(parts)

    def _shown(self, spot: Spot) -> range:
        """The columns around the one that forms, which all have to fit on a page."""
        count = len(self.columns)
        first = max(0, min(spot.column - MOST_SHOWN // 2, count - MOST_SHOWN))
        return range(first, min(count, first + MOST_SHOWN))

    def _pictures(self, around: range, spot: Spot, network: Network, clean: Tensor | None) -> Iterator[Image.Image]:
        """The row as it stands: finished, forming, and grey for what is to come."""
        for column in around:
            done = self.cells.get(dataclasses.replace(spot, column=column))
            if done is not None:
                yield done.picture
            elif column == spot.column and clean is not None:
                shown = clean[0].clamp(-1, 1) if network.in_pixels else network.preview(clean[:1])[0]
                yield to_picture(shown.cpu())
            else:
                yield Image.new("RGB", (8, 8), (128, 128, 128))

    def _say(self, words: str) -> None:
        self.on_step(Step(self.done, self.total, note=words, evaluations=self.evaluations))
