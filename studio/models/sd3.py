"""Stable Diffusion 3 and 3.5: a transformer that predicts flow, two CLIP encoders, and T5 where it is there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from studio.models.networks import Conditions, FlowTransformer, LatentRGB, penultimate, tokenized

T5_TOKENS = 256

# RGB of one unit of each latent channel (published in ComfyUI's comfy/latent_formats.py), and of the zero code.
SD3_LATENT_RGB: LatentRGB = (
    (-0.0922, -0.0175, 0.0749),
    (0.0311, 0.0633, 0.0954),
    (0.1994, 0.0927, 0.0458),
    (0.0856, 0.0339, 0.0902),
    (0.0587, 0.0272, -0.0496),
    (-0.0006, 0.1104, 0.0309),
    (0.0978, 0.0306, 0.0427),
    (-0.0042, 0.1038, 0.1358),
    (-0.0194, 0.0020, 0.0669),
    (-0.0488, 0.0130, -0.0268),
    (0.0922, 0.0988, 0.0951),
    (-0.0278, 0.0524, -0.0542),
    (0.0332, 0.0456, 0.0895),
    (-0.0069, -0.0030, -0.0810),
    (-0.0596, -0.0465, -0.0293),
    (-0.1448, -0.1463, -0.1189),
)
SD3_LATENT_BIAS = (0.2394, 0.2135, 0.1925)


class StableDiffusion3(FlowTransformer):
    """SD 3 and 3.5; without a ``text_encoder_3`` among its parts T5's rows are zeros, as the model was trained for."""

    family = "sd3"
    latent_rgb, latent_bias = SD3_LATENT_RGB, SD3_LATENT_BIAS

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """N prompts -> N x (CLIP's tokens + T5's) x width and both pooled vectors, as in StableDiffusion3Pipeline.

        CLIP's two widths stand side by side, padded with zeros to T5's.
        """
        parts = self.parts
        first, pooled = penultimate(parts["text_encoder"], parts["tokenizer"], prompts)
        second, pooled_2 = penultimate(parts["text_encoder_2"], parts["tokenizer_2"], prompts)
        clip, t5 = torch.cat([first, second], dim=-1), self._t5(prompts).to(first.dtype)
        clip = F.pad(clip, (0, t5.shape[-1] - clip.shape[-1]))
        return Conditions(torch.cat([clip, t5], dim=1), {"pooled": torch.cat([pooled, pooled_2], dim=-1)})

    def _t5(self, prompts: Sequence[str]) -> Tensor:
        encoder = self.parts.get("text_encoder_3")
        if encoder is None:
            width = self.transformer.config.joint_attention_dim
            return torch.zeros(len(prompts), T5_TOKENS, width, device=self.device)
        ids = tokenized(self.parts["tokenizer_3"], prompts, T5_TOKENS).input_ids
        return encoder(ids.to(encoder.device))[0]

    def _forward(self, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        return self.transformer(
            hidden_states=x,
            timestep=t.expand(len(x)),
            encoder_hidden_states=conditions.embeds.to(x.dtype),
            pooled_projections=conditions.extra["pooled"].to(x.dtype),
            return_dict=False,
        )[0]

    @property
    def _grain(self) -> int:
        return self.factor * self.transformer.config.patch_size
