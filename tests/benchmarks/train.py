"""The training loop over the bare steps it is made of, and over training without caches.

``python -m tests.benchmarks.train``: a rank-8 LoRA on the built-in model. The loop is compared with forward, backward
and optimiser step alone, on a batch that lies ready; with the same training without caches; and with the loop of
diffusers' example script (``example_loop``). They take turns, so that a busy machine slows them alike, and
the median counts. With one thread on a processor its own time is taken, in which other programs do not count.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.training.course import Course
from studio.training.dataset import read_dataset
from studio.training.injecting import Learner, injected
from studio.training.loop import Loop
from studio.training.objective import Objective
from studio.training.request import TrainRequest
from tests.benchmarks.example_loop import ExampleLoop, stepping
from tests.benchmarks.results import RESULTS, measured_on, write_section
from tests.training.asked import save_set

SECTION = "Training: the loop over its bare steps"
ASSETS = Path(__file__).parents[2] / "assets"
HEAD = """| pictures | batch | loop / bare steps | rate / without caches | rate / example script | pictures per second |
|---|---|---|---|---|---|"""
STEPS = 4  # that are timed together


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.train", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 512], help="of the pictures, in pixels")
    parser.add_argument("--write", action="store_true", help=f"put the table into {RESULTS.name}")
    args = parser.parse_args()
    lines = [HEAD]
    print(HEAD)
    store = ModelStore(ASSETS)
    with tempfile.TemporaryDirectory() as folder, store.lease("builtin:emoji") as network:
        for side, batch in itertools.product(args.sides, args.batches):
            data = save_set(Path(folder) / f"{side}-{batch}", count=8, side=side)
            bare, caches, example, rate = measure(network, data, batch, args.rounds)
            lines.append(f"| {side} px | {batch} | {bare:.3f} | {caches:.1f} | {example:.1f} | {rate:.1f} |")
            print(lines[-1], flush=True)
    if args.write:
        command = f"python -m tests.benchmarks.train --rounds {args.rounds} --write"
        where = f"{torch.get_num_threads()} thread(s) on {store.device}, rank 8 in all attention of builtin:emoji."
        said = f"{measured_on(command, ('torch', 'diffusers', 'peft', 'accelerate'))}\n{where}"
        write_section(SECTION, "\n".join([said, "", *lines]))


def measure(network: Network, data: Path, batch: int, rounds: int) -> tuple[float, float, float, float]:
    """Time over the bare steps'; pictures per second over those without caches and the example's; and these."""
    request = TrainRequest(data=str(data), batch_size=batch, steps=10**6, validation_share=0.0)
    example = ExampleLoop(ModelStore(ASSETS)._get("builtin:emoji"), read_dataset(data).examples, batch, request.rank)
    with injected(network, request) as learner:
        cached = loop_of(request, network, learner)
        afresh = loop_of(request.model_copy(update={"cache": "off"}), network, learner)
        work = (advancing(cached), advancing(afresh), stepping(example, STEPS), bare_steps(cached))
        for each in work:
            each()
        times = [[seconds(each, network.device) for each in work] for _ in range(rounds)]
    loop = statistics.median(row[0] for row in times)
    over_bare, *over = (statistics.median(values) for values in zip(*map(ratios, times), strict=True))
    return over_bare, *over, STEPS * batch / loop


def ratios(row: list[float]) -> tuple[float, float, float]:
    loop, afresh, example, bare = row
    return loop / bare, afresh / loop, example / loop


def loop_of(request: TrainRequest, network: Network, learner: Learner) -> Loop:
    course = Course.plain(request, network, read_dataset(Path(request.data)))
    course.prepare(None, lambda step: None)
    return Loop(request, network, learner, course, Objective.of(network, request))


def advancing(loop: Loop) -> Callable[[], None]:
    def steps() -> None:
        for _ in range(STEPS):
            loop.advance()

    return steps


def bare_steps(loop: Loop) -> Callable[[], None]:
    """Forward, backward and step of the same network on one batch whose noise is added already."""
    batch, parameters, device = loop.course.feeds[""].batch(0), list(loop.parameters.values()), loop.network.device
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(batch.latents.shape, generator=draw).to(device)
    level = loop.objective.at(torch.rand(len(noise), generator=draw)).to(device)
    noised = loop.objective.noised(batch.latents.to(device), noise, level)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def steps() -> None:
        for _ in range(STEPS):
            answer = loop.network.predict(noised.x, noised.t, batch.conditions, {})
            F.mse_loss(answer, noised.target).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return steps


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """With one thread on a processor its own time, else the clock's."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


if __name__ == "__main__":
    main()
