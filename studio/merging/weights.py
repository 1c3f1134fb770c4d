"""The numbers of a merge: piece by piece in float32, rounded once, with whatever is not finite counted."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from studio.merging.fit import CODES, Item, Plan
from studio.merging.methods import FUNCTIONS, Setting
from studio.models.streams import ITEM_BYTES, Entry, Reader

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NUMBERS = 4 * 1024**2  # numbers of a tensor that are worked on at a time


@dataclass
class Fault:
    """Weights of one tensor that are not finite; ``overflow``: finite until they were rounded."""

    nan: int = 0
    infinite: int = 0
    overflow: int = 0


class Readers(dict[Path, Reader]):
    """One open reader for each file, opened when it is first needed."""

    def __init__(self, tick: Callable[[], None], *, hashed: bool = True) -> None:
        super().__init__()
        self._tick, self._hashed = tick, hashed

    def __missing__(self, path: Path) -> Reader:
        self[path] = Reader(path, self._tick, hashed=self._hashed)
        return self[path]

    def numbers(self, entry: Entry, first: int, count: int) -> bytearray:
        width = ITEM_BYTES[entry.dtype]
        return self[entry.path].read(entry.start + first * width, count * width)


@contextmanager
def readers(tick: Callable[[], None] = lambda: None, *, hashed: bool = True) -> Iterator[Readers]:
    """Readers that are closed when the block ends."""
    opened = Readers(tick, hashed=hashed)
    with ExitStack() as stack:
        stack.callback(lambda: [reader.close() for reader in opened.values()])
        yield opened


class Weights:
    """Every tensor of a plan, as bytes in pieces or whole; the preview and the file are made by the same calls."""

    def __init__(self, plan: Plan, files: Readers, faults: dict[str, Fault] | None = None) -> None:
        self.plan, self.files = plan, files
        self.faults: dict[str, Fault] = {} if faults is None else faults

    def pieces(self, item: Item) -> Iterator[memoryview]:
        """The tensor's bytes in the result, in order."""
        if not item.inputs[0].is_float:
            yield memoryview(self.files.numbers(item.inputs[0], 0, _count(item.shape)))
        elif item.changes or (item.merged and (item.channels is not None or not self.plan.method.piecewise)):
            yield as_bytes(self._rounded(item, self._whole(item)))
        else:
            for first in range(0, _count(item.shape), NUMBERS):
                yield self._piece(item, first, min(NUMBERS, _count(item.shape) - first))

    def tensor(self, item: Item) -> Tensor:
        """The same as a tensor, for a network that is to be drawn with before anything is written."""
        data = bytearray(b"".join(self.pieces(item)))
        if not item.inputs[0].is_float:
            whole = {"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32}
            return torch.frombuffer(data, dtype=whole.get(item.dtype, torch.int64)).reshape(item.shape)
        if not data:
            return torch.empty(item.shape, dtype=DTYPES[item.dtype])
        return torch.frombuffer(data, dtype=DTYPES[item.dtype]).reshape(item.shape)

    def _piece(self, item: Item, first: int, count: int) -> memoryview:
        raw = [self.files.numbers(entry, first, count) for entry in item.inputs]
        if _same(item, raw):
            return self._copied(item, raw[0])
        inputs = [floats(data, entry) for data, entry in zip(raw, item.inputs, strict=True)]
        return as_bytes(self._rounded(item, self._merged(item, inputs)))

    def _copied(self, item: Item, data: bytearray) -> memoryview:
        """As it is, to the bit, unless another precision is wanted."""
        exact = floats(data, item.inputs[0])
        rounded = self._rounded(item, exact)
        return memoryview(data) if item.dtype == item.inputs[0].dtype else as_bytes(rounded)

    def _whole(self, item: Item) -> Tensor:
        raw = [self.files.numbers(entry, 0, _count(entry.shape)) for entry in item.inputs]
        inputs = [floats(data, entry).reshape(entry.shape) for data, entry in zip(raw, item.inputs, strict=True)]
        if item.changes:
            return changed(item.changes, inputs[0])
        if item.channels is None:
            if _same(item, raw):
                return inputs[0]
            return self._merged(item, inputs)
        whole = inputs[0].clone()
        whole[:, :CODES] = self._merged(item, [tensor[:, :CODES] for tensor in inputs])
        return whole

    def _merged(self, item: Item, inputs: Sequence[Tensor]) -> Tensor:
        draw = None
        if self.plan.method.random:
            draw = torch.Generator().manual_seed(self.plan.request.seed << 31 | zlib.crc32(item.key.encode()) >> 1)
        setting = Setting(item.alpha, self.plan.options, draw)
        return FUNCTIONS[self.plan.method.name](inputs, setting)

    def _rounded(self, item: Item, exact: Tensor) -> Tensor:
        rounded = exact.to(DTYPES[item.dtype])
        if found := faults_in(exact, rounded):
            before = self.faults.setdefault(item.key, Fault())
            before.nan += found.nan
            before.infinite += found.infinite
            before.overflow += found.overflow
        return rounded


def changed(changes: Sequence[Callable[[Tensor], Tensor]], whole: Tensor) -> Tensor:
    """What LoRAs make of a weight, one after the other in float32. ``whole`` may share memory with what was read."""
    whole = whole.clone()
    for change in changes:
        whole = change(whole)
    return whole


def faults_in(exact: Tensor, rounded: Tensor) -> Fault | None:
    """What is not finite in ``exact`` or becomes so by rounding; None when all is well, which one pass tells."""
    if exact.numel() == 0:
        return None
    low, high = (float(value) for value in exact.aminmax())
    most = torch.finfo(rounded.dtype).max
    if -most <= low and high <= most:
        return None
    finite = torch.isfinite(exact)
    found = Fault(
        nan=int(torch.isnan(exact).sum()),
        infinite=int(torch.isinf(exact).sum()),
        overflow=int((finite & ~torch.isfinite(rounded.float())).sum()),
    )
    return found if found != Fault() else None


def _same(item: Item, raw: Sequence[bytearray]) -> bool:
    """Whether all inputs hold the same bits; then so does the result, by every method."""
    return len({entry.dtype for entry in item.inputs}) == 1 and all(data == raw[0] for data in raw[1:])


def floats(data: bytearray, entry: Entry) -> Tensor:
    """Raw numbers as flat float32."""
    if not data:
        return torch.empty(0)
    return torch.frombuffer(data, dtype=DTYPES[entry.dtype]).float()


def as_bytes(tensor: Tensor) -> memoryview:
    flat = tensor.contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def _count(shape: Sequence[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
