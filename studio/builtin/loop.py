"""The one training loop of the built-in models: warm-up, plateau, decay, averaged weights, checkpoints, a loss log."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

LossFn = Callable[[int], dict[str, Tensor]]


@dataclass(frozen=True)
class Schedule:
    """Steps in all, peak learning rate, and the shares of the steps that warm up and decay (to zero, linearly)."""

    steps: int
    lr: float
    warmup: float = 0.02
    decay: float = 0.3
    weight_decay: float = 1e-4
    ema: float = 0.999
    grad_clip: float = 1.0

    def lr_at(self, step: int) -> float:
        done = (step + 1) / self.steps
        return self.lr * max(1e-3, min(1.0, done / self.warmup, (1 - done) / self.decay))


class Trainer:
    """Trains ``net`` with AdamW on ``loss(step)`` (a dict whose sum is minimised); resumes from ``folder``."""

    def __init__(self, net: nn.Module, schedule: Schedule, folder: Path) -> None:
        self.net, self.schedule, self.folder = net, schedule, folder
        self.params = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.params.values(), lr=schedule.lr, betas=(0.9, 0.99), weight_decay=schedule.weight_decay, fused=True
        )
        self.average = {name: p.detach().clone() for name, p in self.params.items()}
        self.step, self.seconds = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "state.safetensors").exists():
            self._restore()

    def run(self, loss: LossFn, *, save_every: float = 120.0, log_every: int = 50) -> None:
        """Train to the schedule's last step. Saves every ``save_every`` seconds and at the end."""
        start, saved, sums = time.monotonic() - self.seconds, time.monotonic(), {}
        while self.step < self.schedule.steps:
            for name, value in self._one_step(loss).items():
                sums[name] = sums.get(name, 0.0) + value
            self.seconds = time.monotonic() - start
            if self.step % log_every == 0:
                self._log({name: total / log_every for name, total in sums.items()})
                sums = {}
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        self.save()

    def averaged(self) -> nn.Module:
        """The network with its averaged weights copied in (it does not train on afterwards)."""
        with torch.no_grad():
            for name, p in self.params.items():
                p.copy_(self.average[name])
        return self.net

    def _one_step(self, loss: LossFn) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        parts = loss(self.step)
        total = torch.stack(list(parts.values())).sum()
        if not math.isfinite(total.item()):
            raise FloatingPointError(f"the loss is {total.item()} at step {self.step}: lower the learning rate")
        total.backward()
        nn.utils.clip_grad_norm_(self.params.values(), self.schedule.grad_clip)
        self.optimizer.step()
        self.step += 1
        keep = min(self.schedule.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.params.values()], 1 - keep)
        return {name: value.item() for name, value in parts.items()}

    def _log(self, parts: dict[str, float]) -> None:
        line = {"step": self.step, "seconds": round(self.seconds, 1), "lr": self.schedule.lr_at(self.step - 1)}
        line |= {name: round(value, 5) for name, value in parts.items()}
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def save(self) -> None:
        """Write weights, averages and optimiser moments to ``folder`` under a temporary name, then rename."""
        tensors = {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"net.{name}": value.detach() for name, value in self.net.state_dict().items()}
        for name, p in self.params.items():
            # A parameter that no loss has reached yet has no moments.
            moments = {key: value for key, value in self.optimizer.state[p].items() if key != "step"}
            tensors |= {f"{key}.{name}": value for key, value in moments.items()}
        progress = {"step": self.step, "seconds": self.seconds, "schedule": asdict(self.schedule)}
        partial = self.folder / "state.partial"
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        save_file(tensors, partial, metadata={"progress": json.dumps(progress)})
        os.replace(partial, self.folder / "state.safetensors")

    def _restore(self) -> None:
        with safe_open(self.folder / "state.safetensors", "pt") as state:
            progress = json.loads(state.metadata()["progress"])
            self.step, self.seconds = progress["step"], progress["seconds"]
            self.net.load_state_dict({key: state.get_tensor(f"net.{key}") for key in self.net.state_dict()})
            for name, p in self.params.items():
                self.average[name].copy_(state.get_tensor(f"average.{name}"))
                if f"exp_avg.{name}" not in state.keys():  # noqa: SIM118 (safe_open is no mapping)
                    continue
                self.optimizer.state[p] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": state.get_tensor(f"exp_avg.{name}").to(p.device),
                    "exp_avg_sq": state.get_tensor(f"exp_avg_sq.{name}").to(p.device),
                }
