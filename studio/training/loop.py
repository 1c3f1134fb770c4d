"""The training loop: passes whose gradients make a step, and everything that a run remembers from step to step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn

from studio.devices import derived_seed
from studio.errors import RequestError, StudioError
from studio.models.networks import Network
from studio.training import optimizers
from studio.training.checkpoints import State
from studio.training.course import Course, Part
from studio.training.feed import Batch, Feed
from studio.training.learning import Learning
from studio.training.objective import Objective, losses, offset
from studio.training.request import TrainRequest
from studio.training.schedules import factor

NOISE, MEASURE = 12, 13  # what a seed is for: see ``devices.derived_seed``
LEVELS = 4  # noise levels that every held-out picture is measured at
MEMORY = 0.95  # how much of the smoothed loss stays from step to step


@dataclass(frozen=True)
class Point:
    """One step in the curves; ``smoothed`` is the mean of the part's losses so far, recent ones counting most.

    ``part`` of the run is "" in a plain training, ``by_task`` the validation losses that ``validation`` is the mean of.
    """

    step: int
    loss: float
    smoothed: float
    rate: float
    validation: float | None = None
    penalty: float | None = None  # beside the loss; for what keeps earlier adapters as they are
    part: str = ""
    by_task: Mapping[str, float] = field(default_factory=dict)


class NonFiniteLossError(StudioError):
    """The loss is no number any more; the message names the pictures of the pass."""


class Average:
    """Averaged weights (Polyak & Juditsky 1992), younger at the beginning so that they do not remember zeros."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay, self.parameters = decay, parameters
        self.weights = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    def update(self, step: int) -> None:
        keep = min(self.decay, step / (step + 10))
        learning = {name: parameter for name, parameter in self.parameters.items() if parameter.requires_grad}
        now = [parameter.detach() for parameter in learning.values()]
        torch._foreach_lerp_([self.weights[name] for name in learning], now, 1 - keep)


class Loop:
    """One run over what learns in a network. ``step`` counts what is done; ``restore`` goes on from a checkpoint."""

    def __init__(
        self, request: TrainRequest, network: Network, learner: Learning, course: Course, objective: Objective
    ) -> None:
        self.request, self.network, self.learner, self.course = request, network, learner, course
        self.objective, self.processes = objective, next(iter(course.feeds.values())).processes
        self.parameters = learner.parameters
        self.accelerator = accelerator_for(request, network)
        self.raw = optimizers.make(request, self.parameters)
        self.optimizer = self.accelerator.prepare(self.raw)
        self.average = Average(self.parameters, request.ema) if request.ema else None
        self.penalties: Callable[[], Iterable[Tensor]] = tuple  # what is kept small beside the loss, term by term
        self.step, self.rows = 0, 0
        self.points: list[Point] = []
        self.before: dict[str, dict[str, float]] = {}  # part -> task -> validation loss that it began with
        self.best: tuple[int, float] | None = None  # step and validation loss
        self.best_weights: dict[str, Tensor] = {}
        self.worse = 0  # validations since the best
        self._sum = self._weight = 0.0  # of the smoothed loss

    def advance(self) -> Point:
        """One step of the optimiser. Raises NonFiniteLossError before the weights are touched."""
        part = self.course.at(self.step)
        self.learner.wear(part.worn)
        share = factor(self.request.schedule, self.step - part.first, part.steps, self.request.warmup_steps)
        for group in self.raw.param_groups:
            group["lr"] = group["rate"] * share
        passes = part.passes(self.step, self.request.accumulation)
        values = [self._pass(feed, index, len(passes)) for feed, index in passes]
        loss = sum(self._together(passes, values)) / len(passes)
        penalty = self._penalise()  # after the sum over processes, all of which have the same one
        if self.request.max_grad_norm:
            self.accelerator.clip_grad_norm_(list(self.parameters.values()), self.request.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.average is not None:
            self.average.update(self.step - part.first)
        self._note(part, loss, share, penalty)
        return self.points[-1]

    def _note(self, part: Part, loss: float, share: float, penalty: float | None) -> None:
        """The curves' next point; every part's begin anew."""
        if self.step - 1 == part.first:
            self._sum = self._weight = 0.0
        self._sum, self._weight = MEMORY * self._sum + loss, MEMORY * self._weight + 1
        rate = self.request.learning_rate * share
        self.points.append(Point(self.step, loss, self._sum / self._weight, rate, penalty=penalty, part=part.title))

    def begin(self) -> None:
        """Measure what the coming part of the run falls from, unless that is known."""
        part = self.course.at(self.step)
        if part.title not in self.before:
            self.before[part.title] = self.measure(part)

    def measure(self, part: Part) -> dict[str, float]:
        """Task -> loss on its held-out pictures at fixed noise and levels, averaged weights in; none: not there."""
        self.learner.wear(part.worn)
        with self.averaged(), torch.no_grad():
            held = {task: feed.fixed() for task, feed in part.feeds.items()}
            return {task: self._mean(batches) for task, batches in held.items() if batches}

    def _mean(self, batches: Sequence[Batch]) -> float:
        places = itertools.product(range(len(batches)), range(LEVELS))
        mine = self.processes.rows
        found = [
            self._measured(batches[place], place, level) if mine(number, 1) else 0.0
            for number, (place, level) in enumerate(places)
        ]
        return sum(self.processes.added(found)) / len(found)

    def validate(self) -> None:
        """Measure after a step, and note whether it is the best of the run's last part."""
        part = self.course.at(self.step - 1)
        by_task = self.measure(part)
        value = mean(by_task)
        if value is None:
            return
        self.points[-1] = replace(self.points[-1], validation=value, by_task=by_task if part.title else {})
        if part is self.course.last:
            self._compare(value)

    @property
    def fell_from(self) -> float | None:
        """The validation loss that the last part began with; None where nothing is held out, or it did not begin."""
        return mean(self.before.get(self.course.last.title, {}))

    def _compare(self, value: float) -> None:
        if math.isfinite(value) and (self.best is None or value < self.best[1]):
            self.best, self.worse = (self.step, value), 0
            self.best_weights = {name: weight.detach().clone() for name, weight in self.current().items()}
        else:
            self.worse += 1

    @property
    def tired(self) -> bool:
        """Whether so many validations were no better that the run shall end."""
        return bool(self.request.patience) and self.worse >= self.request.patience

    def current(self) -> dict[str, Tensor]:
        """The weights that count: averaged ones where there are any."""
        if self.average is not None:
            return self.average.weights
        return {name: parameter.detach() for name, parameter in self.parameters.items()}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The averaged weights in the network, the trained ones again afterwards."""
        with worn(self.parameters, self.current()):
            yield

    def state(self, fingerprint: Mapping[str, Any]) -> State:
        """Everything that the next step depends on."""
        tensors = {f"weights/{name}": parameter.detach() for name, parameter in self.parameters.items()}
        tensors |= {f"best/{name}": weight for name, weight in self.best_weights.items()}
        if self.average is not None:
            tensors |= {f"average/{name}": weight for name, weight in self.average.weights.items()}
        moments, numbers = optimizers.state_of(self.raw)
        tensors |= {f"optimizer/{name}": value for name, value in moments.items()}
        scaler = self.accelerator.scaler
        facts = {
            "fingerprint": dict(fingerprint),
            "rows": self.rows,
            "optimizer": numbers,
            "scaler": None if scaler is None else scaler.state_dict(),
            "points": [asdict(point) for point in self.points],
            "before": self.before,
            "best": self.best,
            "worse": self.worse,
            "smoothed": [self._sum, self._weight],
        }
        return State(self.step, tensors, facts)

    def restore(self, state: State) -> None:
        """Go on from ``state``, which the same request made."""
        facts = state.facts
        with torch.no_grad():
            for name, weight in state.held("weights").items():
                self.parameters[name].copy_(weight)
            for name, weight in state.held("average").items() if self.average else ():
                self.average.weights[name].copy_(weight)
        optimizers.restore(self.raw, state.held("optimizer"), facts["optimizer"])
        if self.accelerator.scaler is not None and facts["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(facts["scaler"])
        self.step, self.rows, self.worse = state.step, facts["rows"], facts["worse"]
        self.before = dict(facts["before"])
        self.points = [Point(**point) for point in facts["points"]]
        self.best = None if facts["best"] is None else (facts["best"][0], facts["best"][1])
        self.best_weights = {name: weight.to(self.network.device) for name, weight in state.held("best").items()}
        self._sum, self._weight = facts["smoothed"]

    def _pass(self, feed: Feed, index: int, passes: int) -> float:
        """Forward and backward of this process's rows of one batch; their part of its loss. ``passes`` make a step."""
        count = len(feed.members(index))
        rows = self.processes.rows(index * self.request.batch_size, count)
        every = 1 if feed.prior is None else 2
        self.rows += every * count
        if not rows:  # another process has them
            return 0.0
        batch = feed.batch(index, rows)
        draw = torch.Generator().manual_seed(derived_seed(feed.request.seed, NOISE, index))
        whole = torch.randn(every * count, *batch.latents.shape[1:], generator=draw)
        noise, u = offset(whole, self.request.noise_offset, draw), torch.rand(every * count, generator=draw)
        if len(rows) < count:
            places = [place * count + row for place in range(every) for row in rows]
            noise, u = noise[places], u[places]
        loss = self._loss(batch, noise, u) * (len(rows) / count)
        value = loss.item()
        if not self.processes.several:
            self._check(value, feed, index)
        self.accelerator.backward(loss / passes)
        return value

    def _together(self, passes: Sequence[tuple[Feed, int]], values: list[float]) -> list[float]:
        """The losses of a step's passes, and its gradients, over all processes."""
        if not self.processes.several:
            return values
        values = self.processes.added(values)
        for (feed, index), value in zip(passes, values, strict=True):
            self._check(value, feed, index)
        self.processes.add_gradients(self.parameters.values())
        return values

    def _check(self, value: float, feed: Feed, index: int) -> None:
        if not math.isfinite(value):
            names = [feed.examples[member].name for member in feed.members(index)[:4]]
            raise NonFiniteLossError(
                f"The loss is {value} in step {self.step + 1}, in the batch of {', '.join(names)}: lower "
                "learning_rate, or look at those pictures; the last checkpoint is sound.",
                field="learning_rate",
            )

    def _penalise(self) -> float | None:
        """Gradients of all penalties, added to the loss's; their sum, None where there are none."""
        found = []
        for term in self.penalties():
            self.accelerator.backward(term)
            found.append(term.detach())
        value = torch.stack(found).sum().item() if found else None
        if value is not None and not math.isfinite(value):
            raise NonFiniteLossError(
                f"The penalty for earlier LoRAs is {value} in step {self.step + 1}: lower earlier_penalty or "
                "learning_rate; the last checkpoint is sound.",
                field="earlier_penalty",
            )
        return value

    def _loss(self, batch: Batch, noise: Tensor, u: Tensor) -> Tensor:
        """Mean over the pictures, and prior_weight times that over the class's (Ruiz et al. 2022, eq. 2)."""
        device = self.network.device
        noised = self.objective.noised(batch.latents.to(device), noise.to(device), self.objective.at(u).to(device))
        with self.accelerator.autocast():
            answer = self.network.predict(noised.x, noised.t, batch.conditions, {})
        each = losses(answer, noised)
        own = len(each) - batch.prior
        loss = each[:own].mean()
        return loss + self.request.prior_weight * each[own:].mean() if batch.prior else loss

    def _measured(self, batch: Batch, place: int, level: int) -> float:
        """The unweighted loss of a held-out picture, with the same noise at the same level every time."""
        draw = torch.Generator().manual_seed(derived_seed(self.request.seed, MEASURE, place, level))
        noise, device = torch.randn(batch.latents.shape, generator=draw), self.network.device
        u = torch.full((1,), (level + 0.5) / LEVELS)
        noised = self.objective.noised(batch.latents.to(device), noise.to(device), self.objective.at(u).to(device))
        with self.accelerator.autocast():
            answer = self.network.predict(noised.x, noised.t, batch.conditions, {})
        return (answer.float() - noised.target.float()).square().mean().item()


def mean(by_task: Mapping[str, float]) -> float | None:
    """Every task counts the same; None of none."""
    return sum(by_task.values()) / len(by_task) if by_task else None


@contextmanager
def worn(parameters: Mapping[str, nn.Parameter], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Other weights in the place of the parameters' own until the block ends."""
    own = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = weights[name].to(parameter.data)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = own[name]


def accelerator_for(request: TrainRequest, network: Network) -> Accelerator:
    """Accelerate for the network's device, in the request's precision. Raises RequestError for one that is not there.

    Accelerate keeps one state for a whole process, while a studio trains one thing after the other; of several
    processes that know one another already it stays.
    """
    mixed = request.precision
    if mixed == "auto":
        mixed = {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(network.dtype, "fp32")
    if mixed == "fp16" and network.device.type == "cpu":
        raise RequestError("precision: fp16 needs a GPU; choose bf16, fp32 or auto.", field="precision")
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    GradientState._reset_state()
    return Accelerator(mixed_precision="no" if mixed == "fp32" else mixed, cpu=network.device.type == "cpu")
