"""Merging checkpoints of true size: memory, time over a plain copy, and sd-mecha: ``python -m tests.benchmarks.merge``.

Synthetic checkpoints with all the names and shapes of SD 1.5 or SDXL in fp16. Each way runs in a process of its own,
whose anonymous memory (RssAnon) is sampled; the plain copy reads the same files and writes as many bytes. ``--mecha``
names a Python that has sd-mecha installed; its result is compared number by number.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from studio.models.streams import PIECE, Writer

ROOT = Path(__file__).resolve().parents[2]
HEAD = """| method | way | seconds | / plain copy | peak anonymous memory | numbers that differ |
|---|---|---|---|---|---|"""
EVERY = 0.02  # seconds between looks at a process's memory

OURS = """
import json, sys
from pathlib import Path
from studio import merging, runs
from studio.merging.request import MergeRequest
from studio.models.store import ModelStore
settings = json.loads(sys.argv[1])
out = Path(sys.argv[2])
print(json.dumps(runs.keep(out, merging.run(MergeRequest(**settings), ModelStore(Path("assets"), device="cpu")))))
"""
COPY = """
import os, sys
out = open(sys.argv[1], "wb")
for number, name in enumerate(sys.argv[2:]):
    with open(name, "rb", buffering=0) as file:
        while piece := file.read(8 * 1024**2):
            if number == 0:
                out.write(piece)
out.flush()
os.fsync(out.fileno())
"""
MECHA = """
import sys, torch, sd_mecha
method, alpha, out, *models = sys.argv[1:]
a, b, *c = [sd_mecha.model(name) for name in models]
if method == "weighted_sum":
    recipe = sd_mecha.weighted_sum(a, b, alpha=float(alpha))
else:
    recipe = sd_mecha.add_difference(a, b, c[0], alpha=float(alpha))
sd_mecha.merge(recipe, output=out, merge_device="cpu", merge_dtype=torch.float32, output_dtype=torch.float16)
"""


@dataclass(frozen=True)
class Run:
    """``anonymous``: peak in bytes."""

    seconds: float
    anonymous: int
    output: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.merge", description=__doc__)
    parser.add_argument("--family", choices=("sd1", "sdxl"), default="sd1")
    parser.add_argument("--folder", type=Path, help="where the files go, some 10 to 30 GB (default: a temporary one)")
    parser.add_argument("--methods", nargs="+", default=["weighted_sum", "add_difference"])
    parser.add_argument("--mecha", help="a Python with sd-mecha")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        measure(args.family, Path(folder), args.methods, args.mecha)


def measure(family: str, folder: Path, methods: Sequence[str], mecha: str | None) -> None:
    """Print a line of the table for each method and way."""
    tensors = shapes(family)
    count = 3 if "add_difference" in methods else 2
    files = [write(folder / f"{name}.safetensors", tensors, seed) for seed, name in enumerate("abc"[:count])]
    print(f"{family}: {len(tensors)} tensors, {files[0].stat().st_size / 1e9:.2f} GB each; {torch.__version__}\n")
    print(HEAD)
    for method in methods:
        used = [str(file) for file in files[: 3 if method == "add_difference" else 2]]
        copied = run([sys.executable, "-c", COPY, str(folder / "copy"), *used])
        (folder / "copy").unlink()
        show(method, "plain copy", copied, copied)
        settings = {"models": used, "method": method, "alpha": 0.3, "title": "ours", "parts": {"vae": "merge"}}
        ours = run([sys.executable, "-c", OURS, json.dumps(settings), str(folder / method)])
        show(method, "Duckrabbit, with all hashes", ours, copied)
        if mecha:
            other = folder / "mecha.safetensors"
            theirs = run([mecha, "-c", MECHA, method, "0.3", str(other), *used])
            show(method, "sd-mecha", theirs, copied, differ(folder / method / "ours.safetensors", other))
            other.unlink(missing_ok=True)
        (folder / method / "ours.safetensors").unlink()


def show(method: str, way: str, found: Run, copied: Run, differing: str = "") -> None:
    ratio = f"{found.seconds / copied.seconds:.2f}"
    memory = f"{found.anonymous / 1e9:.2f} GB"
    print(f"| {method} | {way} | {found.seconds:.0f} | {ratio} | {memory} | {differing} |", flush=True)


def run(command: list[str]) -> Run:
    """A process from its start to its end, its memory looked at all the while."""
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, text=True)
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(EVERY)
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise SystemExit(output[-2000:])
    return Run(time.perf_counter() - start, peak, output)


def anonymous(pid: int) -> int:
    """RssAnon in bytes: memory that is no cached file. 0 once the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def shapes(family: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every tensor of a checkpoint of that family in one file, in A1111's layout, from the configs in assets."""
    from studio.models import single_file
    from tests import ldm

    folder = ROOT / "assets" / "configs" / family
    parts = {part.name: part.build(json.loads((folder / f"{part.name}.json").read_text())) for part in _meta(family)}
    held = ldm.unet(parts["unet"]) | ldm.vae(parts["vae"])
    prefixes = {part.name: part.prefix for part in single_file.FAMILIES[family].parts}
    held |= ldm.clip(parts["text_encoder"], prefixes["text_encoder"])
    if "text_encoder_2" in parts:
        held |= ldm.open_clip(parts["text_encoder_2"], prefixes["text_encoder_2"])
    found = {key: ("F16", tuple(value.shape)) for key, value in held.items()}
    ids = f"{prefixes['text_encoder']}text_model.embeddings.position_ids"
    return {ids: ("I64", (1, 77))} | found


def _meta(family: str) -> tuple:
    from studio.models import single_file

    torch.set_default_device("meta")
    return single_file.FAMILIES[family].parts


def write(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], seed: int) -> Path:
    """Random weights of a plausible size, the same block of numbers over and over from another place."""
    torch.set_default_device("cpu")
    draw = torch.Generator().manual_seed(seed)
    block = bytes((torch.randn(PIECE, generator=draw) * 0.05).half().numpy().tobytes())
    with Writer(path, tensors, {"format": "pt"}) as out:
        for key, (dtype, shape) in tensors.items():
            count = torch.Size(shape).numel()
            if dtype == "I64":
                out.write(torch.arange(count).numpy().tobytes())
                continue
            left, at = 2 * count, 2 * (len(key) * 7919 % 1000)
            while left:
                piece = block[at : at + left]
                out.write(piece)
                left, at = left - len(piece), 0
    return path


def differ(one: Path, other: Path) -> str:
    """How many numbers two files have that are not equal, of how many."""
    count = total = 0
    with safe_open(one, "pt") as ours, safe_open(other, "pt") as theirs:
        for key in set(ours.keys()) & set(theirs.keys()):
            mine, yours = ours.get_tensor(key), theirs.get_tensor(key)
            total += mine.numel()
            count += int((mine != yours).sum())
        missing = len(set(ours.keys()) ^ set(theirs.keys()))
    return f"{count:,} of {total:,}" + (f", {missing} tensors in one only" if missing else "")


if __name__ == "__main__":
    main()
