"""Pictures: tensors to PIL and back, grids, small previews for a page, and the recipe inside a PNG."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from studio.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

RECIPE_KEY = "duckrabbit"
RECIPE_VERSION = 1
MAX_RECIPE = 64 * 1024  # characters
MARKS = ',:\n"'  # what must be quoted among "key: value" pairs
QUALITIES = (85, 75, 60, 45, 30, 15)


def to_picture(pixels: Tensor) -> Image.Image:
    """A C x H x W tensor in [-1, 1], C one or three, as a picture; what lies outside is clipped."""
    values = pixels.detach().float().clamp(-1, 1).add(1).mul(127.5).round().byte().cpu().numpy()
    return Image.fromarray(values[0] if len(values) == 1 else values.transpose(1, 2, 0))


def to_tensor(picture: Image.Image) -> Tensor:
    """A picture as 3 x H x W float32 in [-1, 1], on the CPU."""
    import numpy as np
    import torch

    values = np.array(picture.convert("RGB"), dtype=np.float32)
    return torch.from_numpy(values.transpose(2, 0, 1).copy()).div_(127.5).sub_(1)


def grid(
    pictures: Sequence[Image.Image], columns: int | None = None, *, gap: int = 8, ground: str = "white"
) -> Image.Image:
    """Equal cells, row by row, ``gap`` pixels apart; nearly square when ``columns`` is left out."""
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), ground)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        sheet.paste(picture.convert("RGB"), (column * (width + gap), row * (height + gap)))
    return sheet


def jpeg_data_uri(picture: Image.Image, px: int = 256, max_chars: int = 15 * 1024) -> str:
    """``picture`` at most ``px`` wide and high as a data URI of at most ``max_chars``: quality gives way, then size."""
    small = picture.convert("RGB")
    small.thumbnail((px, px))
    while True:
        for quality in QUALITIES:
            uri = _jpeg_uri(small, quality)
            if len(uri) <= max_chars or small.size == (1, 1):
                return uri
        small = small.resize((max(1, small.width * 3 // 4), max(1, small.height * 3 // 4)))


def write_png(picture: Image.Image, path: Path, recipe: dict[str, Any]) -> None:
    """Save a PNG carrying ``recipe`` ({"engine", "request", "seed"}), as ours and as the wide-spread "parameters"."""
    text = PngImagePlugin.PngInfo()
    text.add_text(RECIPE_KEY, json.dumps({"version": RECIPE_VERSION, **recipe}))
    text.add_text("parameters", parameters_text(recipe, picture.size))
    picture.save(path, format="PNG", pnginfo=text)


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe of a PNG, {"version", "engine", "request", "seed"}; only its shape is checked, its values are not."""
    text = _recipe_text(path)
    if len(text) > MAX_RECIPE:
        raise RecipeError(f"The recipe in this PNG is longer than {MAX_RECIPE // 1024} KB; it cannot be one of ours.")
    try:
        recipe = json.loads(text)
    except (ValueError, RecursionError):
        raise RecipeError("The recipe in this PNG is damaged; use the file as the studio saved it.") from None
    if not isinstance(recipe, dict) or recipe.get("version") != RECIPE_VERSION:
        raise RecipeError(f"The recipe in this PNG is not of version {RECIPE_VERSION}; a newer studio may read it.")
    if not isinstance(recipe.get("engine"), str) or not isinstance(recipe.get("request"), dict):
        raise RecipeError("The recipe in this PNG names no engine or no request; use the file as the studio saved it.")
    return recipe


def parameters_text(recipe: dict[str, Any], size: tuple[int, int]) -> str:
    """The recipe in the notation that other programs show: prompts, "Negative prompt:", then "key: value" pairs."""
    request = recipe["request"]
    pairs = {
        "Steps": request.get("steps"),
        "Sampler": request.get("scheduler"),
        "CFG scale": request.get("guidance_scale"),
        "Seed": recipe.get("seed", request.get("seed")),
        "Size": f"{size[0]}x{size[1]}",
        "Model": request.get("model"),
        "Views": request.get("views"),
    }
    lines = (" | ".join(request.get("prompts", ())), f"Negative prompt: {request.get('negative_prompt', '')}")
    return "\n".join([*lines, ", ".join(_pairs(pairs))])


def _pairs(pairs: dict[str, Any]) -> Iterable[str]:
    for name, value in pairs.items():
        text = "; ".join(value) if isinstance(value, list | tuple) else str(value)
        if value is not None:
            yield f"{name}: {json.dumps(text) if any(mark in text for mark in MARKS) else text}"


def _recipe_text(path: Path) -> str:
    """The PNG's own text chunk, from the header where it lies; pixels are not decoded."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            text = picture.info.get(RECIPE_KEY)
    except (UnidentifiedImageError, FileNotFoundError):
        raise RecipeError("This is not a PNG; a recipe is inside the PNG files that the studio saves.") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RecipeError("This PNG is damaged or far too large; use the file as the studio saved it.") from None
    if not isinstance(text, str):
        raise RecipeError("This PNG holds no recipe; many programs drop it, so use the file as the studio saved it.")
    return text


def _jpeg_uri(picture: Image.Image, quality: int) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
