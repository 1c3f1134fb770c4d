"""Pictures that are the same: by their bytes, or by what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

GRID = 8  # cells of the hash along one side
STEP = 2  # by how much a cell must be brighter than the one before: below it is JPEG's noise
SIDE = 16  # pixels of the thumbnail
MOST_BITS = 10  # of 128 in which alike pictures differ
MOST_DIFFERENCE = 4.0  # of 255, on average over the thumbnail


@dataclass(frozen=True)
class Print:
    """What a picture looks like in 784 bytes: a perceptual hash (16) and a small copy (16 x 16 x 3)."""

    bits: bytes
    thumbnail: bytes


def print_of(picture: Image.Image) -> Print:
    """The difference hash ("dHash": is a cell brighter than its neighbour?), across and down, with a thumbnail."""
    grey = picture.convert("L")
    across = _cells(grey, GRID + 1, GRID)
    down = _cells(grey, GRID, GRID + 1)
    brighter = np.concatenate(
        [(across[:, 1:] - across[:, :-1] >= STEP).ravel(), (down[1:] - down[:-1] >= STEP).ravel()]
    )
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return Print(np.packbits(brighter).tobytes(), small.tobytes())


def twins(prints: Sequence[Print]) -> list[int | None]:
    """For each picture the first one before it that looks the same, or None.

    Alike are two whose hashes differ in few bits and whose thumbnails differ little: the hash alone takes a fox on
    red for a fox on blue, a thumbnail alone two drawings on the same ground.
    """
    hashes = np.frombuffer(b"".join(each.bits for each in prints), np.uint64).reshape(len(prints), 2)
    found: list[int | None] = []
    for index, each in enumerate(prints):
        distances = np.bitwise_count(hashes[:index] ^ hashes[index]).sum(axis=1)
        near = (int(other) for other in np.flatnonzero(distances <= MOST_BITS))
        found.append(next((other for other in near if _difference(prints[other], each) <= MOST_DIFFERENCE), None))
    return found


def _difference(first: Print, second: Print) -> float:
    a, b = (np.frombuffer(each.thumbnail, np.uint8).astype(np.int16) for each in (first, second))
    return float(np.abs(a - b).mean())


def _cells(grey: Image.Image, width: int, height: int) -> np.ndarray:
    """Mean brightness of width x height cells, as an array of int16 (height x width)."""
    return np.asarray(grey.resize((width, height), Image.Resampling.BOX), np.int16)
