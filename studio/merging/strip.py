"""The same prompts and seed drawn by every checkpoint of a merge and by the merge, which is saved nowhere for it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from studio.errors import ModelFileError
from studio.merging import trials_preflight
from studio.merging.drawing import Artist, Course, Rows, alignments, picture_of
from studio.merging.fit import Plan
from studio.merging.in_memory import given, plan_of
from studio.merging.sources import LETTERS
from studio.merging.trials_preflight import inside_merge
from studio.merging.trials_request import StripRequest, at_alpha
from studio.merging.trials_result import Column, Strip
from studio.models.store import ModelStore
from studio.progress import OnStep, ignore


def run(request: StripRequest, models: ModelStore, *, on_step: OnStep = ignore) -> Strip:
    """The pictures of all columns: the checkpoints, then the merge at every alpha.

    A merge that fits nowhere, or whose file would be no model, is refused from headers, before anything is loaded.
    Models stay as they are: the merge is a network of its own, which is gone when it has drawn.
    """
    trials_preflight.check(request)
    return _Run(request, models, on_step).strip()


class _Run:
    """One strip: what is drawn so far, and how far it is."""

    def __init__(self, request: StripRequest, models: ModelStore, on_step: OnStep) -> None:
        self.request, self.models = request, models
        self.parents = dict.fromkeys(request.merge.models)
        pictures = (len(self.parents) + len(request.points)) * len(request.prompts)
        self.course = Course(on_step, pictures, request.steps)
        self.artist = Artist(request, self.course)
        self.notes: dict[str, None] = {}

    def strip(self) -> Strip:
        begun = time.perf_counter()
        self.course.say("Reading the headers")
        self._check()
        columns = [*self._parents(), *self._merges()]
        return Strip(
            request=self.request,
            columns=tuple(columns),
            seconds=time.perf_counter() - begun,
            evaluations=self.course.evaluations,
            notes=(*self.notes, *self.artist.notes),
        )

    def _check(self) -> None:
        """What the merge cannot be made or drawn for, from headers alone; and a scorer that cannot be loaded."""
        with inside_merge():
            plan = self._plan(self.request.points[0])
            with given(plan) as (made, _):
                self.models.given_bytes(made)
        self.notes |= dict.fromkeys(plan.notes)
        if self.request.merge.verify:
            self.notes["The sources' hashes are compared when the merge is saved, not for its preview."] = None
        if self.request.scorer:
            self.models.scorer(self.request.scorer, lambda scorer: None)

    def _plan(self, alpha: float | None) -> Plan:
        return plan_of(at_alpha(self.request.merge, alpha), self.models.assets, self.models.models_dir)

    def _parents(self) -> Iterator[Column]:
        """The checkpoints by their letters; what is no model by itself, such as one without a VAE, is left out."""
        drawn: dict[str, Column] = {}
        for letter, name in zip(LETTERS, self.request.merge.models, strict=False):
            if name not in drawn:
                column = self._parent(letter, name)
                if column is None:
                    continue
                drawn[name] = column
            yield Column(letter, f"{letter.upper()}: {name}", None, drawn[name].pictures, drawn[name].scores)

    def _parent(self, letter: str, name: str) -> Column | None:
        first = self.course.drawn
        self.course.say(f"Loading {letter.upper()}")
        try:
            with inside_merge():
                rows = self.models.network(name, self.artist.drawing([self.request.seed], letter.upper()))
        except ModelFileError as error:
            self.course.drawn = first + len(self.request.prompts)
            self.notes[f"{letter.upper()} is not drawn by itself: {error}"] = None
            return None
        return self._column(letter, name, None, rows)

    def _merges(self) -> Iterator[Column]:
        for alpha in self.request.points:
            note = "Merge" if alpha is None else f"alpha {alpha:g}"
            with inside_merge():
                plan = self._plan(alpha)
                with given(plan, lambda said=note: self.course.say(f"Merging, {said}")) as (made, faults):
                    rows = self.models.given(made, self.artist.drawing([self.request.seed], note))
                    self.notes |= dict.fromkeys(faults())
            yield self._column("merge", note, alpha, rows)

    def _column(self, letter: str, title: str, alpha: float | None, rows: Rows) -> Column:
        scores = [[math.nan]] * len(rows)
        if self.request.scorer:
            scores = alignments(self.models, self.request.scorer, rows, self.request.prompts)
        known = tuple(row[0] if math.isfinite(row[0]) else None for row in scores)
        return Column(letter, title, alpha, tuple(picture_of(row[0]) for row in rows), known)
