"""What a .safetensors file is, told from the names and shapes in its header, never from its own name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from studio.errors import ModelFileError
from studio.models.files import Header

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", ("cond_stage_model.", "conditioner.")
FIRST_LAYER = UNET + "input_blocks.0.0.weight"
LABELS = UNET + "label_emb.0.0.weight"
CROSS_ATTENTION = re.compile(re.escape(UNET) + r".*\.attn2\.to_k\.weight$")
NEEDED = "a whole checkpoint (U-Net, autoencoder and text encoder) of Stable Diffusion 1.x, 2.x or SDXL is needed"


@dataclass(frozen=True)
class Kind:
    """Something a file can hold: any key that ``pattern`` finds gives it away."""

    title: str
    pattern: re.Pattern[str]
    advice: str = NEEDED


LORA = Kind(
    "a LoRA adapter",
    re.compile(
        r"^lora_(unet|te|transformer)|\.lora_(A|B|up|down)\.|\.lora\.(up|down)\.|\.(hada|lokr)_|_lora\.|dora_scale"
    ),
    "choose a checkpoint as the model and this file as its adapter",
)

# In this order: what comes first decides.
KINDS: tuple[Kind, ...] = (
    LORA,
    Kind("a ControlNet", re.compile(r"^(control_model|controlnet_\w+|input_hint_block)\.")),
    Kind("a textual inversion", re.compile(r"^(string_to_param|emb_params|clip_[lg]$)")),
    Kind(
        "an SD 3 checkpoint in one file",
        re.compile(r"(^|\.)joint_blocks\.0\."),
        "SD 3 runs from its diffusers folder (the one with model_index.json)",
    ),
    Kind("a Flux model", re.compile(r"(^|\.)double_blocks\.0\.img_attn\.")),
    Kind(
        "an autoencoder alone",
        re.compile(r"^((first_stage_model|vae)\.)?(encoder|decoder)\.(conv_in|conv_out|down|up)"),
    ),
    Kind(
        "one part of a diffusers folder",
        re.compile(r"^(down_blocks|up_blocks|mid_block|transformer_blocks)\."),
        "name the folder with model_index.json that it belongs to",
    ),
    Kind("a U-Net alone", re.compile(r"^(model\.diffusion_model\.)?(input|output)_blocks\.")),
    Kind("a text encoder alone", re.compile(r"(text_model|resblocks|encoder\.block)\.")),
)


def family_of(name: str, header: Header, widths: Mapping[int, str]) -> str:
    """The family of the checkpoint ``name``; ``widths`` maps the width of cross-attention to a family.

    Raises ModelFileError that says what the file is instead and what is needed.
    """
    if not is_checkpoint(header):
        kind = kind_of(header)
        what = kind.title if kind else f"nothing that this studio knows (it holds {_sample(header)})"
        raise ModelFileError(f"{name} is {what}: {kind.advice if kind else NEEDED}.", field="model")
    _refuse_other_unets(name, header)
    _refuse_missing_parts(name, header)
    _refuse_other_training(name, header)
    width = context_width(header)
    if width not in widths:
        what = "an SDXL refiner" if width == 1280 else f"of an unknown family (its cross-attention is {width} wide)"
        raise ModelFileError(f"{name} is {what}: {NEEDED}.", field="model")
    return widths[width]


def is_checkpoint(header: Header) -> bool:
    """Whether the header has a U-Net and something besides, in A1111's and ComfyUI's layout."""
    return FIRST_LAYER in header and any(key.startswith((VAE, *TEXT)) for key in header)


def is_lora(header: Header) -> bool:
    return not is_checkpoint(header) and any(LORA.pattern.search(key) for key in header)


def kind_of(header: Header) -> Kind | None:
    """What a file that is no checkpoint holds."""
    return next((kind for kind in KINDS if any(kind.pattern.search(key) for key in header)), None)


def context_width(header: Header) -> int | None:
    """How wide the text is that the U-Net's cross-attention reads."""
    found = sorted(key for key in header if CROSS_ATTENTION.search(key))
    return [0, *header[found[0]]["shape"]][-1] if found else None


def _refuse_other_unets(name: str, header: Header) -> None:
    _, channels, *_ = [*header[FIRST_LAYER]["shape"], 0, 0]
    kinds = {9: "an inpainting model", 8: "an instruct-pix2pix model", 7: "an upscaler"}
    if channels != 4:
        what = kinds.get(channels, "no text-to-image model")
        raise ModelFileError(
            f"{name} is {what} (its U-Net reads {channels} channels): a text-to-image checkpoint with 4 is needed.",
            field="model",
        )


def _refuse_missing_parts(name: str, header: Header) -> None:
    for part, prefixes in (("autoencoder", (VAE,)), ("text encoder", TEXT)):
        if not any(key.startswith(prefixes) for key in header):
            raise ModelFileError(f"{name} has no {part}: {NEEDED}.", field="model")


def _refuse_other_training(name: str, header: Header) -> None:
    if LABELS in header and not any(key.startswith("conditioner.") for key in header):
        raise ModelFileError(f"{name} is an unCLIP model, drawn from pictures: {NEEDED}.", field="model")
    if any(key.startswith("edm_") for key in header):
        raise ModelFileError(f"{name} is a Playground or CosXL model, whose noise differs: {NEEDED}.", field="model")


def _sample(header: Header) -> str:
    return ", ".join(sorted(header)[:2]) or "no tensors"
