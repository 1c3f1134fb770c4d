"""A LoRA against a model that is not loaded; and models that cannot be used, refused before anything heavy."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import save_file

from studio.errors import ModelError, ModelFileError, ModelNotFoundError
from studio.models import loading, single_file
from studio.models.fitting import Fitting
from studio.models.headers import FIRST_LAYER, UNET
from studio.models.store import ModelStore
from tests.models.loras import save_random


@pytest.fixture
def heavy(monkeypatch):
    """Whatever reads weights fails the test."""

    def read(*args, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr(loading, "_module", read)
    monkeypatch.setattr(single_file, "_read", read)


@pytest.mark.usefixtures("heavy")
@pytest.mark.parametrize("naming", ["diffusers", "kohya"])
def test_a_lora_fits_its_own_model_and_not_another(naming, tiny_pipeline, tiny_sdxl, assets, tmp_path):
    path = save_random(tmp_path / "ink.safetensors", tiny_pipeline, naming, seed=1)
    Fitting.of(str(tiny_pipeline), assets).check(path)
    with pytest.raises(ModelFileError, match="choose a LoRA that was made for this network"):
        Fitting.of(str(tiny_sdxl), assets).check(path)


def test_a_model_that_is_still_on_the_hub_takes_any_sound_lora_for_now(tiny_pipeline, assets, tmp_path):
    path = save_random(tmp_path / "ink.safetensors", tiny_pipeline, "kohya", seed=1)
    network = Fitting.of("nobody/nothing-of-this-name", assets)
    assert network.shapes is None
    network.check(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFileError, match="truncated"):
        network.check(path)


# -- the models themselves


def without_vae(folder):
    shutil.rmtree(folder / "vae")


def without_weights(folder):
    next((folder / "vae").glob("*.safetensors")).unlink()


def inpainting(folder):
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 4', '"in_channels": 9'))


def half(folder):
    path = next((folder / "text_encoder").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])


def sentencepiece(folder):
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    (folder / "tokenizer" / "spiece.model").write_bytes(b"x")


@pytest.mark.usefixtures("heavy")
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_vae, "bad has no vae: a complete diffusers folder is needed"),
        (without_weights, "bad/vae has no weights: a .safetensors file is needed"),
        (inpainting, r"bad is an inpainting model \(its unet reads 9 channels\): .* with 4 channels is needed"),
        (half, "model.safetensors is truncated or damaged .*: download it again"),
        (sentencepiece, "bad/tokenizer has only spiece.model, .* its tokenizer.json is needed"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_before_its_weights_are_read(
    spoil, says, tiny_pipeline, assets, tmp_path
):
    spoil(shutil.copytree(tiny_pipeline, tmp_path / "bad"))
    store = ModelStore(assets, tmp_path, device="cpu")
    with pytest.raises(ModelError, match=says) as refused, store.lease("bad"):
        pass
    assert refused.value.field == "model"
    assert store.loaded() == ()


@pytest.mark.usefixtures("heavy")
@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({FIRST_LAYER: (320, 9, 3, 3)}, r"is an inpainting model \(its U-Net reads 9 channels\)"),
        ({FIRST_LAYER: (320, 4, 3, 3), UNET + "x.attn2.to_k.weight": (320, 768)}, "has no autoencoder"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_is_refused_before_its_weights_are_read(tensors, says, assets, tmp_path):
    held = {**tensors, "cond_stage_model.transformer.x": (1,)}
    save_file({key: torch.zeros(shape) for key, shape in held.items()}, tmp_path / "bad.safetensors")
    store = ModelStore(assets, tmp_path, device="cpu")
    with pytest.raises(ModelFileError, match=f"bad.safetensors {says}"), store.lease("bad.safetensors"):
        pass


def test_a_hub_model_without_a_network_says_what_to_do_with_the_field(assets):
    store = ModelStore(assets, device="cpu", offline=True)
    says = "nobody/nothing here, .* not in the local cache .*: correct the path, or connect to a network"
    with pytest.raises(ModelNotFoundError, match=says) as refused, store.lease("nobody/nothing"):
        pass
    assert refused.value.field == "model"
