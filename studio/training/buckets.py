"""Aspect-ratio buckets: pictures of one batch have one size, and every size has about the same area.

As NovelAI described it (Improvements on Stable Diffusion, 2022) and kohya's trainers do it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageOps

Size = tuple[int, int]  # width, height in pixels
LARGEST_STEP = 64
STRETCH = 2  # times the size that a side may have, so that ratios go up to 4


@dataclass(frozen=True)
class CropRules:
    """How pictures are cut to their bucket. Random crops are drawn from ``variants`` places a picture.

    A limited number lets cached latents be used again: with 4, each picture is encoded 4 times (8 with ``flip``).
    """

    how: Literal["center", "random"] = "center"
    flip: bool = False
    variants: int = 4


@dataclass(frozen=True)
class Crop:
    """A picture scaled to ``scaled``, cut to ``size`` at (``left``, ``top``), then mirrored if ``flipped``.

    Pixels. SDXL is conditioned on (top, left) and on the sizes (Podell et al. 2023, section 2.2).
    """

    size: Size
    scaled: Size
    left: int
    top: int
    flipped: bool = False


def step_for(size: int, factor: int) -> int:
    """What sides are multiples of: 64 pixels from 512 up; less for small models, but at least 4 latent cells.

    ``factor`` is the pixels per latent cell.
    """
    return min(LARGEST_STEP, max(4 * factor, size // 8 // factor * factor))


def bucket_sizes(size: int, step: int, *, square: bool = False) -> tuple[Size, ...]:
    """Sizes of about ``size`` x ``size`` pixels, never more; sides are multiples of ``step`` up to twice ``size``.

    ``square`` leaves one. Sorted by ratio, upright ones first. Raises ValueError where ``size`` is no such multiple.
    """
    if size < step or size % step:
        raise ValueError(f"size {size} is no multiple of {step}")
    if square:
        return ((size, size),)
    found = {(size, size)}
    for width in range(step, size, step):
        height = size * size // width // step * step
        if height <= STRETCH * size:
            found |= {(width, height), (height, width)}
    return tuple(sorted(found, key=lambda each: (each[0] / each[1], each)))


def nearest_bucket(size: Size, buckets: Sequence[Size]) -> Size:
    """The bucket of the ratio most like the picture's, so that the least is cut off; of equals the larger."""
    ratio = math.log(size[0] / size[1])
    return min(buckets, key=lambda each: (round(abs(math.log(each[0] / each[1]) - ratio), 9), -each[0] * each[1]))


def crop(
    size: Size, bucket: Size, rules: CropRules = CropRules(), *, seed: int = 0, epoch: int = 0, index: int = 0
) -> Crop:
    """Where a picture of ``size`` is cut for ``bucket`` in ``epoch``: the same for the same three numbers.

    It is scaled until it just covers the bucket, so that one of its sides is kept whole.
    """
    width, height = scaled = _covering(size, bucket)
    free = width - bucket[0], height - bucket[1]
    left, top = free[0] // 2, free[1] // 2
    if rules.how == "random":
        chance = random.Random(f"crop/{seed}/{epoch % rules.variants}/{index}")
        left, top = chance.randint(0, free[0]), chance.randint(0, free[1])
    flipped = rules.flip and random.Random(f"flip/{seed}/{epoch}/{index}").random() < 0.5
    return Crop(bucket, scaled, left, top, flipped)


def cut(picture: Image.Image, crop: Crop) -> Image.Image:
    """The picture as it is trained on, of ``crop.size``."""
    scaled = picture
    if picture.size != crop.scaled:
        scaled = picture.resize(crop.scaled, Image.Resampling.LANCZOS)
    width, height = crop.size
    piece = scaled.crop((crop.left, crop.top, crop.left + width, crop.top + height))
    return ImageOps.mirror(piece) if crop.flipped else piece


def batches(
    buckets: Sequence[Size], repeats: Sequence[int], batch_size: int, *, seed: int = 0, epoch: int = 0
) -> tuple[tuple[int, ...], ...]:
    """One epoch: indices of examples, each as often as it repeats, in batches of one bucket, all in a random order.

    The last batch of a bucket may be short. ``batch_count`` says how many there are.
    """
    chance = random.Random(f"order/{seed}/{epoch}")
    rows: dict[Size, list[int]] = {}
    for index, (bucket, times) in enumerate(zip(buckets, repeats, strict=True)):
        rows.setdefault(bucket, []).extend([index] * times)
    found = []
    for members in rows.values():
        chance.shuffle(members)
        found += [tuple(members[start : start + batch_size]) for start in range(0, len(members), batch_size)]
    chance.shuffle(found)
    return tuple(found)


def batch_count(buckets: Sequence[Size], repeats: Sequence[int], batch_size: int) -> int:
    """The batches of every epoch, by counting alone."""
    sums: dict[Size, int] = {}
    for bucket, times in zip(buckets, repeats, strict=True):
        sums[bucket] = sums.get(bucket, 0) + times
    return sum(math.ceil(count / batch_size) for count in sums.values())


def _covering(size: Size, bucket: Size) -> Size:
    """The size of the picture scaled so that it just covers the bucket; at least the bucket, whatever rounding does."""
    scale = max(bucket[0] / size[0], bucket[1] / size[1])
    return max(bucket[0], round(size[0] * scale)), max(bucket[1], round(size[1] * scale))
