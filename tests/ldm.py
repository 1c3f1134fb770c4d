"""The inverse of diffusers' single-file conversion: parts of a pipeline as one A1111 checkpoint (CompVis' names)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def unet(module: nn.Module) -> dict[str, Tensor]:
    names = {key: _unet_name(key, module.config) for key in module.state_dict()}
    return {f"model.diffusion_model.{names[key]}": value for key, value in module.state_dict().items()}


def vae(module: nn.Module) -> dict[str, Tensor]:
    levels = len(module.config.block_out_channels)
    return {
        f"first_stage_model.{_vae_name(key, levels)}": value[:, :, None, None] if _is_projection(key) else value
        for key, value in module.state_dict().items()
    }


def clip(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    named = {key.removeprefix("text_model."): value for key, value in module.state_dict().items()}
    return {f"{prefix}text_model.{key}": value for key, value in named.items()}


def open_clip(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """OpenCLIP keeps query, key and value in one matrix, and its projection transposed."""
    tensors = {key.removeprefix("text_model."): value for key, value in module.state_dict().items()}
    found = {
        "positional_embedding": tensors["embeddings.position_embedding.weight"],
        "token_embedding.weight": tensors["embeddings.token_embedding.weight"],
        "ln_final.weight": tensors["final_layer_norm.weight"],
        "ln_final.bias": tensors["final_layer_norm.bias"],
    }
    if "text_projection.weight" in tensors:
        found["text_projection"] = tensors["text_projection.weight"].T.contiguous()
    for key in tensors:
        match = re.match(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)$", key)
        if match is None:
            continue
        layer, inner, kind = match.groups()
        block = f"transformer.resblocks.{layer}"
        if inner in OPEN_CLIP:
            found[f"{block}.{OPEN_CLIP[inner]}.{kind}"] = tensors[key]
        elif inner == "self_attn.q_proj":
            three = [tensors[key.replace("q_proj", f"{which}_proj")] for which in "qkv"]
            found[f"{block}.attn.in_proj_{kind}"] = torch.cat(three)
    return {prefix + key: value for key, value in found.items()}


def _unet_name(key: str, config: Mapping) -> str:
    for ours, theirs in UNET_ENDS.items():
        if key.startswith(ours + "."):
            return key.replace(ours, theirs, 1)
    per, last = config["layers_per_block"] + 1, len(config["block_out_channels"]) - 1
    side, rest = key.split(".", 1)
    if side == "mid_block":
        kind, index, inner = rest.split(".", 2)
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{_resnet(kind, inner)}"
    block, kind, index, inner = rest.split(".", 3)
    block, index = int(block), int(index)
    if kind == "downsamplers":
        return f"input_blocks.{(block + 1) * per}.0.{inner.replace('conv', 'op', 1)}"
    if kind == "upsamplers":
        behind = 2 if config["up_block_types"][block].startswith("CrossAttn") else 1
        return f"output_blocks.{block * per + per - 1}.{behind}.{inner}"
    start = 1 + block * per if side == "down_blocks" else block * per
    assert block <= last
    place = "input_blocks" if side == "down_blocks" else "output_blocks"
    return f"{place}.{start + index}.{1 if kind == 'attentions' else 0}.{_resnet(kind, inner)}"


def _resnet(kind: str, inner: str) -> str:
    if kind == "attentions":
        return inner
    name, rest = inner.split(".", 1)
    return f"{RESNET[name]}.{rest}"


def _vae_name(key: str, levels: int) -> str:
    key = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
    if "mid_block.attentions.0." in key:
        for ours, theirs in VAE_ATTENTION.items():
            key = key.replace(f"attentions.0.{ours}.", f"attn_1.{theirs}.")
        key = key.replace("mid_block.", "mid.")
    return key


def _is_projection(key: str) -> bool:
    """The VAE's attention was made of 1 x 1 convolutions."""
    return "attentions" in key and key.endswith("weight") and "group_norm" not in key
