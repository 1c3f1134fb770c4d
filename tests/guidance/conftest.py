"""Networks of every family with two LoRAs on, one of which changes the text encoder too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.sampling import Adapters, Predictor, build_scheduler
from tests.models.loras import save_random
from tests.tiny import save_tiny_sd3, save_tiny_sdxl

FAMILIES = ("sd1", "sdxl", "sd3", "builtin:emoji")


@pytest.fixture(scope="session")
def places(assets, tiny_pipeline, tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {
        "sd1": tiny_pipeline,
        "sdxl": save_tiny_sdxl(root / "sdxl"),
        "sd3": save_tiny_sd3(root / "sd3", with_t5=False),
        "builtin:emoji": assets / "models" / "emoji",
    }


@pytest.fixture(scope="session")
def loras(places, tmp_path_factory) -> dict[str, dict[str, Path]]:
    """For each family: "ink" and "wash", and "none", whose change is zero."""
    found = {}
    for family, place in places.items():
        root = tmp_path_factory.mktemp("loras")
        found[family] = {
            name: save_random(root / f"{name}.safetensors", place, "diffusers", seed)
            for name, seed in (("ink", 1), ("wash", 2))
        }
        still = {key: torch.zeros_like(each) for key, each in load_file(found[family]["ink"]).items()}
        save_file(still, root / "none.safetensors")
        found[family]["none"] = root / "none.safetensors"
    return found


@dataclass(frozen=True)
class Stage:
    """A network that wears its LoRAs, at one noise level of its own schedule."""

    network: Network
    x: torch.Tensor
    t: torch.Tensor

    def predict(self) -> Predictor:
        found = Predictor(self.network)
        found.t = self.t
        return found

    def toggled(self, prompt: str, adapters: Adapters) -> torch.Tensor:
        """One row alone, the adapters switched on for it or off."""
        with torch.inference_mode():
            words = self.network.encode_adapted([prompt], adapters)
            scales = {name: torch.tensor([scale]) for name, scale in adapters}
            return self.network.predict(self.x, self.t, words, scales)


@pytest.fixture(scope="module", params=FAMILIES)
def stage(request, assets, places, loras) -> Iterator[Stage]:
    store = ModelStore(assets, device="cpu")
    with store.lease(str(places[request.param])) as network, store.adapters(network, loras[request.param]):
        cells = network.cells(None)
        draw = torch.Generator().manual_seed(5)
        x = torch.randn(1, network.channels, cells, cells, generator=draw)
        scheduler = build_scheduler("ddim", network.scheduler_config, 4, network.device)
        yield Stage(network, x, scheduler.timesteps[1])
