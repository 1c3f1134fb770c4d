from __future__ import annotations

import io
import zipfile

import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from safetensors.torch import save_file

from studio.errors import ModelFileError, ModelNotFoundError
from studio.models import lora_files
from studio.models.lora_files import match, read_lora, shapes_in, shapes_of
from studio.models.lora_names import find, index, original_transformer_names, original_unet_names

ATTENTION = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def check(paths, folder, model):
    """Refuse files that a folder's network cannot carry."""
    for path in paths:
        match(read_lora(path), shapes_in(folder), model)


def lora(path, name=f"lora_unet_{ATTENTION}", down=(2, 16), up=(16, 2), **more):
    """A one-layer LoRA file in kohya's names."""
    tensors = {f"{name}.lora_down.weight": torch.ones(down), f"{name}.lora_up.weight": torch.ones(up)}
    save_file({**tensors, **{key.replace("__", "."): value for key, value in more.items()}}, path)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "anna.safetensors"


@pytest.fixture
def refuses(tiny_pipeline):
    """What a LoRA for the tiny folder is refused with, before anything is loaded."""

    def message(path):
        with pytest.raises(ModelFileError) as caught:
            check([path], tiny_pipeline, "tiny")
        assert caught.value.field == "adapters"
        assert path.name in str(caught.value)
        return str(caught.value)

    return message


# -- names


def small_unet(**options):
    """Stable Diffusion 1.x's layout of blocks, four channels wide."""
    return UNet2DConditionModel(
        block_out_channels=(4, 4, 4, 4), norm_num_groups=2, cross_attention_dim=4, attention_head_dim=2, **options
    )


SDXL = {
    "block_out_channels": (4, 4, 4),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 24 + 4,
}


def sdxl_unet():
    return UNet2DConditionModel(norm_num_groups=2, cross_attention_dim=4, attention_head_dim=2, **SDXL)


def numbered(shapes):
    """(a tensor that only its own number fills) for every module."""
    return {module: torch.full((1, 1), float(number)) for number, module in enumerate(shapes)}


@pytest.mark.parametrize("unet", [small_unet, sdxl_unet])
def test_the_original_names_of_a_u_net_are_those_that_diffusers_converts(unet):
    unet = unet()
    marks = numbered(shapes_of({"unet": unet})["unet"])
    inside = dict(original_unet_names(marks))
    assert len(inside) == len([module for module in marks if "block" in module])
    around = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2"}
    around |= {"input_blocks.0.0": "conv_in", "out.2": "conv_out"}
    if "add_embedding.linear_1" in marks:
        around |= {"label_emb.0.0": "add_embedding.linear_1", "label_emb.0.2": "add_embedding.linear_2"}
    whole = {original: marks[module] for module, original in inside.items()}
    whole |= {original: marks[module] for original, module in around.items()}
    # Biases and norms are part of a whole checkpoint, so diffusers asks for these by name.
    checkpoint = {f"model.diffusion_model.{name}.weight": value for name, value in whole.items()}
    checkpoint |= {key.replace(".weight", ".bias"): value for key, value in checkpoint.items()}
    checkpoint |= {f"model.diffusion_model.out.0.{what}": torch.zeros(1) for what in ("weight", "bias")}
    converted = convert_ldm_unet_checkpoint(checkpoint, dict(unet.config))
    for module, mark in marks.items():
        assert torch.equal(converted[f"{module}.weight"], mark), module
    names = index({"unet": dict.fromkeys(marks, ())})
    for original, mark in whole.items():
        part, modules = find(f"lora_unet_{original.replace('.', '_')}", names)
        assert (part, len(modules)) == ("unet", 1)
        assert torch.equal(marks[modules[0]], mark)


def test_the_original_names_of_a_transformer_are_those_that_diffusers_converts():
    transformer = SD3Transformer2DModel(
        sample_size=4, num_layers=3, attention_head_dim=4, num_attention_heads=2, joint_attention_dim=4,
        caption_projection_dim=8, pooled_projection_dim=4, pos_embed_max_size=4, dual_attention_layers=(0,),
    )  # fmt: skip
    shapes = shapes_of({"transformer": transformer})["transformer"]
    marks = numbered(shapes)
    known = {o: held for o, held in original_transformer_names(marks) if set(held) <= set(marks)}
    stacked = {original: torch.cat([marks[module] for module in held]) for original, held in known.items()}
    left_out = set(marks) - {module for held in known.values() for module in held}
    assert left_out == {"context_embedder", "norm_out.linear", "transformer_blocks.2.norm1_context.linear"}
    checkpoint = {f"{name}.{what}": value for name, value in stacked.items() for what in ("weight", "bias")}
    swapped = ("final_layer.adaLN_modulation.1", "joint_blocks.2.context_block.adaLN_modulation.1", "context_embedder")
    checkpoint |= {f"{name}.{what}": torch.zeros(2, 1) for name in swapped for what in ("weight", "bias")}
    checkpoint["pos_embed"] = torch.zeros(1)
    converted = convert_sd3_transformer_checkpoint_to_diffusers(checkpoint)
    for module in set(marks) - left_out:
        assert torch.equal(converted[f"{module}.weight"], marks[module]), module


@pytest.mark.parametrize(
    ("name", "part", "module"),
    [
        ("unet.mid_block.attentions.0.proj_in", "unet", "mid_block.attentions.0.proj_in"),
        ("mid_block.attentions.0.proj_in", "unet", "mid_block.attentions.0.proj_in"),
        ("base_model.model.mid_block.attentions.0.proj_in", "unet", "mid_block.attentions.0.proj_in"),
        ("unet.x.attn1.processor.to_q", "unet", "x.attn1.to_q"),
        ("unet.x.attn1.processor.to_out", "unet", "x.attn1.to_out.0"),
        ("lora_unet_x_attn1_to_out_0", "unet", "x.attn1.to_out.0"),
        ("lycoris_x_attn1_to_q", "unet", "x.attn1.to_q"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("text_encoder.text_model.encoder.layers.0.mlp.fc1", "text_encoder", "encoder.layers.0.mlp.fc1"),
        ("text_encoder.encoder.layers.0.self_attn.to_q", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("text_encoder.encoder.layers.0.self_attn.q_proj", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1", "text_encoder_2", "text_model.encoder.layers.0.mlp.fc1"),
        ("transformer.transformer_blocks.0.attn.to_q", "transformer", "transformer_blocks.0.attn.to_q"),
        ("transformer_blocks.0.attn.to_q", "transformer", "transformer_blocks.0.attn.to_q"),
    ],
)
def test_files_of_every_writer_name_the_same_modules(name, part, module):
    parts = {
        "unet": ("mid_block.attentions.0.proj_in", "x.attn1.to_q", "x.attn1.to_out.0"),
        "transformer": ("transformer_blocks.0.attn.to_q",),
        "text_encoder": ("encoder.layers.0.self_attn.q_proj", "encoder.layers.0.mlp.fc1"),
        "text_encoder_2": ("text_model.encoder.layers.0.mlp.fc1",),
    }
    shapes = {key: dict.fromkeys(modules, (4, 4)) for key, modules in parts.items()}
    assert find(name, index(shapes)) == (part, (module,))


@pytest.mark.parametrize(
    "suffixes",
    [
        ("lora_down.weight", "lora_up.weight"),
        ("lora_A.weight", "lora_B.weight"),
        ("lora_A.default.weight", "lora_B.default.weight"),
        ("lora.down.weight", "lora.up.weight"),
        ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    ],
)
def test_every_spelling_of_the_two_factors_is_read(path, suffixes):
    save_file({f"unet.a.b.{suffixes[0]}": torch.ones(2, 4), f"unet.a.b.{suffixes[1]}": torch.ones(4, 2)}, path)
    (piece,) = read_lora(path).pieces
    assert (piece.name, piece.kind, piece.shapes) == ("unet.a.b", "lora", {"down": (2, 4), "up": (4, 2)})


def test_the_names_of_early_diffusers_are_read(path):
    layer = "unet.a.attn1.processor.to_out_lora"
    save_file({f"{layer}.down.weight": torch.ones(2, 4), f"{layer}.up.weight": torch.ones(4, 2)}, path)
    (piece,) = read_lora(path).pieces
    assert find(piece.name, index({"unet": {"a.attn1.to_out.0": (4, 4)}})) == ("unet", ("a.attn1.to_out.0",))


# -- what fits and what does not


def test_headers_of_a_folder_tell_the_same_shapes_as_the_loaded_network(tiny_pipeline):
    unet = UNet2DConditionModel.from_pretrained(tiny_pipeline, subfolder="unet")
    loaded, found = shapes_of({"unet": unet})["unet"], shapes_in(tiny_pipeline)
    assert loaded.items() <= found["unet"].items()
    assert set(found) == {"unet", "text_encoder"}


def test_a_lora_that_fits_passes_from_headers_alone(path, tiny_pipeline):
    check([lora(path)], tiny_pipeline, "tiny")
    (target,) = match(read_lora(path), shapes_in(tiny_pipeline), "tiny")
    assert (target.part, target.module) == ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k")


@pytest.mark.parametrize(("down", "up"), [((2, 16, 1, 1), (16, 2, 1, 1)), ((2, 16), (16, 2))])
def test_one_by_one_convolutions_and_matrices_stand_for_each_other(path, tiny_pipeline, down, up):
    check([lora(path, down=down, up=up)], tiny_pipeline, "tiny")
    name = "lora_unet_down_blocks_1_attentions_0_proj_in"
    check([lora(path, name=name, down=down, up=up)], tiny_pipeline, "tiny")


def test_an_sdxl_lora_on_stable_diffusion_1_names_both_families_and_the_layer(path):
    name = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    stable_diffusion_1 = {"unet": {name.removeprefix("unet."): (640, 768)}}
    lora(path, name="lora_unet_" + name.removeprefix("unet.").replace(".", "_"), down=(4, 2048), up=(640, 4))
    with pytest.raises(ModelFileError) as caught:
        match(read_lora(path), stable_diffusion_1, "sd15")
    assert str(caught.value) == (
        f"anna.safetensors is a LoRA for SDXL, but sd15 is SD 1.x ('lora_unet_{ATTENTION}' changes a weight of "
        "640 x 2048 where the model's is 640 x 768): choose a LoRA that was made for SD 1.x."
    )


def test_a_lora_for_layers_the_model_lacks_names_the_first_of_them(path, refuses):
    lora(path, name="lora_te2_text_model_encoder_layers_0_mlp_fc1")
    message = refuses(path)
    assert "a LoRA for SDXL" in message
    assert "tiny has no 'lora_te2_text_model_encoder_layers_0_mlp_fc1'" in message


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("transformer.transformer_blocks.0.attn.to_q", "SD 3"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv", "SD 3"),
        ("lora_unet_double_blocks_0_img_attn_qkv", "FLUX"),
        ("transformer.single_transformer_blocks.0.attn.to_q", "FLUX"),
        ("unet.up_blocks.9.attentions.0.transformer_blocks.0.attn2.to_k", "SD 2.x"),
    ],
)
def test_the_family_of_a_lora_is_told_from_its_layers(path, refuses, name, family):
    assert f"is a LoRA for {family}, " in refuses(lora(path, name=name, down=(2, 1024)))


@pytest.mark.parametrize(
    ("tensors", "what"),
    [
        ({"model.diffusion_model.out.2.weight": 1, "first_stage_model.quant_conv.bias": 1}, "a whole checkpoint"),
        ({"conv_in.weight": 1, "down_blocks.0.resnets.0.conv1.weight": 1}, "a whole denoising network"),
        ({"decoder.conv_in.weight": 1, "encoder.conv_in.weight": 1}, "an autoencoder"),
        ({"text_model.encoder.layers.0.mlp.fc1.weight": 1}, "a text encoder"),
        ({"emb_params": 1}, "a textual inversion embedding"),
        ({"control_model.input_blocks.0.0.weight": 1}, "a ControlNet"),
        ({f"lora_unet_{ATTENTION}.oft_blocks": 1, f"lora_unet_{ATTENTION}.alpha": 1}, "an OFT or BOFT adapter"),
        ({f"lora_unet_{ATTENTION}.on_input": 1, f"lora_unet_{ATTENTION}.weight": 1}, "an (IA)^3 adapter"),
        ({"something": 1}, "something else (it holds 'something')"),
        ({}, "empty"),
    ],
)  # fmt: skip
def test_another_kind_of_file_is_called_what_it_is(path, refuses, tensors, what):
    save_file({key: torch.ones(size) for key, size in tensors.items()}, path)
    message = refuses(path)
    assert message.startswith(f"anna.safetensors is {what}, not a LoRA: ")
    assert "in a .safetensors file is needed" in message


def test_a_pickle_is_called_a_pickle(path, refuses):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", "x" * 100)
    path.write_bytes(buffer.getvalue())
    assert "is a pickle" in refuses(path)


def test_a_half_downloaded_file_says_so(path, refuses):
    lora(path, down=(8, 16), up=(16, 8))
    path.write_bytes(path.read_bytes()[:-100])
    assert "truncated" in refuses(path)


def test_a_header_whose_shapes_take_more_bytes_than_there_are_says_so(path, refuses):
    lora(path, down=(8, 16), up=(16, 8))
    data = path.read_bytes()
    assert data.count(b"[8,16]") == 1
    path.write_bytes(data.replace(b"[8,16]", b"[9,16]"))
    assert "no readable safetensors header: download it again" in refuses(path)


def test_a_file_that_is_not_there_or_a_folder_without_one_says_what_is_needed(tmp_path):
    for path, said in ((tmp_path / "none.safetensors", "does not exist"), (tmp_path, "holds no pytorch_lora_weights")):
        with pytest.raises(ModelNotFoundError, match=f"{said}.*a .safetensors file is needed"):
            read_lora(path)


def test_half_of_a_pair_of_factors_is_an_incomplete_file(path, refuses):
    save_file({f"lora_unet_{ATTENTION}.lora_down.weight": torch.ones(2, 16)}, path)
    assert f"of 'lora_unet_{ATTENTION}' it holds only" in refuses(path)


def test_factors_that_do_not_fit_one_another_are_refused(path, refuses):
    assert "do not fit one another" in refuses(lora(path, down=(3, 16)))


def test_a_magnitude_of_another_length_is_refused(path, refuses):
    name = f"lora_unet_{ATTENTION}.dora_scale"
    assert "magnitude" in refuses(lora(path, **{name.replace(".", "__"): torch.ones(5, 1)}))


def test_tensors_beside_the_lora_are_not_dropped_in_silence(path, refuses):
    assert "also holds 'bundle_emb.x'" in refuses(lora(path, bundle_emb__x=torch.ones(1)))


def test_settings_that_are_not_json_are_refused(path, refuses):
    name = f"unet.{ATTENTION}"
    tensors = {f"{name}.lora_A.weight": torch.ones(2, 16), f"{name}.lora_B.weight": torch.ones(16, 2)}
    save_file(tensors, path, metadata={"lora_adapter_metadata": "{"})
    assert "not readable JSON" in refuses(path)


def test_values_that_are_not_finite_are_found_when_the_file_is_read(path, tiny_pipeline):
    name = f"lora_unet_{ATTENTION}"
    down = torch.full((2, 16), float("nan"))
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": torch.ones(16, 2)}, path)
    file = read_lora(path)
    with pytest.raises(ModelFileError, match=f"anna.safetensors is damaged: '{name}.lora_down.weight'"):
        lora_files.load(file, match(file, shapes_in(tiny_pipeline), "tiny"))


def test_the_kinds_in_a_file_have_titles(path):
    name = f"lora_unet_{ATTENTION}.dora_scale"
    assert read_lora(lora(path)).kinds == ("LoRA",)
    assert read_lora(lora(path, **{name.replace(".", "__"): torch.ones(16, 1)})).kinds == ("DoRA (LoRA)",)
