"""What a run and the one that goes on from it must have in common: settings, pictures and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import RequestError
from studio.models.networks import Network
from studio.training.cache import weights_hash
from studio.training.going_on import check_data, check_settings, settings_of
from studio.training.records import Dataset
from studio.training.request import TrainRequest


@dataclass(frozen=True)
class Fingerprint:
    """What a run and the one that goes on from it must have in common."""

    settings: Mapping[str, Any]
    data: str
    model: str
    earlier: list[str]  # SHA-256 of LoRAs that the run is on top of

    @classmethod
    def of(
        cls, request: TrainRequest, datasets: Sequence[Dataset], network: Network, earlier: Sequence[str] = ()
    ) -> Fingerprint:
        """Of a network that carries no adapter."""
        parts = sorted(network.adaptable.items())
        data = "/".join(dataset.fingerprint for dataset in datasets)
        model = "/".join(f"{name}:{weights_hash(part)}" for name, part in parts)
        return cls(settings_of(request), data, model, list(earlier))

    def check(self, before: Mapping[str, Any]) -> None:
        """Raises RequestError that names the first thing that differs."""
        check_settings(self.settings, before["settings"])
        check_data(self.data, before["data"])
        if before.get("earlier", []) != self.earlier:
            raise RequestError(
                "earlier: the LoRAs are not those of the checkpoint; put them back, or leave resume empty.",
                field="earlier",
            )
        if before["model"] != self.model:
            raise RequestError(
                "model: it changed since the checkpoint; put it back as it was, or leave resume empty.", field="model"
            )
