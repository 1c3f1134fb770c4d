"""The columns of a comparison: every guider at every point of the grid that makes a difference to it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from studio.errors import RequestError
from studio.guidance.guiders import GUIDERS
from studio.guidance.request import GuidanceRequest
from studio.guidance.settings import Settings

ALWAYS = ("lora_scale", "steps")  # what every guider's pictures depend on
WORDS = {"w": "w", "w1": "w1", "w2": "w2", "gamma": "γ", "lora_scale": "LoRA", "low": "from σ", "high": "to σ"}
WORDS |= {"agreement": "agreed at", "rescale": "φ", "eta": "η", "momentum": "β"}


@dataclass(frozen=True)
class Column:
    """One guider with its numbers. ``point`` holds those that the sweep gave it, by the names of the axes."""

    guider: str
    settings: Settings
    point: tuple[tuple[str, float], ...] = ()

    @property
    def title(self) -> str:
        where = ", ".join(f"{WORDS.get(name, name)} {value:g}" for name, value in self.point)
        return f"{GUIDERS[self.guider].title}{f' · {where}' if where else ''}"

    @property
    def steps(self) -> int:
        """Denoising steps of each picture."""
        return self.settings.steps * GUIDERS[self.guider].longer(self.settings)

    @property
    def drawn(self) -> dict[str, float | str]:
        """All that its pictures depend on: two columns of which this is the same draw the same."""
        heeded = (*GUIDERS[self.guider].heeds, "lora_scale")
        return {"guider": self.guider, "steps": self.steps} | {name: getattr(self.settings, name) for name in heeded}

    @property
    def most_evaluations(self) -> int:
        """Of one picture; those that look at the noise or at the answers may need fewer."""
        return self.steps * GUIDERS[self.guider].rows(self.settings)


def columns(request: GuidanceRequest) -> tuple[Column, ...]:
    """All columns in the order of the guiders, then of the grid. RequestError for a value out of its bounds."""
    points = [dict(point) for point in _points(request)]
    for point in points:
        _at(request.settings, point)
    return tuple(column for name in request.guiders for column in _of(name, request, points))


def _points(request: GuidanceRequest) -> Iterator[Iterator[tuple[str, float]]]:
    axes = [[(axis.setting, value) for value in axis.values] for axis in request.sweep]
    return (iter(point) for point in itertools.product(*axes))


def _of(name: str, request: GuidanceRequest, points: list[dict[str, float]]) -> Iterator[Column]:
    """A guider at every point that makes a difference to it."""
    entry, seen = GUIDERS[name], []
    named, counted = {*entry.heeds, *ALWAYS}, {*entry.heeds, *ALWAYS, *entry.lengthened_by}
    every = [_at(request.settings, _only(point, counted)) for point in points]
    if len({entry.longer(settings) for settings in every}) > 1:
        named = counted
    for point, settings in zip(points, every, strict=True):
        column = Column(name, settings, tuple(_only(point, named).items()))
        if column.drawn not in seen:
            seen.append(column.drawn)
            yield column


def _only(point: Mapping[str, float], names: set[str]) -> dict[str, float]:
    return {axis: value for axis, value in point.items() if _in(axis, names)}


def _in(axis: str, names: set[str]) -> bool:
    return bool({"w1", "w2"} & names) if axis == "w" else axis in names


def _at(settings: Settings, point: Mapping[str, float]) -> Settings:
    changes = {key: value for name, value in point.items() for key in (("w1", "w2") if name == "w" else (name,))}
    try:
        found = Settings.model_validate(settings.model_dump() | changes)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name, words = str(problem["loc"][0]), problem["msg"].replace("Input should be", "must be")
        raise RequestError(
            f"sweep: {name} {words}, got {problem['input']:g}; change that value.", field="sweep"
        ) from None
    if found.low > found.high:
        raise RequestError(
            f"sweep: one of its intervals is upside down ({found.low:g} to {found.high:g}); change that value.",
            field="sweep",
        )
    return found
