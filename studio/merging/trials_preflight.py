"""What can be said of a strip or a search before a file is looked at: whether it can run, its cost, its name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from studio.errors import RequestError, StudioError, shortened
from studio.merging import preflight
from studio.merging.request import MergeRequest
from studio.merging.trials_request import SearchRequest, StripRequest, Trials, at_alpha

if TYPE_CHECKING:
    from studio.settings import Settings

MOST_WEIGHT = 10.0  # of a LoRA
LEAST_RANGE = 0.05  # of alpha: with less, trials would lie closer than their alphas are rounded


def check(request: Trials, settings: Settings | None = None) -> None:
    """Raises RequestError for a merge that draws nothing, and for alphas that its method does not know."""
    merge = request.merge
    if merge.task not in ("checkpoints", "bake"):
        raise RequestError(
            f"merge.task: {merge.task} makes a LoRA, which draws nothing by itself; bake it into a checkpoint, or "
            "choose checkpoints.",
            field="merge.task",
        )
    with inside_merge():
        preflight.check(merge)
    if isinstance(request, SearchRequest):
        _check_search(request)
    elif isinstance(request, StripRequest):
        _check_alphas(merge, {f"alphas.{index}": alpha for index, alpha in enumerate(request.alphas)})


def evaluations(request: Trials) -> int:
    """How many rows the network will evaluate. A search that ends before its last trial evaluates fewer."""
    once = request.steps * sum(map(request.rows, request.prompts))
    if isinstance(request, SearchRequest):
        return once * request.seeds * request.trials
    return once * (len(set(request.merge.models)) + len(request.points)) if isinstance(request, StripRequest) else once


def headline(request: Trials) -> str:
    """What the job is called in lists."""
    name = preflight.headline(request.merge)
    if isinstance(request, SearchRequest):
        return shortened(f"Best {request.over} of {name}", 120)
    return shortened(f"Preview of {name}", 120)


@contextlib.contextmanager
def inside_merge() -> Iterator[None]:
    """What is wrong with the merge, said with the name that its fields have inside this request.

    A store knows of one model only, which here is what all of the merge's make.
    """
    try:
        yield
    except StudioError as error:
        words, field = str(error), error.field
        if field is not None and words.startswith(f"{field}:"):
            error.args = (f"merge.{words}",)
        error.field = "merge" if field is None else "merge.models" if field == "model" else f"merge.{field}"
        raise


def _check_search(request: SearchRequest) -> None:
    merge = request.merge
    if request.high - request.low < LEAST_RANGE:
        raise RequestError(
            f"high: must be at least {LEAST_RANGE:g} above low, which is {request.low:g}; got {request.high:g}.",
            field="high",
        )
    if request.over == "blocks":
        if merge.task == "bake":
            raise RequestError("over: LoRAs are baked without block alphas; search over alpha.", field="over")
        if request.strategy == "grid":
            raise RequestError(
                "strategy: a grid over all blocks would take thousands of trials; choose coordinate or bayes.",
                field="strategy",
            )
    _check_alphas(merge, {"low": request.low, "high": request.high}, blocks_are_free=request.over == "blocks")


def _check_alphas(merge: MergeRequest, named: dict[str, float], *, blocks_are_free: bool = False) -> None:
    """Whether the merge can be made with each of these alphas, named by their fields."""
    if not named:
        return
    first = next(iter(named))
    if merge.blocks is not None and not blocks_are_free:
        raise RequestError(
            f"{first}: the merge's blocks have alphas of their own; leave out one of the two.", field="merge.blocks"
        )
    if merge.task == "bake":
        _check_weights(merge, named)
        return
    method = preflight.method_of(merge)
    if method.alpha is None:
        raise RequestError(f"{first}: {method.title} has no alpha; choose another method.", field="merge.method")
    low, high = method.alpha
    for field, alpha in named.items():
        if not low <= alpha <= high:
            raise RequestError(
                f"{field}: must lie from {low:g} to {high:g} for {method.title}, got {alpha:g}.", field=field
            )


def _check_weights(merge: MergeRequest, named: dict[str, float]) -> None:
    for field, alpha in named.items():
        largest = max(map(abs, at_alpha(merge, alpha).scales))
        if largest > MOST_WEIGHT:
            raise RequestError(
                f"{field}: {alpha:g} times the LoRAs' weights is up to {largest:g}, and at most {MOST_WEIGHT:g} is "
                "possible; choose less.",
                field=field,
            )
