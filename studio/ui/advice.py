"""What the page says while a recipe is being written: its cost, and a word where a prompt or a value will not work."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studio.errors import RequestError, StudioError, nearest, shortened
from studio.illusions.request import IllusionRequest
from studio.illusions.specs import parse_spec
from studio.requests import parse
from studio.ui import words
from studio.ui.form import hint, problems
from studio.ui.markup import Markup, tag

if TYPE_CHECKING:
    from studio.workbench import Workbench

_ARTICLE = re.compile(r"^(a|an|the)\s+", re.IGNORECASE)


def cost_line(text: str) -> Markup:
    """The line under the primary button."""
    return tag("p", tag("span", text), tag("kbd", "Ctrl + Enter"), cls="cost")


def cost(workbench: Workbench, data: Mapping[str, Any]) -> Markup:
    """What the recipe will cost, or what is missing before that can be said."""
    if not all(prompt.strip() for prompt in data["prompts"]):
        return cost_line("Give every view a prompt.")
    try:
        request = parse(IllusionRequest, dict(data))
        estimate = workbench.estimate(request)
    except StudioError:
        return cost_line("One of the settings cannot be used yet.")
    factors = len(request.views), request.steps, request.candidates
    return cost_line(words.cost(*factors, estimate.evaluations, estimate.seconds))


def notes(data: Mapping[str, Any], known: Sequence[str], drawable: Sequence[str]) -> dict[str, Markup]:
    """Notes by field: values that cannot be used, and prompts that the built-in model has no picture of.

    A prompt that is still empty is no mistake yet.
    """
    found = {name: note for name, note in _mistakes(data, known).items() if not _is_empty_prompt(name, data)}
    for index, prompt in enumerate(data["prompts"]):
        name = f"prompts.{index}"
        if name not in found and drawable and prompt.strip() and not is_drawable(prompt, drawable):
            found[name] = unknown_prompt(prompt, index, drawable)
    return found


def is_drawable(prompt: str, drawable: Sequence[str]) -> bool:
    """Whether the prompt names one of the things that the model was taught."""
    text = f" {' '.join(re.findall(r'[\w-]+', prompt.lower()))} "
    return any(f" {name.lower()} " in text or f" {name.lower()}s " in text for name in drawable)


def unknown_prompt(prompt: str, index: int, drawable: Sequence[str]) -> Markup:
    """A hint with the nearest thing the model can draw, one click away."""
    bare = _ARTICLE.sub("", prompt.strip())
    near = nearest(bare.lower(), drawable) or next(filter(None, (nearest(w, drawable) for w in bare.lower().split())), None)
    said = f"This model was never shown “{shortened(bare, 30)}”."
    if near is None:
        return hint(f"{said} “What it can draw”, below, lists what it knows.")
    return hint(f"{said} Did you mean", tag("button", near, type="button", data_word=near, data_into=f"#prompt-{index}"))


def _mistakes(data: Mapping[str, Any], known: Sequence[str]) -> dict[str, Markup]:
    try:
        request = parse(IllusionRequest, dict(data))
    except RequestError as error:
        return problems(error, known)
    found: dict[str, Markup] = {}
    for index, view in enumerate(request.views):
        try:
            parse_spec(view)
        except StudioError as error:
            found |= problems(RequestError(str(error), field=f"views.{index}"), known)
    return found


def _is_empty_prompt(name: str, data: Mapping[str, Any]) -> bool:
    part, _, index = name.partition(".")
    return part == "prompts" and index.isdecimal() and not data["prompts"][int(index)].strip()
