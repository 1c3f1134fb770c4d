"""What each budget spends: the numbers that the shipped weights were trained with, and those for an accelerator."""

from __future__ import annotations

from dataclasses import dataclass

from studio.builtin.loop import Schedule


@dataclass(frozen=True)
class Recipe:
    """Schedules, batch sizes and renderings per thing of the trainings, and the denoiser's widths."""

    autoencoder: Schedule
    autoencoder_batch: int
    decoder: Schedule
    denoiser: Schedule
    denoiser_batch: int
    denoiser_channels: tuple[int, int, int]
    renderings: int
    ink: Schedule
    scorer: Schedule
    scorer_batch: int
    scorer_renderings: int


RECIPES = {
    "cpu": Recipe(
        autoencoder=Schedule(steps=900, lr=8e-4, warmup=0.03, decay=0.6, ema=0.995),
        autoencoder_batch=8,
        decoder=Schedule(steps=800, lr=5e-4, warmup=0.05, decay=0.7, ema=0.99),
        denoiser=Schedule(steps=3400, lr=1.2e-3, warmup=0.02, decay=0.4, ema=0.998, weight_decay=1e-3),
        denoiser_batch=32,
        denoiser_channels=(64, 96, 160),
        renderings=24,
        ink=Schedule(steps=2400, lr=3e-4, warmup=0.03, decay=0.5, ema=0.995, weight_decay=1e-3),
        scorer=Schedule(steps=2000, lr=1e-3, warmup=0.05, decay=0.6, ema=0.995, weight_decay=0.02),
        scorer_batch=64,
        scorer_renderings=12,
    ),
    "gpu": Recipe(
        autoencoder=Schedule(steps=40_000, lr=1e-3, warmup=0.02, decay=0.6, ema=0.999),
        autoencoder_batch=32,
        decoder=Schedule(steps=10_000, lr=5e-4, warmup=0.02, decay=0.7, ema=0.999),
        denoiser=Schedule(steps=120_000, lr=1e-3, warmup=0.01, decay=0.4, ema=0.9995, weight_decay=1e-3),
        denoiser_batch=256,
        denoiser_channels=(64, 128, 256),
        renderings=128,
        ink=Schedule(steps=20_000, lr=2e-4, warmup=0.01, decay=0.5, ema=0.999, weight_decay=1e-3),
        scorer=Schedule(steps=15_000, lr=1e-3, warmup=0.05, decay=0.6, ema=0.999, weight_decay=0.02),
        scorer_batch=160,
        scorer_renderings=32,
    ),
}
