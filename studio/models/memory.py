"""What fits where: how a network's parts are laid out in a device's memory. Pure arithmetic on bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Literal

from studio.models.files import Header

Offload = Literal["auto", "never", "always"]
GB = 1024**3
TILE = 512  # pixels; a tile of a picture that is decoded in pieces
DENOISER = ("unet", "transformer")

# What computing needs beside the weights: a U-Net's activations for one row, per pixel of the picture and byte of its
# dtype, and the autoencoder's per pixel in float32. Tensors take half of it with SD 1.5, as tests/benchmarks/memory.py
# counts; the other half is for what the libraries keep.
ROW_BYTES = 260
DECODE_BYTES = 6_000


@dataclass(frozen=True)
class Work:
    """What a run computes: pictures of ``side`` pixels, ``rows`` of them in one forward, numbers of ``itemsize``."""

    side: int
    rows: int
    itemsize: int

    def forward(self, rows: int) -> int:
        return rows * self.side**2 * self.itemsize * ROW_BYTES

    def decode(self, tiled: bool) -> int:
        return (min(self.side, TILE) if tiled else self.side) ** 2 * DECODE_BYTES


@dataclass(frozen=True)
class Arrangement:
    """``offload``: parts come to the device one after the other; ``tiled``: pictures are decoded in tiles; ``rows``:
    how many the network sees at a time. ``needs`` bytes at most on the device, ``fits`` when it has them."""

    offload: bool
    tiled: bool
    rows: int
    needs: int
    fits: bool


def arrange(free: int, parts: Mapping[str, int], work: Work, offload: Offload = "auto") -> Arrangement:
    """The quickest arrangement that fits into ``free`` bytes, or the smallest one when none does.

    ``parts`` are the bytes of each part's weights (unet or transformer, vae, text_encoder...). From quick to slow:
    everything on the device; decoded in tiles; fewer rows at a time; and the same with parts moved one by one.
    """
    moves = {"auto": (False, True), "never": (False,), "always": (True,)}[offload]
    tiles = (False, True) if work.side > TILE else (False,)
    for offloaded, fewer, tiled in product(moves, (False, True), tiles):
        rows = _most_rows(free, parts, work, offloaded) if fewer else work.rows
        needs = _needs(parts, work, offloaded, tiled, rows)
        if needs <= free:
            return Arrangement(offloaded, tiled, rows, needs, True)
    needs = _needs(parts, work, moves[-1], tiles[-1], 1)
    return Arrangement(moves[-1], tiles[-1], 1, needs, False)


def _needs(parts: Mapping[str, int], work: Work, offloaded: bool, tiled: bool, rows: int) -> int:
    """The most bytes on the device: all weights and the larger job, or the neediest part with its own job."""
    every = {"vae": work.decode(tiled)} | dict.fromkeys(DENOISER, work.forward(rows))
    jobs = {name: every.get(name, 0) for name in parts}
    if not offloaded:
        return sum(parts.values()) + max(jobs.values())
    return max(size + jobs[name] for name, size in parts.items())


def _most_rows(free: int, parts: Mapping[str, int], work: Work, offloaded: bool) -> int:
    held = sum(size for name, size in parts.items() if name in DENOISER or not offloaded)
    return max(1, min(work.rows, (free - held) // max(1, work.forward(1))))


def part_bytes(header: Header, itemsize: int, prefix: str = "") -> int:
    """Bytes of the tensors under ``prefix`` once they are loaded with numbers of ``itemsize`` bytes."""
    return sum(itemsize * math.prod(entry["shape"]) for key, entry in header.items() if key.startswith(prefix))


def gigabytes(size: int) -> str:
    return f"{size / GB:.1f} GB" if size >= 0.095 * GB else f"{size / 1024**2:.0f} MB"


def refusal(name: str, parts: Mapping[str, int], free: int, host_free: int, offload: Offload) -> str | None:
    """Why a model cannot be loaded at all, or None: its weights alone are more than there is memory.

    ``free`` is the device's, ``host_free`` the machine's, where offloaded parts wait: 0 where nothing can be moved.
    """
    total, largest = sum(parts.values()), max(parts.values())
    resident, moved = total <= free, largest <= free and total <= host_free
    if (resident and offload != "always") or (moved and offload != "never"):
        return None
    needs, has, what = total, free, name
    if offload != "never":
        needs, has, what = (total, host_free, name) if largest <= free else (largest, free, f"{name}'s largest part")
    fix = "close other programs, allow more (--memory-gb), load halves (--dtype bfloat16) or choose a smaller model"
    if resident or moved:
        fix = "choose --offload auto"
    return f"{what} needs {gigabytes(needs)} of memory and {gigabytes(has)} is free: {fix}."
