"""A LoRA of what B has over A: for every layer the best low rank of B - A, by randomised SVD."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from studio.errors import RequestError
from studio.merging.adapters import Layer
from studio.merging.fit import check_alike
from studio.merging.joining import Made, rank_for
from studio.merging.modules import Place, modules_of
from studio.merging.request import MergeRequest
from studio.merging.sources import Source
from studio.merging.weights import Readers, floats
from studio.models.factors import found_in
from studio.models.lora_names import flattened


def check_extract(sources: tuple[Source, ...]) -> None:
    """Refuse checkpoints of different layouts, families or shapes."""
    check_alike(sources)
    first, second = (modules_of(source) for source in sources)
    for part, held in first.items():
        for module, place in held.items():
            other = second.get(part, {}).get(module)
            if other is not None and other.shape != place.shape:
                raise RequestError(
                    f"models: {place.key} is {list(place.shape)} in A and {list(other.shape)} in B; a LoRA cannot "
                    "change a shape.",
                    field="models.1",
                )


def extract(
    sources: tuple[Source, ...], request: MergeRequest, files: Readers, tick: Callable[[int, int], None]
) -> Iterator[Made]:
    """The layers that differ, in the order of A's file; those that do not are left out."""
    first, second = (modules_of(source) for source in sources)
    layers = [
        (part, module, place, second[part][module])
        for part, held in first.items()
        for module, place in held.items()
        if module in second.get(part, {}) and "embed" not in module.rpartition(".")[2]
    ]
    for number, (part, module, mine, theirs) in enumerate(layers):
        tick(number, len(layers))
        change = _read(sources[1], theirs, files) - _read(sources[0], mine, files)
        if not change.any():
            continue
        if not torch.isfinite(change).all():
            raise RequestError(f"models: {mine.key} holds weights that are not finite; no LoRA can.", field="models")
        inside = mine.shape[1:]
        rank = min(rank_for(request, inside) or 1, *change.flatten(1).shape)
        draw = torch.Generator().manual_seed(zlib.crc32(mine.key.encode()) ^ request.seed)
        yield Made(Layer(part, flattened(module), module), found_in(change.flatten(1), rank, draw), inside)


def _read(source: Source, place: Place, files: Readers) -> Tensor:
    entry = source.tensors[place.key]
    rows = place.rows or (0, entry.shape[0])
    width = 1
    for side in entry.shape[1:]:
        width *= side
    data = files.numbers(entry, rows[0] * width, (rows[1] - rows[0]) * width)
    return floats(data, entry).reshape(rows[1] - rows[0], *entry.shape[1:])
