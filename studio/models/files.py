"""What lies in a model folder: checked from headers and small JSON files before anything heavy is loaded."""

from __future__ import annotations

import json
from pathlib import Path

from studio.errors import ModelFileError, ModelNotFoundError

COMPONENTS = ("unet", "vae", "text_encoder")
HEADER_LIMIT = 100 * 1024 * 1024


def read_header(path: Path) -> dict[str, dict]:
    """The header of a .safetensors file: name -> {dtype, shape, data_offsets}; the bytes behind it are not read.

    Raises ModelFileError for a pickle under this name, a truncated file, or one that is no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        # A safetensors header opens with a brace; a pickle's first byte alone could be a length's.
        if start[8:] != b"{" or length > min(size - 8, HEADER_LIMIT):
            raise ModelFileError(_not_safetensors(path, start, size), field="model")
        try:
            header = json.loads(b"{" + file.read(length - 1))
        except ValueError as error:
            raise ModelFileError(
                f"{path.name} has no readable safetensors header: download it again.", field="model"
            ) from error
    header.pop("__metadata__", None)
    promised = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if promised != size:
        raise ModelFileError(
            f"{path.name} is truncated or damaged ({size:,} of {promised:,} bytes): download it again.", field="model"
        )
    return header


def check_pipeline(folder: Path) -> str:
    """Check a diffusers Stable Diffusion folder file by file; returns its pipeline class name."""
    index = _read_json(
        folder / "model_index.json", f"{folder.name} is no diffusers folder: it has no model_index.json."
    )
    pipeline = index.get("_class_name", "")
    if pipeline != "StableDiffusionPipeline":
        raise ModelFileError(
            f"{folder.name} holds a {pipeline or 'pipeline without a name'}; this studio runs StableDiffusionPipeline "
            "folders (SD 1.x and 2.x).",
            field="model",
        )
    for part in COMPONENTS:
        _read_json(
            folder / part / "config.json", f"{folder.name} has no {part}: a complete diffusers folder is needed."
        )
        check_weights(folder / part)
    return pipeline


def check_weights(folder: Path) -> list[Path]:
    """The safetensors files of one component, each with a sound header."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        others = sorted(path.name for path in folder.glob("*") if path.suffix in {".bin", ".ckpt", ".pt", ".pth"})
        what = f"only {others[0]}, a pickle" if others else "no weights"
        raise ModelFileError(
            f"{folder.parent.name}/{folder.name} has {what}: a .safetensors file is needed.", field="model"
        )
    for path in found:
        read_header(path)
    return found


def _not_safetensors(path: Path, start: bytes, size: int) -> str:
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        return f"{path.name} is a pickle, not a safetensors file: convert it with a trusted tool first."
    return f"{path.name} is no complete safetensors file ({size:,} bytes): download it again."


def _read_json(path: Path, missing: str) -> dict:
    if not path.exists():
        raise ModelNotFoundError(missing, field="model")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{path.parent.name}/{path.name} is not readable JSON: {error}.", field="model") from error
