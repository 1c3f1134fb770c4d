"""What lies in a model folder: checked from headers and small JSON files before anything heavy is loaded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.errors import ModelFileError, ModelNotFoundError

ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("F64", "I64", "U64"), 8),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"), 1),
}
HEADER_LIMIT = 100 * 1024 * 1024
Header = dict[str, dict]
State = tuple[tuple[str, int, int], ...]  # name, bytes and time of change of each file
WEIGHED = (".safetensors", ".json")  # what models are made of, tokenizers and settings among it

# What browsers and download managers call a file that they have not finished, or leave beside it.
UNFINISHED = (".part", ".crdownload", ".download", ".incomplete", ".aria2", ".tmp")

# model.fp16.safetensors, model.fp16-00001-of-00002.safetensors; a plain name has one dot.
VARIANT = re.compile(r"^[^.]+\.(?P<variant>\w+?)(-\d+-of-\d+)?\.safetensors$")
SHARD = re.compile(r"-(?P<number>\d+)-of-(?P<count>\d+)\.safetensors$")


@dataclass(frozen=True)
class Layout:
    """The folders inside a diffusers pipeline's folder; ``optional`` ones may be left out."""

    title: str
    denoiser: str
    parts: tuple[str, ...]
    tokenizers: tuple[str, ...]
    optional: tuple[str, ...] = ()


LAYOUTS: Mapping[str, Layout] = {
    "StableDiffusionPipeline": Layout("Stable Diffusion 1/2", "unet", ("unet", "vae", "text_encoder"), ("tokenizer",)),
    "StableDiffusionXLPipeline": Layout(
        "SDXL", "unet", ("unet", "vae", "text_encoder", "text_encoder_2"), ("tokenizer", "tokenizer_2")
    ),
    "StableDiffusion3Pipeline": Layout(
        "SD 3",
        "transformer",
        ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
        ("tokenizer", "tokenizer_2", "tokenizer_3"),
        optional=("text_encoder_3", "tokenizer_3"),
    ),
    "PRXPixelPipeline": Layout("PRXPixel", "transformer", ("transformer", "text_encoder"), ("tokenizer",)),
}


def read_header(path: Path, called: str = "") -> Header:
    """The header of a .safetensors file: name -> {dtype, shape, data_offsets}; the bytes behind it are not read.

    Raises ModelFileError for a pickle under this name, a truncated file, or one that is no safetensors file, which it
    names ``called``, or by its name.
    """
    return read_header_and_notes(path, called)[0]


def read_header_and_notes(path: Path, called: str = "") -> tuple[Header, dict[str, str]]:
    """``read_header``, and the notes (``__metadata__``) that the file's maker left in it."""
    called = called or path.name
    unfinished = [path.with_name(path.name + suffix) for suffix in UNFINISHED]
    if path.suffix in UNFINISHED or any(other.exists() for other in unfinished):
        raise ModelFileError(f"{called} is a half-finished download: finish it first.", field="model")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        # A safetensors header opens with a brace; a pickle's first byte alone could be a length's.
        if start[8:] != b"{" or length > min(size - 8, HEADER_LIMIT):
            raise ModelFileError(_not_safetensors(called, start, size), field="model")
        try:
            header = json.loads(b"{" + file.read(length - 1))
            notes = _notes(header)
            promised = 8 + length + _data_bytes(header)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise ModelFileError(
                f"{called} has no readable safetensors header: download it again.", field="model"
            ) from error
    if promised != size:
        raise ModelFileError(
            f"{called} is truncated or damaged ({size:,} of {promised:,} bytes): download it again.", field="model"
        )
    return header, notes


def read_notes(path: Path) -> dict[str, str]:
    """The notes in a safetensors file of which nothing but the header need be there; ModelFileError without one."""
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > HEADER_LIMIT:
            raise ModelFileError(f"{path.name} is no safetensors file.", field="model")
        try:
            notes = json.loads(file.read(length)).get("__metadata__") or {}
            return {str(key): str(value) for key, value in notes.items()}
        except (ValueError, AttributeError, RecursionError) as error:
            raise ModelFileError(f"{path.name} has no readable safetensors header.", field="model") from error


def state_of(path: Path) -> State:
    """What changes when a model's file, or one of the files in its folder, is replaced; no file is opened."""
    found = [path] if path.is_file() else sorted([*path.glob("*.*"), *path.glob("*/*.*")])
    states = []
    for file in found:
        if file.suffix in WEIGHED and file.exists():  # a link may lead nowhere
            about = file.stat()
            states.append((str(file), about.st_size, about.st_mtime_ns))
    return tuple(states)


def check_pipeline(folder: Path) -> str:
    """Check a diffusers text-to-image folder file by file; returns its pipeline class name."""
    pipeline = read_index(folder)["_class_name"]
    if pipeline not in LAYOUTS:
        raise ModelFileError(
            f"{folder.name} holds a {pipeline or 'pipeline without a name'}; this studio runs folders of "
            f"{', '.join(LAYOUTS)}.",
            field="model",
        )
    layout = LAYOUTS[pipeline]
    for part in parts_there(folder, layout):
        _read_json(
            folder / part / "config.json", f"{folder.name} has no {part}: a complete diffusers folder is needed."
        )
        check_weights(folder / part)
    for part in tokenizers_there(folder, layout):
        _check_tokenizer(folder / part)
    _check_noise(folder, flow=layout.denoiser == "transformer")
    _check_channels(folder, layout)
    return pipeline


def read_index(folder: Path) -> dict:
    """A diffusers folder's model_index.json; ``_class_name`` is always there, "" where it names none."""
    missing = f"{folder.name} is no diffusers folder: it has no model_index.json."
    index = _read_json(folder / "model_index.json", missing)
    name = index.get("_class_name")
    return {**index, "_class_name": name if isinstance(name, str) else ""}


def parts_there(folder: Path, layout: Layout) -> tuple[str, ...]:
    """The modules that must load: all of the layout's, less optional ones that the folder leaves out."""
    return tuple(part for part in layout.parts if part not in layout.optional or (folder / part).is_dir())


def tokenizers_there(folder: Path, layout: Layout) -> tuple[str, ...]:
    """The tokenizers of ``parts_there``: tokenizer_3 is needed only where text_encoder_3 is."""
    encoders = {part.replace("text_encoder", "tokenizer") for part in parts_there(folder, layout)}
    return tuple(name for name in layout.tokenizers if name in encoders)


def check_weights(folder: Path) -> list[Path]:
    """The safetensors files that one component loads from, each with a sound header and none missing."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        others = sorted(path.name for path in folder.glob("*") if path.suffix in {".bin", ".ckpt", ".pt", ".pth"})
        what = f"only {others[0]}, a pickle" if others else "no weights"
        raise ModelFileError(
            f"{folder.parent.name}/{folder.name} has {what}: a .safetensors file is needed.", field="model"
        )
    variant = variant_in(folder)
    chosen = [path for path in found if _variant_of(path) == variant]
    for path in chosen:
        read_header(path, f"{folder.parent.name}/{folder.name}/{path.name}")
    shards = [match for path in chosen if (match := SHARD.search(path.name))]
    if shards and len(shards) < int(shards[0]["count"]):
        raise ModelFileError(
            f"{folder.parent.name}/{folder.name} has {len(shards)} of {int(shards[0]['count'])} files: "
            "download the missing ones.",
            field="model",
        )
    return chosen


def variant_in(folder: Path) -> str | None:
    """The variant to load a component in: None for plain names, where there are any, else fp16 or what there is."""
    variants = {_variant_of(path) for path in folder.glob("*.safetensors")} or {None}
    return min(variants, key=lambda variant: (variant is not None, variant != "fp16", variant or ""))


def _variant_of(path: Path) -> str | None:
    match = VARIANT.match(path.name)
    return match["variant"] if match else None


def _check_tokenizer(folder: Path) -> None:
    """Tokenizers are read from tokenizer.json, or as CLIP's come, from vocab.json and merges.txt."""
    there = {path.name for path in folder.glob("*")}
    if "tokenizer.json" in there or {"vocab.json", "merges.txt"} <= there:
        return
    whole, part = folder.parent.name, folder.name
    if "spiece.model" in there:
        raise ModelFileError(
            f"{whole}/{part} has only spiece.model, which this studio does not read: its tokenizer.json is needed; "
            f"download that too, or leave T5 out (take {part.replace('tokenizer', 'text_encoder')} and {part} away).",
            field="model",
        )
    if there & {"vocab.json", "merges.txt"}:
        lacking = "merges.txt" if "vocab.json" in there else "vocab.json"
        raise ModelFileError(f"{whole}/{part} has no {lacking}: download the missing file.", field="model")
    raise ModelNotFoundError(f"{whole} has no {part}: a complete diffusers folder is needed.", field="model")


def _check_noise(folder: Path, *, flow: bool) -> None:
    """The scheduler's file says which noise a model was trained with; only its own family's can be sampled."""
    config = _read_json(
        folder / "scheduler" / "scheduler_config.json",
        f"{folder.name} has no scheduler, which says what noise it was trained with: put the model's "
        "scheduler/scheduler_config.json there.",
    )
    kind = str(config.get("_class_name", ""))
    if kind.startswith("EDM") or kind.startswith("FlowMatch") != flow or config.get("use_dynamic_shifting"):
        raise ModelFileError(
            f"{folder.name} was trained with the noise of {kind or 'a scheduler without a name'}, "
            f"which this studio does not run for such a model: {'flow matching' if flow else 'betas'} with a fixed "
            "schedule is needed.",
            field="model",
        )


def _check_channels(folder: Path, layout: Layout) -> None:
    """Inpainting models and their like read a mask and a picture beside the codes, or beside the colours."""
    denoiser = json.loads((folder / layout.denoiser / "config.json").read_text(encoding="utf-8"))
    codes = 3
    if "vae" in layout.parts:
        codes = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8")).get("latent_channels", 4)
    reads = denoiser.get("in_channels", codes)
    if reads != codes:
        what = "an inpainting model" if reads == 2 * codes + 1 else "no text-to-image model"
        raise ModelFileError(
            f"{folder.name} is {what} (its {layout.denoiser} reads {reads} channels): "
            f"a text-to-image model with {codes} channels is needed.",
            field="model",
        )


def _notes(header: Header) -> dict[str, str]:
    """Takes the notes out of a header; TypeError for what is none."""
    notes = header.pop("__metadata__", None) or {}
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise TypeError("notes are texts")
    return notes


def _data_bytes(header: Header) -> int:
    """How much data the tensors take, one after the other; ValueError, LookupError or TypeError for other entries."""
    place = 0
    for start, end, shape, dtype in sorted(
        (*entry["data_offsets"], entry["shape"], entry["dtype"]) for entry in header.values()
    ):
        if not isinstance(shape, list) or not all(isinstance(side, int) and side >= 0 for side in shape):
            raise TypeError("a shape is a list of whole numbers")
        if (
            start != place
            or end < start
            or (dtype in ITEM_BYTES and math.prod(shape) * ITEM_BYTES[dtype] != end - start)
        ):
            raise ValueError("a tensor fills its place, and the next one follows")
        place = end
    return place


def _not_safetensors(called: str, start: bytes, size: int) -> str:
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05"):
        return f"{called} is a pickle, not a safetensors file: convert it with a trusted tool first."
    return f"{called} is no complete safetensors file ({size:,} bytes): download it again."


def _read_json(path: Path, missing: str) -> dict:
    """A JSON object; ModelFileError for a file that holds none."""
    if not path.exists():
        raise ModelNotFoundError(missing, field="model")
    called = f"{path.parent.name}/{path.name}"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{called} is not readable JSON ({error}): download it again.", field="model") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{called} holds no JSON object: download it again.", field="model")
    return found
