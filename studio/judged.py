"""What the policy's rules look at of each kind of request, so that they need not know the engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from studio import passes


class Illusion(Protocol):
    """What these rules look at of a request for an illusion."""

    model: str
    prompts: tuple[str, ...]
    negative_prompt: str
    views: tuple[str, ...]
    steps: int
    candidates: int
    partners: tuple[str, ...]
    upscale: int
    upscale_strength: float
    scorer: str
    size: int | None
    adapters: dict[str, str]
    adapter_study: bool
    space: passes.Space


class Merge(Protocol):
    """What these rules look at of a request for a merge."""

    models: tuple[str, ...]
    adapters: tuple[str, ...]
    parts: Mapping[str, str]
    rules: tuple[Any, ...]
    target: str


class Trials(Protocol):
    """What these rules look at of a request to draw with a merge. ``rows``: the network's, for a step of a prompt."""

    merge: Merge
    prompts: tuple[str, ...]
    negative_prompt: str
    steps: int
    scorer: str

    def rows(self, prompt: str) -> int: ...


class Strip(Trials, Protocol):
    """A preview of a merge, at each of the ``points`` of alpha."""

    points: tuple[float | None, ...]


class Search(Trials, Protocol):
    """A search for the best alphas."""

    seeds: int
    trials: int


class Train(Protocol):
    """What these rules look at of a request to train."""

    model: str
    data: str
    edits: str
    epochs: int | None
    resume: str
    cache: str
    trackers: tuple[str, ...]
    resolution: int | None
    sample_steps: int
    checkpoint_every: int
    earlier: tuple[str, ...]
    tasks: Sequence[Any]  # each with its own ``data``

    @property
    def evaluations(self) -> int: ...


class Caption(Protocol):
    """What these rules look at of a request for captions."""

    data: str
    model: str
    write: str


class Guidance(Protocol):
    """What these rules look at of a request to compare guidance. ``most_steps``: of one picture, in any column."""

    model: str
    prompts: tuple[str, ...]
    negative_prompt: str
    adapters: dict[str, str]
    extractor: str
    resume: str
    size: int | None
    most_steps: int
    cells: int
    evaluations: int
