"""What the page says while a recipe is being written: its cost, and a word where a prompt or a value will not work."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studio import passes
from studio.errors import StudioError, nearest, shortened
from studio.ui import words
from studio.ui.desk import ENGINE
from studio.ui.form import hint, problems
from studio.ui.markup import Markup, tag

if TYPE_CHECKING:
    from studio.workbench import Workbench

_WORD = re.compile(r"[\w-]+")
MOST_READ = 400  # characters of a prompt that are compared with the model's words


def cost_line(text: str) -> Markup:
    """The line under the primary button."""
    return tag("p", text, cls="cost")


def cost(workbench: Workbench, data: Mapping[str, Any]) -> Markup:
    """What the recipe will cost, or what is missing before that can be said."""
    if not all(prompt.strip() for prompt in data["prompts"]):
        return cost_line("Give every view a prompt.")
    try:
        request = workbench.request(ENGINE, dict(data))
        estimate = workbench.estimate(request)
    except StudioError:
        return cost_line("One of the settings cannot be used.")
    steps = passes.expected(request.space, request.views).passes(request.steps)
    factors = len(request.views), steps, request.candidates
    return cost_line(words.cost(*factors, estimate.evaluations, estimate.seconds))


def notes(
    workbench: Workbench, data: Mapping[str, Any], known: Sequence[str], *, refused: bool = False
) -> dict[str, Markup]:
    """Notes by field: hints, and values that cannot be used.

    A prompt that is still empty is no mistake yet, unless just this recipe was ``refused``.
    """
    try:
        workbench.request(ENGINE, dict(data))
    except StudioError as error:
        wrong = problems(error, known)
    else:
        wrong = {}
    wrong = {name: note for name, note in wrong.items() if refused or not _is_empty_prompt(name, data)}
    return hints(workbench, data) | wrong


def hints(workbench: Workbench, data: Mapping[str, Any]) -> dict[str, Markup]:
    """A note by every prompt that the built-in model has no picture of."""
    drawable = workbench.drawable(data["model"])
    asked = [prompt.strip()[:MOST_READ] for prompt in data["prompts"]] if drawable else []
    return {
        f"prompts.{index}": unknown_prompt(prompt, index, drawable)
        for index, prompt in enumerate(asked)
        if prompt and not is_drawable(prompt, drawable)
    }


def is_drawable(prompt: str, drawable: Sequence[str]) -> bool:
    """Whether the prompt names one of the things that the model was taught, alone or as several."""
    text = f" {' '.join(_WORD.findall(prompt.lower()))} "
    return any(f" {name.lower()}{ending} " in text for name in drawable for ending in ("", "s", "es"))


def unknown_prompt(prompt: str, index: int, drawable: Sequence[str]) -> Markup:
    """A hint with the nearest thing the model can draw, one click away."""
    near = nearest_thing(prompt, drawable)
    said = f"This model has never seen “{shortened(prompt, 30)}”."
    if near is None:
        return hint(f"{said} “What it can draw”, below, lists what it knows.")
    use = tag("button", near, type="button", data_word=near, data_into=f"#prompt-{index}")
    return hint(f"{said} Use", use)


def nearest_thing(prompt: str, drawable: Sequence[str]) -> str | None:
    """The thing whose name is most like one of the prompt's words, or None when none is near."""
    found = [(word, thing) for word in _WORD.findall(prompt.lower()) if (thing := nearest(word, drawable))]
    return max(found, key=lambda pair: difflib.SequenceMatcher(None, *pair).ratio())[1] if found else None


def _is_empty_prompt(name: str, data: Mapping[str, Any]) -> bool:
    part, _, index = name.partition(".")
    return part == "prompts" and index.isdecimal() and not data["prompts"][int(index)].strip()
