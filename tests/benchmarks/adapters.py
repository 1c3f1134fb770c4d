"""Views with an adapter each: one batched forward over switching one by one: ``python -m tests.benchmarks.adapters``.

N views wear M random LoRAs (rank 16, all attention layers) in turn, one evaluation per view. The batched forward is
compared with PEFT switched for every view, and with PEFT switched once per adapter for all the views that wear it. All
share the network's weights; they take turns, so that a busy machine slows them alike, and the median counts. With one
thread on a processor its own time is taken, in which other programs do not count.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from studio.models.adapters import Attached, attach
from studio.models.lora_files import shapes_of
from tests.benchmarks.results import RESULTS, measured_on, write_section

SECTION = "Adapters: one batched forward over switching"
RANK, TEXTS = 16, 77
HEAD = """| views | adapters | batched / one view at a time | batched / one adapter at a time | largest difference |
|---|---|---|---|---|"""
LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
# Stable Diffusion 1.x as it is, and the same blocks small enough for a processor.
SIZES: Mapping[str, tuple[int, ...]] = {"sd1": (320, 640, 1280, 1280), "small": (64, 128, 256, 256)}


@dataclass(frozen=True)
class Case:
    views: int
    adapters: int


@dataclass(frozen=True)
class Found:
    by_view: float
    by_adapter: float
    difference: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.adapters", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--cells", type=int, default=32, help="latent cells along one side")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--write", action="store_true", help=f"put the table into {RESULTS.name}")
    args = parser.parse_args()
    device = torch.device(args.device)
    unet = network(args.size, args.cells, torch.float16 if device.type == "cuda" else torch.float32).to(device)
    lines = [HEAD]
    print(HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for case in (Case(2, 2), Case(4, 2), Case(4, 4), Case(8, 2), Case(8, 4), Case(8, 8)):
            found = measure(unet, case, args.cells, args.rounds, Path(folder))
            numbers = f"{found.by_view:.2f} | {found.by_adapter:.2f} | {found.difference:.1e}"
            lines.append(f"| {case.views} | {case.adapters} | {numbers} |")
            print(lines[-1], flush=True)
    if args.write:
        write_section(SECTION, "\n".join([said(args, unet), "", *lines]))


def said(args: argparse.Namespace, unet: nn.Module) -> str:
    command = f"python -m tests.benchmarks.adapters --size {args.size} --cells {args.cells} --rounds {args.rounds}"
    where = torch.cuda.get_device_name() if unet.device.type == "cuda" else f"{torch.get_num_threads()} thread(s)"
    weights = sum(parameter.numel() for parameter in unet.parameters()) / 1e6
    return (
        f"{measured_on(f'{command} --write', ('torch', 'diffusers', 'peft'))}\n"
        f"{where}, {unet.dtype}; a U-Net of {weights:.0f} million weights on {args.cells} x {args.cells} codes, LoRAs "
        f"of rank {RANK} in all attention. Times of the batched forward over those of PEFT switched between forwards: "
        "below 1 the batch is faster."
    )


def network(size: str, cells: int, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=cells, block_out_channels=SIZES[size], cross_attention_dim=768)
    return unet.to(dtype).eval().requires_grad_(False)


@torch.inference_mode()
def measure(unet: nn.Module, case: Case, cells: int, rounds: int, folder: Path) -> Found:
    """Times of the batched forward over those of switching, and the largest difference of their answers."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(case.views, 4, cells, cells, generator=draw).to(unet.device, unet.dtype)
    texts = torch.randn(case.views, TEXTS, 768, generator=draw).to(unet.device, unet.dtype)
    files = {f"a{i}": write_lora(unet, folder / f"{i}.safetensors", seed=i) for i in range(case.adapters)}
    worn = [f"a{row % case.adapters}" for row in range(case.views)]
    scales = {name: torch.tensor([float(name == own) for own in worn], device=unet.device) for name in files}
    switched = with_peft(unet, files)

    def switching(groups: list[list[int]]) -> Tensor:
        """Views (a group wears the same adapter) one group after the other."""
        rows = torch.empty_like(x)
        for group in groups:
            switched.set_adapters([worn[group[0]]], [1.0])
            rows[group] = forward(switched, x[group], texts[group])
        return rows

    by_view = [[row] for row in range(case.views)]
    by_adapter = [list(range(first, case.views, case.adapters)) for first in range(case.adapters)]
    attached = Attached()
    with attach(attached, {"unet": unet}, files, "the network"):

        def batched() -> Tensor:
            with attached.rows(scales):
                return forward(unet, x, texts)

        difference = (batched() - switching(by_view)).abs().max().item()
        one, other = (ratio(batched, partial(switching, groups), rounds, x.device) for groups in (by_view, by_adapter))
    return Found(one, other, difference)


def ratio(work: Callable[[], object], other: Callable[[], object], rounds: int, device: torch.device) -> float:
    return statistics.median(seconds(work, device) / seconds(other, device) for _ in range(rounds))


def write_lora(unet: nn.Module, path: Path, seed: int) -> Path:
    """A random LoRA of all attention layers in PEFT's names, alpha equal to rank."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, (out, inside, *_) in shapes_of({"unet": unet})["unet"].items():
        if module.endswith(LAYERS):
            tensors[f"{module}.lora_A.weight"] = torch.randn(RANK, inside, generator=draw) / inside**0.5
            tensors[f"{module}.lora_B.weight"] = torch.randn(out, RANK, generator=draw) / RANK**0.5 / 10
    save_file(tensors, path)
    return path


def with_peft(unet: nn.Module, files: Mapping[str, Path]) -> nn.Module:
    """The same weights in a network that carries the LoRAs as diffusers does."""
    carrying = copy.deepcopy(unet, {id(p): p for p in unet.parameters()})
    for name, path in files.items():
        carrying.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(LAYERS)), name)
        set_peft_model_state_dict(carrying, load_file(path), adapter_name=name)
    for parameter in carrying.parameters():
        parameter.data = parameter.data.to(unet.device, unet.dtype)
    return carrying.eval()


def forward(unet: nn.Module, x: Tensor, texts: Tensor) -> Tensor:
    return unet(x, torch.tensor(500), encoder_hidden_states=texts, return_dict=False)[0]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


if __name__ == "__main__":
    main()
