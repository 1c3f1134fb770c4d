"""What can be said of a merge before a file is looked at: whether its settings fit together, and its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from studio.errors import RequestError, UnknownNameError, shortened
from studio.merging.catalogue import METHODS, Method, Options
from studio.merging.curves import curve_named
from studio.merging.request import MergeRequest
from studio.merging.sources import LETTERS
from studio.requests import own_options

if TYPE_CHECKING:
    from studio.settings import Settings

NEEDS = {"join": (0, 0, 1), "bake": (1, 1, 1), "extract": (2, 2, 0)}
"""Task -> least and most checkpoints, least LoRAs."""
ZIP_DRAWN = 160  # evaluations for each LoRA's own pictures, and to look at them before and after


def check(request: MergeRequest, settings: Settings | None = None) -> None:
    """Raises RequestError for a method, an alpha, options, parts or rules; no file is looked at."""
    if request.task == "checkpoints":
        _check_method(request)
    else:
        _check_counts(request)
    _check_zip(request)
    curve_named(request.curve)
    if request.blocks is not None and request.curve != "flat":
        raise RequestError("curve: the blocks have alphas of their own; leave out one of the two.", field="curve")
    for index, rule in enumerate(request.rules):
        _check_pattern(rule.keys, f"rules.{index}.keys")
    if request.task == "checkpoints":
        for part, action in request.parts.items():
            check_action(part, action, len(request.models))


def evaluations(request: MergeRequest) -> int:
    """A merge asks no network and counts as one; ZipLoRA draws, learns (forth and back is like three) and looks."""
    if request.join != "zip":
        return 1
    return len(request.adapters) * (ZIP_DRAWN + 4 * request.steps)


def headline(request: MergeRequest) -> str:
    """What the job is called in lists."""
    return shortened(request.title or _made_name(request), 120)


def file_name(request: MergeRequest) -> str:
    """The result's name without a suffix, safe for any disk."""
    return re.sub(r"[^\w.()+-]+", "-", request.title or _made_name(request)).strip("-.")[:80] or "merge"


def method_of(request: MergeRequest) -> Method:
    if request.method not in METHODS:
        raise UnknownNameError("method", request.method, METHODS, field="method")
    return METHODS[request.method]


def options_of(request: MergeRequest) -> Options:
    """The method's own settings; RequestError that names the one at fault."""
    return own_options(method_of(request).options, request.options, request.method)


def check_action(part: str, action: str, models: int) -> None:
    """merge, none, a model's letter, an alpha; for the VAE also a file."""
    if action in ("merge", "none") or part_alpha(action) is not None:
        return
    if action in LETTERS[:models] or (part == "vae" and action not in LETTERS):
        return
    raise RequestError(
        f"parts.{part}: {shortened(action)!r} is none of merge, none, {', '.join(LETTERS[:models])} "
        "or an alpha from -2 to 2.",
        field=f"parts.{part}",
    )


def part_alpha(action: str) -> float | None:
    """The alpha that an action is, if it is one."""
    try:
        value = float(action)
    except ValueError:
        return None
    return value if -2.0 <= value <= 2.0 else None


def _check_method(request: MergeRequest) -> None:
    method = method_of(request)
    options_of(request)
    least, most = method.models
    count = len(request.models)
    if request.adapters:
        raise RequestError("adapters: checkpoints are merged without LoRAs; choose the task bake.", field="adapters")
    if not least <= count <= most:
        needs = f"{least}" if least == most else f"{least} to {most}"
        raise RequestError(f"models: {method.title} needs {needs} checkpoints, got {count}.", field="models")
    if method.alpha is None:
        return
    low, high = method.alpha
    named = [("alpha", request.alpha), *((f"rules.{i}.alpha", rule.alpha) for i, rule in enumerate(request.rules))]
    named += [(f"blocks.{i}", value) for i, value in enumerate(request.blocks or ())]
    named += [(f"parts.{part}", part_alpha(action)) for part, action in request.parts.items()]
    for name, value in named:
        if value is not None and not low <= value <= high:
            raise RequestError(
                f"{name}: must lie from {low:g} to {high:g} for {method.title}, got {value:g}.", field=name
            )


def _check_counts(request: MergeRequest) -> None:
    least, most, adapters = NEEDS[request.task]
    count = len(request.models)
    if not least <= count <= most and request.task != "join":
        what = {"bake": "bake needs one checkpoint", "extract": "extract needs two checkpoints"}[request.task]
        raise RequestError(f"models: {what}, got {count}.", field="models")
    if len(request.adapters) < adapters:
        raise RequestError(f"adapters: {request.task} needs at least one LoRA; name its file.", field="adapters")
    if request.task == "extract" and request.adapters:
        raise RequestError("adapters: extract takes checkpoints only; leave the LoRAs out.", field="adapters")
    if request.task == "extract" and request.rank is None:
        raise RequestError("rank: extract needs a rank, such as 32.", field="rank")


def _check_zip(request: MergeRequest) -> None:
    """The settings of ZipLoRA, and that nothing else has any of them."""
    if request.join != "zip":
        if request.prompts:
            raise RequestError("prompts: only join zip learns from prompts; leave them out.", field="prompts")
        return
    if request.task != "join":
        raise RequestError("join: zip is a way to join LoRAs; choose the task join.", field="join")
    count = len(request.adapters)
    if count < 2:
        raise RequestError(f"adapters: zip needs at least two LoRAs, got {count}.", field="adapters")
    if len(request.prompts) != count:
        raise RequestError(
            f"prompts: zip needs a prompt for each of the {count} LoRAs, got {len(request.prompts)}.", field="prompts"
        )
    if not request.models:
        raise RequestError("models: zip needs the checkpoint that the LoRAs were made for, as A.", field="models")
    if 0.0 in request.scales:
        raise RequestError(
            "weights: a LoRA of weight 0 does nothing that could be kept; leave it out.", field="weights"
        )


def _check_pattern(pattern: str, field: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise RequestError(
            f"{field}: {shortened(pattern)!r} is no regular expression ({error}).", field=field
        ) from None


def _made_name(request: MergeRequest) -> str:
    stems = [re.split(r"[/\\:]", name.rstrip("/\\"))[-1].removesuffix(".safetensors") for name in _sources(request)]
    how = f"{request.method}-{request.alpha:g}" if request.task == "checkpoints" else request.task
    how = "zip" if request.join == "zip" else how
    return f"{'+'.join(stems)} {how}"


def _sources(request: MergeRequest) -> tuple[str, ...]:
    return {"join": request.adapters, "bake": (*request.models, *request.adapters)}.get(request.task, request.models)
