"""Networks behind one signature: ``predict(x, t, conditions, adapters)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from studio.models.adapters import Attached

Prediction = Literal["epsilon", "v_prediction", "sample"]
PREVIEW_FILE = "latent_preview.safetensors"

# RGB of one unit of each latent channel of SD 1.x/2.x in [-1, 1] (published in ComfyUI's comfy/latent_formats.py).
SD_LATENT_RGB = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)


@dataclass(frozen=True)
class Conditions:
    """What prompts become: one row each. SDXL and SD3 add pooled vectors and time ids under ``extra``."""

    embeds: Tensor
    extra: Mapping[str, Tensor]

    def rows(self, index: Sequence[int]) -> Conditions:
        picked = torch.tensor(index, device=self.embeds.device)
        return Conditions(self.embeds[picked], {name: value[picked] for name, value in self.extra.items()})


class StableDiffusion:
    """Stable Diffusion 1.x and 2.x: U-Net, autoencoder, CLIP text encoder and tokenizer."""

    family = "sd"

    def __init__(
        self, name: str, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], folder: Path | None
    ) -> None:
        self.name, self.scheduler_config = name, dict(scheduler_config)
        self.unet: nn.Module = parts["unet"]
        self.vae: nn.Module = parts["vae"]
        self.text_encoder: nn.Module = parts["text_encoder"]
        self.tokenizer = parts["tokenizer"]
        self.headrooms: dict[str, Any] = {}
        self.attached = Attached()
        self._preview = _preview_kernel(folder, self.device)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def prediction(self) -> Prediction:
        return self.scheduler_config.get("prediction_type", "epsilon")

    @property
    def factor(self) -> int:
        """Pixels per latent cell along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size(self) -> int:
        """The side in pixels the model was made for."""
        return self.unet.config.sample_size * self.factor

    @property
    def channels(self) -> int:
        return self.unet.config.in_channels

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return (self.unet, self.vae, self.text_encoder)

    @property
    def adaptable(self) -> Mapping[str, nn.Module]:
        """The parts that adapters can change, by the names that LoRA files of diffusers give them."""
        return {"unet": self.unet, "text_encoder": self.text_encoder}

    def encode_adapted(self, prompts: Sequence[str], adapters: Sequence[tuple[str, float]]) -> Conditions:
        """``encode_prompts`` with attached adapters at these scales; those that are not named are off."""
        with self.attached.uniform(adapters, len(prompts), self.device):
            return self.encode_prompts(prompts)

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """N prompts -> N x tokens x width, as StableDiffusionPipeline.encode_prompt does (last hidden state)."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        mask = tokens.attention_mask.to(self.device) if self._uses_mask() else None
        embeds = self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        return Conditions(embeds, {})

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, adapters: Mapping[str, Tensor]) -> Tensor:
        """The network's own prediction (see ``prediction``) for x (N x C x h x w) at time t, float32.

        ``adapters`` maps an adapter's name to its scale per row (N); a row of zeros is the base model.
        """
        dtype = self.unet.dtype
        with self.attached.rows(adapters):
            out = self.unet(x.to(dtype), t, encoder_hidden_states=conditions.embeds.to(dtype), return_dict=False)[0]
        return out.float()

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures in [-1, 1] (N x 3 x H x W) -> mean latents, unit variance (N x C x H/f x W/f)."""
        moments = self.vae.encode(pictures.to(self.device, self.vae.dtype)).latent_dist
        return moments.mean.float() * self.vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> pictures, clamped to [-1, 1], float32."""
        scaled = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor
        return self.vae.decode(scaled, return_dict=False)[0].float().clamp(-1, 1)

    def preview(self, latents: Tensor) -> Tensor:
        """A cheap linear picture of latents: N x 3 x (h * preview_scale) x (w * preview_scale) in [-1, 1]."""
        weight, bias = self._preview
        mapped = F.conv2d(latents.float(), weight, bias, padding=weight.shape[-1] // 2)
        return F.pixel_shuffle(mapped, self.preview_scale).clamp(-1, 1)

    @property
    def preview_scale(self) -> int:
        return round((self._preview[0].shape[0] / 3) ** 0.5)

    def _uses_mask(self) -> bool:
        return bool(getattr(self.text_encoder.config, "use_attention_mask", False))


def _preview_kernel(folder: Path | None, device: torch.device) -> tuple[Tensor, Tensor]:
    """The linear map latent -> RGB: the model's own when its folder holds one, else SD's published one."""
    if folder is not None and (folder / PREVIEW_FILE).exists():
        kernel = load_file(folder / PREVIEW_FILE)
        return kernel["weight"].float().to(device), kernel["bias"].float().to(device)
    weight = torch.tensor(SD_LATENT_RGB, device=device).T[:, :, None, None]
    return weight.contiguous(), torch.zeros(3, device=device)
