"""What the network shall answer: noisy codes, targets and loss weights, for epsilon, v, clean samples and flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from studio.errors import RequestError
from studio.models.networks import Network, Prediction
from studio.training.request import TrainRequest

LEAST_SNR = 1e-8


@dataclass(frozen=True)
class Noised:
    """A batch on its way into the network: x and target are B x C x h x w, t (what it is told) and weight are B."""

    x: Tensor
    t: Tensor
    target: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Objective:
    """Noise levels of one model.

    ``alphas``: the scheduler's cumulative products (1000 or so of them), None for flow, whose share of noise s runs
    from 0 to 1 and is shifted upwards by ``shift``.
    """

    kind: Prediction
    alphas: Tensor | None
    times: int
    shift: float = 1.0
    gamma: float | None = None

    @classmethod
    def of(cls, network: Network, request: TrainRequest) -> Objective:
        config: Mapping[str, Any] = network.scheduler_config
        times = config.get("num_train_timesteps", 1000)
        if network.prediction == "flow":
            if request.min_snr_gamma is not None:
                raise RequestError(
                    f"min_snr_gamma: {network.name} flows and has no such weighting; leave it empty.",
                    field="min_snr_gamma",
                )
            return cls("flow", None, times, config.get("shift", 1.0))
        known = {name: value for name, value in config.items() if name in NOISE_SETTINGS}
        alphas = DDPMScheduler(**known).alphas_cumprod
        return cls(network.prediction, alphas, times, gamma=request.min_snr_gamma)

    def at(self, u: Tensor) -> Tensor:
        """Noise levels from u (B, from 0 to 1): time steps, or for flow shares of noise.

        Time steps are even; flow's are logit-normal and then shifted (Esser et al. 2024, eq. 19 and 23), so that the
        middle, which is hardest, comes most.
        """
        if self.alphas is not None:
            return (u * self.times).long().clamp(max=self.times - 1)
        share = torch.sigmoid(torch.special.ndtri(u.double().clamp(1e-6, 1 - 1e-6))).float()
        return self.shift * share / (1 + (self.shift - 1) * share)

    def noised(self, clean: Tensor, noise: Tensor, level: Tensor) -> Noised:
        """x, target and weight for codes (B x C x h x w) at the levels of ``at``."""
        if self.alphas is None:
            s = level.to(clean)[:, None, None, None]
            return Noised((1 - s) * clean + s * noise, level * self.times, noise - clean, torch.ones_like(level))
        alpha = self.alphas.to(clean.device)[level.to(clean.device)]
        a, b = alpha.sqrt()[:, None, None, None], (1 - alpha).sqrt()[:, None, None, None]
        targets = {"epsilon": noise, "v_prediction": a * noise - b * clean, "sample": clean}
        return Noised(a * clean + b * noise, level, targets[self.kind], self._weight(alpha))

    def _weight(self, alpha: Tensor) -> Tensor:
        """Min-SNR weighting (Hang et al. 2023, eq. 8), each kind's target taken into account."""
        if self.gamma is None:
            return torch.ones_like(alpha)
        snr = (alpha / (1 - alpha)).clamp(min=LEAST_SNR)
        least = snr.clamp(max=self.gamma)
        return {"epsilon": least / snr, "v_prediction": least / (snr + 1), "sample": least}[self.kind]


NOISE_SETTINGS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


def losses(prediction: Tensor, noised: Noised) -> Tensor:
    """The weighted squared error of each picture (B), in float32."""
    error = (prediction.float() - noised.target.float()).square().flatten(1).mean(1)
    return error * noised.weight.to(error)


def offset(noise: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """Noise with a share that is the same all over each channel (Guttenberg 2023), so that means are learned too."""
    if not strength:
        return noise
    return noise + strength * torch.randn(*noise.shape[:2], 1, 1, generator=draw)
