"""Small checkpoints with the names and the kinds of tensors that real ones have."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
ODD = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
IDS = f"{TEXT}embeddings.position_ids"


def tensors(seed: int, width: int = 768, channels: int = 4, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """One convolution, a cross-attention ``width`` wide, a middle, a way out, a text encoder, a VAE and two buffers."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        FIRST: (8, channels, 3, 3),
        f"{UNET}time_embed.0.weight": (8, 8),
        ODD: (8, width),
        f"{UNET}input_blocks.1.1.proj_in.weight": (8, 8, 1, 1) if width < 2048 else (8, 8),
        f"{UNET}middle_block.0.in_layers.2.weight": (8, 8, 3, 3),
        f"{UNET}output_blocks.0.0.in_layers.2.weight": (8, 8, 3, 3),
        f"{UNET}output_blocks.1.0.in_layers.2.bias": (8,),
        f"{UNET}out.2.weight": (4, 8, 3, 3),
        f"{TEXT}encoder.layers.0.self_attn.q_proj.weight": (8, 8),
        f"{VAE}decoder.conv_in.weight": (8, 4, 3, 3),
    }
    made = {key: torch.randn(shape, generator=draw).to(dtype) for key, shape in shapes.items()}
    return made | {IDS: torch.arange(77)[None], "alphas_cumprod": torch.linspace(1, 0, 10)}


def save(path: Path, held: dict[str, Tensor], **notes: str) -> Path:
    save_file({key: value.contiguous() for key, value in held.items()}, path, metadata={"format": "pt"} | notes)
    return path


def pair(folder: Path, **settings: object) -> tuple[Path, Path]:
    """Two checkpoints of one kind."""
    return save(folder / "a.safetensors", tensors(0, **settings)), save(
        folder / "b.safetensors", tensors(1, **settings)
    )
