"""Device, dtype, seeds, memory."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from studio.errors import RequestError

T = TypeVar("T")

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# What torch says when memory runs out without an error class of its own: on the CPU, and on Apple's MPS.
MEMORY_WORDS = ("can't allocate memory", "not enough memory", "MPS backend out of memory")


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` takes CUDA, then Apple's MPS, then the CPU; a device that is not there is an error."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    counts = {"cpu": 1, "cuda": gpus, "mps": int(torch.backends.mps.is_available())}
    found = re.fullmatch(r"([a-z]+)(:[0-9]{1,3})?", name)
    if found is None or int((found[2] or ":0")[1:]) >= counts.get(found[1], 0):
        there = ", ".join(kind for kind, count in counts.items() if count)
        raise RequestError(f"device: there is no {name!r} on this machine; choose auto, {there}.", field="device")
    return torch.device(name)


def pick_dtype(device: torch.device, name: str = "auto") -> torch.dtype:
    """The dtype of networks and text encoders.

    ``auto`` takes float32 on the CPU, where halves are slow, bfloat16 where CUDA computes in it, else float16. Raises
    RequestError for a name that is in no table, or bfloat16 on a GPU that cannot.
    """
    native = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if device.type == "cuda" and native else torch.float16
    if name not in DTYPES:
        raise RequestError(f"dtype: there is no {name!r}; choose auto, {', '.join(DTYPES)}.", field="dtype")
    if name == "bfloat16" and not native:
        raise RequestError("dtype: this GPU does not compute in bfloat16; choose float16.", field="dtype")
    return DTYPES[name]


def autoencoder_dtype(dtype: torch.dtype, force_upcast: bool = True) -> torch.dtype:
    """float32 unless a model's maker says that its autoencoder stands halves (``force_upcast`` false).

    The activations of SD's and SDXL's autoencoders pass float16's 65504, which makes black pictures.
    """
    return torch.float32 if force_upcast else dtype


def memory_budget(device: torch.device, gigabytes: float | None) -> int:
    """Bytes that models may fill: as told, or half of what the device has."""
    return total_memory(device) // 2 if gigabytes is None else int(gigabytes * 1024**3)


def total_memory(device: torch.device) -> int:
    """Bytes that the device has; Apple's GPU shares the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_memory(device: torch.device) -> int:
    """Bytes that could be filled on the device now, what torch holds in reserve among them."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return min(_available(), _left_in_container())


def _available() -> int:
    """What Linux says can be used without swapping; half of the machine's memory where nobody says."""
    found = _kilobytes("/proc/meminfo", "MemAvailable")
    return total_memory(torch.device("cpu")) // 2 if found is None else found * 1024


def _left_in_container(root: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container's limit (cgroup v2) leaves; file pages that can be dropped are free. No limit: endless."""
    try:
        limit, used = (int((root / name).read_text()) for name in ("memory.max", "memory.current"))
        told = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no such files; a limit of "max"
        return sys.maxsize
    return max(0, limit - used + int(told.get("inactive_file", 0)))


def _kilobytes(file: str, name: str) -> int | None:
    """One "Name:  123 kB" line of a file in /proc; None where there is none."""
    with contextlib.suppress(OSError):
        for line in Path(file).read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return None


class PeakMemory:
    """The most memory since this was made, in bytes, models included.

    On CUDA it is what torch's tensors filled on the device, elsewhere what this whole process held; where Linux's
    counter cannot be set back, the most since the process began.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    @property
    def bytes(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        process = _peak_of_process()
        return max(process, torch.mps.driver_allocated_memory()) if self.device.type == "mps" else process


def _peak_of_process() -> int:
    found = _kilobytes("/proc/self/status", "VmHWM")
    if found is not None:
        return found * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def release(device: torch.device) -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on this thread's own core: for small pieces of work, which many threads would spend on waiting."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_WORDS)
    )


def with_less(work: Callable[[], T], lessen: Callable[[], bool], device: torch.device) -> T:
    """``work()``; each time memory runs out ``lessen()`` makes it need less, until it says that it cannot."""
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = error.with_traceback(None)  # its frames hold the tensors that filled the memory
        release(device)
        if not lessen():
            raise failed


def seeded_noise(shape: tuple[int, ...], seed: int, device: torch.device) -> Tensor:
    """Standard normal noise, drawn on the CPU so that a seed means the same picture on every device."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)).to(device)


def derived_seed(seed: int, *path: int) -> int:
    """A seed for further noise of the picture ``seed``, another one for every ``path``.

    Torch's generator for the CPU looks at the lowest 32 bits of a seed only, so that adding to one does not do.
    """
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0])
