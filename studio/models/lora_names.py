"""How LoRA files name the modules of a network: diffusers' names, kohya's, and those of the original checkpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

Shapes = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Part (unet, transformer, text_encoder, ...) -> module -> shape of its weight."""
Index = Mapping[str, Mapping[str, tuple[str, ...]]]
"""Part -> flattened name in a file -> the module it means, or several that the file holds stacked as one."""

DENOISERS = ("unet", "transformer")

# How a flattened name may begin, and which parts it may then speak of.
PREFIXES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("lora_unet_", DENOISERS),
    ("lora_transformer_", DENOISERS),
    ("lycoris_", DENOISERS),
    ("diffusion_model_", DENOISERS),
    ("unet_", ("unet",)),
    ("transformer_", ("transformer",)),
    ("lora_te_", ("text_encoder",)),
    ("lora_te1_", ("text_encoder",)),
    ("lora_te2_", ("text_encoder_2",)),
    ("lora_te3_", ("text_encoder_3",)),
    ("text_encoder_2_", ("text_encoder_2",)),
    ("text_encoder_3_", ("text_encoder_3",)),
    ("text_encoder_", ("text_encoder",)),
    ("", (*DENOISERS, "text_encoder")),
)

# How kohya begins the names of a part's layers; beside a second encoder the first one is lora_te1.
KOHYA: Mapping[str, str] = {
    "unet": "lora_unet",
    "transformer": "lora_transformer",
    "text_encoder": "lora_te",
    "text_encoder_2": "lora_te2",
    "text_encoder_3": "lora_te3",
}

# The attention processors of early diffusers named their layers themselves.
EARLY_NAMES = (
    (r"\.processor\.to_", ".to_"),
    (r"(attn[12])\.to_out$", r"\1.to_out.0"),
    (r"self_attn\.to_([qkv])$", r"self_attn.\1_proj"),
    (r"self_attn\.to_out$", "self_attn.out_proj"),
)

# Inside the residual blocks of the original U-Nets, and around the blocks: (diffusers, original).
RESNET = (
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
)
AROUND_UNET = (
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_out", "out.2"),
)

# One joint block of SD 3: (original, what it holds in diffusers' names, stacked in this order).
JOINT_BLOCK = (
    ("x_block.attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
    ("context_block.attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    ("x_block.attn2.qkv", ("attn2.to_q", "attn2.to_k", "attn2.to_v")),
    ("x_block.attn.proj", ("attn.to_out.0",)),
    ("x_block.attn2.proj", ("attn2.to_out.0",)),
    ("context_block.attn.proj", ("attn.to_add_out",)),
    ("x_block.adaLN_modulation.1", ("norm1.linear",)),
    ("context_block.adaLN_modulation.1", ("norm1_context.linear",)),
    ("x_block.mlp.fc1", ("ff.net.0.proj",)),
    ("x_block.mlp.fc2", ("ff.net.2",)),
    ("context_block.mlp.fc1", ("ff_context.net.0.proj",)),
    ("context_block.mlp.fc2", ("ff_context.net.2",)),
)
AROUND_JOINT_BLOCKS = (
    ("x_embedder.proj", "pos_embed.proj"),
    ("t_embedder.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
    ("t_embedder.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
    ("y_embedder.mlp.0", "time_text_embed.text_embedder.linear_1"),
    ("y_embedder.mlp.2", "time_text_embed.text_embedder.linear_2"),
    ("final_layer.linear", "proj_out"),
)


def flattened(name: str) -> str:
    """``name`` as kohya writes it, without the wrappers that differ between versions of the libraries."""
    for pattern, new in EARLY_NAMES:
        name = re.sub(pattern, new, name)
    return name.replace(".", "_").removeprefix("base_model_model_").replace("text_model_", "")


def kohya_name(part: str, module: str, several_encoders: bool) -> str:
    """A layer's name in kohya's files: ``module`` by diffusers' name, dotted or flattened already.

    Raises KeyError for a part that no such file holds.
    """
    prefix, flat = KOHYA[part], flattened(module)
    if part == "text_encoder" and several_encoders:
        prefix = "lora_te1"
    if part in ("text_encoder", "text_encoder_2"):  # CLIP's layers stood one level deeper in older transformers
        flat = f"text_model_{flat}"
    return f"{prefix}_{flat}"


def index(shapes: Shapes) -> Index:
    """Every name under which a file may speak of a network's modules."""
    return {part: _names_of(modules) for part, modules in shapes.items()}


def find(name: str, names: Index) -> tuple[str, tuple[str, ...]] | None:
    """The part and the modules that a file's ``name`` means in this network."""
    flat = flattened(name)
    for prefix, parts in PREFIXES:
        for part in parts:
            if flat.startswith(prefix) and flat[len(prefix) :] in names.get(part, ()):
                return part, names[part][flat[len(prefix) :]]
    return None


def _names_of(modules: Iterable[str]) -> dict[str, tuple[str, ...]]:
    known = list(modules)
    names = {flattened(module): (module,) for module in known}
    for module, original in [*original_unet_names(known), *AROUND_UNET]:
        if module in modules:
            names.setdefault(flattened(original), (module,))
    for original, held in original_transformer_names(known):
        if set(held) <= set(known):
            names.setdefault(flattened(original), held)
    return names


def original_unet_names(modules: Iterable[str]) -> list[tuple[str, str]]:
    """(diffusers' name, name in the original checkpoints) of every module inside a U-Net's blocks."""
    pattern = r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)|mid_block\."
    found = [(module, re.match(pattern, module)) for module in modules]
    blocks = [match.groups() for _, match in found if match and match[1]]
    layers = 1 + max((int(j) for way, _, what, j, _ in blocks if (way, what) == ("down", "resnets")), default=0)
    attending = {(way, i) for way, i, what, _, _ in blocks if what == "attentions"}
    names = []
    for module, match in found:
        if match and match[1]:
            way, i, what, j, rest = match.groups()
            place = _place(way, int(i), what, int(j), layers, (way, i) in attending)
            names.append((module, f"{place}.{_inner(what, rest)}"))
        elif match and (middle := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", module)):
            place = 1 if middle[1] == "attentions" else 2 * int(middle[2])
            names.append((module, f"middle_block.{place}.{_inner(middle[1], middle[3])}"))
    return names


def _place(way: str, i: int, what: str, j: int, layers: int, attends: bool) -> str:
    """Where the original keeps one layer of a block: each block has ``layers`` layers (one more going up)."""
    if way == "down":
        first = 1 + i * (layers + 1)
        if what == "downsamplers":
            return f"input_blocks.{first + layers}.0"
        return f"input_blocks.{first + j}.{_slot(what)}"
    first = i * (layers + 1)
    if what == "upsamplers":
        return f"output_blocks.{first + layers}.{1 + attends}"
    return f"output_blocks.{first + j}.{_slot(what)}"


def _slot(what: str) -> int:
    return 0 if what == "resnets" else 1


def _inner(what: str, rest: str) -> str:
    if what == "downsamplers":
        return "op"
    return dict(RESNET).get(rest, rest) if what == "resnets" else rest


def original_transformer_names(modules: Iterable[str]) -> list[tuple[str, tuple[str, ...]]]:
    """(name in the original checkpoints, diffusers' names) for SD 3.

    The last block's context modulation and the final one keep shift and scale in the other order, so they are left out.
    """
    numbers = {int(match[1]) for module in modules if (match := re.match(r"transformer_blocks\.(\d+)\.", module))}
    names: list[tuple[str, tuple[str, ...]]] = [(original, (module,)) for original, module in AROUND_JOINT_BLOCKS]
    for i in numbers:
        for original, held in JOINT_BLOCK:
            if not (i == max(numbers) and original == "context_block.adaLN_modulation.1"):
                names.append((f"joint_blocks.{i}.{original}", tuple(f"transformer_blocks.{i}.{name}" for name in held)))
    return names
