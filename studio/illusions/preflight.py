"""What can be said of an illusion before anything heavy is loaded: whether it can run, its cost, its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from studio import passes
from studio.errors import RequestError, shortened
from studio.illusions import adapters, course, puzzle, reductions, study
from studio.illusions.request import IllusionRequest
from studio.models import kinds, wearing
from studio.views.admission import check_specs
from studio.views.specs import ViewSpec, parse_spec

if TYPE_CHECKING:
    from studio.settings import Settings


def check(request: IllusionRequest, settings: Settings | None = None) -> None:
    """Raises RequestError for views that are in no table, do not fit together, the reduction or a puzzle.

    With ``settings``, which say where models lie, also ModelError for a scorer as the model, for a scorer that is none,
    and for adapters that the model cannot carry.
    """
    specs = _specs(request)
    reductions.resolve(request.reduction, check_specs(specs), request.weights)
    if request.puzzle:
        puzzle.check_specs(specs)
    if settings is not None:
        kinds.check_draws(request.model, settings.assets, settings.models_dir)
        kinds.check_scores(request.scorer, settings.assets, settings.models_dir)
        wearing.check(request.adapters, request.model, settings.assets, settings.models_dir)


def evaluations(request: IllusionRequest) -> int:
    """How many rows the network will evaluate, in all of a study's settings.

    With ``stop_early`` it is the most that it can come to. With space=auto the model is measured before it is known
    where the views act; this is what their words tell.
    """
    tries = (alone for setting in study.settings(request) for alone in course.tries(setting.request))
    return sum(_evaluations(alone) for alone in tries)


def _evaluations(alone: IllusionRequest) -> int:
    """Distinct (view, prompt, adapters) of one picture's passes whose weight is not zero."""
    specs, travel = _specs(alone), passes.expected(alone.space, alone.views)
    seen = zip(specs, alone.prompts, adapters.worn(alone), strict=True)
    by_view = [_rows(spec, prompt, worn, alone) for spec, prompt, worn in seen]
    steps = (*range(alone.steps), *range(alone.steps - course.second_steps(alone), alone.steps))
    taken = [step for step in steps for _ in range(travel.at(step, alone.steps))]
    if reductions.resolve(alone.reduction, check_specs(specs), alone.weights).weights == "turns":
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


def _rows(spec: ViewSpec, prompt: str, worn: adapters.Worn, request: IllusionRequest) -> set[tuple]:
    """Guidance weighs the prompt with its scale and the negative prompt with one minus it."""
    prompted = {(spec.shown_as, prompt, worn)} if request.guidance_scale != 0.0 else set()
    negative = {(spec.shown_as, request.negative_prompt, worn)} if request.guidance_scale != 1.0 else set()
    return prompted | negative
