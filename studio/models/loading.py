"""Reading models from folders and from the hub: safetensors only, remote code never."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPModel, CLIPTextModel

from studio.errors import ModelFileError, ModelNotFoundError
from studio.models import files
from studio.models.clip import CLIP_MEAN, CLIP_STD, ClipScorer
from studio.models.networks import StableDiffusion

HUB_FILES = ("*.json", "*/*.json", "*/*.txt", "unet/*.safetensors", "vae/*.safetensors", "text_encoder/*.safetensors")


def load_stable_diffusion(name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> StableDiffusion:
    """A StableDiffusionPipeline folder whose files have been checked."""
    loaders = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    parts = {}
    for part, loader in loaders.items():
        # The autoencoder stays in float32 on every device: SD's overflows in fp16.
        wanted = torch.float32 if part == "vae" else dtype
        try:
            module = loader.from_pretrained(folder / part, dtype=wanted, use_safetensors=True, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelFileError(
                f"{name}: its {part} cannot be loaded ({_first_line(error)}).", field="model"
            ) from error
        parts[part] = module.to(device).eval().requires_grad_(False)
    parts["tokenizer"] = _tokenizer(folder / "tokenizer")
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    return StableDiffusion(name, parts, scheduler, folder)


def load_clip(name: str, folder: Path, device: torch.device) -> ClipScorer:
    """A transformers CLIPModel folder with its tokenizer and, when there, its preprocessor_config.json."""
    files.check_weights(folder)
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    described = folder / "preprocessor_config.json"
    pictures = json.loads(described.read_text(encoding="utf-8")) if described.exists() else {}
    return ClipScorer(
        name,
        model.to(device).eval().requires_grad_(False),
        _tokenizer(folder),
        pictures.get("image_mean", CLIP_MEAN),
        pictures.get("image_std", CLIP_STD),
    )


def from_hub(name: str, device: torch.device, dtype: torch.dtype, *, offline: bool) -> StableDiffusion:
    """A StableDiffusionPipeline repository: from the local cache, or downloaded when there is a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, allow_patterns=list(HUB_FILES), local_files_only=offline)
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(
            f"{name} is not in the local cache and cannot be downloaded ({_first_line(error)}): "
            "connect to a network, or name a local folder.",
            field="model",
        ) from error
    files.check_pipeline(Path(folder))
    return load_stable_diffusion(name, Path(folder), device, dtype)


def _tokenizer(folder: Path) -> object:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"{folder} holds no readable tokenizer: {_first_line(error)}.", field="model") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160].rstrip(".")
