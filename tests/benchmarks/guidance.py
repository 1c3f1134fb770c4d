"""What each guider takes over LoRA + CFG on the built-in model: ``python -m tests.benchmarks.guidance``.

Whole pictures, decoded; the guiders take turns, so that a busy machine slows them alike, and the median counts. With
one thread (``--threads 1``) the processor's own time is taken, in which other programs do not count.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from studio.guidance.engine import run
from studio.guidance.grid import Column, columns
from studio.guidance.request import GuidanceRequest
from studio.models.store import ModelStore
from tests.benchmarks.results import RESULTS, measured_on, write_section
from tests.models.loras import save_random

SECTION = "Guidance: seconds over LoRA + CFG"
ASSETS = Path(__file__).parents[2] / "assets"
GUIDERS = ("none", "cfg", "autolora", "autolora_refresh", "lora_scaled", "cfg_budget")
HEAD = """| guider | evaluations | / LoRA + CFG | seconds / LoRA + CFG |
|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.guidance", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help=f"put the table into {RESULTS.name}")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    body = f"{HEAD}\n" + "\n".join(rows(args.rounds, args.steps, clock))
    command = f"python -m tests.benchmarks.guidance --threads {args.threads}"
    about = f"A LoRA of rank 16 on all attention, {args.steps} steps, the difference refreshed every 5 steps."
    text = f"{measured_on(command, ('torch', 'diffusers'))}\n{about}\n\n{body}"
    print(text)
    if args.write:
        write_section(SECTION, text)


def rows(rounds: int, steps: int, clock) -> list[str]:
    """A line of the table for each guider."""
    models = ModelStore(ASSETS, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        lora = save_random(Path(folder) / "ink.safetensors", ASSETS / "models" / "emoji", "kohya", seed=1, rank=16)
        settings = {"steps": steps, "every": 5}
        asked = GuidanceRequest(adapters={"ink": str(lora)}, guiders=GUIDERS, settings=settings, seeds=1)
        own = columns(asked)
        seconds, evaluations = timed(asked, own, models, rounds, clock)
    base = own.index(next(column for column in own if column.guider == "cfg"))
    ratios = [statistics.median(a / b for a, b in zip(each, seconds[base], strict=True)) for each in seconds]
    return [
        f"| {column.title} | {count} | {count / evaluations[base]:.2f} | {ratio:.2f} |"
        for column, count, ratio in zip(own, evaluations, ratios, strict=True)
    ]


def timed(asked: GuidanceRequest, own: tuple[Column, ...], models: ModelStore, rounds: int, clock):
    """Seconds of every round by column, after one that warms up; and each column's evaluations."""
    seconds: list[list[float]] = [[] for _ in own]
    evaluations = []
    for turn in range(rounds + 1):
        marks: list[float] = []

        def mark(step, marks=marks):
            if step.pictures:
                marks.append(clock())

        found = run(asked, models, on_step=mark)
        evaluations = [cell.evaluations for _, cell in sorted(found.cells.items(), key=lambda item: item[0].column)]
        ends = [sum(column.steps for column in own[: index + 1]) - 1 for index in range(len(own))]
        starts = [end - column.steps + 1 for end, column in zip(ends, own, strict=True)]
        for index, (first, last) in enumerate(zip(starts, ends, strict=True)):
            # From the first step's end to the last one's, scaled to all of them.
            taken = (marks[last] - marks[first]) * own[index].steps / (own[index].steps - 1)
            if turn:
                seconds[index].append(taken)
    return seconds, evaluations


if __name__ == "__main__":
    main()
