"""What training computes once: latents' distributions and prompts' conditions, kept in memory or on the disk.

A key says everything that its value depends on, so that an entry is never stale: it is found or it is not. Entries on
the disk carry the SHA-256 of their tensors; a damaged one is made anew.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from studio.errors import StudioError
from studio.imaging import to_tensor
from studio.models.networks import Conditions, Network
from studio.progress import OnStep, Step, ignore
from studio.training.buckets import Crop, cut
from studio.training.pictures import load
from studio.training.records import Example, Limits

log = logging.getLogger(__name__)

VERSION = 1  # of the way that values are made; raise it when that changes
IN_FRONT = 1024**3  # bytes of entries on the disk that are kept in memory as well
SEAL = "sha256"
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Posterior:
    """The Gaussian that the autoencoder makes of one picture: C x h x w each, scaled as the network takes them."""

    mean: Tensor
    deviation: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + deviation * noise (Kingma & Welling 2014): what is trained on differs from epoch to epoch."""
        return self.mean + self.deviation * noise


class Cache:
    """Tensors by key, on the CPU. In memory alone when ``folder`` is None; else there, the latest used in memory too.

    ``made`` and ``mended`` count values that had to be made, and those among them whose entry was damaged.
    """

    def __init__(self, folder: Path | None = None, in_front: int = IN_FRONT) -> None:
        self.folder, self.in_front = folder, in_front
        self.made = self.mended = 0
        self._front: OrderedDict[str, Tensors] = OrderedDict()
        self._bytes = 0

    def get(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """The value of ``key``, made when there is none. Raises StudioError when the disk does not take it."""
        if key in self._front:
            self._front.move_to_end(key)
            return self._front[key]
        value = self._read(key)
        if value is None:
            value = {name: tensor.detach().contiguous().cpu() for name, tensor in make().items()}
            self.made += 1
            self._write(key, value)
        self._keep(key, value)
        return value

    def _keep(self, key: str, value: Tensors) -> None:
        self._front[key] = value
        self._bytes += _bytes(value)
        while self.folder is not None and self._bytes > self.in_front and self._front:
            self._bytes -= _bytes(self._front.popitem(last=False)[1])

    def _read(self, key: str) -> Tensors | None:
        if self.folder is None or not (path := self._path(key)).exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                value = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
                whole = (file.metadata() or {}).get(SEAL) == _digest(value)
        except (SafetensorError, OSError, ValueError, RuntimeError):
            whole = False
        if whole:
            return value
        self.mended += 1
        log.warning("made the damaged cache entry %s anew", path.name)
        return None

    def _write(self, key: str, value: Tensors) -> None:
        if self.folder is None:
            return
        path = self._path(key)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")  # several processes may make the same entry
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(save(value, {SEAL: _digest(value)}))
            fresh.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            words = error.strerror or str(error)
            raise StudioError(f"The cache cannot be written ({words}); make room or keep it in memory.") from error

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / key[:2] / f"{key}.safetensors"


class LatentCache:
    """Latents of examples, each encoded alone, so that they do not depend on what stood beside them in a batch."""

    def __init__(self, network: Network, cache: Cache, limits: Limits = Limits()) -> None:
        self.network, self.cache, self.limits = network, cache, limits
        self._autoencoder = "pixels" if network.in_pixels else weights_hash(network.vae)
        self._dtype = "float32" if network.in_pixels else str(network.vae.dtype).removeprefix("torch.")

    def posterior(self, example: Example, crop: Crop) -> Posterior:
        """C x h x w mean and deviation, float32 on the CPU. Raises PictureError when the file has changed."""
        found = self.cache.get(self.key(example, crop), lambda: self._encoded(example, crop))
        return Posterior(found["mean"], found["deviation"])

    def fill(self, wanted: Sequence[tuple[Example, Crop]], on_step: OnStep = ignore) -> None:
        """Encode all of them now, so that the autoencoder can leave; ``on_step`` may stop it at any picture."""
        for index, (example, crop) in enumerate(wanted):
            on_step(Step(index, len(wanted), note="Encoding the pictures"))
            self.posterior(example, crop)

    def key(self, example: Example, crop: Crop) -> str:
        return _key(
            kind="latents",
            picture=example.sha256,
            crop=dataclasses.asdict(crop),
            autoencoder=self._autoencoder,
            dtype=self._dtype,
        )

    def _encoded(self, example: Example, crop: Crop) -> Tensors:
        pixels = to_tensor(cut(load(example, self.limits), crop))[None]
        with torch.no_grad():  # not inference_mode: what is made here goes through a backward pass
            mean, deviation = self.network.posterior(pixels)
        return {"mean": mean[0], "deviation": deviation[0]}


class PromptCache:
    """Conditions of prompts, for text encoders that are not trained.

    ``adapters`` (name and scale) are those of the network's that are on while prompts are encoded; ``salt`` is to say
    what they hold, such as their files' hashes.
    """

    def __init__(
        self, network: Network, cache: Cache, adapters: Sequence[tuple[str, float]] = (), salt: str = ""
    ) -> None:
        self.network, self.cache, self.adapters = network, cache, tuple(adapters)
        encoders = {name: part for name, part in network.adaptable.items() if name.startswith("text_encoder")}
        self._encoders = {name: weights_hash(part) for name, part in encoders.items()}
        self._salt = salt

    def conditions(self, prompts: Sequence[str]) -> Conditions:
        """One row per prompt, as ``Network.encode_prompts`` gives them, on the CPU."""
        rows = [self.cache.get(self.key(prompt), lambda prompt=prompt: self._encoded(prompt)) for prompt in prompts]
        stacked = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        return Conditions(stacked.pop("embeds"), stacked)

    def fill(self, prompts: Sequence[str], on_step: OnStep = ignore) -> None:
        """Encode all of them now, so that the text encoders can leave."""
        for index, prompt in enumerate(prompts):
            on_step(Step(index, len(prompts), note="Encoding the captions"))
            self.conditions([prompt])

    def key(self, prompt: str) -> str:
        return _key(
            kind="prompt",
            prompt=prompt,
            encoders=self._encoders,
            model=self.network.name,  # two that share their encoders may treat an empty prompt differently
            dtype=str(self.network.dtype).removeprefix("torch."),
            adapters=[list(adapter) for adapter in self.adapters],
            salt=self._salt,
        )

    def _encoded(self, prompt: str) -> Tensors:
        with torch.no_grad():
            found = self.network.encode_adapted([prompt], self.adapters)
        return {"embeds": found.embeds, **found.extra}


def weights_hash(module: nn.Module) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of a module's tensors; the same on every device."""
    return _digest(module.state_dict())


def _key(**parts: object) -> str:
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(value: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name, tensor in sorted(value.items()):
        sha.update(f"{name}/{tuple(tensor.shape)}/{tensor.dtype}".encode())
        sha.update(_raw(tensor))
    return sha.hexdigest()


def _raw(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, of any dtype."""
    return memoryview(tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy())


def _bytes(value: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in value.values())
