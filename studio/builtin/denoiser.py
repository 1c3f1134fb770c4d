"""Training of the built-in denoiser and its text encoder on cached latents (v-prediction, min-SNR weighting)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from studio.builtin.autoencoder import to_signed
from studio.builtin.loop import Schedule, Trainer
from studio.builtin.words import build_tokenizer, text_config
from studio.builtin.world import COLOURS, EMOJI, Style, Thing, Wobble, caption, load_things, vocabulary

RESTYLE_SEED = 23
TIGHT = Wobble(shift=0.015, scale=(0.84, 0.90), tilt=2.0)


@dataclass(frozen=True)
class Latents:
    """Cached codes (N x channels x 16 x 16, unit variance) with the indices of their thing and ground (-1: unnamed)."""

    codes: Tensor
    thing: Tensor
    colour: Tensor


def build(words: int, channels: tuple[int, int, int], text_width: int, latent_channels: int) -> nn.ModuleDict:
    """A UNet2DConditionModel over 16 x 16 latents and the CLIP text encoder that conditions it."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=latent_channels,
        out_channels=latent_channels,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=text_width,
        attention_head_dim=4,
        norm_num_groups=16,
        # The prompt as a whole also joins the time embedding, so that the widest blocks, which have no cross attention,
        # know what they draw.
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    return nn.ModuleDict({"unet": unet, "text_encoder": CLIPTextModel(text_config(words, text_width, layers=2))})


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule with v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def cache_latents(
    vae: AutoencoderKL, things: tuple[Thing, ...], per_thing: int, seed: int, style: Style = EMOJI
) -> Latents:
    """Render every thing ``per_thing`` times, on named grounds but for the style's share, and encode the pictures."""
    rng, device = np.random.default_rng(seed), next(vae.parameters()).device
    labels = [(t, _ground(style, rng)) for _ in range(per_thing) for t in range(len(things))]
    colours = [*COLOURS, None]  # what -1 finds
    codes = []
    for start in range(0, len(labels), 100):
        drawn = [np.asarray(style.render(things[t], rng, colours[c], TIGHT)) for t, c in labels[start : start + 100]]
        x = to_signed(torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)).to(device)
        codes.append(vae.encode(x).latent_dist.mean * vae.config.scaling_factor)
    thing, colour = torch.tensor(labels).T
    return Latents(torch.cat(codes), thing, colour)


def _ground(style: Style, rng: np.random.Generator) -> int:
    return -1 if style.unnamed and rng.random() < style.unnamed else int(rng.integers(len(COLOURS)))


class Loss:
    """Mean squared v error, weighted by min-SNR (Hang et al. 2023, eq. 9 in its v form), one prompt in ten empty."""

    def __init__(
        self, nets: nn.ModuleDict, tokenizer: PreTrainedTokenizerFast, data: Latents, batch: int, seed: int,
        said: float = EMOJI.said,
    ) -> None:  # fmt: skip
        self.said = said
        self.nets, self.tokenizer, self.data, self.batch, self.seed = nets, tokenizer, data, batch, seed
        self.things, self.colours = load_things(), list(COLOURS)
        self.alphas = build_scheduler().alphas_cumprod.to(data.codes.device)

    def __call__(self, step: int) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        device = self.data.codes.device
        rows = torch.randint(len(self.data.codes), (self.batch,), generator=rng)
        # One time in each of ``batch`` equal slices: less noise in the loss than independent times.
        times = (torch.arange(self.batch) + torch.rand(self.batch, generator=rng)) * len(self.alphas) / self.batch
        times = times.long().clamp(max=len(self.alphas) - 1).to(device)
        noise = torch.randn(self.data.codes[rows].shape, generator=rng).to(device)
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        clean = self.data.codes[rows]
        noisy = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        v = alpha.sqrt() * noise - (1 - alpha).sqrt() * clean
        hidden = self.nets["text_encoder"](self._tokens(rows, step).to(device)).last_hidden_state
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        error = (self.nets["unet"](noisy, times, hidden).sample - v).square().mean((1, 2, 3))
        snr = alpha.flatten() / (1 - alpha.flatten())
        return {"v": (error * snr.clamp(max=5) / (snr + 1) * 2).mean()}

    def _tokens(self, rows: Tensor, step: int) -> Tensor:
        rng = np.random.default_rng((self.seed, step))
        texts = []
        for thing, colour in zip(self.data.thing[rows].tolist(), self.data.colour[rows].tolist(), strict=True):
            said = self.colours[colour] if rng.random() < self.said and colour >= 0 else None
            texts.append("" if rng.random() < 0.1 else caption(self.things[thing], said, rng))
        return self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def train(
    vae: AutoencoderKL, schedule: Schedule, folder: Path, *, batch: int, per_thing: int, channels: tuple[int, int, int],
    text_width: int = 192, seed: int = 11, start: Path | None = None,
) -> tuple[nn.ModuleDict, PreTrainedTokenizerFast]:  # fmt: skip
    """Train (or go on training) denoiser and text encoder; returns them with averaged weights, and the tokenizer.

    ``start`` is a pipeline folder of the same shapes to begin with, where ``folder`` holds no checkpoint yet.
    """
    torch.manual_seed(seed)
    things = load_things()
    words = vocabulary(things)
    nets = build(len(words), channels, text_width, vae.config.latent_channels)
    if start is not None:
        for name, net in nets.items():
            net.load_state_dict(type(net).from_pretrained(start / name, dtype=torch.float32).state_dict())
    nets.to(vae.device)
    nets["unet"].to(memory_format=torch.channels_last)
    tokenizer = build_tokenizer(words)
    trainer = Trainer(nets.train(), schedule, folder)
    data = cache_latents(vae, things, per_thing, seed)
    trainer.run(Loss(nets, tokenizer, data, batch, seed))
    return trainer.averaged().eval(), tokenizer


def restyle(
    model: Path, style: Style, schedule: Schedule, folder: Path, *, batch: int, per_thing: int, seed: int = RESTYLE_SEED
) -> UNet2DConditionModel:
    """Fine-tune the denoiser of the pipeline in ``model`` to another style of its world; returns its averaged weights.

    Everything else keeps still: the denoisers before and after read the same codes and prompts, so they can be merged.
    """
    torch.manual_seed(seed)
    things, device = load_things(), "cuda" if torch.cuda.is_available() else "cpu"
    vae = AutoencoderKL.from_pretrained(model / "vae", dtype=torch.float32).to(device)
    text_encoder = CLIPTextModel.from_pretrained(model / "text_encoder", dtype=torch.float32).requires_grad_(False)
    unet = UNet2DConditionModel.from_pretrained(model / "unet", dtype=torch.float32)
    unet.train().to(memory_format=torch.channels_last)
    nets = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).to(device)
    trainer = Trainer(nets, schedule, folder)
    data = cache_latents(vae, things, per_thing, seed, style)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(model / "tokenizer")
    trainer.run(Loss(nets, tokenizer, data, batch, seed, style.said))
    return trainer.averaged()["unet"].eval()
