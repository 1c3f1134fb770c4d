"""What a run and the one that goes on from it must have in common: settings, pictures and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from studio.errors import RequestError
from studio.models.networks import Network
from studio.training.cache import weights_hash
from studio.training.records import Dataset
from studio.training.request import TrainRequest

# What may differ between a run and the one that goes on from it: nothing that the weights depend on. (Earlier LoRAs
# are known by their bytes instead of their names.)
FREE = {"steps", "epochs", "resume", "data", "title", "cache", "patience", "checkpoint_every", "validate_every"}
FREE |= {"earlier", "sample_prompts", "sample_every", "sample_steps", "sample_guidance", "trackers"}


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
        settings = request.model_dump(mode="json", exclude=FREE)
        for task in settings["tasks"]:
            del task["data"]  # free as well: what lies there counts
        parts = sorted(network.adaptable.items())
        data = "/".join(dataset.fingerprint for dataset in datasets)
        model = "/".join(f"{name}:{weights_hash(part)}" for name, part in parts)
        return cls(settings, data, model, list(earlier))

    def check(self, before: Mapping[str, Any]) -> None:
        """Raises RequestError that names the first thing that differs."""
        for name, value in self.settings.items():
            default = TrainRequest.model_fields[name].default  # of a setting that is younger than the checkpoint
            was = before["settings"].get(name, default)
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
        if before.get("earlier", []) != self.earlier:
            raise RequestError(
                "earlier: the LoRAs are not those of the checkpoint; put them back, or leave resume empty.",
                field="earlier",
            )
        if before["model"] != self.model:
            raise RequestError(
                "model: it changed since the checkpoint; put it back as it was, or leave resume empty.", field="model"
            )
