"""Checkpoints in one file: what they are is told by the header, and they load back equal."""

from __future__ import annotations

import pickle
import shutil

import pytest
import torch
from diffusers.loaders.single_file_utils import CHECKPOINT_KEY_NAMES
from safetensors.torch import load_file, save_file

from studio import illusions
from studio.errors import ModelFileError
from studio.illusions.request import IllusionRequest
from studio.models import headers, single_file
from studio.models.bpe import clip_tokenizer
from studio.models.lora_files import shapes_of
from studio.models.networks import StableDiffusion
from studio.models.refs import list_loras, list_models, resolve
from studio.models.sdxl import StableDiffusionXL
from studio.models.store import ModelStore
from tests import single_files
from tests.single_files import FAMILIES, build, renamed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small_assets(assets, tmp_path_factory):
    return single_files.small_assets(assets, tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, small_assets, tmp_path_factory):
    """(family, its modules with random weights, the path of the one file that they were saved in)."""
    modules = build(request.param, small_assets)
    path = tmp_path_factory.mktemp("checkpoints") / "a name that says nothing.safetensors"
    save_file({key: value.contiguous().clone() for key, value in renamed(request.param, modules).items()}, path)
    return request.param, modules, path


def test_a_checkpoint_loads_back_equal(checkpoint, small_assets):
    family, modules, path = checkpoint
    network = single_file.load("x", path, small_assets / "configs", CPU, torch.float32)
    assert isinstance(network, StableDiffusionXL if family == "sdxl" else StableDiffusion)
    for name, module in modules.items():
        found = network.parts[name].state_dict()
        assert found.keys() == module.state_dict().keys()
        assert all(torch.equal(found[key], value) for key, value in module.state_dict().items()), name
    assert network.prediction == ("v_prediction" if family == "sd2" else "epsilon")


def test_adapters_are_held_against_the_very_layers_that_load(checkpoint, small_assets):
    _, _, path = checkpoint
    network = single_file.load("x", path, small_assets / "configs", CPU, torch.float32)
    assert single_file.shapes(path, small_assets / "configs") == shapes_of(network.adaptable)


def test_a_checkpoint_draws_through_the_engine(checkpoint, small_assets):
    _, _, path = checkpoint
    models = ModelStore(small_assets, path.parent, device="cpu")
    wanted = IllusionRequest(model=path.name, prompts=("a fox",), views=("identity",), steps=2, size=64)
    assert illusions.run(wanted, models).candidates[0].image.size == (64, 64)


def test_the_models_folder_is_searched_with_its_folders_and_by_header(
    checkpoint, small_assets, tmp_path, tiny_pipeline
):
    _, _, path = checkpoint
    for folder in ("checkpoints/mine", "loras", "diffusers", ".cache"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(path, tmp_path / "loras" / "lora.safetensors")
    shutil.copy(path, tmp_path / ".cache" / "hidden.safetensors")
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2, 2)}, tmp_path / "checkpoints" / "mine" / "model.safetensors")
    (tmp_path / "checkpoints" / "half.safetensors").write_bytes(path.read_bytes()[:-7])
    shutil.copytree(tiny_pipeline, tmp_path / "diffusers" / "tiny")
    (tmp_path / "up").symlink_to(tmp_path)
    offered = [choice.name for choice in list_models(small_assets, tmp_path) if not choice.name.startswith("builtin:")]
    assert offered == ["diffusers/tiny", "loras/lora.safetensors"]
    assert list_loras(small_assets, tmp_path) == ("checkpoints/mine/model.safetensors",)
    assert all(resolve(name, small_assets, tmp_path).kind in ("file", "folder") for name in offered)


@pytest.mark.parametrize(("channels", "what"), [(9, "an inpainting model"), (8, "an instruct-pix2pix model")])
def test_a_unet_that_reads_more_than_codes_is_named(checkpoint, small_assets, tmp_path, channels, what):
    _, _, path = checkpoint
    first = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(8, channels, 3, 3)}
    refused(path, small_assets, tmp_path, first, f"{what} .*reads {channels} channels.* 4 is needed")


@pytest.mark.parametrize(("key", "what"), [("edm_mean", "a Playground or CosXL"), (headers.LABELS, "an unCLIP")])
def test_what_has_another_noise_or_another_prompt_is_named(key, what):
    header = {
        key: {"shape": [4, 4, 3, 3]} for key in (headers.FIRST_LAYER, "first_stage_model.x", "cond_stage_model.x")
    }
    with pytest.raises(ModelFileError, match=f"x is {what} model"):
        headers.family_of("x", header | {key: {"shape": [4]}}, {16: "sd1"})


def test_the_refiner_is_named(small_assets):
    names = (
        headers.FIRST_LAYER,
        "first_stage_model.x",
        "conditioner.embedders.0.x",
        headers.UNET + "a.attn2.to_k.weight",
    )
    header = {key: {"shape": [4, 4, 3, 1280]} for key in names}
    with pytest.raises(ModelFileError, match="x is an SDXL refiner: a whole checkpoint"):
        headers.family_of("x", header, {16: "sd1"})


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("first_stage_model.", r"model.safetensors has no autoencoder: a whole checkpoint"),
        (("cond_stage_model.", "conditioner."), r"model.safetensors has no text encoder"),
        (
            "model.diffusion_model.middle_block.1.norm",
            r"its unet is cut down .*mid_block.attentions.0.norm.* is missing",
        ),
        ("model.diffusion_model.time_embed.2.", r"its unet is cut down"),
    ],
)
def test_what_a_checkpoint_lacks_is_said_before_it_is_read(checkpoint, small_assets, tmp_path, prefix, message):
    _, _, path = checkpoint
    refused(path, small_assets, tmp_path, {}, message, without=prefix)


def refused(path, small_assets, folder, changes, message, without=("nothing",)):
    tensors = {key: value for key, value in load_file(path).items() if not key.startswith(without)} | changes
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=message):
        single_file.load("x", folder / "model.safetensors", small_assets / "configs", CPU, torch.float32)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "a LoRA adapter: choose a checkpoint as"),
        ("unet.down_blocks.0.attentions.0.to_q.lora_A.weight", "a LoRA adapter"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_B.weight", "a LoRA adapter"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("emb_params", "a textual inversion"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "an SD 3 checkpoint in one file: SD 3 runs"),
        ("double_blocks.0.img_attn.qkv.weight", "a Flux model"),
        ("first_stage_model.decoder.conv_in.weight", "an autoencoder alone"),
        ("down_blocks.0.resnets.0.conv1.weight", "one part of a diffusers folder: name the folder"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a U-Net alone"),
        ("text_model.embeddings.token_embedding.weight", "a text encoder alone"),
        ("something.else", r"nothing that this studio knows \(it holds something.else\)"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_told_by_its_keys(tmp_path, small_assets, key, what):
    path = tmp_path / "sd_xl_base.safetensors"
    save_file({key: torch.ones(2, 4, 3, 3)}, path)
    with (
        pytest.raises(ModelFileError, match=f"sd_xl_base.safetensors is {what}"),
        ModelStore(small_assets, tmp_path).lease(path.name),
    ):
        pass


def test_pickles_and_half_downloads_are_named_before_anything_is_read(tmp_path, small_assets):
    store = ModelStore(small_assets, tmp_path, device="cpu")
    (tmp_path / "old.ckpt").write_bytes(pickle.dumps({"w": 1}, protocol=2))
    with pytest.raises(ModelFileError, match="old.ckpt is a pickle"), store.lease("old.ckpt"):
        pass
    (tmp_path / "new.safetensors.part").write_bytes(b"x" * 100)
    with (
        pytest.raises(ModelFileError, match="new.safetensors.part is a half-finished download"),
        store.lease("new.safetensors.part"),
    ):
        pass
    save_file({"w": torch.ones(1)}, tmp_path / "big.safetensors")
    (tmp_path / "big.safetensors.aria2").write_bytes(b"")
    with (
        pytest.raises(ModelFileError, match="big.safetensors is a half-finished download"),
        store.lease("big.safetensors"),
    ):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shipped_architectures_are_those_of_the_published_checkpoints(family, assets):
    """Full size, from a header alone: every key of a module is found, with its shape, under its published name."""
    modules = {part.name: single_file._empty(part, assets / "configs" / family) for part in parts(family)}
    tensors = renamed(family, modules)
    header = {key: {"shape": list(value.shape)} for key, value in tensors.items()}
    assert headers.family_of("x", header, single_file.widths(assets / "configs")) == family
    for part in parts(family):
        single_file._check("x", part, modules[part.name], header)
    counts = {"sd1": (686, 248, 196), "sd2": (686, 248, 372), "sdxl": (1680, 248, 196, 517)}[family]
    assert tuple(len(module.state_dict()) for module in modules.values()) == counts
    known = {"sd1": ("v1", "clip"), "sd2": ("v2", "open_clip"), "sdxl": ("xl_base", "clip_sdxl", "open_clip_sdxl")}
    assert all(CHECKPOINT_KEY_NAMES[name] in tensors for name in known[family])


def parts(family):
    return single_file.FAMILIES[family].parts


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"v_pred": {}, "ztsnr": {}}, ("v_prediction", True)),
        ({}, (None, None)),
    ],
)
def test_marker_keys_say_what_a_checkpoint_predicts(said, expected):
    found = single_file.noise(said, {})
    assert (found.get("prediction_type"), found.get("rescale_betas_zero_snr")) == expected
    assert single_file.noise({}, {"modelspec.prediction_type": "v"}) == {"prediction_type": "v_prediction"}


@pytest.mark.parametrize(("kind", "answer"), [("epsilon", lambda x: 0.9 * x), ("v_prediction", torch.zeros_like)])
def test_what_stable_diffusion_2_predicts_is_measured(tiny_pipeline, kind, answer, monkeypatch):
    from studio.models.loading import load_stable_diffusion

    network = load_stable_diffusion("tiny", tiny_pipeline, CPU, torch.float32)
    monkeypatch.setattr(network, "_forward", lambda x, t, conditions: answer(x))
    assert single_file.measured_prediction(network) == kind


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a photo of a cat", [49406, 320, 1125, 539, 320, 2368, 49407]),
        (
            "a photograph of an astronaut riding a horse",
            [49406, 320, 8853, 539, 550, 18376, 6765, 320, 4558, 49407],
        ),
        ("", [49406, 49407]),
    ],
)
def test_the_tokenizer_gives_clips_ids(assets, text, ids):
    tokenizer = clip_tokenizer(assets / "configs" / "clip" / "merges.txt")
    assert len(tokenizer) == 49408
    assert tokenizer(text).input_ids == ids
    assert tokenizer(text, padding="max_length").input_ids == ids + [49407] * (77 - len(ids))


def test_open_clips_tokenizer_fills_up_with_exclamation_marks(assets):
    tokenizer = clip_tokenizer(assets / "configs" / "clip" / "merges.txt", pad="!")
    assert tokenizer("a cat", padding="max_length").input_ids == [49406, 320, 2368, 49407] + [0] * 73
