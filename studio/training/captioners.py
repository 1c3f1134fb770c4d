"""Who can write captions: models of transformers that lie on this disk already, and a template that needs none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError

from studio.devices import is_out_of_memory, release
from studio.errors import ModelFileError, ModelNotFoundError, OutOfMemoryError, UnknownNameError, nearest, shortened
from studio.models.refs import is_hub_id
from studio.models.store import ModelStore

Describe = Callable[[Image.Image], str]
BEAMS = 3
TEMPLATE_NAME = "template"


@dataclass(frozen=True)
class Captioner:
    """One line of the table. ``kind`` is what config.json says; ``classes`` are transformers' model and processor.

    ``tasks`` are the prompts for a short, a longer and the longest caption where the model is told; ``repository`` is
    where it can be got.
    """

    title: str
    help: str
    reference: str
    kind: str = ""
    repository: str = ""
    classes: tuple[str, str] = ("", "")
    tasks: tuple[str, ...] = ()


CAPTIONERS: Mapping[str, Captioner] = {
    TEMPLATE_NAME: Captioner(
        "Template", "The trigger word or the file's name in a sentence; no model.", "captions.from_template"
    ),
    "blip": Captioner(
        "BLIP",
        "One short sentence; quick, also without a GPU.",
        "Li et al. 2022, arXiv 2201.12086",
        "blip",
        "Salesforce/blip-image-captioning-base",
        ("BlipForConditionalGeneration", "BlipProcessor"),
    ),
    "florence-2": Captioner(
        "Florence-2",
        "A sentence or a paragraph, more exact than BLIP's.",
        "Xiao et al. 2023, arXiv 2311.06242",
        "florence2",
        "florence-community/Florence-2-base",
        ("Florence2ForConditionalGeneration", "Florence2Processor"),
        ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>"),
    ),
}


def find(name: str, models_dir: Path | None = None) -> tuple[Captioner, Path]:
    """The captioner that ``name`` means and its folder: one of the table, a folder, or owner/name in the hub's cache.

    Nothing is ever downloaded. Raises ModelNotFoundError that says how to get it, ModelFileError for another model.
    """
    known = CAPTIONERS.get(name)
    if known is not None:
        return known, _cached(known.repository, known.title)
    for folder in filter(None, (models_dir and models_dir / name, Path(name).expanduser())):
        if folder.is_dir():
            return _told_by(folder, name), folder
    if is_hub_id(name):
        folder = _cached(name, name)
        return _told_by(folder, name), folder
    if nearest(name, CAPTIONERS):
        raise UnknownNameError("captioner", name, CAPTIONERS, field="model")
    raise ModelNotFoundError(
        f"model: there is no folder {shortened(name)!r}; name one of {', '.join(CAPTIONERS)}, or a folder of BLIP or "
        "Florence-2.",
        field="model",
    )


@contextmanager
def loaded(name: str, models: ModelStore, *, detail: int = 0, tokens: int = 60) -> Iterator[Describe]:
    """What describes a picture, always in the same words; the model is given up when the block ends."""
    entry, folder = find(name, models.models_dir)
    model, processor = _load(entry, folder, models)

    def describe(picture: Image.Image) -> str:
        task = {"text": entry.tasks[min(detail, len(entry.tasks) - 1)]} if entry.tasks else {}
        given = processor(images=picture, return_tensors="pt", **task).to(models.device, models.dtype)
        with torch.inference_mode():
            found = model.generate(**given, max_new_tokens=tokens, num_beams=BEAMS, do_sample=False)
        return processor.batch_decode(found, skip_special_tokens=True)[0]

    try:
        yield describe
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f"Memory ran out with {entry.title}: take a smaller one, or --device cpu.") from None
    finally:
        model = processor = None  # whoever still holds ``describe`` holds no weights
        release(models.device)


def _load(entry: Captioner, folder: Path, models: ModelStore) -> tuple[Any, Any]:
    import transformers

    of_model, of_processor = (getattr(transformers, name) for name in entry.classes)
    try:
        processor = of_processor.from_pretrained(folder, local_files_only=True)
        model = of_model.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=models.dtype)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        said = (str(error).strip().splitlines() or [""])[0][:120].rstrip(".")
        raise ModelFileError(
            f"model: {entry.title} in {folder.name} cannot be read ({said}); get it whole, as safetensors.",
            field="model",
        ) from None
    return model.to(models.device).eval(), processor


def _told_by(folder: Path, name: str) -> Captioner:
    """Which captioner lies in a folder."""
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        kind = None
    found = next((entry for entry in CAPTIONERS.values() if entry.kind and entry.kind == kind), None)
    if found is None:
        raise ModelFileError(
            f"model: {shortened(name)} is neither BLIP nor Florence-2; name one of those.", field="model"
        )
    return found


def _cached(repository: str, title: str) -> Path:
    """The hub's own cache, asked without a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        folder = None
    if folder is None or not any(folder.glob("*.safetensors")):
        raise ModelNotFoundError(
            f"model: {title} is not on this disk and is not downloaded unasked; get it with "
            f"`hf download {repository}`, name a folder that holds it, or take template.",
            field="model",
        )
    return folder
