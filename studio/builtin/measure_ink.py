"""What the card of the ink model names: how well its things are known, how much ink they are, and the way there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from studio.builtin import autoencoder, ink
from studio.builtin.denoiser import TIGHT
from studio.builtin.measure import FRESH_SEED, SEED, accuracy, draw
from studio.builtin.scorer import ranked_right
from studio.builtin.world import Wobble, load_things
from studio.devices import pick_device
from studio.models.clip import ClipScorer
from studio.models.loading import load_clip, load_stable_diffusion
from studio.models.networks import StableDiffusion

NEAR = 24.0  # levels
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
STILL = Wobble(shift=0, scale=(0.87, 0.87), tilt=0)
SHAPE_BLUR = 2.0  # pixels: more than things shift and tilt
EVERY = 5  # the way is drawn with every fifth thing


@dataclass(frozen=True)
class Likeness:
    """Shares of pixels: any mixture of paper and ink, nearly bare paper, nearly full ink; and the share of pictures
    that are mixtures in nine pixels of ten."""

    mixture: float
    bare: float
    full: float
    pictures: float


@dataclass(frozen=True)
class Step:
    """One alpha on the way from the emoji denoiser (0) to the ink denoiser (1)."""

    alpha: float
    scored: tuple[float, float]
    matched: tuple[float, float]
    likeness: Likeness


@dataclass(frozen=True)
class InkMeasured:
    """Every figure on the card. PSNR in dB; pairs are shares of right names, first and in the first five: ``matched``
    by shape, ``scored`` by the scorer."""

    psnr: float
    target_matched: tuple[float, float]
    drawn_matched: tuple[float, float]
    target_scored: tuple[float, float]
    drawn_scored: tuple[float, float]
    target_likeness: Likeness
    drawn_likeness: Likeness
    way: tuple[Step, ...]
    pictures: Tensor

    def as_markdown(self) -> str:
        target, drawn = self.target_likeness, self.drawn_likeness
        return "\n".join(
            (
                "| measure | generated | rendered, through the autoencoder |",
                "|---|---|---|",
                f"| nearest by shape, right name first / in the first five | {_pair(self.drawn_matched)} | "
                f"{_pair(self.target_matched)} |",
                f"| scorer, right name first / in the first five | {_pair(self.drawn_scored)} | "
                f"{_pair(self.target_scored)} |",
                f"| pixels that are a mixture of paper and ink | {drawn.mixture:.1%} | {target.mixture:.1%} |",
                f"| pixels of nearly bare paper / of nearly full ink | {drawn.bare:.1%} / {drawn.full:.1%} | "
                f"{target.bare:.1%} / {target.full:.1%} |",
                f"| pictures with at least nine such pixels in ten | {drawn.pictures:.1%} | {target.pictures:.1%} |",
                f"| autoencoder PSNR | - | {self.psnr:.2f} dB |",
            )
        )

    def way_as_markdown(self) -> str:
        rows = [
            f"| {step.alpha:g} | {_pair(step.matched)} | {_pair(step.scored)} | {step.likeness.mixture:.1%} | "
            f"{step.likeness.pictures:.1%} |"
            for step in self.way
        ]
        head = "| alpha | nearest by shape | scorer | pixels of paper and ink | pictures in ink |"
        return "\n".join((head, "|---|---|---|---|---|", *rows))


def measure(emoji_folder: Path, ink_folder: Path, scorer_folder: Path) -> InkMeasured:
    """Measure the shipped folder on one generated picture per name and 200 fresh renderings, and the merges to it."""
    device = pick_device("auto")
    emoji = load_stable_diffusion("builtin:emoji", emoji_folder, device, torch.float32)
    network = load_stable_diffusion("builtin:ink", ink_folder, device, torch.float32)
    clip = load_clip("builtin:clip", scorer_folder, device)
    rng, things = np.random.default_rng(FRESH_SEED), load_things()
    target = torch.from_numpy(np.stack([np.asarray(ink.render(thing, rng, wobble=TIGHT)) for thing in things]))
    target = target.permute(0, 3, 1, 2)
    pictures = drawings(network, range(len(things)))
    labels, carried = torch.arange(len(things)), through(network, target)
    return InkMeasured(
        psnr=autoencoder.psnr(network.vae, target),
        target_matched=matched(carried, labels),
        drawn_matched=matched(pictures, labels),
        target_scored=accuracy(clip, carried, labels),
        drawn_scored=accuracy(clip, pictures, labels),
        target_likeness=likeness(carried),
        drawn_likeness=likeness(pictures),
        way=tuple(way(emoji, network, clip)),
        pictures=pictures,
    )


@torch.inference_mode()
def through(network: StableDiffusion, pictures: Tensor) -> Tensor:
    """Pictures (uint8) after the autoencoder, in [-1, 1]: the best that the denoiser could give."""
    return torch.cat([network.decode(network.encode(autoencoder.to_signed(part))).cpu() for part in pictures.split(25)])


def drawings(network: StableDiffusion, indices: range) -> Tensor:
    """One picture for each of these things, N x 3 x 128 x 128 in [-1, 1]."""
    things = load_things()
    return torch.cat([draw(network, things[i].with_article, SEED + i) for i in indices])


def way(emoji: StableDiffusion, network: StableDiffusion, clip: ClipScorer) -> list[Step]:
    """Weighted sums of the two denoisers; afterwards ``emoji`` holds the ink denoiser's weights."""
    first, last = ({k: v.clone() for k, v in net.unet.state_dict().items()} for net in (emoji, network))
    chosen, steps = range(0, len(load_things()), EVERY), []
    labels = torch.tensor(chosen)
    for alpha in ALPHAS:
        emoji.unet.load_state_dict({key: torch.lerp(first[key], last[key], alpha) for key in first})
        pictures = drawings(emoji, chosen)
        scored = accuracy(clip, pictures, labels)
        steps.append(Step(alpha, scored, matched(pictures, labels), likeness(pictures)))
    return steps


def matched(pictures: Tensor, labels: Tensor) -> tuple[float, float]:
    """Shares of the pictures whose own thing, of all things drawn in ink without a wobble, has the nearest shape, and
    is among the nearest five."""
    rng = np.random.default_rng(0)
    still = np.stack([np.asarray(ink.render(thing, rng, wobble=STILL)) for thing in load_things()])
    return ranked_right(torch.from_numpy(_shapes(_pixels(pictures)) @ _shapes(still).T), labels)


def likeness(pictures: Tensor) -> Likeness:
    """How much ink on plain paper these pictures are, N x 3 x H x W in [-1, 1]."""
    distance, share = ink.off_ink(_pixels(pictures))
    mixture = distance <= NEAR
    return Likeness(
        mixture=float(mixture.mean()),
        bare=float((mixture & (share < 0.1)).mean()),
        full=float((mixture & (share > 0.8)).mean()),
        pictures=float((mixture.mean((1, 2)) >= 0.9).mean()),
    )


def _shapes(pixels: np.ndarray) -> np.ndarray:
    """The blurred ink of N x H x W x 3 pixels as N unit vectors of mean 0: their products are correlations."""
    share = ink.blurred(np.moveaxis(ink.off_ink(pixels)[1], 0, 2), SHAPE_BLUR)
    flat = np.moveaxis(share, 2, 0).reshape(len(pixels), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)


def _pixels(pictures: Tensor) -> np.ndarray:
    return ((pictures.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1).numpy()


def _pair(shares: tuple[float, float]) -> str:
    return f"{shares[0]:.1%} / {shares[1]:.1%}"
