"""Training of the built-in autoencoder: sharp on emoji, and commuting with flips, quarter turns and block shuffles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from studio.builtin.loop import Schedule, Trainer
from studio.builtin.world import SIZE, Thing, Wobble, every_thing, load_things, render

FACTOR = 8
LATENT_CHANNELS = 8
LOOSE = Wobble(shift=0.08, scale=(0.7, 1.0), tilt=10.0)


def build(latent_channels: int = LATENT_CHANNELS, channels: tuple[int, ...] = (16, 32, 64, 128)) -> AutoencoderKL:
    """An SD-style AutoencoderKL, factor 8, no attention."""
    blocks = len(channels)
    return AutoencoderKL(
        latent_channels=latent_channels,
        block_out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=SIZE,
    )


def renderings(things: tuple[Thing, ...], count: int, seed: int, wobble: Wobble = Wobble()) -> Tensor:
    """``count`` renderings cycling through ``things``: uint8, count x 3 x 128 x 128."""
    rng = np.random.default_rng(seed)
    pictures = [np.asarray(render(things[i % len(things)], rng, wobble=wobble)) for i in range(count)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def to_signed(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


def dihedral(x: Tensor, index: int) -> Tensor:
    """One of the 8 flips and quarter turns of the square, the same for latents and pictures."""
    turned = torch.rot90(x, index % 4, (2, 3))
    return turned.flip(3) if index >= 4 else turned


def shuffled_blocks(x: Tensor, order: Tensor, per_side: int) -> Tensor:
    """Cut x (B x C x S x S) into per_side^2 square blocks and put block order[i] at place i."""
    b, c, side, _ = x.shape
    block = side // per_side
    cut = x.reshape(b, c, per_side, block, per_side, block).permute(0, 1, 2, 4, 3, 5).flatten(2, 3)[:, :, order]
    return cut.unflatten(2, (per_side, per_side)).permute(0, 1, 2, 4, 3, 5).reshape(x.shape)


class Loss:
    """L1 + L2 + edges + a little KL; half of the steps ask the decoder to commute with a rearrangement.

    With ``decoder_only`` the codes are the encoder's means, fixed, and L2 alone counts.
    """

    def __init__(
        self, vae: AutoencoderKL, pool: Tensor, batch: int, seed: int, kl: float = 1e-4, decoder_only: bool = False
    ) -> None:
        self.vae, self.pool, self.batch, self.seed = vae, pool, batch, seed
        self.kl, self.decoder_only = kl, decoder_only

    def __call__(self, step: int) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        device = next(self.vae.parameters()).device
        x = to_signed(self._pictures(step, rng)).to(device, memory_format=torch.channels_last)
        if self.decoder_only:
            with torch.no_grad():
                z = self.vae.encode(x).latent_dist.mean
            z, target = _rearranged(z, x, rng)
            return {"l2": 4 * F.mse_loss(self.vae.decode(z).sample, target)}
        posterior = self.vae.encode(x).latent_dist
        z = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=rng).to(device)
        z, target = _rearranged(z, x, rng)
        out = self.vae.decode(z).sample
        return {
            "l2": 4 * F.mse_loss(out, target),
            "l1": 0.25 * F.l1_loss(out, target),
            "edges": 0.25 * F.l1_loss(_edges(out), _edges(target)),
            "kl": self.kl * posterior.kl().mean() / posterior.mean[0].numel(),
        }

    def _pictures(self, step: int, rng: torch.Generator) -> Tensor:
        """Every fourth step whole pictures, else four times as many crops of half the side, on the latent grid."""
        whole = step % 4 == 0
        count = self.batch if whole else 4 * self.batch
        x = self.pool[torch.randint(len(self.pool), (count,), generator=rng)]
        if whole:
            return x
        half, places = SIZE // 2, torch.randint(SIZE // 2 // FACTOR + 1, (count, 2), generator=rng) * FACTOR
        return torch.stack([p[:, r : r + half, c : c + half] for p, (r, c) in zip(x, places.tolist(), strict=True)])


def _rearranged(z: Tensor, x: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    kind = torch.rand((), generator=rng).item()
    if kind < 0.5:
        return z, x
    if kind < 0.85:
        index = int(torch.randint(1, 8, (), generator=rng))
        return dihedral(z, index), dihedral(x, index)
    per_side = (2, 4, 8)[int(torch.randint(3, (), generator=rng))]
    order = torch.randperm(per_side**2, generator=rng)
    return shuffled_blocks(z, order, per_side), shuffled_blocks(x, order, per_side)


def _edges(x: Tensor) -> Tensor:
    return torch.cat([x.diff(dim=2).flatten(1), x.diff(dim=3).flatten(1)], dim=1)


def train(schedule: Schedule, folder: Path, *, batch: int, seed: int = 1, start: Path | None = None) -> AutoencoderKL:
    """Train (or go on training) the autoencoder; ``start`` is a folder of weights of the same shape to begin with."""
    torch.manual_seed(seed)
    vae = build() if start is None else widened(AutoencoderKL.from_pretrained(start), LATENT_CHANNELS)
    vae.to(_device(), memory_format=torch.channels_last).train()
    pool = _pool(seed)
    trainer = Trainer(vae, schedule, folder)
    trainer.run(Loss(vae, pool, batch, seed))
    vae = trainer.averaged().eval()
    balance(vae, pool[:800:2])
    return vae


def refine_decoder(vae: AutoencoderKL, schedule: Schedule, folder: Path, *, batch: int, seed: int = 5) -> AutoencoderKL:
    """Train the decoder alone, for the codes as they are: a denoiser of these codes stays valid."""
    vae.requires_grad_(False)
    for part in (vae.decoder, vae.post_quant_conv):
        part.requires_grad_(True)
    vae.to(_device(), memory_format=torch.channels_last)
    trainer = Trainer(vae, schedule, folder)
    trainer.run(Loss(vae, _pool(seed), batch, seed, decoder_only=True))
    return trainer.averaged().eval()


def _pool(seed: int) -> Tensor:
    """The pictures the autoencoder sees: mostly its things as they are drawn, some looser, some other emoji."""
    things = load_things()
    return torch.cat(
        [
            renderings(things, 16 * len(things), seed),
            renderings(things, 4 * len(things), seed + 1, LOOSE),
            renderings(every_thing(), 1200, seed + 2),
        ]
    )


@torch.no_grad()
def widened(vae: AutoencoderKL, latent_channels: int) -> AutoencoderKL:
    """The same autoencoder with more latent channels; the old ones keep their weights, the new ones begin small."""
    old, wide = vae.config.latent_channels, build(latent_channels, tuple(vae.config.block_out_channels))
    # The encoder ends in means, then log variances; both blocks grow.
    both = [*range(old), *range(latent_channels, latent_channels + old)]
    rows = {"encoder.conv_out": both, "quant_conv": both, "post_quant_conv": both[:old]}
    columns = {"quant_conv": both, "post_quant_conv": both[:old], "decoder.conv_in": both[:old]}
    state = wide.state_dict()
    for name, value in vae.state_dict().items():
        part = name.rpartition(".")[0]
        target = state[name]
        kept_rows = torch.tensor(rows.get(part, range(len(target))))
        if target.dim() < 2 or part not in columns:
            target[kept_rows] = value
            continue
        kept_columns = torch.tensor(columns[part])
        target.mul_(0.1)
        target[kept_rows] = 0  # no new channel reaches an old code at first
        target[kept_rows[:, None], kept_columns[None]] = value
    return wide


@torch.no_grad()
def balance(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Centre every latent channel and take the root of its spread, by folding the change into the 1 x 1 convolutions.

    Loud channels carry the outline and quiet ones the detail. Afterwards the mean variance is 1 and the quiet ones are
    heard, but still drown in the noise before the outline does.
    """
    device = next(vae.parameters()).device
    codes = torch.cat([vae.encode(to_signed(part).to(device)).latent_dist.mean for part in pictures.split(50)])
    mean, std = codes.mean((0, 2, 3)), codes.std((0, 2, 3))
    scale = (std * std.mean()).sqrt()
    count, after = len(mean), vae.post_quant_conv
    vae.quant_conv.bias[:count] -= mean
    for rows in (vae.quant_conv.weight[:count], vae.quant_conv.bias[:count]):
        rows /= scale.view(-1, *[1] * (rows.dim() - 1))
    vae.quant_conv.bias[count:] -= 2 * scale.log()  # log variances shrink with their channel
    after.bias += after.weight[:, :, 0, 0] @ mean
    after.weight *= scale.view(1, -1, 1, 1)
    vae.register_to_config(scaling_factor=1.0)


@torch.no_grad()
def psnr(vae: nn.Module, pictures: Tensor, index: int = 0) -> float:
    """Mean over pictures of PSNR in dB, of the decoded (and, for index > 0, rearranged) code against the picture."""
    values = []
    for batch in pictures.split(32):
        x = to_signed(batch).to(next(vae.parameters()).device)
        out = vae.decode(dihedral(vae.encode(x).latent_dist.mean, index)).sample.clamp(-1, 1)
        error = ((out - dihedral(x, index)) / 2).square().mean((1, 2, 3))
        values += (-10 * error.log10()).tolist()
    return math.fsum(values) / len(values)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
