"""The table of views, and the little language that names them: ``rotate_90``, ``jigsaw(seed=3)``, ``skew+negate``.

A view's text is ``name`` or ``name(parameter=value, ...)``; ``+`` does one after the other. A factorised part may come
first, followed by views that move it: ``low_pass+rotate_180`` is what stands on its head when seen from afar.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import ValidationError

from studio.errors import RequestError, UnknownNameError, shortened
from studio.views import components as parts
from studio.views import permutations as moves
from studio.views.components import Component
from studio.views.permutations import Parameters, Rearrangement

Kind = Literal["orthogonal", "component"]
Motion = Literal["none", "flip", "turn", "fade", "skew", "pieces", "discs", "hinge", "away", "shake"]

ANAGRAMS = "https://arxiv.org/abs/2311.17919"
FACTORISED = "https://arxiv.org/abs/2404.11615"
HYBRIDS = "https://doi.org/10.1145/1141911.1141919"


@dataclass(frozen=True)
class Entry:
    """One view: its words, what can be set, how it is built for a side of n cells and how it moves when animated."""

    name: str
    title: str
    help: str
    motion: Motion
    build: Callable[[Any, int], Rearrangement | Component]
    parameters: type[Parameters] = Parameters
    kind: Kind = "orthogonal"
    family: tuple[str, ...] = ()
    reference: str = ANAGRAMS


def _part(entry: str, *words: str, **settings: Any) -> Entry:
    return Entry(entry, *words, kind="component", build=getattr(parts, entry), **settings)


_DISTANCE = {"family": ("low_pass", "high_pass"), "parameters": parts.Blur, "reference": HYBRIDS}
_TRIPLE = {
    "family": ("triple_low", "triple_medium", "triple_high"),
    "parameters": parts.TripleBlur,
    "reference": FACTORISED,
}
_COLOUR = {"family": ("grayscale", "colour"), "reference": FACTORISED}
_MOVED = {"family": ("motion", "motion_residual"), "parameters": parts.Motion, "reference": FACTORISED}

VIEWS: tuple[Entry, ...] = (
    Entry("identity", "As it is", "The picture upright.", "none", moves.still),
    Entry("flip_vertical", "Upside down", "Mirrored top to bottom, as in water.", "flip", partial(moves.whole, 6)),
    Entry("flip_horizontal", "Mirrored", "Mirrored left to right.", "flip", partial(moves.whole, 4)),
    Entry("flip_diagonal", "Flipped at \\", "Rows become columns.", "flip", partial(moves.whole, 7)),
    Entry("flip_antidiagonal", "Flipped at /", "Rows become columns, from the end.", "flip", partial(moves.whole, 5)),
    Entry("rotate_90", "Quarter turn right", "Turned 90 degrees clockwise.", "turn", partial(moves.whole, 3)),
    Entry("rotate_180", "Half turn", "Turned on its head.", "turn", partial(moves.whole, 2)),
    Entry("rotate_270", "Quarter turn left", "Turned 90 degrees counter-clockwise.", "turn", partial(moves.whole, 1)),
    Entry("negate", "Negative", "Light becomes dark and every colour its opposite.", "fade", moves.negate),
    Entry(
        "channel_permutation",
        "Colours swapped",
        "Red, green and blue trade places.",
        "fade",
        moves.channel_permutation,
        moves.ChannelOrder,
    ),
    Entry("skew", "Skewed", "Every column slides down a little further than the last.", "skew", moves.skew, moves.Skew),
    Entry(
        "patch_permute",
        "Patches shuffled",
        "Square patches change places.",
        "pieces",
        moves.patch_permute,
        moves.Patches,
    ),
    Entry(
        "pixel_permute",
        "Everything shuffled",
        "Every cell moves to a random place.",
        "pieces",
        moves.pixel_permute,
        moves.Shuffle,
    ),
    Entry("jigsaw", "Jigsaw", "Puzzle pieces change places wherever they fit.", "pieces", moves.jigsaw, moves.Jigsaw),
    Entry(
        "inner_circle",
        "Inner circle",
        "A disc in the middle turns, the rest stays.",
        "discs",
        moves.inner_circle,
        moves.InnerCircle,
    ),
    Entry("rings", "Rings", "Concentric rings turn a quarter, left and right.", "discs", moves.rings, moves.Rings),
    Entry(
        "square_hinge",
        "Hinged squares",
        "Squares hinged at their corners turn a quarter.",
        "hinge",
        moves.square_hinge,
        moves.SquareHinge,
    ),
    _part("low_pass", "From afar", "What remains when the picture is far away or blurred.", "away", **_DISTANCE),
    _part("high_pass", "From near", "The fine detail that a viewer nearby sees.", "none", **_DISTANCE),
    _part("triple_low", "From afar, of three", "The coarsest of three distances.", "away", **_TRIPLE),
    _part("triple_medium", "From medium distance", "The middle one of three distances.", "away", **_TRIPLE),
    _part("triple_high", "From near, of three", "The finest of three distances.", "none", **_TRIPLE),
    _part("grayscale", "In gray", "What remains without colour, as in dim light.", "fade", **_COLOUR),
    _part("colour", "In colour", "What colour adds to the gray picture.", "none", **_COLOUR),
    _part("motion", "In motion", "What remains when the picture is moved quickly.", "shake", **_MOVED),
    _part("motion_residual", "At rest", "The detail that a movement smears away.", "none", **_MOVED),
)
ENTRIES: dict[str, Entry] = {entry.name: entry for entry in VIEWS}

_PLUS = re.compile(r"\+(?![^()]*\))")
_STEP = re.compile(r"\s*([\w-]*)\s*(?:\(([^()]*)\))?\s*")
_TYPES = {"integer": "a whole number", "number": "a number"}


@dataclass(frozen=True)
class StepSpec:
    """One named view with its settings; its text leaves out the settings that have their default."""

    name: str
    parameters: Parameters

    @property
    def entry(self) -> Entry:
        return ENTRIES[self.name]

    def __str__(self) -> str:
        changed = self.parameters.model_dump(exclude_defaults=True)
        settings = ",".join(f"{key}={_text(value)}" for key, value in changed.items())
        return f"{self.name}({settings})" if settings else self.name


@dataclass(frozen=True)
class ViewSpec:
    """Steps taken one after the other; ``str`` gives the canonical text that ``parse_spec`` reads back."""

    steps: tuple[StepSpec, ...]

    def __str__(self) -> str:
        return "+".join(map(str, self.steps))

    @property
    def title(self) -> str:
        return ", then ".join(step.entry.title for step in self.steps)

    @property
    def kind(self) -> Kind:
        return self.steps[0].entry.kind

    @property
    def family(self) -> tuple[str, ...]:
        """The names of the parts that sum to the whole picture, this one among them; empty for orthogonal views."""
        return self.steps[0].entry.family

    @property
    def shown_as(self) -> str:
        """Equal for views that show the network the same: all parts of one picture share one look at it."""
        return "+".join(str(step) for step in self.steps if step.entry.kind == "orthogonal") or "identity"


def parse_spec(text: str) -> ViewSpec:
    """Read a view's text; RequestError (field "views") says what is wrong with it and how to mend it."""
    steps = tuple(_parse_step(step) for step in _PLUS.split(text))
    for step in steps[1:]:
        if step.entry.kind == "component":
            others = "+".join(str(other) for other in steps if other is not step)
            raise RequestError(f"{step.name} has to come first: write {step}+{others}.", field="views")
    return ViewSpec(steps)


def _parse_step(text: str) -> StepSpec:
    match = _STEP.fullmatch(text)
    if match is None or not match[1]:
        raise RequestError(
            f"{shortened(text)!r} is not a view: write name, name(parameter=value) or several joined by +.",
            field="views",
        )
    name, settings = match[1], match[2] or ""
    if name not in ENTRIES:
        raise UnknownNameError("view", name, ENTRIES, field="views")
    return StepSpec(name, _parse_parameters(ENTRIES[name], settings))


def _parse_parameters(entry: Entry, text: str) -> Parameters:
    given = {}
    for setting in filter(str.strip, text.split(",")):
        key, equals, value = (part.strip() for part in setting.partition("="))
        if not equals:
            raise RequestError(f"{entry.name}: write {shortened(key)!r} as parameter=value.", field="views")
        if key not in entry.parameters.model_fields:
            raise _unknown_parameter(entry, key)
        if key in given:
            raise RequestError(f"{entry.name}: {key} is given twice; give it once.", field="views")
        given[key] = _value(value)
    try:
        return entry.parameters(**given)
    except ValidationError as error:
        raise RequestError(_out_of_bounds(entry, error), field="views") from None


def _unknown_parameter(entry: Entry, key: str) -> RequestError:
    known = entry.parameters.model_fields
    if not known:
        return RequestError(f"{entry.name} has nothing to set: leave out {shortened(key)!r}.", field="views")
    return UnknownNameError(f"parameter of {entry.name}", key, known, field="views")


def _out_of_bounds(entry: Entry, error: ValidationError) -> str:
    """One sentence for pydantic's first complaint, with the bounds of the parameter."""
    problem = error.errors()[0]
    if not problem["loc"]:
        return f"{entry.name}: {problem['ctx']['error']}."
    key = str(problem["loc"][0])
    return f"{entry.name}: {key} must be {bounds(entry, key)}, not {shortened(str(problem['input']))}."


def bounds(entry: Entry, key: str) -> str:
    """What a parameter may be, in words: ``a whole number from 2 to 16``."""
    schema = entry.parameters.model_json_schema()["properties"][key]
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    return f"{_TYPES[schema['type']]} from {schema['minimum']:g} to {_text(schema['maximum'])}"


def _value(text: str) -> int | float | str:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
