"""What can be said of an illusion before anything heavy is loaded: whether it can run, its cost, its name."""

from __future__ import annotations

from studio import passes
from studio.errors import RequestError, shortened
from studio.illusions import puzzle, reductions
from studio.illusions.admission import check_specs
from studio.illusions.request import IllusionRequest
from studio.illusions.specs import ViewSpec, parse_spec


def check(request: IllusionRequest) -> None:
    """Raises RequestError for views that are in no table, do not fit together, the reduction or a puzzle."""
    specs = _specs(request)
    reductions.resolve(request.reduction, check_specs(specs), request.weights)
    if request.puzzle:
        puzzle.check_specs(specs)


def evaluations(request: IllusionRequest) -> int:
    """How many rows the network will evaluate: distinct (view, prompt) pairs of each pass whose weight is not zero.

    With space=auto the model is measured before it is known where the views act; this is what their words tell.
    """
    specs = _specs(request)
    each = passes.expected(request.space, request.views, request.steps)
    by_view = [_rows(spec, prompt, request) for spec, prompt in zip(specs, request.prompts, strict=True)]
    if reductions.resolve(request.reduction, check_specs(specs), request.weights).weights == "turns":
        per_run = sum(len(by_view[step % len(by_view)]) for step in range(each))
    else:
        per_run = each * len(set().union(*by_view))
    return per_run * request.candidates


def headline(request: IllusionRequest) -> str:
    """What the job is called in lists."""
    return shortened(" / ".join(request.prompts), 120)


def _specs(request: IllusionRequest) -> list[ViewSpec]:
    specs = []
    for index, text in enumerate(request.views):
        try:
            specs.append(parse_spec(text))
        except RequestError as error:
            error.field = f"views.{index}"
            raise
    return specs


def _rows(spec: ViewSpec, prompt: str, request: IllusionRequest) -> set[tuple[str, str]]:
    """Guidance weighs the prompt with its scale and the negative prompt with one minus it."""
    prompted = {(spec.shown_as, prompt)} if request.guidance_scale != 0.0 else set()
    negative = {(spec.shown_as, request.negative_prompt)} if request.guidance_scale != 1.0 else set()
    return prompted | negative
