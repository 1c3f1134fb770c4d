"""Reading models from folders and from the hub: safetensors only, remote code never."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, PRXTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedModel,
    Qwen3VLTextModel,
    T5EncoderModel,
)

from studio.devices import autoencoder_dtype
from studio.errors import ModelFileError, ModelNotFoundError
from studio.models import files, memory
from studio.models.clip import CLIP_MEAN, CLIP_STD, ClipScorer
from studio.models.given import Given, Tensors
from studio.models.networks import Network, StableDiffusion
from studio.models.prx import PRXPixel
from studio.models.sd3 import StableDiffusion3
from studio.models.sdxl import StableDiffusionXL

HUB_FILES = (
    "*.json",
    "*/*.json",
    "*/*.txt",
    "*/*.model",
    *(f"{part}/*.safetensors" for part in {part for layout in files.LAYOUTS.values() for part in layout.parts}),
)
HUB_IGNORED = ("*.fp16*", "*.bf16*", "*.non_ema*", "*openvino*")

# Which class reads each part's folder.
READERS: Mapping[str, Mapping[str, Any]] = {
    "StableDiffusionPipeline": {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
    },
    "StableDiffusionXLPipeline": {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    },
    "StableDiffusion3Pipeline": {
        "transformer": SD3Transformer2DModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModelWithProjection,
        "text_encoder_2": CLIPTextModelWithProjection,
        "text_encoder_3": T5EncoderModel,
    },
    "PRXPixelPipeline": {
        "transformer": PRXTransformer2DModel,
        "text_encoder": Qwen3VLTextModel,
    },
}

EARLY_NAMES = ((".to_q.", ".query."), (".to_k.", ".key."), (".to_v.", ".value."), (".to_out.0.", ".proj_attn."))


def load_pipeline(
    name: str, folder: Path, device: torch.device, dtype: torch.dtype, given: Given | None = None
) -> Network:
    """A diffusers folder of one of ``files.LAYOUTS``, checked file by file before anything is loaded.

    With ``given`` only configs and tokenizers are the folder's: the weights are those that it gives.
    """
    pipeline = files.check_pipeline(folder)
    layout = files.LAYOUTS[pipeline]
    parts = {
        part: _module(name, folder / part, READERS[pipeline][part], device, dtype, given)
        for part in files.parts_there(folder, layout)
    }
    parts |= {part: _tokenizer(folder / part) for part in files.tokenizers_there(folder, layout)}
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    if pipeline == "StableDiffusionXLPipeline":
        zero_empty = files.read_index(folder).get("force_zeros_for_empty_prompt", True)
        return StableDiffusionXL(name, parts, scheduler, folder, zero_empty=zero_empty)
    if pipeline == "PRXPixelPipeline":
        return PRXPixel(name, parts, scheduler, folder, index=files.read_index(folder))
    family = StableDiffusion3 if pipeline == "StableDiffusion3Pipeline" else StableDiffusion
    return family(name, parts, scheduler, folder)


def part_bytes(folder: Path, dtype: torch.dtype, given: Given | None = None) -> dict[str, int]:
    """Bytes of each part of a diffusers folder once it is loaded, from its headers; raises as ``load_pipeline``."""
    parts = files.parts_there(folder, files.LAYOUTS[files.check_pipeline(folder)])
    itemsizes = {part: _dtype(folder / part, dtype).itemsize for part in parts}
    if given is not None:
        return {part: memory.part_bytes(given.header, itemsizes[part], f"{part}/") for part in parts}
    return {
        part: sum(
            memory.part_bytes(files.read_header(path), itemsizes[part]) for path in files.check_weights(folder / part)
        )
        for part in parts
    }


def _dtype(folder: Path, dtype: torch.dtype) -> torch.dtype:
    """What the part in ``folder`` is loaded as."""
    if folder.name != "vae":
        return dtype
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return autoencoder_dtype(dtype, config.get("force_upcast", True))


def load_stable_diffusion(name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> StableDiffusion:
    """``load_pipeline`` for a folder that is known to be a StableDiffusionPipeline."""
    network = load_pipeline(name, folder, device, dtype)
    if not isinstance(network, StableDiffusion):
        raise ModelFileError(f"{name} is no Stable Diffusion 1.x or 2.x folder.", field="model")
    return network


def _module(
    name: str, folder: Path, reader: Any, device: torch.device, dtype: torch.dtype, given: Given | None = None
) -> nn.Module:
    try:
        if given is None:
            module = reader.from_pretrained(
                folder,
                dtype=_dtype(folder, dtype),
                use_safetensors=True,
                local_files_only=True,
                variant=files.variant_in(folder),
            )
        else:
            module = _filled(folder, reader, given.part(folder.name), device, _dtype(folder, dtype))
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelFileError(
            f"{name}: its {folder.name} cannot be loaded ({_first_line(error)}).", field="model"
        ) from error
    return module.to(device).eval().requires_grad_(False)


def _filled(folder: Path, reader: Any, tensors: Tensors, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """What ``reader.from_pretrained`` makes of a folder whose file holds ``tensors``, which are used up."""
    if issubclass(reader, PreTrainedModel):
        config = reader.config_class.from_pretrained(folder, local_files_only=True)
        return reader.from_pretrained(None, config=config, state_dict=tensors, dtype=dtype)
    with init_empty_weights():
        module = reader.from_config(reader.load_config(folder, local_files_only=True))
    names = {new: new if new in tensors else _early_name(new) for new in module.state_dict()}
    wanted = {new: tensors.pop(name).to(device, dtype) for new, name in names.items()}
    module.load_state_dict(wanted, assign=True)
    return nn.Module.to(module, dtype)  # diffusers' own warns of modules to keep in float32, of which these have none


def _early_name(name: str) -> str:
    """What a weight of an autoencoder's attention was called before diffusers 0.15, as SD 1.5's folder has it."""
    return next((name.replace(new, old) for new, old in EARLY_NAMES if new in name), name)


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


def hub_folder(name: str, *, offline: bool) -> Path:
    """The folder of a repository in diffusers layout: from the local cache, or downloaded when there is a network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name, allow_patterns=list(HUB_FILES), ignore_patterns=list(HUB_IGNORED), local_files_only=offline
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(
            f"{name} is not in the local cache and cannot be downloaded ({_first_line(error)}): "
            "connect to a network, or name a local folder.",
            field="model",
        ) from error
    return Path(folder)


def _tokenizer(folder: Path) -> object:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"{folder} holds no readable tokenizer: {_first_line(error)}.", field="model") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:160].rstrip(".")
