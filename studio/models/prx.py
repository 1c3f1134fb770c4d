"""PRXPixel: a transformer that denoises the picture itself, without an autoencoder, told by a Qwen3-VL text encoder."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from studio.models.networks import Conditions, FlowTransformer, LatentRGB, tokenized

RGB: LatentRGB = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
LEAST_SHARE = 0.05  # of noise, by which PRXPixelPipeline divides when it turns clean estimates into flow


class PRXPixel(FlowTransformer):
    """Its codes are the pixels: one cell is one pixel, and what is drawn is decoded by doing nothing.

    ``index`` is the folder's model_index.json, which holds the model's size, its prompts' length and its noise's scale.
    """

    family = "prx_pixel"
    latent_rgb = RGB
    in_pixels = True

    def __init__(self, *args: Any, index: Mapping[str, Any]) -> None:
        super().__init__(*args)
        self._size: int = index.get("default_sample_size") or 1024
        self._tokens: int = index.get("prompt_max_tokens") or 256
        self.noise_scale = float(index.get("noise_scale") or 2.0)

    @property
    def factor(self) -> int:
        return 1

    @property
    def size(self) -> int:
        return self._size

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """N prompts -> N x tokens x width and the mask of their tokens, as PRXPixelPipeline does."""
        cleaned = [html.unescape(html.unescape(prompt)).strip() for prompt in prompts]
        tokens = tokenized(self.parts["tokenizer"], cleaned, self._tokens)
        encoder = self.parts["text_encoder"]
        mask = tokens.attention_mask.to(encoder.device).bool()
        embeds = encoder(input_ids=tokens.input_ids.to(encoder.device), attention_mask=mask).last_hidden_state
        return Conditions(embeds, {"mask": mask})

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, adapters: Mapping[str, Tensor]) -> Tensor:
        """The flow (x - clean) / t that the network's clean estimate implies, t being the share of noise."""
        clean = super().predict(x, t, conditions, adapters)
        return (x.float() - clean) / self._share(t).clamp(min=LEAST_SHARE)

    def posterior(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        codes = pictures.to(self.device).float()
        return codes, torch.zeros_like(codes)

    def decode(self, latents: Tensor) -> Tensor:
        return latents.to(self.device).float().clamp(-1, 1)

    def _forward(self, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        return self.transformer(
            hidden_states=x,
            timestep=self._share(t).expand(len(x)).to(x.device),
            encoder_hidden_states=conditions.embeds.to(x.dtype),
            attention_mask=conditions.extra["mask"],
            return_dict=False,
        )[0]

    def _share(self, t: Tensor) -> Tensor:
        return t.float().reshape(1) / self.scheduler_config.get("num_train_timesteps", 1000)

    @property
    def _grain(self) -> int:
        return self.transformer.config.patch_size
