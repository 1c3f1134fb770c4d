"""How large a model's pictures are, from configs and headers alone: no weight is read and nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.errors import ModelFileError
from studio.models import files, headers, refs

VELOCITY = ("v", "v_prediction")


@dataclass(frozen=True)
class Geometry:
    """``size``: the side in pixels that a model was made for; ``factor``: pixels per latent cell, 1 without codes."""

    size: int
    factor: int


def geometry(name: str, assets: Path, models_dir: Path | None = None) -> Geometry | None:
    """Of the model that ``name`` means; None for one of the hub that is not here yet. Raises as loading it would."""
    ref = refs.resolve(name, assets, models_dir)
    path = ref.path or _cached(ref.name)
    if path is None:
        return None
    return _of_folder(path) if path.is_dir() else _of_file(path, assets / "configs")


def _cached(name: str) -> Path | None:
    """The folder of a repository in the hub's local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "model_index.json")
    return Path(found).parent if isinstance(found, str) else None


def _of_folder(folder: Path) -> Geometry:
    layout = files.LAYOUTS.get(files.read_index(folder)["_class_name"])
    if layout is None:
        raise ModelFileError(
            f"{folder.name} is no pipeline that this studio runs: it runs {', '.join(files.LAYOUTS)}.", field="model"
        )
    denoiser = _config(folder / layout.denoiser / "config.json")
    if "vae" not in layout.parts:
        return Geometry(_number(denoiser, "sample_size", 0), 1)
    return _sized(denoiser, _config(folder / "vae" / "config.json"))


def _of_file(path: Path, configs: Path) -> Geometry:
    """Stability's SD 2.x comes in two sizes, which differ in what they predict; one that does not say is the large."""
    header, notes = files.read_header_and_notes(path)
    widths = {_config(configs / family / "unet.json")["cross_attention_dim"]: family for family in refs.FILE_FAMILIES}
    family = headers.family_of(path.name, header, widths)
    found = _sized(_config(configs / family / "unet.json"), _config(configs / family / "vae.json"))
    said = notes.get("modelspec.prediction_type", "v")
    if family == "sd2" and said not in VELOCITY and "v_pred" not in header:
        return Geometry(found.size * 2 // 3, found.factor)
    return found


def _sized(denoiser: Mapping[str, Any], vae: Mapping[str, Any]) -> Geometry:
    factor = 2 ** (len(vae.get("block_out_channels") or [0]) - 1)
    return Geometry(_number(denoiser, "sample_size", 64) * factor, factor)


def _number(config: Mapping[str, Any], name: str, usual: int) -> int:
    found = config.get(name)
    return found if isinstance(found, int) else usual


def _config(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path.parent.name}/{path.name} cannot be read ({error}).", field="model") from None
    return found if isinstance(found, dict) else {}
