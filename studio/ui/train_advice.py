"""What the Train tab says while a recipe is being written: pictures, steps, epochs, time, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.ui import words
from studio.ui.advice import cost_line
from studio.ui.form import Values
from studio.ui.markup import Markup
from studio.ui.train_form import TrainForm

if TYPE_CHECKING:
    from studio.training.outlook import Outlook
    from studio.workbench import Workbench

NOT_YET = ("data", "instance_prompt", "class_prompt", "model")
"""Fields that are no mistake while nothing stands in them yet."""


@dataclass(frozen=True)
class Advice:
    """What the line under the button says, and ``notes`` by field."""

    plan: Markup
    notes: Mapping[str, Markup] = field(default_factory=dict)


def of(workbench: Workbench, form: TrainForm, values: Values, owner: str, *, refused: bool = False) -> Advice:
    """All that can be said of the form as it stands. An empty field is no mistake unless it was just ``refused``."""
    data = form.request(values)
    empty = [name for name in NOT_YET if name in data and not str(data[name] or "").strip()]
    try:
        seen, cost = workbench.training(data, owner)
    except StudioError as error:
        found = form.problems(error)
        notes = {name: note for name, note in found.items() if refused or name not in empty}
        if not found and not empty:
            return Advice(cost_line(str(error)))
        asked = "Fill in what is missing." if empty and not notes else "This cannot be trained as it is."
        return Advice(cost_line(asked), notes)
    return Advice(cost_line(line(seen, int(data["steps"] or 0), cost.seconds)))


def line(seen: Outlook, steps: int, seconds: float | None) -> str:
    """``24 pictures, 2 held out, 140 steps = 6.4 epochs, about 2 min 50 s``."""
    plan = seen.plan
    if plan is None:
        more = f"{words.count(steps, 'step')}; epochs are counted when it starts"
        return ", ".join([words.count(seen.pictures, "file"), more, *_time(seconds)])
    parts = [words.count(seen.pictures, "picture"), *([f"{plan.held_out:,} held out"] if plan.held_out else [])]
    parts.append(f"{words.count(plan.steps, 'step')} = {_epochs(float(plan.epochs))}")
    if seen.done:
        parts.append(f"{plan.steps - seen.done:,} of them left")
    return ", ".join([*parts, *_time(seconds)])


def _epochs(number: float) -> str:
    return "1 epoch" if number == 1 else f"{number:,.1f} epochs"


def _time(seconds: float | None) -> list[str]:
    return ["how long is known after a first run"] if seconds is None else [about(seconds)]


def about(seconds: float) -> str:
    """As ``words.about`` has it, but for minutes, of which a person waits through every ten seconds."""
    if not 90 <= seconds < 600:
        return words.about(seconds)
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    return f"about {minutes} min {rest} s" if rest else f"about {minutes} min"
