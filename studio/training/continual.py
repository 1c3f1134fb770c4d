"""A new adapter on top of earlier ones (C-LoRA, Smith et al. 2023, arXiv 2304.06027).

The earlier LoRAs are in the network while the new one learns, as they are when all are used together, and none of them
changes. What keeps them as they are is a penalty on the new change wherever theirs is large.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from studio.errors import ModelError
from studio.models import lora_files
from studio.models.adapters import Attached, Layer, LowRank, Rows, Written, attach
from studio.models.fitting import Fitting
from studio.models.networks import Network
from studio.models.refs import resolve_lora
from studio.training.injecting import NAME, Learner, uncompiled
from studio.training.request import TrainRequest


@dataclass(frozen=True)
class Before:
    """The earlier LoRAs of a run: their files by the names that the request gives them, and the SHA-256 of each."""

    files: Mapping[str, Path] = field(default_factory=dict)
    hashes: tuple[str, ...] = ()

    @property
    def salt(self) -> str:
        """What cached conditions depend on beside the network: LoRAs may change text encoders."""
        return "/".join(self.hashes)

    @property
    def names(self) -> tuple[str, ...]:
        """Without their folders, which mean nothing on another machine."""
        return tuple(Path(name).name for name in self.files)

    def notes(self) -> dict[str, str]:
        """For the new LoRA's header: which ones it was learned on top of."""
        if not self.files:
            return {}
        listed = [{"name": name, "sha256": sha} for name, sha in zip(self.names, self.hashes, strict=True)]
        return {"duckrabbit_earlier": json.dumps(listed), "modelspec.description": self.words()}

    def words(self) -> str:
        """Such as "Learned on top of a.safetensors: use them together, each at scale 1."."""
        return f"Learned on top of {' and '.join(self.names)}: use them together, each at scale 1."


@dataclass(frozen=True)
class Beneath:
    """The earlier LoRAs in a network: by part and layer, the layer and what they change in it."""

    changes: Mapping[tuple[str, str], tuple[Layer, Sequence[LowRank | Written]]]

    def penalties(self, learner: Learner, weight: float) -> Iterator[Tensor]:
        """weight * || |sum of earlier B A| * (B_t A_t) ||_2^2 of each layer (the paper's equation 5), one by one.

        The products are what is added to the layer's weight, alpha / r in them; the norm is that of all elements. The
        caller goes back through each before it takes the next, so that one layer's are written out at a time.
        """
        for part in learner.parts:
            for module, layer in learner.layers(part).items():
                if (part, module) in self.changes:
                    up, down = layer.lora_B[NAME].weight, layer.lora_A[NAME].weight
                    change = layer.scaling[NAME] * (up.flatten(1) @ down.flatten(1))
                    yield weight * (self._earlier(part, module) * change).square().sum()

    @torch.no_grad()
    def _earlier(self, part: str, module: str) -> Tensor:
        """The sum of the earlier changes of a layer, float32, outputs x everything else."""
        layer, changes = self.changes[part, module]
        return sum(_whole(change, layer) for change in changes)


def files_of(request: TrainRequest, assets: Path, models_dir: Path | None) -> dict[str, Path]:
    """The earlier LoRAs' files by name. ModelError with the field for one that is not there or fits another model."""
    if not request.earlier:
        return {}
    found, fitting = {}, Fitting.of(request.model, assets, models_dir)
    for index, name in enumerate(request.earlier):
        found[name] = resolve_lora(name, assets, models_dir, field=f"earlier.{index}")
        try:
            fitting.check(found[name])
        except ModelError as error:
            error.field = f"earlier.{index}"
            raise
    return found


def before(request: TrainRequest, assets: Path, models_dir: Path | None) -> Before:
    """What ``files_of`` finds, with their hashes."""
    files = files_of(request, assets, models_dir)
    return Before(files, tuple(_sha256(lora_files.read_lora(path).path) for path in files.values()))


@contextmanager
def beneath(network: Network, files: Mapping[str, Path]) -> Iterator[Beneath]:
    """Earlier LoRAs in the network, all at scale 1 in every forward, until the block ends; then it is as it was."""
    if not files:
        yield Beneath({})
        return
    always = Attached()  # not the network's own, which is switched on and off row by row
    with uncompiled(network), attach(always, network.adaptable, files, network.name):
        always.now = Rows({name: torch.ones(1) for name in files})
        yield Beneath(
            {
                (part, module): (network.parts[part].get_submodule(module), changes)
                for (part, module), changes in always.changes.items()
            }
        )


def _whole(change: LowRank | Written, layer: Layer) -> Tensor:
    """What an adapter adds to a layer's weight, float32, outputs x everything else."""
    if isinstance(change, LowRank):
        return (change.up.float() @ change.down.float().flatten(1)).to(layer.weight.device)
    found = change.change(layer)
    return torch.zeros_like(layer.weight).float().flatten(1) if found is None else found.flatten(1)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
