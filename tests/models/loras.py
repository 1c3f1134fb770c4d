"""LoRA files for tests: made by PEFT on real modules, written by diffusers or in kohya's names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from peft import LoraConfig, PeftConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from studio.models.lora_files import shapes_in

ATTENTION_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
UNET_LAYERS = [*ATTENTION_LAYERS, "conv1", "conv_shortcut", "time_emb_proj", "proj_in", "ff.net.0.proj"]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1"]


def lora_config(rank: int = 2, alpha: float = 5, layers: list[str] = UNET_LAYERS, **options: object) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=layers, init_lora_weights=False, **options)


def add(module: nn.Module, config: LoraConfig, seed: int, name: str = "default") -> dict[str, Tensor]:
    """Put a random LoRA on a module with PEFT; its tensors by PEFT's names, large enough to matter."""
    torch.manual_seed(seed)
    module.add_adapter(config, name)
    for key, parameter in module.named_parameters():
        if f".{name}" in key and ("lora_A" in key or "lora_B" in key):
            parameter.data = torch.randn_like(parameter) * 0.2
        elif f".{name}" in key and "magnitude" in key:
            parameter.data = parameter * (1 + 0.3 * torch.randn_like(parameter))
    # The tensors are those of the module, not copies: what a later merge changes must not change the file.
    return {key: value.clone() for key, value in get_peft_model_state_dict(module, adapter_name=name).items()}


def save_diffusers(folder: Path, parts: Mapping[str, nn.Module], sdxl: bool = False) -> Path:
    """A file as diffusers writes it, with PEFT's settings in the header; the adapter is the one called "default"."""
    layers, settings = {}, {}
    for part, module in parts.items():
        layers[f"{part}_lora_layers"] = get_peft_model_state_dict(module, adapter_name="default")
        settings[f"{part}_lora_adapter_metadata"] = module.peft_config["default"].to_dict()
    (StableDiffusionXLPipeline if sdxl else StableDiffusionPipeline).save_lora_weights(folder, **layers, **settings)
    return folder / "pytorch_lora_weights.safetensors"


def save_kohya(path: Path, parts: Mapping[str, Mapping[str, Tensor]], alpha: float) -> Path:
    """``parts``: kohya's prefix (lora_unet, lora_te, ...) -> PEFT's tensors of that module."""
    new = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
    tensors = {}
    for prefix, held in parts.items():
        for key, value in held.items():
            module, role = next((key.removesuffix(f".{old}"), new[old]) for old in new if key.endswith(old))
            name = f"{prefix}_{module.replace('.', '_')}"
            tensors[f"{name}.{role}"] = value.contiguous()
            tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    save_file(tensors, path, metadata={"ss_network_module": "networks.lora"})
    return path


def save_random(path: Path, folder: Path, naming: str, seed: int, rank: int = 2, strength: float = 0.3) -> Path:
    """A random LoRA for the model in a diffusers folder, from its headers alone, in diffusers' or kohya's names.

    It changes all attention of the U-Net and of the text encoder; ``strength`` is about the size of the change against
    weights of unit gain.
    """
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for part, modules in shapes_in(folder).items():
        for module, (out, inside, *_) in modules.items():
            if module.endswith((*ATTENTION_LAYERS, *TEXT_LAYERS)):
                down = torch.randn(rank, inside, generator=draw) / inside**0.5
                up = torch.randn(out, rank, generator=draw) * strength / rank**0.5
                tensors |= _named(part, module, down, up, naming)
    save_file(tensors, path)
    return path


def _named(part: str, module: str, down: Tensor, up: Tensor, naming: str) -> dict[str, Tensor]:
    if naming == "diffusers":
        return {f"{part}.{module}.lora_A.weight": down, f"{part}.{module}.lora_B.weight": up}
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te"}[part]
    name = f"{prefix}_{module.replace('.', '_')}"
    alpha = torch.tensor(float(len(down)))
    return {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": alpha}


def save_peft(folder: Path, module: nn.Module, config: PeftConfig, seed: int) -> nn.Module:
    """A random adapter of any kind, saved as PEFT saves it; the module that carries it."""
    torch.manual_seed(seed)
    carrying = get_peft_model(module, config)
    for key, parameter in carrying.named_parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * (0.4 if "lokr" in key or "hada" in key else 0.2)
    carrying.save_pretrained(folder)
    assert "peft_type" in json.loads((folder / "adapter_config.json").read_text())
    return carrying.eval()
