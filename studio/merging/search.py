"""A search for the alpha, or the alphas of all blocks, whose merge draws what a scorer reads best."""

from __future__ import annotations

import math
import time

from studio.errors import Cancelled, RequestError
from studio.imaging import grid
from studio.merging import curves, trials_preflight
from studio.merging.drawing import Artist, Course, alignments, picture_of
from studio.merging.fit import Plan
from studio.merging.in_memory import given, plan_of
from studio.merging.layout import block_names, blocks_of
from studio.merging.request import MergeRequest
from studio.merging.strategies import STRATEGIES, Point, Space
from studio.merging.trials_preflight import inside_merge
from studio.merging.trials_request import SearchRequest, at_alpha
from studio.merging.trials_result import SearchResult, Trial
from studio.models.store import ModelStore
from studio.progress import OnStep, ignore

ROUNDED = 4  # decimals of an alpha
WORST = -1.0  # the score of pictures that have none: what the network drew is not finite


def run(request: SearchRequest, models: ModelStore, *, on_step: OnStep = ignore) -> SearchResult:
    """All trials that were drawn, with the same prompts and seeds each, and which of them reads best.

    A stop ends it within a step, and ``Cancelled.kept`` then holds the trials that were finished before.
    """
    trials_preflight.check(request)
    return _Run(request, models, on_step).search()


class _Run:
    """One search: the trials so far, and how far it is."""

    def __init__(self, request: SearchRequest, models: ModelStore, on_step: OnStep) -> None:
        self.request, self.models = request, models
        self.seeds = [(request.seed + index) % 2**32 for index in range(request.seeds)]
        self.course = Course(on_step, request.trials * len(request.prompts) * len(self.seeds), request.steps)
        self.artist = Artist(request, self.course)
        self.trials: list[Trial] = []
        self.alphas: list[float] = []
        self.names: tuple[str, ...] = ()
        self.notes: dict[str, None] = {}
        self.begun = time.perf_counter()

    def search(self) -> SearchResult:
        self.course.say("Reading the headers")
        start = self._start()
        self._check(start)
        try:
            self._try_all(Space(self._unit(start), self.request.trials, self.request.seed))
            self.course.say("Ranking")  # a stop while the last trial was scored keeps them as well
        except (Cancelled, KeyboardInterrupt):
            if not self.trials:
                raise
            self.notes[f"Stopped after {len(self.trials)} of {self.request.trials} trials; these were kept."] = None
            raise Cancelled(kept=self._result()) from None
        return self._result()

    def _result(self) -> SearchResult:
        return SearchResult(
            request=self.request,
            trials=tuple(self.trials),
            alphas=tuple(self.alphas),
            block_names=self.names,
            seconds=time.perf_counter() - self.begun,
            evaluations=self.course.evaluations,
            notes=(*self.notes, *self.artist.notes),
        )

    def _try_all(self, space: Space) -> None:
        search = STRATEGIES[self.request.strategy](space)
        point = next(search)
        while len(self.trials) < self.request.trials:
            self._try(self._values(point))
            try:
                point = search.send(self.trials[-1].score)
            except StopIteration:
                break
        if len(self.trials) < self.request.trials:
            self.notes["The search came to an end before its last trial: smaller steps change nothing."] = None

    def _try(self, values: Point) -> None:
        """Draw and score the merge with these alphas."""
        merge, place = self._merge(values), len(self.trials) + 1
        where = f"alpha {values[0]:g}" if self.request.over == "alpha" else "block alphas"
        note = f"trial {place} of {self.request.trials}: {where}"
        with inside_merge():
            plan = self._plan(merge)
            with given(plan, lambda: self.course.say(f"Merging, {note}")) as (made, faults):
                rows = self.models.given(made, self.artist.drawing(self.seeds, note))
                self.notes |= dict.fromkeys(faults())
        read = alignments(self.models, self.request.scorer, rows, self.request.prompts)
        found = [score for row in read for score in row]
        score = sum(found) / len(found)
        picture = grid([picture_of(pixels) for row in rows for pixels in row], len(self.seeds))
        self.trials.append(Trial(place, merge, picture, score if math.isfinite(score) else WORST))
        self.alphas.append(values[0] if self.request.over == "alpha" else merge.alpha)

    def _merge(self, values: Point) -> MergeRequest:
        if self.request.over == "alpha":
            return at_alpha(self.request.merge, values[0])
        return self.request.merge.model_copy(update={"blocks": values, "curve": "flat"})

    def _plan(self, merge: MergeRequest) -> Plan:
        return plan_of(merge, self.models.assets, self.models.models_dir)

    def _start(self) -> Point:
        """The alphas that the merge itself asks for."""
        merge = self.request.merge
        with inside_merge():
            plan = self._plan(merge)
        self.notes |= dict.fromkeys(plan.notes)
        if self.request.over == "alpha":
            return (merge.alpha,) if merge.task == "checkpoints" else (1.0,)
        blocks = blocks_of(plan.sources[0].tensors)
        if not blocks:
            raise RequestError(
                f"over: {plan.sources[0].name} has no U-Net whose blocks could have alphas; search over alpha.",
                field="over",
            )
        self.names = tuple(block_names(blocks))
        given_or_curved = (
            curves.alphas(self.names, merge.curve, merge.alpha)
            if merge.blocks is None
            else curves.given(self.names, merge.blocks)
        )
        return tuple(given_or_curved.values())

    def _check(self, start: Point) -> None:
        """What the merge cannot be drawn for, from headers alone; and a scorer that cannot be loaded."""
        with inside_merge(), given(self._plan(self._merge(start))) as (made, _):
            self.models.given_bytes(made)
        self.models.scorer(self.request.scorer, lambda scorer: None)

    def _unit(self, values: Point) -> Point:
        low, high = self.request.low, self.request.high
        return tuple(min(1.0, max(0.0, (value - low) / (high - low))) for value in values)

    def _values(self, point: Point) -> Point:
        low, high = self.request.low, self.request.high
        return tuple(round(low + (high - low) * value, ROUNDED) for value in point)
