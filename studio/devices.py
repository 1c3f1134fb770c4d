"""Device, dtype, seeds, memory."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import Tensor

from studio.errors import RequestError


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU; a device that is not there is an error."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind = name.split(":")[0]
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(kind, False):
        there = ", ".join(kind for kind, here in present.items() if here)
        raise RequestError(f"device: there is no {name!r} on this machine; choose auto, {there}.", field="device")
    return torch.device(name)


def pick_dtype(device: torch.device) -> torch.dtype:
    """float32 on the CPU, where halves are slow; bfloat16 or float16 on an accelerator."""
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float16


def memory_budget(device: torch.device, gigabytes: float | None) -> int:
    """Bytes that models may fill: as told, or half of what the device has."""
    if gigabytes is not None:
        return int(gigabytes * 1024**3)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 2
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def seeded_noise(shape: tuple[int, ...], seed: int, device: torch.device) -> Tensor:
    """Standard normal noise, drawn on the CPU so that a seed means the same picture on every device."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).to(device)


def derived_seed(seed: int, *path: int) -> int:
    """A seed for further noise of the picture ``seed``, another one for every ``path``.

    Torch's generator for the CPU looks at the lowest 32 bits of a seed only, so that adding to one does not do.
    """
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0])
