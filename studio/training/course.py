"""What a run consists of: parts in which every step is alike, and whose pictures each of its passes sees.

A plain training is one part with one set of pictures, which goes by the name "".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from studio.models.networks import Network
from studio.progress import OnStep
from studio.sampling import Seen
from studio.training.feed import Feed
from studio.training.plan import Plan, split
from studio.training.preflight import planned
from studio.training.records import Dataset, Example
from studio.training.request import TrainRequest


@dataclass(frozen=True)
class Part:
    """``steps`` steps from step ``first`` on; each takes as many passes of every one of ``feeds`` (by task).

    ``begun`` passes of each feed came before. Meanwhile ``worn`` adapters (name -> scale) are in the network and
    learn; {} leaves the one adapter of a plain training as it is.
    """

    first: int
    steps: int
    feeds: Mapping[str, Feed]
    title: str = ""
    begun: int = 0
    worn: Mapping[str, float] = field(default_factory=dict)

    def passes(self, step: int, accumulation: int) -> list[tuple[Feed, int]]:
        """The passes of a step: a feed, and which of its batches."""
        start = self.begun + (step - self.first) * accumulation
        return [(feed, start + index) for index in range(accumulation) for feed in self.feeds.values()]


@dataclass(frozen=True)
class Look:
    """How a sample is drawn: through which view, and with which adapters ({}: as they are worn)."""

    view: Seen
    worn: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Course:
    """``feeds`` by task; ``parts`` one after the other. The last one's validation decides which step is best.

    ``adapters``: task -> what its adapter is called in the network; none for a plain training.
    """

    plan: Plan
    feeds: Mapping[str, Feed]
    parts: tuple[Part, ...]
    adapters: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def plain(cls, request: TrainRequest, network: Network, dataset: Dataset) -> Course:
        """One adapter, one set of pictures."""
        learn, kept = split(dataset.examples, request.validation_share, request.seed)
        feed = Feed(request, network, learn, kept)
        plan = planned(request, sum(example.repeats for example in learn), feed.batches, len(kept))
        return cls(plan, {"": feed}, (Part(0, plan.steps, {"": feed}),))

    @property
    def last(self) -> Part:
        return self.parts[-1]

    @property
    def examples(self) -> tuple[Example, ...]:
        """All that is learned from."""
        return tuple(chain.from_iterable(feed.examples for feed in self.feeds.values()))

    def at(self, step: int) -> Part:
        """The part that the step after ``step`` done ones belongs to."""
        return next((part for part in self.parts if step < part.first + part.steps), self.last)

    def ends(self, step: int) -> bool:
        """Whether a part is over after ``step`` steps."""
        return any(step == part.first + part.steps for part in self.parts)

    def prepare(self, folder: Path | None, on_step: OnStep) -> None:
        """Encode everything that is encoded once."""
        for feed in self.feeds.values():
            feed.prepare(folder, on_step)

    def looks(self, step: int) -> Iterator[Look]:
        """How the sample of each task is drawn after ``step`` steps; nothing for a plain training.

        Until all tasks are learned together each one's adapter is alone.
        """
        part = self.at(max(0, step - 1))
        for task, adapter in self.adapters.items():
            yield Look(self.feeds[task].view, part.worn if part is self.last else {adapter: 1.0})
