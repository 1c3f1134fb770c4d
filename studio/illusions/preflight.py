"""What can be said of an illusion before anything heavy is loaded: whether it can run, its cost, its name."""

from __future__ import annotations

from studio.errors import RequestError, shortened
from studio.illusions import course, puzzle, reductions
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
    """How many rows the network will evaluate: distinct (view, prompt) pairs of each step whose weight is not zero.

    With ``stop_early`` it is the most that it can come to.
    """
    specs = _specs(request)
    turns = reductions.resolve(request.reduction, check_specs(specs), request.weights).weights == "turns"
    taken = [*range(request.steps), *range(request.steps - course.second_steps(request), request.steps)]
    return sum(_run(specs, alone, taken, turns) for alone in course.tries(request))


def _run(specs: list[ViewSpec], alone: IllusionRequest, taken: list[int], turns: bool) -> int:
    """The rows of one picture over the steps ``taken``."""
    by_view = [_rows(spec, prompt, alone) for spec, prompt in zip(specs, alone.prompts, strict=True)]
    if turns:
        return sum(len(by_view[step % len(by_view)]) for step in taken)
    return len(taken) * len(set().union(*by_view))


def headline(request: IllusionRequest) -> str:
    """What the job is called in lists."""
    lasts = dict.fromkeys((request.prompts[-1], *request.partners))
    return shortened(" / ".join((*request.prompts[:-1], " or ".join(lasts))), 120)


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
