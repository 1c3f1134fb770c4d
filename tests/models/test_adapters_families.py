"""Adapters on the parts of the other families, tiny: SDXL (two text encoders, original block names) and SD 3."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import (
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from studio.models.adapters import Attached, attach
from studio.models.lora_files import shapes_of
from studio.models.lora_names import original_unet_names
from tests.models.loras import ATTENTION_LAYERS, TEXT_LAYERS, UNET_LAYERS, add, lora_config, save_diffusers, save_kohya

EXACT = {"atol": 1e-5, "rtol": 0}
SCALES = (1.0, 0.0, -0.6)


def text_encoder(kind):
    torch.manual_seed(0)
    return kind(
        CLIPTextConfig(
            vocab_size=20, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=8, projection_dim=16, bos_token_id=1, eos_token_id=2, pad_token_id=3,
        )
    ).eval()  # fmt: skip


@pytest.fixture
def sdxl():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, norm_num_groups=2, cross_attention_dim=16, attention_head_dim=2, layers_per_block=2,
        block_out_channels=(4, 8, 8), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 2),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16,
    ).eval()  # fmt: skip
    encoders = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}
    return {"unet": unet, **{name: text_encoder(kind) for name, kind in encoders.items()}}


@pytest.fixture
def sd3():
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16, pooled_projection_dim=32,
        pos_embed_max_size=8, dual_attention_layers=(0,),
    ).eval()  # fmt: skip
    encoders = {name: text_encoder(CLIPTextModelWithProjection) for name in ("text_encoder", "text_encoder_2")}
    return {"transformer": transformer, **encoders}


def stock(parts, pipeline):
    """A stock pipeline of copies of the parts, for loading LoRAs the way diffusers does."""
    missing = dict.fromkeys(("vae", "tokenizer", "tokenizer_2", "tokenizer_3", "text_encoder_3", "scheduler"))
    if pipeline is StableDiffusionXLPipeline:
        missing = {key: None for key in missing if not key.endswith("_3")}
    return pipeline(**{**missing, **{name: copy.deepcopy(part) for name, part in parts.items()}})


@torch.inference_mode()
def answers(parts):
    """What every part answers to three fixed rows."""
    draw = torch.Generator().manual_seed(0)
    x, texts = torch.randn(3, 4, 8, 8, generator=draw), torch.randn(3, 8, 16, generator=draw)
    pooled, t = torch.randn(3, 16, generator=draw), torch.tensor([300.0])
    found = {}
    if "unet" in parts:
        more = {"text_embeds": pooled, "time_ids": torch.randn(3, 6, generator=draw)}
        found["unet"] = parts["unet"](x, t, texts, added_cond_kwargs=more, return_dict=False)[0]
    else:
        pooled = torch.cat([pooled, pooled], 1)
        found["transformer"] = parts["transformer"](x, texts, pooled, t.expand(3), return_dict=False)[0]
    ids = torch.tensor([[1, 5, 6, 2, 3, 3, 3, 3]]).expand(3, -1)
    for name in ("text_encoder", "text_encoder_2"):
        found[name] = parts[name](ids, output_hidden_states=True).hidden_states[-2]
    return found


def agrees_with_diffusers(parts, pipeline, path):
    """Each row of one batch, at its own scale, against diffusers switched to that scale."""
    peer = stock(parts, pipeline)
    base = answers(parts)
    peer.load_lora_weights(path, adapter_name="a")
    expected = {name: [] for name in base}
    for row, scale in enumerate(SCALES):
        peer.set_adapters(["a"], [scale])
        for name, answer in answers({name: getattr(peer, name) for name in parts}).items():
            expected[name].append(answer[row])
    attached = Attached()
    with attach(attached, parts, {"a": path}, "tiny"), attached.rows({"a": torch.tensor(SCALES)}):
        found = answers(parts)
    for name in base:
        assert (found[name] - base[name])[0].abs().max() > 0.01, name
        torch.testing.assert_close(found[name], torch.stack(expected[name]), **EXACT)
    again = answers(parts)
    assert all(torch.equal(again[name], base[name]) for name in base)


def adapted(parts, denoiser_layers):
    """Copies of the parts with random LoRAs by PEFT, and those LoRAs' tensors."""
    copies = {name: copy.deepcopy(part) for name, part in parts.items()}
    layers = {name: TEXT_LAYERS if name.startswith("text") else denoiser_layers for name in parts}
    tensors = {name: add(part, lora_config(2, 5, layers[name]), seed=len(name)) for name, part in copies.items()}
    return copies, tensors


def test_an_sdxl_lora_in_diffusers_names_with_both_text_encoders(sdxl, tmp_path):
    copies, _ = adapted(sdxl, UNET_LAYERS)
    agrees_with_diffusers(sdxl, StableDiffusionXLPipeline, save_diffusers(tmp_path, copies, sdxl=True))


def test_an_sdxl_lora_in_kohyas_names_of_the_original_blocks(sdxl, tmp_path):
    _, tensors = adapted(sdxl, ATTENTION_LAYERS)
    original = dict(original_unet_names(shapes_of(sdxl)["unet"]))
    unet = {}
    for key, value in tensors["unet"].items():
        module, _, role = key.rpartition(".lora_")
        unet[f"{original[module]}.lora_{role}"] = value
    assert any(key.startswith("input_blocks.4.1.") for key in unet)
    second = {key.removeprefix("text_model."): value for key, value in tensors["text_encoder_2"].items()}
    held = {"lora_unet": unet, "lora_te1_text_model": tensors["text_encoder"], "lora_te2_text_model": second}
    agrees_with_diffusers(sdxl, StableDiffusionXLPipeline, save_kohya(tmp_path / "a.safetensors", held, alpha=5))


def test_an_sd3_lora_in_diffusers_names(sd3, tmp_path):
    layers = [*ATTENTION_LAYERS, "add_q_proj", "to_add_out", "norm1.linear", "ff.net.2"]
    _, tensors = adapted(sd3, layers)
    named = {f"{part}.{key}": value for part, held in tensors.items() for key, value in held.items()}
    path = tmp_path / "a.safetensors"
    save_file({key: value.contiguous() for key, value in named.items()}, path)
    assert "add_q_proj" in "".join(named)
    agrees_with_diffusers(sd3, StableDiffusion3Pipeline, path)


def test_an_sd3_lora_of_stacked_queries_keys_and_values_is_split_among_their_layers(sd3, tmp_path):
    up, down, alpha = torch.randn(48, 2) * 0.3, torch.randn(2, 16) * 0.3, 6.0
    name = "lora_unet_joint_blocks_0_x_block_attn_qkv"
    held = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(alpha)}
    save_file({f"{name}.{role}": value for role, value in held.items()}, tmp_path / "a.safetensors")
    changed = copy.deepcopy(sd3)
    attention = changed["transformer"].transformer_blocks[0].attn
    for i, layer in enumerate((attention.to_q, attention.to_k, attention.to_v)):
        layer.weight.data += alpha / 2 * up[16 * i : 16 * (i + 1)] @ down
    attached = Attached()
    with attach(attached, sd3, {"a": tmp_path / "a.safetensors"}, "tiny"), attached.rows({"a": torch.ones(3)}):
        found = answers(sd3)["transformer"]
    assert (found - answers(sd3)["transformer"]).abs().max() > 0.01
    torch.testing.assert_close(found, answers(changed)["transformer"], **EXACT)
