"""The recipe in a merged file's header: ours, Stability's modelspec and A1111's; and how it is read back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.errors import ModelError, RecipeError
from studio.merging.preflight import headline
from studio.merging.request import MergeRequest
from studio.merging.sources import LETTERS, Source
from studio.models import files

KEY, FOLDER_FILE, VERSION = "duckrabbit", "merge.json", 1
MAX_RECIPE = 256 * 1024  # characters
MAX_NESTED = 16 * 1024  # characters of a source's own A1111 recipe that are carried along
NOT_RECORDED = {"target", "overwrite", "verify", "accept_nonfinite"}
ONLY_FOR_ZIP = {"join", "prompts", "steps", "learning_rate", "similarity"}  # say nothing of any other result

# Family -> modelspec.architecture and resolution.
ARCHITECTURES = {
    "Stable Diffusion 1": ("stable-diffusion-v1", "512x512"),
    "Stable Diffusion 2": ("stable-diffusion-v2-768-v", "768x768"),
    "SDXL": ("stable-diffusion-xl-v1-base", "1024x1024"),
    "the SDXL refiner": ("stable-diffusion-xl-v1-refiner", "1024x1024"),
}
# What A1111 calls the methods that it has as well.
INTERPOLATIONS = {"weighted_sum": "Weighted sum", "add_difference": "Add difference"}


def placeholders(paths: tuple[Path, ...]) -> dict[Path, str]:
    """Something as long as a SHA-256 for each file, until the hashes are known; no two alike."""
    return {path: f"{index:064d}" for index, path in enumerate(paths)}


def recipe(request: MergeRequest, sources: tuple[Source, ...], hashes: Mapping[Path, str]) -> dict[str, Any]:
    """What to do again, and to what: the request, and the SHA-256 of each source's files."""
    left_out = NOT_RECORDED | (set() if request.join == "zip" else ONLY_FOR_ZIP)
    return {
        "version": VERSION,
        "engine": "merge",
        "request": request.model_dump(mode="json", exclude=left_out),
        "sources": [
            {
                "name": source.name,
                "files": {source.relative(path): hashes[path] for path in source.files if path in hashes},
            }
            for source in sources
        ],
    }


def notes(
    request: MergeRequest, sources: tuple[Source, ...], hashes: Mapping[Path, str], data_sha256: str
) -> dict[str, str]:
    """The metadata of a merged checkpoint; safetensors wants every value to be a text. No time: a replay is equal."""
    family = sources[0].family if sources else ""
    said = {
        "format": "pt",
        KEY: json.dumps(recipe(request, sources, hashes)),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": headline(request),
        "modelspec.merged_from": ", ".join(source.name for source in sources),
        "modelspec.hash_sha256": f"0x{data_sha256}",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
    }
    if family in ARCHITECTURES:
        said["modelspec.architecture"], said["modelspec.resolution"] = ARCHITECTURES[family]
    if sources and sources[0].prediction:
        said["modelspec.prediction_type"] = "v" if sources[0].prediction == "v_prediction" else "epsilon"
    if request.task == "checkpoints":
        said |= _webui_notes(request, sources, hashes)
    return said


def verification(recipe: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of a recipe as the field ``verify`` has them: "<number of the source>/<file>" -> SHA-256."""
    found = {}
    for index, source in enumerate(recipe.get("sources") or ()):
        for file, sha256 in (source.get("files") or {}).items():
            found[f"{index}/{file}"] = sha256
    return found


def read(path: Path) -> dict[str, Any]:
    """The recipe of a merged file or folder as {"engine", "request", "sources"}; the request asks to verify hashes.

    Raises RecipeError for a file that holds none.
    """
    try:
        if path.is_dir():
            text = (path / FOLDER_FILE).read_text(encoding="utf-8")
        else:
            text = files.read_header_and_notes(path)[1].get(KEY, "")
    except (OSError, ModelError) as error:
        raise _unreadable(path, error) from None
    return _parsed(path, text)


def read_upload(path: Path) -> dict[str, Any]:
    """``read`` for what a browser sent: a file of which maybe only the header came, or a merged folder's merge.json."""
    try:
        if path.suffix == ".json":
            text = path.read_text(encoding="utf-8") if path.stat().st_size <= MAX_RECIPE else ""
        else:
            text = files.read_notes(path).get(KEY, "")
    except (OSError, ValueError, ModelError) as error:
        raise _unreadable(path, error) from None
    return _parsed(path, text)


def _unreadable(path: Path, error: Exception) -> RecipeError:
    reason = str(error) if isinstance(error, ModelError) else "there is no such file, or it cannot be read."
    return RecipeError(f"{path.name} has no recipe that can be read: {reason}")


def _parsed(path: Path, text: str) -> dict[str, Any]:
    if not text or len(text) > MAX_RECIPE:
        raise RecipeError(f"{path.name} holds no recipe of this studio: it was merged elsewhere, or not at all.")
    try:
        found = json.loads(text)
        request = found["request"] | {"verify": verification(found)}
        good = found["version"] == VERSION and found["engine"] == "merge"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise RecipeError(f"The recipe in {path.name} is damaged: use the file as the studio saved it.") from None
    if not good:
        raise RecipeError(f"The recipe in {path.name} is not of version {VERSION}; a newer studio may read it.")
    return {"engine": "merge", "request": request, "sources": found["sources"]}


def legacy_hash(path: Path) -> str:
    """A1111's short name for a file: the SHA-256 of 64 KB at 1 MB, its first eight letters."""
    with path.open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def _webui_notes(request: MergeRequest, sources: tuple[Source, ...], hashes: Mapping[Path, str]) -> dict[str, str]:
    """``sd_merge_recipe`` and ``sd_merge_models`` as A1111 writes and shows them; only files of one piece have them."""
    paths = [source.files[0] for source in sources if not source.is_folder]
    if len(paths) != len(sources):
        return {}
    primary, secondary, tertiary = [*(hashes[path] for path in paths[:3]), None, None][:3]
    own = {
        "type": "webui",
        "primary_model_hash": primary,
        "secondary_model_hash": secondary,
        "tertiary_model_hash": tertiary,
        "interp_method": INTERPOLATIONS.get(request.method, request.method),
        "multiplier": request.alpha,
        "save_as_half": request.precision == "fp16",
        "custom_name": request.title,
        "config_source": 0,
        "bake_in_vae": request.parts.get("vae", "a") if request.parts.get("vae", "a") not in LETTERS else "None",
        "discard_weights": "",
        "is_inpainting": False,
        "is_instruct_pix2pix": False,
    }
    models: dict[str, Any] = {}
    for source, path in zip(sources, paths, strict=True):
        models |= _json(source.notes.get("sd_merge_models", ""))
        models[hashes[path]] = {
            "name": path.name,
            "legacy_hash": legacy_hash(path),
            "sd_merge_recipe": _json(source.notes.get("sd_merge_recipe", "")) or None,
        }
    return {"sd_merge_recipe": json.dumps(own), "sd_merge_models": json.dumps(models)}


def _json(text: str) -> dict[str, Any]:
    """An object in another program's notes; empty for what is none, or too long to be carried along."""
    try:
        found = json.loads(text) if text and len(text) <= MAX_NESTED else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
