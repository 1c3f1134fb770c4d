"""What a run and the one that goes on from it must have in common: settings, pictures and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from studio.errors import RequestError
from studio.models.networks import Network
from studio.training.cache import weights_hash
from studio.training.records import Dataset
from studio.training.request import TrainRequest

# What may differ between a run and the one that goes on from it: nothing that the weights depend on.
FREE = {"steps", "epochs", "resume", "data", "edits", "title", "cache", "patience", "checkpoint_every"}
FREE |= {"validate_every", "sample_prompts", "sample_every", "sample_steps", "sample_guidance"}


@dataclass(frozen=True)
class Fingerprint:
    """What a run and the one that goes on from it must have in common."""

    settings: Mapping[str, Any]
    data: str
    model: str

    @classmethod
    def of(cls, request: TrainRequest, dataset: Dataset, network: Network) -> Fingerprint:
        """Of a network that carries no adapter."""
        settings = request.model_dump(mode="json", exclude=FREE)
        parts = sorted(network.adaptable.items())
        return cls(settings, dataset.fingerprint, "/".join(f"{name}:{weights_hash(part)}" for name, part in parts))

    def check(self, before: Mapping[str, Any]) -> None:
        """Raises RequestError that names the first thing that differs."""
        for name, value in self.settings.items():
            was = before["settings"].get(name)
            if was != value:
                raise RequestError(
                    f"{name}: was {was!r} in the run to go on from, here it is {value!r}; set it back, or leave "
                    "resume empty.",
                    field=name,
                )
        if before["data"] != self.data:
            raise RequestError(
                "data: pictures or captions changed since the checkpoint; put them back, or leave resume empty.",
                field="data",
            )
        if before["model"] != self.model:
            raise RequestError(
                "model: it changed since the checkpoint; put it back as it was, or leave resume empty.", field="model"
            )
