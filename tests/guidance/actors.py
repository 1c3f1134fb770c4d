"""What the tests of guidance share: casts for guiders, and a network made up of sines."""

from __future__ import annotations

import torch

from studio.guidance.settings import Settings
from studio.guidance.terms import FACTORIES, Cast
from studio.sampling import Guider, combine

WORN = (("ink", 0.8), ("wash", -0.5))
SIGMAS = (14.6, 6.0, 3.0, 1.5, 0.7, 0.2)


def cast(kind="epsilon", prompt="a fox", negative="", adapters=WORN, **settings) -> Cast:
    return Cast(prompt, negative, adapters, Settings(**settings), kind)


def sines(x, rows):
    """A made-up network: each row's answer depends on its prompt, on its adapters, and not linearly on either."""
    answers = []
    for each, (_, prompt, adapters) in zip(x, rows, strict=True):
        strength = sum(scale * len(name) for name, scale in adapters)
        answers.append(torch.sin(each * (1 + 0.3 * strength) + len(prompt) + strength))
    return torch.stack(answers)


def noisy(step: int, side: int = 4):
    return torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(step))


def played(name: str, sigmas=SIGMAS, kind="epsilon", **settings) -> tuple[list[torch.Tensor], list[int]]:
    """A guider's predictions and evaluated rows, step by step, on the made-up network."""
    guider = FACTORIES[name](cast(kind, **settings))
    found = [at(guider, step, sigma) for step, sigma in enumerate(sigmas)]
    return [each for each, _ in found], [rows for _, rows in found]


def at(guider: Guider, step: int, sigma: float) -> tuple[torch.Tensor, int]:
    return combine(guider(step, sigma), noisy(step), sines, sigma)
