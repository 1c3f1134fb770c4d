"""Adapters on a loaded network: attached by hooks for one job, each row of a batch with its own scale for each of them.

With W the weight of a layer and D_k the change that adapter k stands for, row n of a batch is computed with
W + sum_k scale[k][n] * D_k. Scale 1 is the adapter as trained, 0 the base model, and everything between (also of DoRA,
as A1111 and ComfyUI have it) a straight line through the two. The layers' own weights are never touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.errors import UnknownNameError
from studio.models import lora_files
from studio.models.deltas import KINDS, magnitude_ratio

Layer = nn.Linear | nn.Conv2d
TEXT = "text_encoder"  # parts whose name begins so read prompts


@dataclass(frozen=True)
class LowRank:
    """A plain LoRA: the change B A of one layer as its two factors, B (out x r) already times alpha / r."""

    name: str
    down: Tensor  # r x in, or r x in x k x k
    up: Tensor  # out x r

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True)
class Written:
    """Any other change, written out in full at every forward: exact, slower, and no more memory than its factors."""

    name: str
    kind: str | None  # None: the bias alone changes
    tensors: Mapping[str, Tensor]
    scaling: float
    ratio: Tensor | None  # DoRA's m / ||W + D||, shaped to multiply the weight
    bias: Tensor | None

    def change(self, layer: Layer) -> Tensor | None:
        """D in float32 (also of a half-precision layer), shaped as the layer's weight."""
        if self.kind is None:
            return None
        change = plain_change(self.kind, self.tensors, self.scaling, layer)
        if self.ratio is None:
            return change
        weight = layer.weight.float()
        return (weight + change) * self.ratio.to(weight.device) - weight


class Rows:
    """The scales of one batch: adapter -> N numbers, one per row."""

    def __init__(self, scales: Mapping[str, Tensor]) -> None:
        self.scales = {name: scale.float() for name, scale in scales.items()}
        self._columns: dict[tuple[tuple[str, int], ...], Tensor] = {}

    def columns(self, layout: tuple[tuple[str, int], ...], device: torch.device) -> Tensor:
        """N x sum(r): each adapter's scales repeated for its rank, in the order of ``layout``; made once per layout."""
        if layout not in self._columns:
            parts = [self.scales[name].to(device)[:, None].expand(-1, rank) for name, rank in layout]
            with torch.inference_mode(False):  # what is kept may be of use in a forward that is trained
                self._columns[layout] = torch.cat(parts, 1)
        return self._columns[layout]


class Attached:
    """What a network carries at the moment: nothing, until ``attach``."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.in_text: frozenset[str] = frozenset()  # those that change what prompts become
        self.now: Rows | None = None  # set while a forward runs
        self.changes: Mapping[tuple[str, str], Sequence[LowRank | Written]] = {}  # by part and layer

    @contextmanager
    def rows(self, scales: Mapping[str, Tensor]) -> Iterator[None]:
        """Forwards inside run with these scales; adapters that are not named are off."""
        for name in scales:
            if name not in self.names:
                raise UnknownNameError("adapter", name, self.names or ("none is attached",), field="adapters")
        self.now = Rows(scales)
        try:
            yield
        finally:
            self.now = None

    @contextmanager
    def uniform(self, adapters: Sequence[tuple[str, float]], rows: int, device: torch.device) -> Iterator[None]:
        """``rows`` with the same scale in every row."""
        with self.rows({name: torch.full((rows,), scale, device=device) for name, scale in adapters}):
            yield

    def text_key(self, adapters: Sequence[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
        """The adapters that make a difference to prompts: prompts are encoded once for each such set."""
        return tuple(sorted((name, scale) for name, scale in adapters if name in self.in_text and scale))


class AdaptedLayer:
    """The forward hook of one layer: adds to its output what the adapters change in it."""

    def __init__(self, attached: Attached, changes: Sequence[LowRank | Written]) -> None:
        self.attached = attached
        self.low = [change for change in changes if isinstance(change, LowRank)]
        self.written = [change for change in changes if isinstance(change, Written)]
        self._layout: tuple[tuple[str, int], ...] = ()
        self._factors: tuple[Tensor, Tensor] | None = None

    def __call__(self, layer: Layer, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        rows = self.attached.now
        if rows is None:
            return out
        low = [change for change in self.low if change.name in rows.scales]
        if low:
            out = out + self._low_rank(layer, args[0], low, rows)
        for change in self.written:
            if change.name in rows.scales:
                out = out + self._written(layer, args[0], change, rows)
        return out

    def _low_rank(self, layer: Layer, x: Tensor, low: Sequence[LowRank], rows: Rows) -> Tensor:
        """All LoRAs of the layer at once: their factors stacked along the rank, which carries the scales."""
        down, up = self._stacked(low, x)
        columns = rows.columns(self._layout, x.device)
        if isinstance(layer, nn.Linear):
            inner = F.linear(x, down)
            columns = columns.view(len(columns), *[1] * (inner.dim() - 2), -1)
            return F.linear((inner * columns).to(x.dtype), up)
        inner = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
        return F.conv2d((inner * columns[:, :, None, None]).to(x.dtype), up[:, :, None, None])

    def _stacked(self, low: Sequence[LowRank], x: Tensor) -> tuple[Tensor, Tensor]:
        layout = tuple((change.name, change.rank) for change in low)
        if self._factors is None or self._layout != layout or self._factors[0].device != x.device:
            with torch.inference_mode(False):
                down, up = torch.cat([change.down for change in low]), torch.cat([change.up for change in low], 1)
                self._layout, self._factors = layout, (down.to(x.device), up.to(x.device))
        return self._factors

    def _written(self, layer: Layer, x: Tensor, change: Written, rows: Rows) -> Tensor:
        weight = change.change(layer)
        scale = rows.scales[change.name].to(x.device)
        bias = change.bias if change.bias is None else change.bias.to(x.device, x.dtype)
        if weight is None:
            added = bias if isinstance(layer, nn.Linear) else bias[:, None, None]
            return (added * scale.view(-1, *[1] * (x.dim() - 1))).to(x.dtype)
        if isinstance(layer, nn.Linear):
            added = F.linear(x, weight.to(x.dtype), bias)
        else:
            weight = weight.to(x.dtype)
            added = F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
        return (added * scale.view(-1, *[1] * (added.dim() - 1))).to(x.dtype)


@contextmanager
def attach(
    attached: Attached, parts: Mapping[str, nn.Module], files: Mapping[str, Path], model: str
) -> Iterator[Attached]:
    """Put LoRA files (name -> path) on a network's parts; when the block ends the network is as it was, bit for bit.

    Every file is checked against the network from its header before any is read.
    """
    if attached.names:
        raise RuntimeError(f"{model} carries adapters already")
    shapes = lora_files.shapes_of(parts)
    read = {name: lora_files.read_lora(Path(path)) for name, path in files.items()}
    plans = {name: lora_files.match(file, shapes, model) for name, file in read.items()}
    changes: dict[tuple[str, str], list[LowRank | Written]] = {}
    for name, targets in plans.items():
        for target, tensors in zip(targets, lora_files.load(read[name], targets), strict=True):
            layer = parts[target.part].get_submodule(target.module)
            changes.setdefault((target.part, target.module), []).append(_change(name, target, tensors, layer))
    hooks = [
        parts[part].get_submodule(module).register_forward_hook(AdaptedLayer(attached, found))
        for (part, module), found in changes.items()
    ]
    attached.names, attached.changes = tuple(files), changes
    attached.in_text = frozenset(
        name for name, targets in plans.items() if any(target.part.startswith(TEXT) for target in targets)
    )
    try:
        yield attached
    finally:
        for hook in hooks:
            hook.remove()
        attached.names, attached.in_text, attached.changes = (), frozenset(), {}


def plain_change(kind: str, tensors: Mapping[str, Tensor], scaling: float, layer: Layer) -> Tensor:
    """What a kind's tensors stand for, without any magnitude, on the layer's device and in its weight's shape."""
    held = {role: tensor.to(layer.weight.device) for role, tensor in tensors.items()}
    return scaling * KINDS[kind].change(held).reshape(layer.weight.shape)


def _change(name: str, target: lora_files.Target, tensors: Mapping[str, Tensor], layer: Layer) -> LowRank | Written:
    kind = target.piece.kind
    if set(tensors) <= {"diff_b", "alpha", "rslora"}:
        return Written(name, None, {}, 1.0, None, tensors["diff_b"])
    scaling = lora_files.scaling(kind, tensors)
    if kind == "lora" and set(tensors) <= {"up", "down", "alpha", "rslora"} and _plain(layer):
        return _low_rank(name, tensors, scaling, layer)
    weights = {role: tensor.to(layer.weight.device) for role, tensor in tensors.items()}
    with torch.no_grad():
        ratio = _ratio(kind, weights, scaling, layer)
    return Written(name, kind, weights, scaling, ratio, tensors.get("diff_b"))


def _plain(layer: Layer) -> bool:
    return isinstance(layer, nn.Linear) or (layer.groups == 1 and layer.padding_mode == "zeros")


def _low_rank(name: str, tensors: Mapping[str, Tensor], scaling: float, layer: Layer) -> LowRank:
    """The factors as the layer wants them: files keep some 1 x 1 convolutions as matrices and the other way round."""
    rank, weight = tensors["down"].shape[0], layer.weight
    down = tensors["down"].reshape(rank, *weight.shape[1:])
    up = tensors["up"].reshape(weight.shape[0], rank) * scaling
    return LowRank(name, down.to(weight.device, weight.dtype), up.to(weight.device, weight.dtype))


def _ratio(kind: str, tensors: Mapping[str, Tensor], scaling: float, layer: Layer) -> Tensor | None:
    magnitude = tensors.get("magnitude", tensors.get("dora_scale"))
    if magnitude is None:
        return None
    changed = layer.weight.float() + plain_change(kind, tensors, scaling, layer)
    by_output = "magnitude" in tensors or magnitude.shape[0] == layer.weight.shape[0]
    return magnitude_ratio(magnitude, changed, by_output)
