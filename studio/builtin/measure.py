"""The bars that the model card names, measured on what ships: PSNR, accuracies, seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from studio.builtin import autoencoder, scorer
from studio.builtin.world import SIZE, load_things
from studio.devices import pick_device, seeded_noise
from studio.models.clip import ClipScorer
from studio.models.loading import load_clip, load_stable_diffusion
from studio.models.networks import StableDiffusion
from studio.sampling import Upright, build_scheduler, denoise, guidance

STEPS, GUIDANCE, SEED = 30, 4.0, 2024
FRESH_SEED = 990_001
TURNS = ("as is", "quarter turn", "half turn", "three-quarter turn", "mirrored", "mirrored, quarter turn",
         "mirrored, half turn", "mirrored, three-quarter turn")  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """Every figure on the card. PSNR in dB per rearrangement; accuracies are shares; seconds are per picture."""

    psnr: tuple[float, ...]
    scorer_top1: float
    scorer_top5: float
    drawn_top1: float
    drawn_top5: float
    seconds: float
    pictures: Tensor
    steps: int = STEPS
    scale: float = GUIDANCE
    seed: int = SEED

    def as_markdown(self) -> str:
        turns = ", ".join(f"{name} {value:.2f}" for name, value in zip(TURNS, self.psnr, strict=True))
        return "\n".join(
            (
                "| measure | value | bar |",
                "|---|---|---|",
                f"| autoencoder PSNR, fresh renderings | {self.psnr[0]:.2f} dB | at least 28 dB |",
                f"| the same, decoder asked for a rearranged code | {turns} | reported |",
                f"| scorer, right name first / in its first five, fresh renderings | {self.scorer_top1:.1%} / "
                f"{self.scorer_top5:.1%} | at least 95 % / - |",
                f"| generated pictures, right name first / in the first five | {self.drawn_top1:.1%} / "
                f"{self.drawn_top5:.1%} | at least 70 % / 90 % |",
                f"| seconds per picture, {STEPS} steps | {self.seconds:.2f} | at most 2 |",
            )
        )


def measure(model_folder: Path, scorer_folder: Path) -> Measured:
    """Measure the shipped folders: 400 fresh renderings, and one generated picture per name at a fixed seed."""
    device = pick_device("auto")
    network = load_stable_diffusion("builtin:emoji", model_folder, device, torch.float32)
    clip = load_clip("builtin:clip", scorer_folder, device)
    things = load_things()
    fresh = autoencoder.renderings(things, 2 * len(things), FRESH_SEED)
    rough = autoencoder.renderings(things, 2 * len(things), FRESH_SEED + 1)
    start = time.perf_counter()
    pictures = torch.cat([draw(network, thing.with_article, SEED + i) for i, thing in enumerate(things)])
    seconds = (time.perf_counter() - start) / len(things)
    labels = torch.arange(len(things))
    return Measured(
        tuple(autoencoder.psnr(network.vae, fresh, index) for index in range(8)),
        *accuracy(clip, autoencoder.to_signed(rough), labels.repeat(2)),
        *accuracy(clip, pictures, labels),
        seconds,
        pictures,
    )


def draw(network: StableDiffusion, prompt: str, seed: int, steps: int = STEPS, scale: float = GUIDANCE) -> Tensor:
    """One picture by plain classifier-free guidance: 1 x 3 x 128 x 128 in [-1, 1]."""
    side = SIZE // network.factor
    noise = seeded_noise((1, network.channels, side, side), seed, network.device)
    scheduler = build_scheduler("ddim", network.scheduler_config, steps, network.device)
    terms = guidance(prompt, "", scale, 1.0, Upright())
    with torch.inference_mode():
        return network.decode(denoise(network, scheduler, lambda index, sigma: terms, noise)).cpu()


def contact_sheet(pictures: Tensor, count: int = 64) -> Image.Image:
    """``count`` pictures spread over the list, 8 in a row."""
    chosen = pictures[torch.linspace(0, len(pictures) - 1, count).long()]
    tiles = chosen.unflatten(0, (count // 8, 8)).permute(0, 3, 1, 4, 2).reshape(count // 8 * SIZE, 8 * SIZE, 3)
    return Image.fromarray(((tiles + 1) * 127.5).round().clamp(0, 255).byte().numpy())


def accuracy(clip: ClipScorer, pictures: Tensor, labels: Tensor) -> tuple[float, float]:
    """Shares of the pictures (in [-1, 1]) whose own name, of all names, ranks first, and among the first five."""
    return scorer.ranked_right(clip.similarities(pictures, [thing.with_article for thing in load_things()]), labels)
