"""Stable Diffusion XL: two text encoders, a pooled vector and the picture's size as conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from studio.models.networks import Conditions, LatentRGB, Network, penultimate

# RGB of one unit of each latent channel (published in ComfyUI's comfy/latent_formats.py), and of the zero code.
SDXL_LATENT_RGB: LatentRGB = (
    (0.3651, 0.4232, 0.4341),
    (-0.2533, -0.0042, 0.1068),
    (0.1076, 0.1111, -0.0362),
    (-0.3165, -0.2492, -0.2188),
)
SDXL_LATENT_BIAS = (0.1084, -0.0175, -0.0011)


class StableDiffusionXL(Network):
    """SDXL base models. ``zero_empty``: an empty prompt becomes zeros, as in the base model's training."""

    family = "sdxl"
    latent_rgb, latent_bias = SDXL_LATENT_RGB, SDXL_LATENT_BIAS

    def __init__(self, *args: Any, zero_empty: bool = True) -> None:
        super().__init__(*args)
        self.zero_empty = zero_empty

    @property
    def denoiser(self) -> nn.Module:
        return self.unet

    @property
    def unet(self) -> nn.Module:
        return self.parts["unet"]

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """N prompts -> N x tokens x (both widths) and the second encoder's pooled N x width.

        As StableDiffusionXLPipeline.encode_prompt does, whose missing negative prompt is the empty one here.
        """
        parts = self.parts
        first, _ = penultimate(parts["text_encoder"], parts["tokenizer"], prompts)
        second, pooled = penultimate(parts["text_encoder_2"], parts["tokenizer_2"], prompts)
        embeds = torch.cat([first, second], dim=-1)
        said = torch.tensor([float(bool(prompt) or not self.zero_empty) for prompt in prompts], device=embeds.device)
        said = said.to(embeds.dtype)
        return Conditions(embeds * said[:, None, None], {"pooled": pooled * said[:, None]})

    def _forward(self, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        added = {"text_embeds": conditions.extra["pooled"].to(x.dtype), "time_ids": self._time_ids(x)}
        embeds = conditions.embeds.to(x.dtype)
        return self.unet(x, t, encoder_hidden_states=embeds, added_cond_kwargs=added, return_dict=False)[0]

    def _time_ids(self, x: Tensor) -> Tensor:
        """Original height and width, the crop's top and left, target height and width (SDXL paper, section 2.2)."""
        height, width = (side * self.factor for side in x.shape[-2:])
        return x.new_tensor([height, width, 0, 0, height, width]).expand(len(x), -1)
