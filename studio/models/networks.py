"""Networks behind one signature: ``predict(x, t, conditions, adapters)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from studio.devices import with_less
from studio.errors import RequestError
from studio.models.adapters import Attached
from studio.models.compiling import CompiledForward
from studio.models.residence import Residence

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
PREVIEW_FILE = "latent_preview.safetensors"

LatentRGB = tuple[tuple[float, float, float], ...]

# RGB of one unit of each latent channel of SD 1.x/2.x in [-1, 1] (published in ComfyUI's comfy/latent_formats.py).
SD_LATENT_RGB: LatentRGB = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
)


@dataclass(frozen=True)
class Conditions:
    """What prompts become: one row each. SDXL and SD 3 add pooled vectors under ``extra``."""

    embeds: Tensor
    extra: Mapping[str, Tensor]

    def rows(self, index: Sequence[int]) -> Conditions:
        picked = torch.tensor(index, device=self.embeds.device)
        return Conditions(self.embeds[picked], {name: value[picked] for name, value in self.extra.items()})


class Network(ABC):
    """A text-to-image model as the loop sees it. A family says how prompts are encoded and how x is predicted.

    ``parts`` holds the family's modules and tokenizers by the names of their folders.
    """

    family: str
    latent_rgb: LatentRGB = SD_LATENT_RGB
    latent_bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    noise_scale: float = 1.0
    """How strong the noise is that a run begins with, in standard deviations."""
    in_pixels: bool = False
    """Whether there is no autoencoder: codes are pixels, and ``decode`` only clamps them."""

    def __init__(
        self, name: str, parts: Mapping[str, Any], scheduler_config: Mapping[str, Any], folder: Path | None
    ) -> None:
        self.name, self.scheduler_config = name, dict(scheduler_config)
        self.parts = dict(parts)
        self.headrooms: dict[str, Any] = {}
        self.attached = Attached()
        self.residence = Residence(self.parts, self.denoiser.device)
        self.compiled: CompiledForward | None = None
        self._preview = self._preview_kernel(folder)

    @property
    @abstractmethod
    def denoiser(self) -> nn.Module:
        """The module that predicts."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """N prompts -> their conditions, one row each."""

    @abstractmethod
    def _forward(self, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """The denoiser's answer for x, which has its dtype."""

    @property
    def vae(self) -> nn.Module:
        return self.parts["vae"]

    @property
    def device(self) -> torch.device:
        """Where it computes; its parts may wait elsewhere (see ``residence``)."""
        return self.residence.device

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's. (Its own ``dtype`` walks through all parameters, every step anew.)"""
        return next(self.denoiser.parameters()).dtype

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
        return self.denoiser.config.sample_size * self.factor

    @property
    def channels(self) -> int:
        return self.denoiser.config.in_channels

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return tuple(part for part in self.parts.values() if isinstance(part, nn.Module))

    def cells(self, size: int | None) -> int:
        """Latent cells along one side of a picture of ``size`` pixels (None: the model's own size)."""
        size = size or self.size
        if size % self._grain:
            fix = f"choose {size // self._grain * self._grain or self._grain}"
            raise RequestError(f"size: {self.name} draws multiples of {self._grain} pixels; {fix}.", field="size")
        return size // self.factor

    @property
    def adaptable(self) -> Mapping[str, nn.Module]:
        """The parts that adapters can change, by the names that LoRA files of diffusers give them."""
        return {name: part for name, part in self.parts.items() if isinstance(part, nn.Module) and name != "vae"}

    def encode_adapted(self, prompts: Sequence[str], adapters: Sequence[tuple[str, float]]) -> Conditions:
        """``encode_prompts`` with attached adapters at these scales; those that are not named are off."""
        with self.attached.uniform(adapters, len(prompts), self.device):
            return self.encode_prompts(prompts)

    def predict(self, x: Tensor, t: Tensor, conditions: Conditions, adapters: Mapping[str, Tensor]) -> Tensor:
        """The network's own prediction (see ``prediction``) for x (N x C x h x w) at time t, float32.

        ``adapters`` maps an adapter's name to its scale per row (N); a row of zeros is the base model.
        """
        with self.attached.rows(adapters):
            return self._forward(x.to(self.dtype), t, conditions).float()

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures in [-1, 1] (N x 3 x H x W) -> mean latents, unit variance (N x C x H/f x W/f)."""
        return self.posterior(pictures)[0]

    def posterior(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the pictures' latents, scaled as ``encode``'s, float32.

        Kingma & Welling 2014: latents = mean + deviation * noise.
        """
        self.residence.bring("vae")
        pictures = pictures.to(self.device, self.vae.dtype)
        moments = with_less(lambda: self.vae.encode(pictures).latent_dist, self._tile, self.device)
        scale = self.vae.config.scaling_factor
        return (moments.mean.float() - self._shift) * scale, moments.std.float() * scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> pictures, clamped to [-1, 1], float32; in tiles where memory is too short for whole ones."""
        self.residence.bring("vae")
        scaled = latents.to(self.device, self.vae.dtype) / self.vae.config.scaling_factor + self._shift
        pictures = with_less(lambda: self.vae.decode(scaled, return_dict=False)[0], self._tile, self.device)
        return pictures.float().clamp(-1, 1)

    def _tile(self) -> bool:
        return self.residence.tile(self.residence.tile_side)

    def preview(self, latents: Tensor) -> Tensor:
        """A cheap linear picture of latents: N x 3 x (h * preview_scale) x (w * preview_scale) in [-1, 1]."""
        weight, bias = (kernel.to(latents.device) for kernel in self._preview)
        mapped = F.conv2d(latents.float(), weight, bias, padding=weight.shape[-1] // 2)
        return F.pixel_shuffle(mapped, self.preview_scale).clamp(-1, 1)

    @property
    def preview_scale(self) -> int:
        return round((self._preview[0].shape[0] / 3) ** 0.5)

    @property
    def _grain(self) -> int:
        """Pixels that a picture's side must be a multiple of."""
        return self.factor

    @property
    def _shift(self) -> float:
        """What SD 3's autoencoder takes off its codes before scaling them; nothing elsewhere."""
        return self.vae.config.shift_factor or 0.0

    def _preview_kernel(self, folder: Path | None) -> tuple[Tensor, Tensor]:
        """The linear map latent -> RGB: the model's own when its folder holds one, else its family's published one."""
        if folder is not None and (folder / PREVIEW_FILE).exists():
            kernel = load_file(folder / PREVIEW_FILE)
            return kernel["weight"].float().to(self.device), kernel["bias"].float().to(self.device)
        weight = torch.tensor(self.latent_rgb, device=self.device).T[:, :, None, None]
        return weight.contiguous(), torch.tensor(self.latent_bias, device=self.device)


class StableDiffusion(Network):
    """Stable Diffusion 1.x and 2.x: U-Net, autoencoder, CLIP text encoder and tokenizer."""

    family = "sd"

    @property
    def denoiser(self) -> nn.Module:
        return self.unet

    @property
    def unet(self) -> nn.Module:
        return self.parts["unet"]

    @property
    def text_encoder(self) -> nn.Module:
        return self.parts["text_encoder"]

    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """N prompts -> N x tokens x width, as StableDiffusionPipeline.encode_prompt does (last hidden state)."""
        tokens = tokenized(self.parts["tokenizer"], prompts)
        mask = tokens.attention_mask.to(self.device) if self._uses_mask() else None
        embeds = self.text_encoder(tokens.input_ids.to(self.device), attention_mask=mask)[0]
        return Conditions(embeds, {})

    def _forward(self, x: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        return self.unet(x, t, encoder_hidden_states=conditions.embeds.to(x.dtype), return_dict=False)[0]

    def _uses_mask(self) -> bool:
        return bool(getattr(self.text_encoder.config, "use_attention_mask", False))


class FlowTransformer(Network):
    """A network whose denoiser is a transformer that predicts flow."""

    @property
    def denoiser(self) -> nn.Module:
        return self.transformer

    @property
    def transformer(self) -> nn.Module:
        return self.parts["transformer"]

    @property
    def prediction(self) -> Prediction:
        return "flow"


def tokenized(tokenizer: Any, prompts: Sequence[str], length: int | None = None) -> Any:
    """Prompts as N x ``length`` token ids (None: as many as the tokenizer was made for)."""
    length = length or tokenizer.model_max_length
    return tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")


def penultimate(encoder: nn.Module, tokenizer: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """CLIP's last hidden layer but one (N x tokens x width) and its first output, as SDXL and SD 3 condition on.

    The first output is the pooled projection (N x width) of an encoder that has one.
    """
    ids = tokenized(tokenizer, prompts).input_ids.to(encoder.device)
    found = encoder(ids, output_hidden_states=True)
    return found.hidden_states[-2], found[0]
