"""Ratios of the built-in model's sampling, measured in one run: ``python -m tests.benchmarks.speed``.

Every ratio compares two things that take turns, so that a busy machine slows both alike; the median counts.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from studio.devices import seeded_noise
from studio.illusions.request import IllusionRequest
from studio.imaging import jpeg_data_uri, to_picture
from studio.models.networks import StableDiffusion
from studio.models.store import ModelStore
from studio.sampling import Upright, build_scheduler, denoise, guidance
from studio.views.view import build
from tests.benchmarks.results import RESULTS, measured_on, write_section

ROOT = Path(__file__).parents[2]
SECTION = "Sampling and starting"
STEPS = 30


@dataclass(frozen=True)
class Line:
    """One row of the table of results."""

    what: str
    value: str
    bar: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help=f"put the table into {RESULTS.name}")
    args = parser.parse_args()
    with ModelStore(ROOT / "assets").lease("builtin:emoji") as network:
        lines = sampling_lines(network, args.rounds)
    lines += start_lines(args.rounds)
    text = table(lines)
    print(text)
    if args.write:
        write_section(SECTION, text)


def sampling_lines(network: StableDiffusion, rounds: int) -> list[Line]:
    two = lambda: illusion(network)  # noqa: E731
    over_bare = ratio(two, lambda: bare_forwards(network), rounds)
    over_quiet = ratio(lambda: illusion(network, watched=True), two, rounds)
    over_plain = ratio(two, lambda: plain(network), rounds)
    return [
        Line("sampling loop / bare batched forwards of the same shapes", f"{over_bare:.3f}", "at most 1.05"),
        Line("live previews on / off (four a second, JPEG)", f"{over_quiet:.3f}", "at most 1.03"),
        Line("two-view illusion / plain picture", f"{over_plain:.2f}", "at most 2.5"),
        Line("one two-view illusion, network only", f"{seconds(two):.2f} s", "-"),
    ]


def ratio(one: Callable[[], object], other: Callable[[], object], rounds: int) -> float:
    one(), other()
    return statistics.median(seconds(one) / seconds(other) for _ in range(rounds))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def illusion(network: StableDiffusion, watched: bool = False) -> None:
    """The loop of a two-view illusion, with or without somebody watching (previews at most every 0.25 s)."""
    request = IllusionRequest(steps=STEPS)
    views = [build(spec, 16, 8) for spec in request.views]
    small = [build(spec, 16, network.preview_scale) for spec in request.views]
    shown = zip(request.prompts, views, strict=True)
    terms = [term for prompt, view in shown for term in guidance(prompt, "", request.guidance_scale, 0.5, view)]
    last = 0.0

    def preview(step: object) -> None:
        nonlocal last
        if watched and time.perf_counter() - last > 0.25:
            last = time.perf_counter()
            picture = network.preview(step.clean)[0]
            for view in small:
                jpeg_data_uri(to_picture(view.picture(picture)))

    run_loop(network, terms, preview)


def plain(network: StableDiffusion) -> None:
    run_loop(network, guidance("a fox", "", 7.0, 1.0, Upright()), lambda step: None)


def run_loop(network: StableDiffusion, terms: list, on_step: Callable) -> None:
    scheduler = build_scheduler("ddim", network.scheduler_config, STEPS, network.device)
    noise = seeded_noise((1, network.channels, 16, 16), 0, network.device)
    denoise(network, scheduler, lambda index, sigma: terms, noise, on_step)


@torch.inference_mode()
def bare_forwards(network: StableDiffusion) -> None:
    """The network alone on the rows of a two-view illusion: 4 rows a step."""
    x = seeded_noise((4, network.channels, 16, 16), 0, network.device)
    embeds = network.encode_prompts(["", "a fox", "", "a penguin"]).embeds
    for t in range(STEPS):
        network.unet(x, torch.tensor(999 - t), encoder_hidden_states=embeds, return_dict=False)


def start_lines(rounds: int) -> list[Line]:
    light = min(run_python("import studio") for _ in range(rounds)) - min(run_python("pass") for _ in range(rounds))
    return [
        Line("import studio, over an empty interpreter", f"{light:.3f} s", "under 0.3 s"),
        Line("python app.py to a served page", f"{served_after():.1f} s", "within 10 s"),
    ]


def run_python(code: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True))


def served_after() -> float:
    """Seconds from starting app.py to the first complete answer on its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "app.py", "--port", str(port), "--outputs", outputs]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as app:
            try:
                while time.perf_counter() - start < 60:
                    try:
                        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                        return time.perf_counter() - start
                    except OSError:
                        time.sleep(0.05)
            finally:
                app.terminate()
    raise TimeoutError("app.py served no page within 60 s")


def table(lines: list[Line]) -> str:
    rows = "\n".join(f"| {line.what} | {line.value} | {line.bar} |" for line in lines)
    said = measured_on("python -m tests.benchmarks.speed --write", ("torch", "diffusers", "gradio"))
    return f"{said}\n\n| what | measured | bar |\n|---|---|---|\n{rows}\n"


if __name__ == "__main__":
    main()
