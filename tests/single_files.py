"""Checkpoints in one file with every layer that real ones have, a few numbers wide, and the configs that fit them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from studio.models import single_file
from tests import ldm

FAMILIES = ("sd1", "sd2", "sdxl")
PREFIXES = {
    "sd1": {"text_encoder": (ldm.clip, "cond_stage_model.transformer.")},
    "sd2": {"text_encoder": (ldm.open_clip, "cond_stage_model.model.")},
    "sdxl": {
        "text_encoder": (ldm.clip, "conditioner.embedders.0.transformer."),
        "text_encoder_2": (ldm.open_clip, "conditioner.embedders.1.model."),
    },
}
TINY_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
TINY = {
    "unet": {"layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2, "sample_size": 12},
    "vae": {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 4,
        "layers_per_block": 1,
    },
    "text_encoder": {**TINY_TEXT, "projection_dim": 16},
    "text_encoder_2": {**TINY_TEXT, "projection_dim": 24, "hidden_size": 24, "intermediate_size": 48},
}
CONTEXT = {"sd1": 16, "sd2": 24, "sdxl": 16 + 24}


def small_assets(assets: Path, root: Path) -> Path:
    """The shipped assets with every architecture of ``configs`` made tiny; all else about it stays."""
    (root / "models").symlink_to(assets / "models")
    shutil.copytree(assets / "configs", root / "configs")
    for family in FAMILIES:
        for part, changes in TINY.items():
            path = root / "configs" / family / f"{part}.json"
            if path.exists():
                config = json.loads(path.read_text(encoding="utf-8"))
                path.write_text(json.dumps(config | changes | _fitting(family, part, config)), encoding="utf-8")
    return root


def build(family: str, assets: Path, seed: int = 0) -> dict[str, nn.Module]:
    """The family's modules with random weights."""
    torch.manual_seed(seed)
    parts = single_file.FAMILIES[family].parts
    return {part.name: part.build(single_file._config(assets / "configs" / family, part.name)) for part in parts}


def renamed(family: str, modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """All tensors of the modules by the names that one file has for them."""
    tensors = ldm.unet(modules["unet"]) | ldm.vae(modules["vae"])
    for part, (written, prefix) in PREFIXES[family].items():
        tensors |= written(modules[part], prefix)
    return tensors


def save(path: Path, tensors: dict[str, Tensor], dtype: torch.dtype | None = None, **notes: str) -> Path:
    """Write the tensors, each on its own memory, floats as ``dtype``."""
    cast = {key: value.to(dtype) if dtype and value.is_floating_point() else value for key, value in tensors.items()}
    save_file({key: value.contiguous().clone() for key, value in cast.items()}, path, metadata={"format": "pt"} | notes)
    return path


def _fitting(family: str, part: str, config: dict) -> dict:
    if part == "text_encoder" and family == "sd2":
        return {"hidden_size": 24, "intermediate_size": 48}
    if part != "unet":
        return {}
    widths = [8, 16, 16, 16][: len(config["block_out_channels"])]
    changes = {"block_out_channels": widths, "cross_attention_dim": CONTEXT[family]}
    if family == "sdxl":
        changes |= {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 24}
        changes |= {"transformer_layers_per_block": [1, 1, 2]}
    return changes
