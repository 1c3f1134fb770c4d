"""What the Guidance tab says while a recipe is being written: what it draws and costs, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.guidance.grid import columns
from studio.guidance.preflight import cells
from studio.guidance.request import GuidanceRequest
from studio.ui import guidance_showing, words
from studio.ui.advice import cost_line, is_drawable, nearest_thing
from studio.ui.form import Values, hint
from studio.ui.guidance_form import ENGINE, GuidanceForm
from studio.ui.markup import Markup, tag

if TYPE_CHECKING:
    from studio.workbench import Estimate, Workbench

ASKED_FROM = 400  # pictures; more are drawn only when a person says so
NOT_YET = ("model", "adapters", "prompts", "guiders")
"""Fields that are no mistake while nothing stands in them yet."""


@dataclass(frozen=True)
class Advice:
    """What the line under the button says, and ``notes`` by field."""

    cost: Markup
    notes: Mapping[str, Markup] = field(default_factory=dict)


def of(workbench: Workbench, form: GuidanceForm, values: Values, *, refused: bool = False) -> Advice:
    """All that can be said of the form as it stands. An empty field is no mistake unless it was just ``refused``."""
    data = form.request(values)
    said = hints(workbench, form.named(values), data)
    empty = [name for name in NOT_YET if not data[name]]
    try:
        request = workbench.request(ENGINE, data)
        estimate = workbench.estimate(request, ENGINE)
    except StudioError as error:
        found = form.problems(error)
        wrong = {name: note for name, note in found.items() if refused or name not in empty}
        if not found:
            return Advice(cost_line(str(error)), said)
        asked = "Fill in what is missing." if empty and not wrong else "This cannot be drawn as it is."
        return Advice(cost_line(asked), said | wrong)
    return Advice(cost_line(line(request, estimate)), said)


def hints(workbench: Workbench, named: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Markup]:
    """A word beside what has no effect, and about what the model has never seen."""
    return guidance_showing.hints(named) | unknown(workbench, data)


def line(request: GuidanceRequest, estimate: Estimate) -> str:
    """``3 columns × 4 seeds = 12 pictures, at most 800 evaluations, about 13 s``."""
    factors = [words.count(len(columns(request)), "column")]
    factors += [words.count(len(request.prompts), "prompt")] if len(request.prompts) > 1 else []
    factors.append(words.count(request.seeds, "seed"))
    text = f"{' × '.join(factors)} = {words.count(cells(request), 'picture')}"
    text += f", at most {words.count(estimate.evaluations, 'evaluation')}"
    if request.resume:
        text += " less what is drawn already"
    return text if estimate.seconds is None else f"{text}, {words.about(estimate.seconds)}"


def is_large(request: GuidanceRequest) -> bool:
    return cells(request) > ASKED_FROM


def confirmation(request: GuidanceRequest, estimate: Estimate) -> Markup:
    """In place of a start: what a very large grid takes, and a button that starts it all the same."""
    time = f" and take {words.about(estimate.seconds)}" if estimate.seconds is not None else ""
    said = f"These are {words.count(cells(request), 'picture')}{time}. Every finished one is kept if you stop."
    start = tag("button", "Draw them all", type="button", cls="btn", data_act="run-anyway")
    return tag("p", tag("span", said), start, cls="said", role="alert")


def unknown(workbench: Workbench, data: Mapping[str, Any]) -> dict[str, Markup]:
    """A word about the first prompt that a built-in model has no picture of."""
    drawable = workbench.drawable(str(data["model"] or ""))
    asked = [prompt for prompt in data["prompts"] if drawable and not is_drawable(prompt[:400], drawable)]
    if not asked:
        return {}
    near = nearest_thing(asked[0][:400], drawable)
    nearest = f" The nearest thing it knows is “{near}”." if near else ""
    return {"prompts": hint(f"This model has never seen “{asked[0][:30]}”.{nearest}")}
