"""Every family learns: SD that predicts v, SDXL with two encoders, SD 3 that flows; and its files come back exactly."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, StableDiffusionXLPipeline
from safetensors import safe_open
from torch import Tensor

from studio import training
from studio.errors import RequestError
from studio.models.adapters import attach
from studio.models.store import ModelStore
from studio.training.engine import Training
from tests.training.asked import asked

VALIDATED = {"validation_share": 0.25}
PIPELINES = {"sdxl": StableDiffusionXLPipeline, "sd3": StableDiffusion3Pipeline}
PREFIXES = {
    "v": {"lora_unet", "lora_te_text_model"},
    "sdxl": {"lora_unet", "lora_te1_text_model", "lora_te2_text_model"},
    "sd3": {"lora_transformer", "lora_te1_text_model", "lora_te2_text_model"},
}
ARCHITECTURES = {
    "v": ("stable-diffusion-v1/lora", "sd_v1"),
    "sdxl": ("stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0"),
    "sd3": ("stable-diffusion-3-medium/lora", "sd3"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with one tiny pipeline of each family, by its name."""
    from tests.tiny import save_tiny_pipeline, save_tiny_sd3, save_tiny_sdxl

    root = tmp_path_factory.mktemp("families")
    save_tiny_pipeline(root / "v", "v_prediction")
    save_tiny_sdxl(root / "sdxl")
    save_tiny_sd3(root / "sd3", with_t5=True)
    return root


@pytest.fixture(scope="module")
def store(assets, folders):
    return ModelStore(assets, folders, device="cpu")


def answer(network, scale: float | None = None) -> Tensor:
    x = torch.randn(2, network.channels, 16, 16, generator=torch.Generator().manual_seed(1))
    worn = () if scale is None else (("it", scale),)
    with torch.no_grad():
        conditions = network.encode_adapted(["a red fox", "a penguin"], worn)
        rows = {name: torch.full((2,), value) for name, value in worn}
        return network.predict(x, torch.tensor([10.0, 700.0]), conditions, rows)


def learn(request, store):
    """The result, and the network's answer while the learned adapter was in it and without."""
    seen = {}
    taken = Training._result

    def spy(self, stopped):
        seen["live"] = answer(self.network)
        return taken(self, stopped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_result", spy)
        result = training.run(request, store)
    with store.lease(request.model) as network:
        return result, network, seen["live"]


@pytest.mark.parametrize("kind", ["lora", "dora", "lokr"])
@pytest.mark.parametrize("family", list(PREFIXES))
def test_it_learns_and_its_file_is_what_it_learned(family, kind, pictures, store, tmp_path):
    request = asked(
        pictures,
        model=family,
        adapter=kind,
        rank=2,
        alpha=3.0,
        targets="linear",
        text_encoder=True,
        validation_share=0.25,
    )
    result, network, live = learn(request, store)
    assert all(0 < point.loss < 100 for point in result.points)
    assert result.points[-1].validation > 0
    bare = answer(network)
    assert (live - bare).abs().max() > 1e-4
    path = tmp_path / result.save(tmp_path)["output"]
    with attach(network.attached, network.adaptable, {"it": path}, family):
        torch.testing.assert_close(answer(network, 1.0), live, atol=2e-5, rtol=1e-4)
        assert torch.equal(answer(network, 0.0), bare)
    with safe_open(path, "pt") as file:
        stems = {key.partition("_encoder_layers")[0] for key in file.keys() if "text_model" in key}  # noqa: SIM118
        stems |= {"_".join(key.split("_")[:2]) for key in file.keys() if "text_model" not in key}  # noqa: SIM118
        notes = file.metadata()
    assert stems == PREFIXES[family]
    assert (notes["modelspec.architecture"], notes["ss_base_model_version"]) == ARCHITECTURES[family]


@pytest.mark.parametrize("family", list(PIPELINES))
def test_diffusers_draws_with_its_file_what_the_network_drew(family, pictures, store, folders, tmp_path):
    request = asked(pictures, model=family, rank=2, alpha=3.0, text_encoder=True)
    result, network, live = learn(request, store)
    result.save(tmp_path)
    pipeline = PIPELINES[family].from_pretrained(folders / family, local_files_only=True)
    pipeline.load_lora_weights(tmp_path / "four-diffusers.safetensors")
    before, network.parts = network.parts, network.parts | dict(pipeline.components)
    try:
        assert torch.equal(answer(network), live)
    finally:
        network.parts = before


def test_a_model_that_flows_refuses_min_snr_by_its_name(pictures, store):
    with pytest.raises(RequestError, match="min_snr_gamma: sd3 flows") as refused:
        training.run(asked(pictures, model="sd3", min_snr_gamma=5.0), store)
    assert refused.value.field == "min_snr_gamma"
