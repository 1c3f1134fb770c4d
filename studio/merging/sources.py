"""A checkpoint to merge, a file or a diffusers folder, known from headers and small JSON files alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import ModelError, ModelFileError, ModelNotFoundError, RecipeError
from studio.merging.layout import inner, part_of
from studio.models import files, headers
from studio.models.known_hashes import KnownHashes
from studio.models.refs import Ref, resolve
from studio.models.streams import Entry, entries_of, sha256_of
from studio.progress import OnStep, Step

LETTERS = "abcdefgh"
FAMILIES: Mapping[int, str] = {
    768: "Stable Diffusion 1",
    1024: "Stable Diffusion 2",
    2048: "SDXL",
    1280: "the SDXL refiner",
}
READS_TEXT = re.compile(r"attn2\.to_k\.weight$")
FIRST_LAYERS = ("input_blocks.0.0.weight", "conv_in.weight")


@dataclass(frozen=True)
class Source:
    """``tensors``: in the order of their files; a folder's are called part/name. ``notes``: a file's own metadata."""

    name: str
    path: Path
    tensors: Mapping[str, Entry]
    notes: Mapping[str, str] = field(default_factory=dict)
    pipeline: str = ""
    prediction: str | None = None

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that tensors come from, each once."""
        return tuple(dict.fromkeys(entry.path for entry in self.tensors.values()))

    @property
    def family(self) -> str:
        """What this is, for a person."""
        width = self.context_width
        if self.pipeline and not width:
            return self.pipeline
        if width:
            return FAMILIES.get(width, f"a U-Net that reads texts {width} wide")
        kind = headers.kind_of({key: {} for key in self.tensors})
        return kind.title if kind else "of an unknown kind"

    @property
    def context_width(self) -> int | None:
        """How wide the text is that the U-Net's cross-attention reads; None without one."""
        found = (key for key in self.tensors if part_of(key) == "unet" and READS_TEXT.search(key))
        key = next(found, None)
        return self.tensors[key].shape[-1] if key else None

    @property
    def first_layer(self) -> str | None:
        """The U-Net's first convolution, which reads the codes and, in inpainting models, a mask and a picture."""
        found = (key for key in self.tensors if part_of(key) == "unet" and inner(key) in FIRST_LAYERS)
        return next(found, None)

    def relative(self, path: Path) -> str:
        """How a recipe calls one of the files."""
        return path.relative_to(self.path).as_posix() if self.is_folder else path.name


def read_source(name: str, assets: Path, models_dir: Path | None, *, field: str) -> Source:
    """The checkpoint ``name``; ModelError, with ``field``, for what is none or is damaged."""
    try:
        ref = resolve(name, assets, models_dir)
        if ref.path is None:
            raise ModelNotFoundError(
                f"There is no file or folder {name} here: correct the path, or, if it is on the hub, download it first "
                "and name its file or folder, for merging works on files."
            )
        return _folder(ref, ref.path) if ref.path.is_dir() else _file(ref, ref.path)
    except ModelError as error:
        raise type(error)(str(error), field=field) from error
    except OSError as error:
        raise ModelFileError(f"{name} cannot be read ({error.strerror}).", field=field) from error


def check_hashes(wanted: Mapping[str, str], sources: Sequence[Source], on_step: OnStep, known: KnownHashes) -> None:
    """Compare files with the SHA-256 that a recipe recorded as "<number of the source>/<file>"; RecipeError.

    Every file is read, whatever is ``known`` of it: who verifies does not ask what was so the last time.
    """
    for place, sha256 in wanted.items():
        index, _, name = place.partition("/")
        source = sources[int(index)] if index.isdecimal() and int(index) < len(sources) else None
        found = {source.relative(path): path for path in source.files} if source else {}
        if source is None or (name not in found and source.is_folder):
            raise RecipeError(f"The recipe speaks of {place!r}, which is not there: name the models it was made from.")
        path = found.get(name, source.files[0])
        found_now = sha256_of(path, lambda: on_step(Step(0, 1, note="Verifying the sources")))
        known.keep(path, found_now)
        if found_now != sha256:
            raise RecipeError(
                f"{path.name} is not the file that the recipe was made with (its SHA-256 is another than "
                f"{sha256[:10]}...): name that one, or leave verify empty to merge this one.",
                field="verify",
            )


def _file(ref: Ref, path: Path) -> Source:
    header, notes = files.read_header_and_notes(path)
    if headers.is_lora(header):
        raise ModelFileError(
            f"{path.name} is a LoRA adapter, not a checkpoint: name it in adapters, to join or to bake it."
        )
    told = {key: str(value) for key, value in notes.items()}
    return Source(ref.name, path, entries_of(path, header), told, prediction=_said(header, told))


def _folder(ref: Ref, path: Path) -> Source:
    pipeline = files.read_index(path)["_class_name"]
    tensors: dict[str, Entry] = {}
    for part in sorted({file.parent for file in path.glob("*/*.safetensors")}):
        for file in files.check_weights(part):
            found = entries_of(file, files.read_header(file))
            tensors |= {f"{part.name}/{key}": entry for key, entry in found.items()}
    if not tensors:
        raise ModelFileError(f"{path.name} holds no .safetensors weights: nothing can be merged.")
    scheduler = path / "scheduler" / "scheduler_config.json"
    told = json.loads(scheduler.read_text(encoding="utf-8")) if scheduler.is_file() else {}
    return Source(ref.name, path, tensors, {}, pipeline, told.get("prediction_type"))


def _said(header: files.Header, notes: Mapping[str, str]) -> str | None:
    """epsilon or v_prediction where the file says so: Stability's modelspec, ComfyUI's marker key."""
    if "v_pred" in header:
        return "v_prediction"
    spoken = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
    return spoken.get(notes.get("modelspec.prediction_type", ""))
