"""Memory and speed at full size: ``python -m tests.benchmarks.memory sdxl --write``. No downloads: weights are random.

Writes a single-file checkpoint of the family's true shapes in fp16, loads it in a fresh process and deletes it. With an
NVIDIA GPU it also draws two-view illusions; without one it says so and leaves that part out.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from studio.devices import DTYPES, PeakMemory, pick_device, seeded_noise
from studio.models import memory, single_file
from studio.models.networks import Network
from studio.models.store import ModelStore, Options
from studio.sampling import build_scheduler, denoise, guidance
from studio.views.view import build
from tests import ldm

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("RESULTS.md")
TEXT = {
    "sd1": {"text_encoder": (ldm.clip, "cond_stage_model.transformer.")},
    "sdxl": {
        "text_encoder": (ldm.clip, "conditioner.embedders.0.transformer."),
        "text_encoder_2": (ldm.open_clip, "conditioner.embedders.1.model."),
    },
}
SIDE = {"sd1": 512, "sdxl": 1024}
STEPS, BLOCK = 30, 16 * 1024**2
NO_GPU = "No NVIDIA GPU here: pictures per minute and the share of time outside the network are not measured."


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.add_argument("family", choices=sorted(TEXT))
    parser.add_argument("--dtype", choices=["auto", *DTYPES], default="auto")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--out", type=Path, help="where the checkpoint is written meanwhile (default: a new folder)")
    parser.add_argument("--write", action="store_true", help=f"add the table to {RESULTS.name}")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        print(json.dumps(loaded(args.load, args.family, args.dtype, args.pictures)))
        return
    with tempfile.TemporaryDirectory(dir=args.out) as folder:
        path = Path(folder) / f"random-{args.family}.safetensors"
        write_checkpoint(path, args.family)
        again = ["-m", "tests.benchmarks.memory", args.family, "--dtype", args.dtype, "--pictures", str(args.pictures)]
        command = [sys.executable, *again, "--load", str(path)]
        told = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows = [("checkpoint", memory.gigabytes(path.stat().st_size)), *json.loads(told.splitlines()[-1]).items()]
    text = table(args.family, rows + activations(args.family))
    print(text)
    if args.write:
        RESULTS.write_text(RESULTS.read_text(encoding="utf-8") + "\n" + text, encoding="utf-8")


def empty_parts(family: str) -> dict[str, nn.Module]:
    """The family's modules with shapes and no memory."""
    folder = ROOT / "assets" / "configs" / family
    return {part.name: single_file._empty(part, folder) for part in single_file.FAMILIES[family].parts}


def write_checkpoint(path: Path, family: str) -> None:
    """Random fp16 weights under the names and shapes of a real checkpoint, written without holding them."""
    parts = empty_parts(family)
    tensors = ldm.unet(parts["unet"]) | ldm.vae(parts["vae"])
    for name, (written, prefix) in TEXT[family].items():
        tensors |= written(parts[name].to("meta"), prefix)
    header, end = {}, 0
    for key, tensor in tensors.items():
        start, end = end, end + 2 * tensor.numel()
        header[key] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    block = (torch.randn(BLOCK // 2, generator=torch.Generator().manual_seed(0)) * 0.02).half().numpy().tobytes()
    with path.open("wb") as file:
        file.write(len(told).to_bytes(8, "little") + told)
        for start in range(0, end, BLOCK):
            file.write(block[: end - start])


def loaded(path: Path, family: str, dtype: str, pictures: int) -> dict[str, str]:
    """Load time and peak of one process that does nothing else; on a GPU also what drawing costs."""
    store = ModelStore(ROOT / "assets", path.parent, options=Options(dtype=dtype))
    before, peak, start = PeakMemory(store.device).bytes, PeakMemory(store.device), time.perf_counter()
    with store.lease(path.name) as network:
        seconds = time.perf_counter() - start
        found = {
            "weights as loaded": f"{memory.gigabytes(store.bytes_used())} ({str(store.dtype).removeprefix('torch.')})",
            "load time": f"{seconds:.1f} s",
            "peak while loading, over what the process held before": memory.gigabytes(peak.bytes - before),
        }
        if store.device.type == "cuda":
            return found | drawn(network, SIDE[family], pictures)
    return found | {"drawing": NO_GPU}


def drawn(network: Network, side: int, pictures: int) -> dict[str, str]:
    """Two-view illusions at full size: the loop with decoding, and how much of the loop the network is not at work."""
    network.residence.arrange(side, 4)
    views = [build(spec, network.cells(side), network.factor) for spec in ("identity", "rotate_180")]
    shown = zip(("a fox", "a penguin"), views, strict=True)
    terms = [term for prompt, view in shown for term in guidance(prompt, "", 7.0, 0.5, view)]
    inside, predict = [], network.predict

    def timed(*args: Any) -> Tensor:
        torch.cuda.synchronize()
        start = time.perf_counter()
        found = predict(*args)
        torch.cuda.synchronize()
        inside.append(time.perf_counter() - start)
        return found

    network.predict = timed
    loop, whole, peak = [], [], PeakMemory(network.device)
    for seed in range(pictures + 1):
        start = time.perf_counter()
        noise = seeded_noise((1, network.channels, *[network.cells(side)] * 2), seed, network.device)
        scheduler = build_scheduler("ddim", network.scheduler_config, STEPS, network.device)
        latents = denoise(network, scheduler, lambda index, sigma: terms, noise)
        torch.cuda.synchronize()
        loop.append(time.perf_counter() - start)
        with torch.inference_mode():
            network.decode(latents).cpu()
        whole.append(time.perf_counter() - start)
        if seed == 0:  # warms up
            inside, loop, whole = [], [], []
    return {
        f"two-view illusions at {side} px, {STEPS} steps": f"{60 * pictures / sum(whole):.1f} a minute",
        "peak memory of a run": memory.gigabytes(peak.bytes),
        "share of the loop outside the network (bar: at most 5 %)": f"{1 - sum(inside) / sum(loop):.1%}",
    }


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that are alive, on the meta device, where nothing is computed or held."""

    def __init__(self, weights: nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in weights.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return found

    def _count(self, storage: Any) -> None:
        """A tensor's memory, once for all views of it, until the last of them is gone."""
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def activations(family: str) -> list[tuple[str, str]]:
    """What computing needs beside the weights, per pixel: the figures that ``studio.models.memory`` rounds up."""
    parts, side = empty_parts(family), SIDE[family]
    unet, vae = parts["unet"].to("meta"), parts["vae"].to("meta")
    cells, config = side // 8, unet.config
    x = torch.empty(1, 4, cells, cells, device="meta")
    added = {
        "text_embeds": torch.empty(1, 1280, device="meta"),
        "time_ids": torch.empty(1, 6, device="meta"),
    }
    text = torch.empty(1, 77, config.cross_attention_dim, device="meta")
    t = torch.empty((), device="meta")
    forward = _most(unet, lambda: unet(x, t, encoder_hidden_states=text, added_cond_kwargs=added).sample)
    decode = _most(vae, lambda: vae.decode(x).sample)
    return [
        ("activations of a row, per pixel and byte of dtype", f"{forward / 4 / side**2:.0f} ({memory.ROW_BYTES} used)"),
        ("decoding in float32, bytes per pixel", f"{decode / side**2:.0f} ({memory.DECODE_BYTES} used)"),
    ]


@torch.no_grad()
def _most(module: nn.Module, work: Any) -> int:
    attention, live = nn.functional.scaled_dot_product_attention, Live(module)
    # On real devices attention keeps no matrix of all pairs; on this one it would.
    nn.functional.scaled_dot_product_attention = lambda query, *args, **kwargs: torch.empty_like(query)
    try:
        with live:
            work()
    finally:
        nn.functional.scaled_dot_product_attention = attention
    return live.most


def table(family: str, rows: list[tuple[str, str]]) -> str:
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers"))
    body = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return (
        f"## Memory of {family} at full size\n\n`python -m tests.benchmarks.memory {family} --write`, {date.today()}, "
        f"{name}, {versions}; random weights.\n\n| what | measured |\n|---|---|\n{body}\n"
    )


if __name__ == "__main__":
    main()
