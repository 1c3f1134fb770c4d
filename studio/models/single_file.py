"""Checkpoints in one file (A1111's and ComfyUI's layout), without a network: diffusers converts, local configs tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders import single_file_utils as convert
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from studio.devices import autoencoder_dtype, seeded_noise
from studio.errors import ModelFileError
from studio.models import files, headers, lora_files, memory
from studio.models.bpe import END, clip_tokenizer
from studio.models.given import Given, Tensors
from studio.models.networks import Network, Prediction, StableDiffusion
from studio.models.sdxl import StableDiffusionXL


@dataclass(frozen=True)
class Part:
    """A module inside a checkpoint: the keys it has there, the empty module, and how its tensors are renamed."""

    name: str
    prefix: str
    build: Callable[[dict[str, Any]], nn.Module]
    rename: Callable[[nn.Module, Tensors, str], Tensors]


@dataclass(frozen=True)
class Family:
    """``pads`` is what each tokenizer fills up with."""

    network: Callable[[str, Mapping[str, Any], Mapping[str, Any], Path | None], Network]
    parts: tuple[Part, ...]
    pads: Mapping[str, str]


def _text(config: dict[str, Any]) -> nn.Module:
    return CLIPTextModel(CLIPTextConfig(**config))


def _projected_text(config: dict[str, Any]) -> nn.Module:
    return CLIPTextModelWithProjection(CLIPTextConfig(**config))


def _unet(module: nn.Module, tensors: Tensors, prefix: str) -> Tensors:
    return convert.convert_ldm_unet_checkpoint(tensors, module.config)


def _vae(module: nn.Module, tensors: Tensors, prefix: str) -> Tensors:
    return convert.convert_ldm_vae_checkpoint(tensors, module.config)


def _clip(module: nn.Module, tensors: Tensors, prefix: str) -> Tensors:
    return _flattened(module, {key.removeprefix(prefix): value for key, value in tensors.items()})


def _open_clip(module: nn.Module, tensors: Tensors, prefix: str) -> Tensors:
    return _flattened(module, convert.convert_open_clip_checkpoint(module, tensors, prefix=prefix))


def _flattened(module: nn.Module, renamed: Tensors) -> Tensors:
    """transformers 5 keeps ``text_model.`` only where a projection stands beside it."""
    if any(key.startswith("text_model.") for key in module.state_dict()):
        return renamed
    return {key.removeprefix("text_model."): value for key, value in renamed.items()}


UNET = Part("unet", headers.UNET, UNet2DConditionModel.from_config, _unet)
VAE = Part("vae", headers.VAE, AutoencoderKL.from_config, _vae)

FAMILIES: Mapping[str, Family] = {
    "sd1": Family(
        StableDiffusion,
        (UNET, VAE, Part("text_encoder", "cond_stage_model.transformer.", _text, _clip)),
        {"tokenizer": END},
    ),
    "sd2": Family(
        StableDiffusion,
        (UNET, VAE, Part("text_encoder", "cond_stage_model.model.", _text, _open_clip)),
        {"tokenizer": "!"},
    ),
    "sdxl": Family(
        StableDiffusionXL,
        (
            UNET,
            VAE,
            Part("text_encoder", "conditioner.embedders.0.transformer.", _text, _clip),
            Part("text_encoder_2", "conditioner.embedders.1.model.", _projected_text, _open_clip),
        ),
        {"tokenizer": END, "tokenizer_2": "!"},
    ),
}


def load(name: str, path: Path, configs: Path, device: torch.device, dtype: torch.dtype) -> Network:
    """The checkpoint at ``path``. Everything that can be wrong with it is found in its header, before it is read."""
    header, notes = files.read_header_and_notes(path)
    return build(Given(name, path, header, notes, lambda keys: _read(path, keys)), configs, device, dtype)


def build(given: Given, configs: Path, device: torch.device, dtype: torch.dtype) -> Network:
    """``load`` for tensors that need not lie in a file; each part's are asked for at once."""
    family_name, modules = _modules(given.path.name, given.header, configs)
    family, folder = FAMILIES[family_name], configs / family_name
    for part in family.parts:
        tensors = given.read([key for key in given.header if key.startswith(part.prefix)])
        _fill(part, modules[part.name], tensors, device, _dtype(part, dtype))
    merges = configs / "clip" / "merges.txt"
    tokenizers = {part: clip_tokenizer(merges, pad) for part, pad in family.pads.items()}
    said = noise(given.header, given.notes)
    network = family.network(given.name, modules | tokenizers, _config(folder, "scheduler") | said, None)
    if family_name == "sd2":
        _settle(network, said.get("prediction_type") or measured_prediction(network))
    return network


def shapes(path: Path, configs: Path) -> lora_files.Shapes:
    """The weights of the checkpoint at ``path`` that adapters can change: its family's, if its header is sound."""
    _, modules = _modules(path.name, files.read_header(path), configs)
    return lora_files.shapes_of({name: module for name, module in modules.items() if name != VAE.name})


def check(given: Given, configs: Path) -> None:
    """Raises ModelFileError as ``build`` does, before a tensor is asked for."""
    _modules(given.path.name, given.header, configs)


def part_bytes(name: str, header: files.Header, configs: Path, dtype: torch.dtype) -> dict[str, int]:
    """Bytes of each part of a checkpoint once it is loaded, from its header; raises as ``load`` does."""
    parts = FAMILIES[headers.family_of(name, header, widths(configs))].parts
    return {part.name: memory.part_bytes(header, _dtype(part, dtype).itemsize, part.prefix) for part in parts}


def _dtype(part: Part, dtype: torch.dtype) -> torch.dtype:
    return autoencoder_dtype(dtype) if part is VAE else dtype


def widths(configs: Path) -> dict[int, str]:
    """The width of cross-attention of every family that has a folder of configs."""
    return {_config(configs / family, "unet")["cross_attention_dim"]: family for family in FAMILIES}


def noise(header: files.Header, notes: Mapping[str, str]) -> dict[str, Any]:
    """What a checkpoint says about its prediction and its noise: Stability's modelspec, ComfyUI's marker keys."""
    said: dict[str, Any] = {}
    spoken = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}
    prediction = "v" if "v_pred" in header else notes.get("modelspec.prediction_type", "")
    if prediction in spoken:
        said["prediction_type"] = spoken[prediction]
    if "ztsnr" in header:
        said |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return said


def measured_prediction(network: Network) -> Prediction:
    """What the network predicts, from its answer to pure noise: noise is that very picture, velocity is not."""
    x = seeded_noise((1, network.channels, 32, 32), 0, network.device)
    with torch.inference_mode():
        conditions = network.encode_adapted([""], ())
        answer = network.predict(x, torch.tensor(999, device=network.device), conditions, {})
    likeness = torch.nn.functional.cosine_similarity(answer.flatten(), x.flatten(), dim=0)
    return "epsilon" if likeness > 0.5 else "v_prediction"


def _settle(network: Network, prediction: Prediction) -> None:
    """SD 2.x comes in two kinds of the same shape: 768 pixels and velocity, 512 pixels and noise."""
    network.scheduler_config["prediction_type"] = prediction
    if prediction == "epsilon":
        network.denoiser.register_to_config(sample_size=network.denoiser.config.sample_size * 2 // 3)


def _modules(name: str, header: files.Header, configs: Path) -> tuple[str, dict[str, nn.Module]]:
    """The family of a checkpoint and its modules, still empty; every tensor they need is there, in its shape."""
    family_name = headers.family_of(name, header, widths(configs))
    parts = FAMILIES[family_name].parts
    modules = {part.name: _empty(part, configs / family_name) for part in parts}
    for part in parts:
        _check(name, part, modules[part.name], header)
    return family_name, modules


def _empty(part: Part, folder: Path) -> nn.Module:
    """The part's module with its shapes and no memory."""
    with init_empty_weights():
        return part.build(_config(folder, part.name))


def _check(name: str, part: Part, module: nn.Module, header: files.Header) -> None:
    """Rename the header's shapes as the tensors will be, and compare with what the module needs."""
    shapes = {key: entry["shape"] for key, entry in header.items() if key.startswith(part.prefix)}
    try:
        empty = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
        found = {key: tuple(value.shape) for key, value in part.rename(module, empty, part.prefix).items()}
    except (LookupError, AttributeError, TypeError, RuntimeError) as error:
        raise ModelFileError(
            f"{name}: its {part.name} cannot be read ({error}): {headers.NEEDED}.", field="model"
        ) from error
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    odd = [key for key, shape in wanted.items() if found.get(key) != shape]
    if odd:
        has = f"is {list(found[odd[0]])}, not {list(wanted[odd[0]])}" if odd[0] in found else "is missing"
        raise ModelFileError(
            f"{name}: its {part.name} is cut down or of another shape ({len(odd)} of {len(wanted)} tensors differ; "
            f"{odd[0]} {has}): {headers.NEEDED}.",
            field="model",
        )


def _read(path: Path, keys: Sequence[str]) -> Tensors:
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in keys}
    except SafetensorError as error:
        raise ModelFileError(f"{path.name} is damaged ({error}): download it again.", field="model") from error


def _fill(part: Part, module: nn.Module, tensors: Tensors, device: torch.device, dtype: torch.dtype) -> None:
    """Give an empty module its tensors, cast and moved one by one; ``tensors`` is used up, to hold nothing twice."""
    renamed = part.rename(module, tensors, part.prefix)
    tensors.clear()
    wanted = {key: renamed.pop(key).to(device, dtype) for key in module.state_dict()}
    module.load_state_dict(wanted, assign=True)
    module.to(device).eval().requires_grad_(False)


def _config(folder: Path, part: str) -> dict[str, Any]:
    return json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))
