"""A merge in memory is the model that its file would be: the same weights, the same flags, the same refusals."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio import merging, runs
from studio.errors import Cancelled, ModelFileError
from studio.merging.in_memory import given, plan_of
from studio.merging.request import MergeRequest
from studio.models import loading
from studio.models.given import Given
from studio.models.store import ModelStore
from tests import single_files
from tests.tiny import save_tiny_pipeline, save_tiny_prx, save_tiny_sd3, save_tiny_sdxl

CPU = torch.device("cpu")
FOLDERS = {
    "sd": lambda folder, seed: save_tiny_pipeline(folder, "epsilon", seed),
    "sdxl": save_tiny_sdxl,
    "sd3": lambda folder, seed: save_tiny_sd3(folder, True, seed),
    "prx": save_tiny_prx,
}


@pytest.fixture(scope="module")
def tiny(assets, tmp_path_factory):
    """A store whose single files are tiny ones."""
    return ModelStore(single_files.small_assets(assets, tmp_path_factory.mktemp("assets")), device="cpu")


def files(store, folder, family, dtype=torch.float16, **held):
    """Two checkpoints of a family in one file each; ``held`` is in both."""
    made = []
    for seed, name in enumerate("ab"):
        tensors = single_files.renamed(family, single_files.build(family, store.assets, seed)) | held
        made.append(str(single_files.save(folder / f"{name}.safetensors", tensors, dtype)))
    return tuple(made)


def weights(network):
    return {
        f"{name}.{key}": value.clone()
        for name, part in network.parts.items()
        if isinstance(part, torch.nn.Module)
        for key, value in part.state_dict().items()
    }


def in_memory(store, **settings):
    """The weights of the merge that is written nowhere, and its scheduler's settings."""
    with given(plan_of(MergeRequest(**settings), store.assets, None)) as (made, _):
        return store.given(made, lambda network: (weights(network), network.scheduler_config))


def saved(store, folder, **settings):
    """The same of the merge that is saved and loaded."""
    summary = runs.keep(folder, merging.run(MergeRequest(**{"title": "m"} | settings), store))
    return store.network(str(folder / summary["output"]), lambda network: (weights(network), network.scheduler_config))


def same(one, other):
    """Whether two networks hold the same bits and take noise in the same way."""
    (first, noise), (second, other_noise) = one, other
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) and first[key].dtype == second[key].dtype for key in first)
    return noise == other_noise


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_in_memory_is_the_folder_that_is_saved(models, tmp_path, kind):
    a, b = (str(FOLDERS[kind](tmp_path / name, seed)) for seed, name in enumerate("ab"))
    settings = {"models": (a, b), "alpha": 0.3}
    assert same(in_memory(models, **settings), saved(models, tmp_path / "out", **settings))


@pytest.mark.parametrize("family", single_files.FAMILIES)
def test_a_file_in_memory_is_the_file_that_is_saved(tiny, tmp_path, family):
    settings = {"models": files(tiny, tmp_path, family), "alpha": 0.3, "parts": {"vae": "b"}}
    assert same(in_memory(tiny, **settings), saved(tiny, tmp_path / "out", **settings))


def test_a_merged_network_is_neither_of_its_parents(models, tmp_path):
    a, b = (str(FOLDERS["sd"](tmp_path / name, seed)) for seed, name in enumerate("ab"))
    found, _ = in_memory(models, models=(a, b), alpha=0.3)
    one, other = (models.network(name, weights) for name in (a, b))
    key = "unet.conv_in.weight"
    torch.testing.assert_close(found[key], 0.7 * one[key] + 0.3 * other[key])
    assert torch.equal(found["vae.decoder.conv_in.weight"], one["vae.decoder.conv_in.weight"])


def test_a_model_of_velocity_keeps_its_marker_in_memory(tiny, tmp_path):
    held = {"v_pred": torch.ones(1), "ztsnr": torch.ones(1)}
    settings = {"models": files(tiny, tmp_path, "sdxl", **held)}
    found = in_memory(tiny, **settings)
    assert same(found, saved(tiny, tmp_path / "out", **settings))
    assert found[1]["prediction_type"] == "v_prediction"
    assert found[1]["rescale_betas_zero_snr"]


def test_a_vae_from_a_third_file_is_in_the_network_as_well(tiny, tmp_path):
    a, b = files(tiny, tmp_path, "sd1")
    tensors = single_files.renamed("sd1", single_files.build("sd1", tiny.assets, 9))
    vae = single_files.save(tmp_path / "vae.safetensors", tensors, torch.float32)
    settings = {"models": (a, b), "parts": {"vae": str(vae)}}
    assert same(in_memory(tiny, **settings), saved(tiny, tmp_path / "out", **settings))


def test_a_part_that_the_file_leaves_out_is_borrowed_and_that_is_said(tiny, tmp_path):
    a, b = files(tiny, tmp_path, "sd1")
    request = MergeRequest(models=(a, b), parts={"vae": "none"})
    plan = plan_of(request, tiny.assets, None)
    assert plan.notes == (f"The result has no vae: it is drawn with that of {a}.",)
    with given(plan) as (made, _):
        found = tiny.given(made, weights)
    key = "vae.decoder.conv_in.weight"
    assert torch.equal(found[key], tiny.network(a, weights)[key])


def test_a_lora_is_baked_in_memory_as_it_is_in_the_file(models, tmp_path):
    a = str(FOLDERS["sd"](tmp_path / "a", 0))
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    lora = {f"{stem}.lora_down.weight": torch.randn(2, 16), f"{stem}.lora_up.weight": torch.randn(16, 2)}
    save_file(lora, tmp_path / "l.safetensors")
    settings = {"task": "bake", "models": (a,), "adapters": (str(tmp_path / "l.safetensors"),), "weights": (0.5,)}
    found = in_memory(models, **settings)
    assert same(found, saved(models, tmp_path / "out", **settings))
    key = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert not torch.equal(found[0][key], models.network(a, weights)[key])


def test_what_would_be_no_model_is_refused_before_a_tensor_is_made(tiny, tmp_path):
    a, b = files(tiny, tmp_path, "sd1")
    for name in (a, b):
        held = {key: value for key, value in load_file(name).items() if "output_blocks.3" not in key}
        single_files.save(tmp_path / name, held)
    made = []
    with given(plan_of(MergeRequest(models=(a, b)), tiny.assets, None), lambda: made.append(1)) as (model, _):
        with pytest.raises(ModelFileError, match="its unet is cut down"):
            tiny.given_bytes(model)
        with pytest.raises(ModelFileError, match="its unet is cut down"):
            tiny.given(model, weights)
    assert made == []


def test_weights_that_are_not_finite_are_told_of(tiny, tmp_path):
    a, b = files(tiny, tmp_path, "sd1")
    held = load_file(b)
    held["model.diffusion_model.out.2.bias"][0] = float("nan")
    save_file(held, b)
    with given(plan_of(MergeRequest(models=(a, b)), tiny.assets, None)) as (made, faults):
        assert faults() == []
        tiny.given(made, weights)
        assert "1 NaN; first model.diffusion_model.out.2.bias" in faults()[0]


def test_a_stop_between_two_tensors_leaves_the_store_as_it_was(models, tmp_path):
    a, b = (str(FOLDERS["sd"](tmp_path / name, seed)) for seed, name in enumerate("ab"))
    before, loaded, made = models.network(a, weights), models.loaded(), []

    def tick():
        made.append(1)
        if len(made) == 40:
            raise Cancelled

    with given(plan_of(MergeRequest(models=(a, b)), models.assets, None), tick) as (model, _):
        with pytest.raises(Cancelled):
            models.given(model, weights)
    assert models.loaded() == loaded
    after = models.network(a, weights)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_room_is_made_for_the_merge_and_it_is_gone_afterwards(assets, tmp_path):
    a, b = (str(FOLDERS["sd"](tmp_path / name, seed)) for seed, name in enumerate("ab"))
    size = sum(loading.part_bytes(tmp_path / "a", torch.float32).values())
    store = ModelStore(assets, device="cpu", memory_gb=2.5 * size / 1024**3)
    for name in (a, b):
        store.network(name, lambda network: None)
    assert store.loaded() == (a, b)
    with given(plan_of(MergeRequest(models=(a, b)), assets, None)) as (made, _):
        store.given(made, lambda network: None)
    assert store.loaded() == (b,)


def test_a_folder_with_the_early_names_of_an_autoencoder_loads_from_memory(tmp_path):
    folder = save_tiny_pipeline(tmp_path / "new", "epsilon")
    early = shutil.copytree(folder, tmp_path / "early")
    path = early / "vae" / "diffusion_pytorch_model.safetensors"
    held = {}
    for key, value in load_file(path).items():
        for new, old in loading.EARLY_NAMES:
            key = key.replace(new, old) if "mid_block.attentions" in key else key
        held[key] = value
    assert any(".proj_attn." in key for key in held)
    save_file(held, path, metadata={"format": "pt"})
    header = {f"{file.parent.name}/{key}": {} for file in early.glob("*/*.safetensors") for key in load_file(file)}

    def read(keys):
        return {key: load_file(path_of(early, key))[key.partition("/")[2]] for key in keys}

    made = Given("x", early, header, {}, read)
    found = weights(loading.load_pipeline("x", early, CPU, torch.float32, made))
    wanted = weights(loading.load_pipeline("x", folder, CPU, torch.float32))
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def path_of(folder, key):
    return next((folder / key.partition("/")[0]).glob("*.safetensors"))
