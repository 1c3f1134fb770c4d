"""One training in several processes: each takes its rows of every pass, and all of them make the same step.

What is added up is the same everywhere afterwards, so that every process decides alike (the best step, the end, a
stop) and the weights never drift apart. Accelerate finds the processes; of one alone nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, broadcast, reduce
from torch import Tensor, nn

from studio.errors import Cancelled, RequestError
from studio.progress import OnStep, Step
from studio.settings import Place, environment, place_among_processes

PATIENCE = timedelta(hours=6)  # that processes wait for the first, which draws the samples
FITTING = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU, DistributedType.MULTI_XPU)


class Processes:
    """Process ``index`` of ``count``; ``asked`` is whether somebody asked this one to stop."""

    def __init__(self, device: torch.device, place: Place = Place()) -> None:
        self.device, self.index, self.count = device, place.index, place.count
        self.asked = False

    @classmethod
    def joined(cls, device: torch.device) -> Processes:
        """Those that ``accelerate launch`` started, once all are there; each gets a GPU of its own.

        Raises RequestError for a way to distribute that cannot carry an adapter beside a whole model.
        """
        place = place_among_processes(environment())
        if place.count == 1:
            return cls(device)
        if device.index is not None:
            raise RequestError(
                f"device: {device} cannot be shared by {place.count} processes; leave it at auto, or take cpu.",
                field="device",
            )
        AcceleratorState._reset_state(reset_partial_state=True)
        state = PartialState(cpu=device.type == "cpu", timeout=PATIENCE)
        if state.distributed_type not in FITTING:
            kind = str(state.distributed_type).rpartition(".")[2]
            raise RequestError(
                f"processes: {kind} is no way to train an adapter in {place.count} processes; launch with --multi_gpu.",
                field="processes",
            )
        return cls(device, place)

    @property
    def several(self) -> bool:
        return self.count > 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes, draws and reports."""
        return self.index == 0

    def check(self, rows: int) -> None:
        """Raises RequestError where a step has fewer rows than there are processes."""
        if rows < self.count:
            raise RequestError(
                f"batch_size: a step has {rows} pictures for {self.count} processes; raise batch_size or "
                "accumulation, or launch fewer.",
                field="batch_size",
            )

    def rows(self, begin: int, count: int) -> list[int]:
        """Those of a pass's ``count`` rows that are this process's; ``begin`` is the first one's number in the run."""
        return [row for row in range(count) if (begin + row) % self.count == self.index]

    def added(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, each value in float64."""
        if not self.several:
            return list(values)
        kind = torch.float64 if self.device.type != "mps" else torch.float32
        return reduce(torch.tensor(values, dtype=kind, device=self.device), "sum").tolist()

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums of all processes' gradients in the place of each one's own; one that nobody has stays away."""
        held = list(parameters)
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
        there = torch.tensor([p.grad is not None for p in held]).to(own[0])
        whole = reduce(torch.cat([*(gradient.flatten() for gradient in own), there]), "sum")
        *found, there = whole.split([*(p.numel() for p in held), len(held)])
        for parameter, gradient, seen in zip(held, found, there.tolist(), strict=True):
            parameter.grad = gradient.view_as(parameter) if seen else None

    def shared(self, tensor: Tensor) -> Tensor:
        """The first process's tensor, everywhere; the others give one of its shape."""
        return broadcast(tensor.to(self.device)).cpu() if self.several else tensor

    def patient(self, on_step: OnStep) -> OnStep:
        """``on_step``, but for what it raises: that waits for ``agree``, for the others are in the middle of a step."""
        if not self.several:
            return on_step

        def noted(step: Step) -> None:
            try:
                on_step(step)
            except (Cancelled, KeyboardInterrupt):
                self.asked = True

        return noted

    def agree(self) -> None:
        """Raises Cancelled in all processes once one of them was asked to stop."""
        if self.several and self.added([float(self.asked)])[0]:
            raise Cancelled

    def wait(self) -> None:
        """Until all are here."""
        if self.several:
            PartialState().wait_for_everyone()

    def leave(self) -> None:
        """Take leave of the others; nothing can be added up afterwards."""
        if self.several:
            PartialState().destroy_process_group()
            AcceleratorState._reset_state(reset_partial_state=True)
