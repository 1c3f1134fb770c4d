"""The tasks of a joint training: what each adapter learns alone, and what must fit before all of them learn together.

After the poster "Multi-Adapter joint fine-tuning of Diffusion Models with LoRA for Visual Illusions" (Kheiri, Liu &
Lin): W = alpha * W_1 + beta * W_2, each adapter first learned independently, then all of them jointly on all tasks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

from studio.errors import RequestError, shortened
from studio.views.specs import parse_spec

if TYPE_CHECKING:
    from studio.training.request import TrainRequest

NAME = re.compile(r"[A-Za-z0-9_-]+")
IDENTITY = "identity"
FEWEST, MOST = 2, 4
THAT_ADD_UP = ("lora", "rslora", "locon")  # kinds of which several are one of a higher rank


class Task(BaseModel):
    """One adapter's own task: pictures, what they show, and the view through which the network is shown them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(
        min_length=1,
        max_length=32,
        description="What the adapter is called, in its file's name too: letters, digits, - and _.",
    )
    data: str = Field("", max_length=1000, description="Its pictures, as data has them; those of data if empty.")
    prompt: str = Field(
        "", max_length=400, description="What a viewer sees in all of its pictures; their captions if empty."
    )
    trigger: str = Field("", max_length=60, description="Its own trigger word; the request's if empty.")
    view: str = Field(
        IDENTITY,
        min_length=1,
        max_length=120,
        description="The view through which the network is shown its pictures, such as rotate_180: as in Illusions.",
    )
    weight: float = Field(1.0, ge=-4.0, le=4.0, description="How much the adapter counts in the sum: its alpha.")

    @field_validator("name")
    @classmethod
    def _is_safe(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError(f"{shortened(name)!r} is no name for an adapter; use letters, digits, - and _")
        return name

    @property
    def seen_as_it_lies(self) -> bool:
        return str(parse_spec(self.view)) == IDENTITY


def problem(method: str, tasks: Sequence[Task]) -> str:
    """What is wrong with the number and the names of tasks, with its field and the fix, or ""."""
    if method != "joint":
        return "tasks: only the method joint has them; choose it, or leave them out" if tasks else ""
    if not FEWEST <= len(tasks) <= MOST:
        return f"tasks: joint training needs {FEWEST} to {MOST} of them, got {len(tasks)}; give each adapter its own"
    names = [task.name.lower() for task in tasks]  # files of one disk may differ in more than case
    twice = next((task.name for task in tasks if names.count(task.name.lower()) > 1), None)
    return f"tasks: two are called {twice!r}; give each a name of its own" if twice else ""


def check(request: TrainRequest) -> None:
    """Raises RequestError for settings that a joint training has no use for; no file is looked at."""
    if request.method != "joint":
        return
    _check_settings(request)
    for index, task in enumerate(request.tasks):
        field = f"tasks.{index}"
        if task.weight == 0.0:
            raise RequestError(
                f"{field}.weight: 0 would leave {task.name} out of the sum; give it a weight, or leave the task out.",
                field=f"{field}.weight",
            )
        try:
            parse_spec(task.view)
        except RequestError as error:
            error.field = f"{field}.view"
            raise


def _check_settings(request: TrainRequest) -> None:
    if request.adapter not in THAT_ADD_UP:
        raise RequestError(
            f"adapter: several of the kind {request.adapter} do not add up to one file; choose "
            f"{', '.join(THAT_ADD_UP[:-1])} or {THAT_ADD_UP[-1]}.",
            field="adapter",
        )
    if request.optimizer == "prodigy":
        raise RequestError(
            "optimizer: Prodigy finds one learning rate for all adapters, which are to begin apart; choose adamw.",
            field="optimizer",
        )
    if request.epochs is not None:
        raise RequestError(
            "epochs: tasks have sets of unlike sizes; leave it empty and give steps and steps_apart.", field="epochs"
        )
    if 0 < request.steps_apart <= request.warmup_steps:
        raise RequestError(
            f"warmup_steps: must be less than the {request.steps_apart} steps apart, got {request.warmup_steps}.",
            field="warmup_steps",
        )
    count = len(request.sample_prompts)
    if count not in (0, len(request.tasks)):
        raise RequestError(
            f"sample_prompts: {count} for {len(request.tasks)} tasks; give one for each task, in their order, or none.",
            field="sample_prompts",
        )


def alone(request: TrainRequest, index: int) -> TrainRequest:
    """The training of one task by itself, for ``steps_apart`` steps, whose pictures are square if a view moves them.

    Of a task that is seen as it lies this trains, bit for bit, the adapter that it has when all begin together.
    """
    task = request.tasks[index]
    return request.model_copy(
        update={
            "method": "dreambooth" if task.prompt else "text_to_image",
            "data": task.data or request.data,
            "edits": "" if task.data else request.edits,
            "instance_prompt": task.prompt,
            "trigger": task.trigger or request.trigger,
            "steps": max(1, request.steps_apart),
            "buckets": request.buckets and task.seen_as_it_lies,
            "seed": (request.seed + index) % 2**32,
            "sample_prompts": request.sample_prompts[index : index + 1],
            "tasks": (),
            "steps_apart": type(request).model_fields["steps_apart"].default,
        }
    )
