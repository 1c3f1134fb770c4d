"""Several adapters that learn apart and then together, and the one file whose change is their weighted sum."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftConfig
from torch import Tensor

from studio.errors import StudioError, ViewError
from studio.models.factors import Factors, joined
from studio.models.lora_names import kohya_name
from studio.models.networks import Network
from studio.sampling import Seen, Upright
from studio.training.course import Course, Part
from studio.training.export import Adapter, Tensors, taken
from studio.training.feed import Feed
from studio.training.injecting import Learner
from studio.training.plan import split
from studio.training.preflight import kind_of, planned, planned_together
from studio.training.records import Dataset
from studio.training.request import FilePrecision, TrainRequest
from studio.training.tasks import Task, alone
from studio.views.admission import admit, carried
from studio.views.carrying import measured_headroom
from studio.views.specs import Kind
from studio.views.view import View, build

if TYPE_CHECKING:
    from studio.training.loop import Loop

TOGETHER, ALONE = "together", "{} alone"  # the titles of the parts of a run
DOWN, UP = ".lora_A.weight", ".lora_B.weight"  # how PEFT ends the names of a LoRA's tensors


@dataclass(frozen=True)
class Adapters:
    """What a joint training learned: each task's adapter as trained, and their weighted sum as one LoRA."""

    tasks: tuple[Task, ...]
    each: tuple[Adapter, ...]
    whole: Adapter

    @property
    def kohya(self) -> Tensors:
        """The sum by kohya's keys."""
        return self.whole.kohya

    def rounded(self, precision: FilePrecision) -> Adapters:
        """All of them as their files hold them; the sum is that of the float32 ones."""
        each = tuple(adapter.rounded(precision) for adapter in self.each)
        return Adapters(self.tasks, each, self.whole.rounded(precision))

    def save(self, folder: Path, name: str, notes: Mapping[str, str]) -> dict[str, str]:
        """The sum's files under the names of any adapter's, and each adapter's with its task's name behind."""
        files = self.whole.save(folder, name, self._of_sum(notes))
        for task, adapter in zip(self.tasks, self.each, strict=True):
            own = {**notes, "duckrabbit.task": task.name, "modelspec.title": f"{notes['modelspec.title']}: {task.name}"}
            saved = adapter.save(folder, f"{name}-{task.name}", own)
            files |= {f"{task.name} {names}": file for names, file in saved.items()}
        return files

    def save_kohya(self, path: Path, notes: Mapping[str, str]) -> None:
        """The sum."""
        self.whole.save_kohya(path, self._of_sum(notes))

    def _of_sum(self, notes: Mapping[str, str]) -> dict[str, str]:
        rank = str(max(value.shape[0] for key, value in self.kohya.items() if key.endswith("lora_down.weight")))
        return {**notes, "ss_network_dim": rank, "ss_network_alpha": rank}


@dataclass(frozen=True)
class AsSeen:
    """A view as its viewer has it, of a part of a picture the part alone, to judge by itself and with no family."""

    view: View
    kind: Kind = "orthogonal"

    @property
    def cells(self) -> int:
        return self.view.cells

    @property
    def title(self) -> str:
        return self.view.title

    def show(self, x: Tensor) -> Tensor:
        return self.view.code(x)

    def bring_back(self, prediction: Tensor) -> Tensor:
        return self.view.bring_back(prediction)


def names_of(request: TrainRequest) -> tuple[str, ...]:
    """What the tasks' adapters are called in the network: a task's own name might be that of a method there."""
    return tuple(f"adapter_{index}" for index in range(len(request.tasks)))


def course_of(request: TrainRequest, network: Network, datasets: Sequence[Dataset]) -> Course:
    """Every adapter on its own task with the others at scale 0; then all, weighted, on a batch of every task a step.

    Raises ViewError or RequestError for a view that these codes do not carry, with what was measured.
    """
    feeds, plans = {}, []
    for index, (task, dataset) in enumerate(zip(request.tasks, datasets, strict=True)):
        own, view = alone(request, index), view_for(request, index, network)
        learn, kept = split(dataset.examples, own.validation_share, own.seed)
        feed = feeds[task.name] = Feed(own, network, learn, kept, view)
        plans.append(planned(own, sum(example.repeats for example in learn), feed.batches, len(kept)))
    parts = tuple(_parts(request, feeds))
    adapters = dict(zip(feeds, names_of(request), strict=True))
    return Course(planned_together(request, plans), feeds, parts, adapters)


def _parts(request: TrainRequest, feeds: Mapping[str, Feed]) -> Iterator[Part]:
    names, apart = names_of(request), request.steps_apart
    for index, (task, feed) in enumerate(feeds.items() if apart else ()):
        yield Part(index * apart, apart, {task: feed}, ALONE.format(task), worn={names[index]: 1.0})
    weights = {name: task.weight for name, task in zip(names, request.tasks, strict=True)}
    yield Part(request.all_apart, request.steps, feeds, TOGETHER, apart * request.accumulation, weights)


def view_for(request: TrainRequest, index: int, network: Network) -> Seen:
    """A task's view on codes of the size that is trained at: orthogonal, and one that the model's codes carry."""
    task, field = request.tasks[index], f"tasks.{index}.view"
    if task.seen_as_it_lies:
        return Upright()
    try:
        view = build(task.view, network.cells(request.resolution), network.factor)
        admit(AsSeen(view), network.channels)
    except StudioError as error:
        error.field = field
        raise
    found = measured_headroom(view, network)
    if not carried(found):
        raise ViewError(
            f"{field}: the codes of {network.name} cannot carry {view.spec}: {found}; choose a flip, a turn or a "
            "shuffle of patches, or another model.",
            field=field,
        )
    return view


def taken_together(learner: Learner, request: TrainRequest, *, several_encoders: bool) -> Adapters:
    """All adapters as they are in the network at this moment, whichever are worn, and their sum."""
    names = names_of(request)
    with learner.wearing(dict.fromkeys(names, 1.0)):
        each = tuple(taken(learner, kind_of(request), several_encoders=several_encoders, name=name) for name in names)
    weights = [task.weight for task in request.tasks]
    return Adapters(request.tasks, each, weighted_sum(each, weights, several_encoders=several_encoders))


def weighted_sum(each: Sequence[Adapter], weights: Sequence[float], *, several_encoders: bool) -> Adapter:
    """W = sum_i w_i W_i as one LoRA: ranks side by side, weights and alphas in ``up``, alpha the rank."""
    kohya: Tensors = {}
    parts: dict[str, Tensors] = {}
    for part, tensors in each[0].parts.items():
        parts[part] = {}
        for module in (key.removesuffix(DOWN) for key in tensors if key.endswith(DOWN)):
            stem = kohya_name(part, module, several_encoders)
            down, up = _joined([adapter.kohya for adapter in each], weights, stem)
            parts[part] |= {f"{module}{DOWN}": down, f"{module}{UP}": up}
            alpha = torch.tensor(float(len(down)))
            kohya |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": alpha}
    configs = {part: _of_rank(config, len(each)) for part, config in each[0].configs.items()}
    return Adapter(each[0].kind, kohya, parts, configs)


def _joined(each: Sequence[Tensors], weights: Sequence[float], stem: str) -> tuple[Tensor, Tensor]:
    """One layer's sum as down and up, shaped as the layer has them."""
    found = []
    for tensors, weight in zip(each, weights, strict=True):
        down, up, alpha = (tensors[f"{stem}.{role}"] for role in ("lora_down.weight", "lora_up.weight", "alpha"))
        found.append((weight * float(alpha) / len(down), Factors(up.flatten(1), down.flatten(1))))
    whole = joined(found)
    return whole.down.reshape(-1, *down.shape[1:]), whole.up.reshape(len(up), -1, *up.shape[2:])


def _of_rank(config: PeftConfig, times: int) -> LoraConfig:
    """PEFT's settings of one LoRA for the sum of several like it: so many times the rank, and a scale of 1."""
    found = copy.deepcopy(config)
    found.r, found.use_rslora = times * config.r, False
    found.rank_pattern = {name: times * rank for name, rank in config.rank_pattern.items()}
    found.lora_alpha, found.alpha_pattern = found.r, dict(found.rank_pattern)
    return found


def by_task(loop: Loop) -> dict[str, dict[str, float | None]]:
    """Each task's validation loss: of the bare model, of its adapter alone, of the sum at first, and as it is now."""
    found = {}
    for task in loop.course.adapters:
        own, sums = loop.before.get(ALONE.format(task), {}), loop.before.get(TOGETHER, {})
        measured = {
            "bare": own.get(task) if loop.course.last.first else sums.get(task),
            "alone": _latest(loop, ALONE.format(task), task),
            "sum": sums.get(task),
            "together": _latest(loop, TOGETHER, task),
        }
        found[task] = measured
    return found


def _latest(loop: Loop, part: str, task: str) -> float | None:
    found = (point.by_task.get(task) for point in reversed(loop.points) if point.part == part)
    return next((value for value in found if value is not None), None)


def words(loop: Loop) -> Iterator[str]:
    """What each task's validation loss came to, such as "fox: 0.0910 bare, 0.0712 alone, 0.0840 sum, ..."."""
    for task, measured in by_task(loop).items():
        said = ", ".join(f"{value:.5f} {name}" for name, value in measured.items() if value is not None)
        if said:
            yield f"Validation loss of {task}: {said}."
