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
from studio.merging.methods import FUNCTIONS, Setting, merged
from studio.models.known_hashes import KnownHashes
from studio.models.streams import ITEM_BYTES, Entry, Reader

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NUMBERS = 512 * 1024  # numbers of a tensor that are worked on at a time: few enough to stay in a processor's cache


@dataclass
class Fault:
    """Weights of one tensor that are not finite; ``overflow``: finite until they were rounded."""

    nan: int = 0
    infinite: int = 0
    overflow: int = 0


class Readers(dict[Path, Reader]):
    """One open reader for each file, opened when it is first needed."""

    def __init__(self, tick: Callable[[], None], known: KnownHashes | None = None, *, hashed: bool = True) -> None:
        super().__init__()
        self.tick, self._hashed, self._known = tick, hashed, known or KnownHashes()
        self._found: dict[Path, str] = {}

    def __missing__(self, path: Path) -> Reader:
        if self._hashed and (found := self._known.of(path)):
            self._found[path] = found
        self[path] = Reader(path, self.tick, hashed=self._hashed and path not in self._found)
        return self[path]

    def sha256(self, path: Path) -> str:
        """Of a whole file, as it was when it was opened; ModelFileError when it changed since then."""
        reader = self[path]
        if path in self._found:
            reader.check()
            return self._found[path]
        self._known.keep(path, found := reader.sha256())
        return found

    def numbers(self, entry: Entry, first: int, count: int) -> bytearray:
        width = ITEM_BYTES[entry.dtype]
        return self[entry.path].read(entry.start + first * width, count * width)


@contextmanager
def readers(
    tick: Callable[[], None] = lambda: None, known: KnownHashes | None = None, *, hashed: bool = True
) -> Iterator[Readers]:
    """Readers that are closed when the block ends; files whose hash is ``known`` are not hashed again."""
    opened = Readers(tick, known, hashed=hashed)
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
        elif item.changes or (item.merged and item.channels is not None):
            yield as_bytes(self._rounded(item, self._whole(item)))
        elif item.merged and not self.plan.method.piecewise:
            yield from self._measured(item)
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

    def _measured(self, item: Item) -> Iterator[memoryview]:
        """By a method that must know of the whole tensor before it changes any of it."""
        rows = _Rows(item, self.files)
        if all(_same(item, raw) for raw in rows.read()):
            yield from (self._copied(item, raw[0]) for raw in rows.read())
            return
        for exact in FUNCTIONS[self.plan.method.name](rows, self._setting(item)):
            yield as_bytes(self._rounded(item, exact))

    def _whole(self, item: Item) -> Tensor:
        inputs = [
            floats(self.files.numbers(entry, 0, _count(entry.shape)), entry).reshape(entry.shape)
            for entry in item.inputs
        ]
        # What was read as float32 is still being hashed, and everything else was copied when it became float32.
        whole = inputs[0].clone() if item.inputs[0].dtype == "F32" else inputs[0]
        for change in item.changes:
            whole = change(whole)
        if item.channels is not None:
            parts = [tensor[:, :CODES] for tensor in inputs]
            whole[:, :CODES] = self._merged(item, parts)
        return whole

    def _merged(self, item: Item, inputs: Sequence[Tensor]) -> Tensor:
        return merged(self.plan.method.name, inputs, self._setting(item))

    def _setting(self, item: Item) -> Setting:
        draw = None
        if self.plan.method.random:
            draw = torch.Generator().manual_seed(self.plan.request.seed << 31 | zlib.crc32(item.key.encode()) >> 1)
        return Setting(item.alpha, self.plan.options, draw)

    def _rounded(self, item: Item, exact: Tensor) -> Tensor:
        rounded = exact.to(DTYPES[item.dtype])
        if found := faults_in(exact, rounded):
            before = self.faults.setdefault(item.key, Fault())
            before.nan += found.nan
            before.infinite += found.infinite
            before.overflow += found.overflow
        return rounded


class _Rows:
    """A tensor's inputs in pieces of whole rows, read anew each time they are gone through; a single piece is kept."""

    def __init__(self, item: Item, files: Readers) -> None:
        self._item, self._files = item, files
        count = _count(item.shape)
        row = count // item.shape[0] if len(item.shape) > 1 and count else max(1, count)
        step = max(1, NUMBERS // row) * row
        self.inputs = len(item.inputs)
        self.numbers = [min(step, count - first) for first in range(0, count, step)]
        self._only: list[bytearray] | None = None

    def read(self) -> Iterator[list[bytearray]]:
        """The inputs' bytes, piece by piece."""
        first = 0
        for count in self.numbers:
            self._files.tick()
            raw = self._only or [self._files.numbers(entry, first, count) for entry in self._item.inputs]
            self._only = raw if len(self.numbers) == 1 else None
            yield raw
            first += count

    def __iter__(self) -> Iterator[list[Tensor]]:
        inner = self._item.shape[1:] if len(self._item.shape) > 1 else ()
        for raw in self.read():
            yield [floats(data, e).reshape(-1, *inner) for data, e in zip(raw, self._item.inputs, strict=True)]


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
