"""The layers of a checkpoint by diffusers' names, and where each one's weight lies in the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from studio.merging.layout import inner, part_of
from studio.merging.sources import Source
from studio.models.lora_names import AROUND_UNET, RESNET, Shapes

LAYERED = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3")
TEXT_PREFIX = re.compile(r"^(cond_stage_model|conditioner\.embedders\.\d)\.(transformer\.|model\.)")
RESBLOCK = re.compile(r"^transformer\.resblocks\.(\d+)\.(.+)$")
OPEN_CLIP = {"attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
QKV = ("q_proj", "k_proj", "v_proj")
WAY = re.compile(r"^(input|output)_blocks[._](\d+)[._](\d+)[._](.+)$")
MIDDLE = re.compile(r"^middle_block[._](\d)[._](.+)$")
SD_LAYERS = 2  # layers per block in all of SD 1.x, 2.x and SDXL


@dataclass(frozen=True)
class Place:
    """The tensor ``key``, or its rows from ``rows[0]`` up to ``rows[1]`` where a file keeps several layers in one."""

    key: str
    shape: tuple[int, ...]
    rows: tuple[int, int] | None = None


def modules_of(source: Source) -> dict[str, dict[str, Place]]:
    """Part -> module -> where its weight lies, for every linear layer and convolution of the networks."""
    layers = _layers(source)
    found: dict[str, dict[str, Place]] = {}
    for key, entry in source.tensors.items():
        part = part_of(key)
        if part not in LAYERED or len(entry.shape) not in (2, 4):
            continue
        for module, place in _places(key, part, entry.shape, layers, folder=source.is_folder):
            found.setdefault(part, {})[module] = place
    return found


def shapes(modules: Mapping[str, Mapping[str, Place]]) -> Shapes:
    """What ``lora_files.match`` compares with."""
    return {part: {name: place.shape for name, place in held.items()} for part, held in modules.items()}


def diffusers_name(original: str, layers: int = SD_LAYERS) -> str:
    """A U-Net module of the original checkpoints as diffusers calls it; dots or underscores between the parts."""
    if match := WAY.match(original):
        block, place = divmod(int(match[2]) - (match[1] == "input"), layers + 1)
        return _in_block(match[1], block, place, int(match[3]), match[4], layers)
    if match := MIDDLE.match(original):
        kind = "attentions.0" if match[1] == "1" else f"resnets.{int(match[1]) // 2}"
        return f"mid_block.{kind}.{_resnet(match[2]) if match[1] != '1' else match[2]}"
    flat = original.replace(".", "_")
    around = {theirs.replace(".", "_"): ours for ours, theirs in AROUND_UNET}
    return around.get(flat, original)


def _in_block(way: str, block: int, place: int, slot: int, rest: str, layers: int) -> str:
    if way == "input" and block < 0:
        return "conv_in"
    side = "down_blocks" if way == "input" else "up_blocks"
    if rest == "op":
        return f"{side}.{block}.downsamplers.0.conv"
    if rest == "conv":
        return f"{side}.{block}.upsamplers.0.conv"
    kind = "attentions" if slot else "resnets"
    return f"{side}.{block}.{kind}.{place}.{rest if slot else _resnet(rest)}"


def _resnet(rest: str) -> str:
    names = {theirs.replace(".", "_"): ours for ours, theirs in RESNET}
    return names.get(rest.replace(".", "_"), rest)


def _layers(source: Source) -> int:
    """Layers per block, from where the first downsampler of an original U-Net stands."""
    found = re.compile(r"input_blocks\.(\d+)\.0\.op\.weight$")
    stands = [int(match[1]) for key in source.tensors if (match := found.search(key))]
    return min(stands) - 1 if stands else SD_LAYERS


def _places(key: str, part: str, shape: tuple[int, ...], layers: int, *, folder: bool) -> list[tuple[str, Place]]:
    if folder:
        name = key.partition("/")[2]
        return [(name.removesuffix(".weight"), Place(key, shape))] if name.endswith(".weight") else []
    if part == "unet":
        name = inner(key)
        module = diffusers_name(name.removesuffix(".weight"), layers)
        return [(module, Place(key, shape))] if name.endswith(".weight") else []
    name = TEXT_PREFIX.sub("", key)
    if match := RESBLOCK.match(name):
        return _of_open_clip(key, shape, f"text_model.encoder.layers.{match[1]}", match[2])
    return [(name.removesuffix(".weight"), Place(key, shape))] if name.endswith(".weight") else []


def _of_open_clip(key: str, shape: tuple[int, ...], layer: str, rest: str) -> list[tuple[str, Place]]:
    """OpenCLIP keeps query, key and value of a layer in one matrix."""
    if rest == "attn.in_proj_weight":
        width = shape[0] // 3
        return [
            (f"{layer}.self_attn.{name}", Place(key, (width, *shape[1:]), (i * width, (i + 1) * width)))
            for i, name in enumerate(QKV)
        ]
    name = OPEN_CLIP.get(rest.removesuffix(".weight"))
    return [(f"{layer}.{name}", Place(key, shape))] if name and rest.endswith(".weight") else []
