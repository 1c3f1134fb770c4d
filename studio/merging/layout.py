"""Where a tensor belongs by its name: its part of the model, and its block of the U-Net."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

from studio.models.lora_names import original_unet_names

BASE = "BASE"

# How names begin in a checkpoint of one file, in a diffusers folder ("unet/..."), and in a part that lies alone.
PARTS: tuple[tuple[str, str], ...] = (
    (r"model\.diffusion_model\.", "unet"),
    (r"first_stage_model\.|vae\.", "vae"),
    (r"cond_stage_model\.|conditioner\.embedders\.0\.|text_encoders\.clip_l\.", "text_encoder"),
    (r"conditioner\.embedders\.1\.|text_encoders\.clip_g\.", "text_encoder_2"),
    (r"text_encoders\.t5xxl\.", "text_encoder_3"),
    (r"model_ema\.", "ema"),
    (r"unet/", "unet"),
    (r"transformer/", "transformer"),
    (r"vae/", "vae"),
    (r"text_encoder/", "text_encoder"),
    (r"text_encoder_2/", "text_encoder_2"),
    (r"text_encoder_3/", "text_encoder_3"),
    (r"(encoder|decoder)\.(conv|norm|mid|down|up)|(post_)?quant_conv\.", "vae"),
    (r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\.\d", "unet"),
    (r"(down_blocks|mid_block|up_blocks|conv_in|conv_out|conv_norm_out|time_embedding|add_embedding)\.", "unet"),
    (r"(joint_blocks|transformer_blocks|double_blocks|single_blocks)\.", "transformer"),
    (r"text_model\.|transformer\.resblocks\.|encoder\.layers\.", "text_encoder"),
)
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
VAE_PREFIXES = ("first_stage_model.", "vae.", "vae/")

# What stands before the first block reads with it, what stands behind the last one writes with it.
BEFORE = re.compile(r"^(time_embed|label_emb|time_embedding|add_embedding|conv_in)\.")
BEHIND = re.compile(r"^(out|conv_norm_out|conv_out)\.")
PLACES = (
    (re.compile(r"^input_blocks\.(\d+)\."), "IN"),
    (re.compile(r"^middle_block\."), "M"),
    (re.compile(r"^output_blocks\.(\d+)\."), "OUT"),
)


@lru_cache(maxsize=16384)
def part_of(key: str) -> str:
    """unet, transformer, text_encoder..., vae, ema, or "other" for buffers, markers and what is not known."""
    return next((part for pattern, part in PARTS if re.match(pattern, key)), "other")


def inner(key: str) -> str:
    """A tensor's name inside its part."""
    prefixes = r"^(model\.diffusion_model\.|first_stage_model\.|vae\.|\w+/)"
    return re.sub(prefixes, "", key)


def blocks_of(keys: Collection[str]) -> dict[str, str]:
    """Each tensor of the U-Net and of the text encoders -> its block: BASE, IN00 ..., M00, OUT00 ...

    The order of supermerger and its kin: BASE is the text encoders; the time and label embeddings go with IN00, the
    last normalisation and convolution with the last OUT block. Empty for networks that are no U-Net.
    """
    names = {key: inner(key) for key in keys if part_of(key) == "unet"}
    original = _original(names.values())
    found = {key: _block(original.get(_module(name), name)) for key, name in names.items()}
    last = max((block for block in found.values() if block and block.startswith("OUT")), default=None)
    if last is None:
        return {}
    for key, name in names.items():
        if BEHIND.match(name):
            found[key] = last
    found |= {key: BASE for key in keys if part_of(key) in ENCODERS}
    return {key: block for key, block in found.items() if block}


def block_names(blocks: Mapping[str, str]) -> list[str]:
    """The blocks that there are, in the order of their values: 26 in SD 1.x and 2.x, 20 in SDXL."""
    ways = {"IN": 0, "M": 1, "OUT": 2}
    found = {block for block in blocks.values() if block != BASE}
    return [BASE, *sorted(found, key=lambda block: (ways[block.rstrip("0123456789")], block))]


def _original(names: Iterable[str]) -> dict[str, str]:
    """diffusers' module -> its name in the original U-Nets."""
    modules = {_module(name) for name in names}
    return {module: f"{name}." for module, name in original_unet_names(sorted(modules))}


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _block(name: str) -> str | None:
    if BEFORE.match(name):
        return "IN00"
    for pattern, way in PLACES:
        if match := pattern.match(name):
            return f"{way}{int(match[1]) if match.groups() else 0:02d}"
    return None
