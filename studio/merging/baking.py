"""LoRAs baked into a checkpoint: W + sum_i w_i W_i for every layer that they change, all else as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from studio.errors import ModelError, RequestError
from studio.merging.adapters import Adapter, read_adapter
from studio.merging.fit import PRECISIONS, Item, Plan
from studio.merging.layout import part_of
from studio.merging.modules import Place, modules_of, shapes
from studio.merging.preflight import method_of, options_of
from studio.merging.request import MergeRequest
from studio.merging.sources import read_source
from studio.models import lora_files
from studio.models.deltas import KINDS, magnitude_ratio
from studio.models.lora_files import Target


@dataclass(frozen=True)
class Change:
    """One LoRA's piece on (rows of) one weight."""

    target: Target
    tensors: dict[str, Tensor]
    weight: float
    rows: tuple[int, int] | None

    def __call__(self, whole: Tensor) -> Tensor:
        """The changed weight in float32; ``whole`` is changed in place."""
        part = whole if self.rows is None else whole[slice(*self.rows)]
        if not set(self.tensors) <= {"diff_b", "alpha", "rslora"}:
            part += self._change(part).mul_(self.weight)
        return whole

    def _change(self, part: Tensor) -> Tensor:
        kind = self.target.piece.kind
        change = lora_files.scaling(kind, self.tensors) * KINDS[kind].change(self.tensors).reshape(part.shape)
        magnitude = self.tensors.get("magnitude", self.tensors.get("dora_scale"))
        if magnitude is None:
            return change
        changed = change.add_(part)
        by_output = "magnitude" in self.tensors or magnitude.shape[0] == part.shape[0]
        return (magnitude_ratio(magnitude, changed, by_output) * changed).sub_(part)


@dataclass(frozen=True)
class Shift:
    """What one LoRA adds to a bias."""

    added: Tensor
    rows: tuple[int, int] | None

    def __call__(self, whole: Tensor) -> Tensor:
        part = whole if self.rows is None else whole[slice(*self.rows)]
        part += self.added
        return whole


def plan_baking(request: MergeRequest, assets: Path, models_dir: Path | None) -> Plan:
    """What baking would do; everything that does not fit is found from headers."""
    source = read_source(request.models[0], assets, models_dir, field="models.0")
    adapters = [read_adapter(name, assets, models_dir, i) for i, name in enumerate(request.adapters)]
    modules = modules_of(source)
    changes: dict[str, list[Callable[[Tensor], Tensor]]] = {}
    for index, (adapter, weight) in enumerate(zip(adapters, request.scales, strict=True)):
        try:
            targets = lora_files.match(adapter.file, shapes(modules), source.name)
        except ModelError as error:
            raise type(error)(str(error), field=f"adapters.{index}") from error
        _add(changes, adapter, targets, weight, modules)
    missing = next((key for key in changes if key not in source.tensors), None)
    if missing:
        raise RequestError(f"adapters: {source.name} has no {missing}, which a LoRA changes.", field="adapters")
    items = []
    for key, entry in source.tensors.items():
        wanted = PRECISIONS.get(request.precision) if entry.is_float else None
        item = Item(key, wanted or entry.dtype, entry.shape, part_of(key), (entry,))
        items.append(replace(item, changes=tuple(changes.get(key, ()))))
    extra = tuple(adapter.source for adapter in adapters)
    return Plan(request, method_of(request), options_of(request), (source,), tuple(items), (), extra)


def _add(
    changes: dict[str, list[Callable[[Tensor], Tensor]]],
    adapter: Adapter,
    targets: Sequence[Target],
    weight: float,
    modules: dict[str, dict[str, Place]],
) -> None:
    for target, tensors in zip(targets, lora_files.load(adapter.file, targets), strict=True):
        place = modules[target.part][target.module]
        changes.setdefault(place.key, []).append(Change(target, tensors, weight, place.rows))
        if "diff_b" in tensors:
            bias = place.key.removesuffix("weight") + "bias"
            changes.setdefault(bias, []).append(Shift(weight * tensors["diff_b"], place.rows))
