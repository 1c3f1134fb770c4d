"""What a request will take, in passes, known before anything is loaded; and how far along it a drawing is."""

from __future__ import annotations

from dataclasses import dataclass

from studio import passes
from studio.illusions.request import IllusionRequest
from studio.passes import Travel


def tries(request: IllusionRequest) -> tuple[IllusionRequest, ...]:
    """The request of every picture alone: over seeds, and for every seed over the partners.

    Each makes the very picture that the search makes of it, so it is also the recipe of that picture.
    """
    lasts = dict.fromkeys((request.prompts[-1], *request.partners))
    alone = {"candidates": 1, "partners": (), "stop_early": False}
    return tuple(
        request.model_copy(
            update=alone | {"seed": (request.seed + offset) % 2**32, "prompts": (*request.prompts[:-1], last)}
        )
        for offset in range(request.candidates)
        for last in lasts
    )


def second_steps(request: IllusionRequest) -> int:
    """How many steps the pass at the larger size takes; none without upscaling."""
    return max(1, round(request.upscale_strength * request.steps)) if request.upscale > 1 else 0


def work(request: IllusionRequest, travel: Travel) -> int:
    """What one candidate takes, in passes at the request's own size: one at k times the side counts k^2 times."""
    first = request.steps - second_steps(request)
    return travel.passes(request.steps) + request.upscale**2 * travel.passes(request.steps, first)


def expected(request: IllusionRequest) -> int:
    """``work`` of all tries, as far as the request's words tell."""
    return work(request, passes.expected(request.space, request.views)) * len(tries(request))


@dataclass
class Course:
    """How far a drawing is, in the passes of ``work``. What is stopped early is taken off the total."""

    each: int
    tries: int
    number: int = 1
    done: int = 0
    total: int = 0

    def __post_init__(self) -> None:
        self.total = self.each * self.tries

    def finish(self) -> None:
        """One candidate is complete."""
        self.done += self.each
        self.number += 1

    def stop(self, after: int) -> None:
        """One candidate ended after this many passes."""
        self.done += after
        self.total -= self.each - after
        self.number += 1
