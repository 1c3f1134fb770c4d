"""LoRAs joined into one: sum_i w_i W_i exactly, its rank the sum of theirs; then cut to a rank if one is asked for."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.errors import ModelFileError, RequestError
from studio.merging.adapters import (
    Adapter,
    Layer,
    factors_of,
    layer_of,
    refuse_unlinear,
    shape_inside,
    tensors_of,
    whole_of,
)
from studio.merging.request import MergeRequest
from studio.models import factors
from studio.models.factors import Factors
from studio.models.lora_files import Piece

Mergers = Mapping[tuple[str, str], Mapping[int, Tensor]]
"""Layer (part and flat name) -> number of a LoRA -> what each column of its change is multiplied by."""


@dataclass(frozen=True)
class Made:
    """One layer of the result: its factors and what it reads, (inputs,) or (inputs, k, k)."""

    layer: Layer
    factors: Factors
    inside: tuple[int, ...]


@dataclass(frozen=True)
class _Held:
    weight: float
    piece: Piece
    tensors: dict[str, Tensor]
    adapter: Adapter
    merger: Tensor | None = None

    @property
    def low(self) -> Factors | None:
        """As factors, if it has any, with the merger in ``down``."""
        found = factors_of(self.adapter, self.piece, self.tensors)
        if found is None or self.merger is None:
            return found
        columns = self.merger.repeat_interleave(found.down.shape[1] // len(self.merger))
        return Factors(found.up, found.down * columns)


def check_join(adapters: Sequence[Adapter], request: MergeRequest) -> None:
    """Raises ModelFileError for LoRAs that cannot be added up, or not to each other, before a number is read."""
    shapes: dict[tuple[str, str], tuple[tuple[int, ...], str]] = {}
    for index, adapter in enumerate(adapters):
        refuse_unlinear(adapter)
        for piece in adapter.file.pieces:
            if piece.kind not in ("lora", "loha") and request.rank is None:
                raise RequestError(
                    f"rank: {adapter.name} holds {piece.name!r} in a form that has no low rank of its own; set a rank.",
                    field="rank",
                )
            layer, shape = layer_of(piece), _outer(piece)
            known = shapes.setdefault((layer.part, layer.flat), (shape, adapter.name))
            if None not in (shape, known[0]) and shape != known[0]:
                raise ModelFileError(
                    f"{known[1]} and {adapter.name} are LoRAs for different networks: {layer.part} {layer.flat} is "
                    f"{list(known[0])} in one and {list(shape)} in the other.",
                    field=f"adapters.{index}",
                )
            if request.join == "zip" and piece.kind not in ("lora", "loha"):
                raise RequestError(
                    f"join: {adapter.name} holds {piece.name!r} in a form without columns of its own; join with "
                    "the sum and a rank.",
                    field="join",
                )
            if request.names == "diffusers" and layer.dotted is None:
                raise RequestError(
                    f"names: {adapter.name} names its layers as kohya does ({piece.name}), and diffusers' names cannot "
                    "be told from that; choose kohya.",
                    field="names",
                )


def join(
    adapters: Sequence[Adapter], request: MergeRequest, tick: Callable[[int, int], None], mergers: Mergers | None = None
) -> Iterator[Made]:
    """Layer by layer, in the order in which the files name them."""
    held: dict[tuple[str, str], list[_Held]] = {}
    layers: dict[tuple[str, str], Layer] = {}
    for index, (adapter, weight) in enumerate(zip(adapters, request.scales, strict=True)):
        for piece, tensors in tensors_of(adapter):
            layer = layer_of(piece)
            key = (layer.part, layer.flat)
            merger = (mergers or {}).get(key, {}).get(index)
            held.setdefault(key, []).append(_Held(weight, piece, tensors, adapter, merger))
            layers.setdefault(key, layer)
    for number, (key, parts) in enumerate(held.items()):
        tick(number, len(held))
        inside = shape_inside(parts[0].piece)
        rank = rank_for(request, inside)
        found = _sum(parts, rank, zlib.crc32("/".join(key).encode()) ^ request.seed)
        yield Made(layers[key], found, inside or (found.down.shape[1],))


def rank_for(request: MergeRequest, inside: tuple[int, ...]) -> int | None:
    """The rank that is asked for a layer: convolutions of more than one pixel may have their own."""
    wide = len(inside) == 3 and inside[1] * inside[2] > 1
    return request.conv_rank or request.rank if wide else request.rank


def _sum(parts: Sequence[_Held], rank: int | None, seed: int) -> Factors:
    low = [(part.weight, part.low) for part in parts]
    if all(found is not None for _, found in low):
        together = factors.joined(low)
        return together if rank is None else factors.cut(together, rank)
    whole = sum(part.weight * whole_of(part.piece, part.tensors) for part in parts)
    return factors.found_in(whole, rank or min(whole.shape), torch.Generator().manual_seed(seed))


def _outer(piece: Piece) -> tuple[int, int] | None:
    """Outputs and all inputs of a layer, where the shapes tell it at a glance."""
    inside = shape_inside(piece)
    count = 1
    for side in inside:
        count *= side
    if "up" in piece.shapes:
        return (piece.shapes["up"][0], count)
    return (piece.shapes["diff"][0], count) if "diff" in piece.shapes else None
