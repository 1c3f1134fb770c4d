"""Merging checkpoints of true size: memory, time over a plain copy, and sd-mecha: ``python -m tests.benchmarks.merge``.

Synthetic checkpoints with all the names and shapes of SD 1.5 or SDXL in fp16. Each way runs in a process of its own,
whose anonymous memory (RssAnon) is sampled from its first line to its last; seconds are those of the work alone,
without the imports, and beside them those that the processor was busy for it. The plain copy reads the same files and
writes one of them. All begin with files that are not in memory, and take turns for some rounds: times are medians, so
are the ratios to the copy of the same round. ``--mecha`` names a Python that has sd-mecha installed;
its one result is compared number by number.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

from studio.merging.catalogue import METHODS
from studio.models import streams
from studio.models.streams import PIECE
from tests.benchmarks.results import RESULTS, measured_on, write_section

ROOT = Path(__file__).resolve().parents[2]
HEAD = """| method | way | seconds | / plain copy | seconds of processor | peak anonymous memory | numbers that differ |
|---|---|---|---|---|---|---|"""
EVERY = 0.02  # seconds between looks at a process's memory
IN_BOTH = ("weighted_sum", "add_difference")  # of what sd-mecha has too
BARS = (
    "At most 1.25 of a plain copy; memory under 1.0 GB for two SDXL files, 0.7 GB for SD 1.5, 1.5 GB for three inputs."
)

OURS = """
import json, sys, time
from pathlib import Path
from studio import merging, runs
from studio.merging.request import MergeRequest
from studio.models.store import ModelStore, Options
settings = json.loads(sys.argv[1])
hashes = Path(sys.argv[3]) if sys.argv[3] else None
store = ModelStore(Path("assets"), device="cpu", options=Options(hashes=hashes))
import studio.merging.engine
start, busy = time.perf_counter(), time.process_time()
runs.keep(Path(sys.argv[2]), merging.run(MergeRequest(**settings), store))
print(time.perf_counter() - start, time.process_time() - busy)
"""
# What hashing costs is seen beside it: SHA-256 takes most of the time where a processor has no instructions for it.
WITHOUT_HASHES = """
from studio.models import hashing
class Nothing:
    def sha256(self): return self
    def update(self, data): pass
    def hexdigest(self): return "0" * 64
hashing.hashlib = Nothing()
"""
COPY = """
import os, sys, time
start, busy = time.perf_counter(), time.process_time()
out = open(sys.argv[1], "wb")
for number, name in enumerate(sys.argv[2:]):
    with open(name, "rb", buffering=0) as file:
        while piece := file.read(8 * 1024**2):
            if number == 0:
                out.write(piece)
out.flush()
os.fsync(out.fileno())
print(time.perf_counter() - start, time.process_time() - busy)
"""
MECHA = """
import os, sys, time, torch, sd_mecha
start, busy = time.perf_counter(), time.process_time()
method, alpha, out, *models = sys.argv[1:]
a, b, *c = [sd_mecha.model(name) for name in models]
if method == "weighted_sum":
    recipe = sd_mecha.weighted_sum(a, b, alpha=float(alpha))
else:
    recipe = sd_mecha.add_difference(a, b, c[0], alpha=float(alpha))
sd_mecha.merge(recipe, output=out, merge_device="cpu", merge_dtype=torch.float32, output_dtype=torch.float16)
file = os.open(out, os.O_RDONLY)
os.fsync(file)
print()
print(time.perf_counter() - start, time.process_time() - busy)
"""


@dataclass(frozen=True)
class Run:
    """``busy``: seconds of processor time of all threads; ``anonymous``: peak in bytes."""

    seconds: float
    busy: float
    anonymous: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.merge", description=__doc__)
    parser.add_argument("--family", choices=("sd1", "sdxl"), default="sd1")
    parser.add_argument("--folder", type=Path, help="where the files go, some 10 to 30 GB (default: a temporary one)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--largest", type=int, help="leave out all but so many tensors, to measure memory alone")
    parser.add_argument("--rounds", type=int, default=3, help="how often copy and merge take turns; medians are shown")
    parser.add_argument("--mecha", help="a Python with sd-mecha")
    parser.add_argument("--said", default="", help="a sentence about the machine that belongs to the table")
    parser.add_argument("--write", action="store_true", help=f"put the table into {RESULTS.name}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        lines = list(measure(args.family, Path(folder), args))
    if args.write:
        options = f" --largest {args.largest}" if args.largest else " --mecha PYTHON" if args.mecha else ""
        command = f"python -m tests.benchmarks.merge --family {args.family}{options} --write"
        words = (
            f"{measured_on(command, ('torch', 'safetensors'))}{' sd-mecha 1.1.8.' if args.mecha else ''} {args.said}"
        )
        title = "every method on its largest tensors" if args.largest else "checkpoints of full size"
        write_section(f"Merging {args.family}: {title}", "\n".join([words.strip(), BARS, "", *lines]))


def measure(family: str, folder: Path, args: argparse.Namespace) -> Iterator[str]:
    """Print and yield a line of the table for each method and way."""
    tensors, mecha = largest(shapes(family), args.largest), args.mecha
    needed = {method: METHODS[method].models[0] for method in args.methods}
    files = [
        write(folder / f"{name}.safetensors", tensors, seed) for seed, name in enumerate("abc"[: max(needed.values())])
    ]
    yield from said(f"{len(tensors)} tensors, {files[0].stat().st_size / 1e9:.2f} GB each.", "", HEAD)
    for method, count in needed.items():
        used = files[:count]
        settings = {"models": list(map(str, used)), "method": method, "alpha": 0.3, "title": "ours"}
        settings |= {"parts": {"vae": "merge"}, "accept_nonfinite": True}
        given = [json.dumps(settings), str(folder / method)]
        ways = {
            "plain copy": [sys.executable, "-c", COPY, str(folder / "copy"), *map(str, used)],
            "Duckrabbit, every file hashed": [sys.executable, "-c", OURS, *given, ""],
            "Duckrabbit, sources hashed before": [sys.executable, "-c", OURS, *given, str(folder / "hashes.json")],
        }
        if method in IN_BOTH:
            ways["Duckrabbit, nothing hashed"] = [sys.executable, "-c", WITHOUT_HASHES + OURS, *given, ""]
        run(ways["Duckrabbit, sources hashed before"], used)  # from now on they were
        turns = [{way: run(command, used) for way, command in ways.items()} for _ in range(args.rounds)]
        runs = {way: middle([turn[way] for turn in turns]) for way in ways}
        for way, found in runs.items():
            ratio = statistics.median(turn[way].seconds / turn["plain copy"].seconds for turn in turns)
            yield from said(line(method, way, found, ratio))
        if mecha and method in IN_BOTH:
            other = folder / "mecha.safetensors"
            theirs = run([mecha, "-c", MECHA, method, "0.3", str(other), *map(str, used)], used)
            differing = differ(folder / method / "ours.safetensors", other)
            yield from said(
                line(method, "sd-mecha, once", theirs, theirs.seconds / runs["plain copy"].seconds, differing)
            )
            other.unlink(missing_ok=True)
        (folder / method / "ours.safetensors").unlink()
        (folder / "copy").unlink()


def middle(runs: Sequence[Run]) -> Run:
    """Medians of the times, and the largest memory."""
    seconds, busy = (statistics.median(times) for times in zip(*((run.seconds, run.busy) for run in runs), strict=True))
    return Run(seconds, busy, max(run.anonymous for run in runs))


def largest(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], count: int | None
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The ``count`` largest tensors, and what tells the model's family."""
    by_size = sorted(tensors, key=lambda key: -torch.Size(tensors[key][1]).numel())
    kept = {*by_size[:count], next(key for key in tensors if key.endswith("attn2.to_k.weight"))}
    return {key: value for key, value in tensors.items() if key in kept}


def said(*lines: str) -> Sequence[str]:
    print(*lines, sep="\n", flush=True)
    return lines


def line(method: str, way: str, found: Run, ratio: float, differing: str = "") -> str:
    numbers = f"{found.seconds:.1f} | {ratio:.2f} | {found.busy:.1f} | {found.anonymous / 1e9:.2f} GB"
    return f"| {method} | {way} | {numbers} | {differing} |"


def run(command: list[str], files: Sequence[Path]) -> Run:
    """A process from its start to its end, its memory looked at all the while; it ends with its seconds."""
    forget(files)
    peak = 0
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, text=True)
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(EVERY)
        out.seek(0)
        output = out.read()
    if process.returncode:
        raise SystemExit(output[-2000:])
    return Run(*map(float, output.split()[-2:]), peak)


def forget(files: Sequence[Path]) -> None:
    """Take files out of the system's memory, so that all ways begin alike; where that cannot be asked, they do not."""
    if sys.platform != "linux":
        return
    for file in files:
        opened = os.open(file, os.O_RDONLY)
        os.fsync(opened)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)


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
    head = streams._header(tensors, {"format": "pt"})
    with path.open("wb") as out:
        out.write(len(head).to_bytes(8, "little") + head)
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
    count = total = most = 0
    with safe_open(one, "pt") as ours, safe_open(other, "pt") as theirs:
        for key in set(ours.keys()) & set(theirs.keys()):
            mine, yours = ours.get_tensor(key), theirs.get_tensor(key)
            total += mine.numel()
            if differing := int((mine != yours).sum()):
                count += differing
                most = max(most, steps_apart(mine, yours))
        missing = len(set(ours.keys()) ^ set(theirs.keys()))
    found = f"{count:,} of {total:,}" + (f", by at most {most} of their last bits" if count else "")
    return found + (f", {missing} tensors in one only" if missing else "")


def steps_apart(one: torch.Tensor, other: torch.Tensor) -> int:
    """How many fp16 numbers lie between two, at the most."""
    places = [torch.where(bits < 0, -32768 - bits, bits) for bits in (x.view(torch.int16).int() for x in (one, other))]
    return int((places[0] - places[1]).abs().max())


if __name__ == "__main__":
    main()
