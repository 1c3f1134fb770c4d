"""LoRA files as sources of a merge: their layers by common names, and each layer as factors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio.errors import ModelError, ModelFileError
from studio.merging.modules import diffusers_name
from studio.merging.sources import Source
from studio.models import lora_files
from studio.models.deltas import KINDS
from studio.models.factors import Factors
from studio.models.files import read_header_and_notes
from studio.models.lora_files import LoraFile, Piece, Target
from studio.models.lora_names import DENOISERS, EARLY_NAMES, PREFIXES, flattened
from studio.models.refs import resolve_lora
from studio.models.streams import entries_of

PLAIN = {"up", "down", "mid", "alpha", "rslora"}
ORIGINAL = re.compile(r"^(input_blocks|output_blocks|middle_block|time_embed|label_emb|out)_\d")
DOTTED = re.compile(r"^(unet|transformer|text_encoder(_[23])?)\.")


@dataclass(frozen=True)
class Layer:
    """A layer of a network: ``flat`` tells it whatever notation a file uses; ``dotted`` is diffusers' name if known."""

    part: str
    flat: str
    dotted: str | None


@dataclass(frozen=True)
class Adapter:
    """A LoRA file and its place in the merge."""

    name: str
    file: LoraFile
    source: Source


def read_adapter(name: str, assets: Path, models_dir: Path | None, index: int) -> Adapter:
    """The LoRA ``name``, from its header; ModelError with the field for what is none."""
    field = f"adapters.{index}"
    try:
        file = lora_files.read_lora(resolve_lora(name, assets, models_dir, field=field))
        header, notes = read_header_and_notes(file.path)
        return Adapter(name, file, Source(name, file.path, entries_of(file.path, header), notes))
    except ModelError as error:
        raise type(error)(str(error), field=field) from error


def layer_of(piece: Piece) -> Layer:
    """What a file's name for a layer means, without the network: its part by the prefix, the rest in one notation."""
    flat = flattened(piece.name)
    prefix, parts = next((prefix, parts) for prefix, parts in PREFIXES if flat.startswith(prefix))
    part, rest = parts[0], flat.removeprefix(prefix)
    if part in DENOISERS:
        part = "transformer" if "transformer" in prefix or "joint_blocks" in rest else "unet"
    if not prefix and re.match(r"(encoder_layers|text_)", rest):
        part = "text_encoder"
    if part == "unet" and ORIGINAL.match(rest):
        rest = diffusers_name(rest)
        return Layer(part, flattened(rest), None)
    return Layer(part, rest, _dotted(piece.name))


def factors_of(adapter: Adapter, piece: Piece, tensors: Mapping[str, Tensor]) -> Factors | None:
    """The piece as up and down, exactly, with alpha in ``up``; None for kinds that have no low rank of their own."""
    scale = lora_files.scaling(piece.kind, tensors)
    if piece.kind == "lora" and set(tensors) <= PLAIN:
        up, down = tensors["up"].flatten(1), tensors["down"]
        if "mid" in tensors:
            down = torch.einsum("abkl,bi->aikl", tensors["mid"], down.flatten(1))
        return Factors(scale * up, down.flatten(1))
    if piece.kind == "loha" and "hada_t1" not in tensors:
        return Factors(scale * _products(tensors["hada_w1_a"], tensors["hada_w2_a"], 1), _loha_down(tensors))
    return None


def whole_of(piece: Piece, tensors: Mapping[str, Tensor]) -> Tensor:
    """The piece's change as a matrix, outputs x everything else."""
    return lora_files.scaling(piece.kind, tensors) * KINDS[piece.kind].change(tensors).flatten(1)


def refuse_unlinear(adapter: Adapter) -> None:
    """DoRAs rescale the weight that they are put on, so that without it they cannot be added up."""
    for piece in adapter.file.pieces:
        if {"magnitude", "dora_scale"} & piece.keys.keys():
            raise ModelFileError(
                f"{adapter.name} is a DoRA, whose change depends on the checkpoint: bake it into one instead.",
                field="adapters",
            )
        if "diff_b" in piece.keys:
            raise ModelFileError(
                f"{adapter.name} also changes biases ({piece.keys['diff_b']}), which no LoRA can hold: bake it.",
                field="adapters",
            )


def tensors_of(adapter: Adapter) -> list[tuple[Piece, dict[str, Tensor]]]:
    """Every piece with its numbers, float32."""
    targets = [Target(piece, layer_of(piece).part, _dotted(piece.name) or piece.name) for piece in adapter.file.pieces]
    return list(zip(adapter.file.pieces, lora_files.load(adapter.file, targets), strict=True))


def shape_inside(piece: Piece) -> tuple[int, ...]:
    """What a layer reads: (inputs,) or (inputs, k, k)."""
    shapes = piece.shapes
    if "mid" in shapes:
        return (shapes["down"][1], *shapes["mid"][2:])
    if "down" in shapes:
        return shapes["down"][1:]
    if "diff" in shapes:
        return shapes["diff"][1:]
    return ()


def _products(one: Tensor, other: Tensor, dim: int) -> Tensor:
    """All products of a column (dim 1) or a row (dim 0) of ``one`` with one of ``other``: (B1 A1) * (B2 A2) is

    [b1_i * b2_j] [a1_i * a2_j]^T, of rank r1 r2.
    """
    if dim == 1:
        return (one[:, :, None] * other[:, None, :]).flatten(1)
    return (one[:, None, :] * other[None, :, :]).flatten(0, 1)


def _loha_down(tensors: Mapping[str, Tensor]) -> Tensor:
    return _products(tensors["hada_w1_b"].flatten(1), tensors["hada_w2_b"].flatten(1), 0)


def _dotted(name: str) -> str | None:
    """diffusers' name of a layer, without its part, where the file has dots."""
    name = name.removeprefix("base_model.model.")
    for pattern, new in EARLY_NAMES:
        name = re.sub(pattern, new, name)
    if "." not in name or name.startswith(("lora_", "lycoris_", "diffusion_model.")):
        return None
    return DOTTED.sub("", name)
