"""Whether checkpoints fit is said from headers: architecture, tensor and both shapes named."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import save_file

from studio.errors import ModelFileError, ModelNotFoundError, RequestError
from studio.merging.fit import fit
from studio.merging.layout import block_names, blocks_of, part_of
from studio.merging.request import MergeRequest
from tests.merging.checkpoints import FIRST, IDS, ODD, TEXT, UNET, VAE, pair, save, tensors


def plan(assets, *models, **settings):
    return fit(MergeRequest(models=tuple(map(str, models)), **settings), assets)


def refused(assets, *models, match, field=None, kind=ModelFileError, **settings):
    with pytest.raises(kind, match=match) as found:
        plan(assets, *models, **settings)
    if field:
        assert found.value.field == field


def items(found):
    return {item.key: item for item in found.items}


def test_by_default_the_unet_and_the_text_encoder_are_merged_and_the_rest_is_a(assets, tmp_path):
    found = plan(assets, *pair(tmp_path))
    assert found.counts == {"unet": (8, 0), "text_encoder": (1, 1), "vae": (0, 1), "other": (0, 1)}
    assert not items(found)[IDS].merged
    assert found.notes == ()


def test_sd1_with_sdxl_is_refused_with_names_tensor_and_shapes_in_under_a_second(assets, tmp_path):
    a = save(tmp_path / "one.safetensors", tensors(0))
    b = save(tmp_path / "xl.safetensors", tensors(1, width=2048))
    start = time.process_time()
    refused(
        assets,
        a,
        b,
        match=r"A \(.*one.safetensors\) is Stable Diffusion 1 and B \(.*xl.safetensors\) is SDXL: choose checkpoints "
        r"of one family \(.*proj_in.weight is \[8, 8, 1, 1\] in A and \[8, 8\] in B\)",
        field="models.1",
    )
    assert time.process_time() - start < 1.0


def test_an_inpainting_model_is_a_or_nothing(assets, tmp_path):
    wide = save(tmp_path / "wide.safetensors", tensors(0, channels=9))
    plain = save(tmp_path / "plain.safetensors", tensors(1))
    found = plan(assets, wide, plain)
    assert items(found)[FIRST].channels == 4
    assert "A is an inpainting model: of the 9 channels that it reads, the first 4 are merged." in found.notes
    refused(
        assets,
        plain,
        wide,
        match=r"input_blocks.0.0.weight is \[8, 4, 3, 3\] in A and \[8, 9, 3, 3\] in B; B is an inpainting model, "
        "which can only be merged as A",
        field="models.1",
    )


def test_a_lora_is_no_checkpoint(assets, tmp_path):
    a, _ = pair(tmp_path)
    lora = tmp_path / "l.safetensors"
    save_file({"lora_unet_x.lora_up.weight": torch.ones(2, 2), "lora_unet_x.lora_down.weight": torch.ones(2, 2)}, lora)
    refused(assets, a, lora, match="l.safetensors is a LoRA adapter, not a checkpoint", field="models.1")


def test_velocity_and_noise_are_warned_of(assets, tmp_path):
    a = save(tmp_path / "a.safetensors", tensors(0) | {"v_pred": torch.zeros(0)})
    b = save(tmp_path / "b.safetensors", tensors(1), **{"modelspec.prediction_type": "epsilon"})
    assert any("predicts v_prediction" in note and note.startswith("Warning") for note in plan(assets, a, b).notes)


def test_one_tensor_of_another_shape_or_missing_is_named(assets, tmp_path):
    a, _ = pair(tmp_path)
    key = f"{UNET}middle_block.0.in_layers.2.weight"
    other = save(tmp_path / "c.safetensors", tensors(1) | {key: torch.ones(8, 4, 3, 3)})
    refused(assets, a, other, match=r"middle_block.* is \[8, 8, 3, 3\] in A and \[8, 4, 3, 3\] in B", field="models.1")
    held = tensors(1)
    del held[key]
    lacks = save(tmp_path / "d.safetensors", held)
    refused(assets, a, lacks, match=r"B .* lacks a tensor that A .* has: .*middle_block", field="models.1")


def test_a_pruned_part_is_taken_from_a_and_said(assets, tmp_path):
    a, _ = pair(tmp_path)
    b = save(tmp_path / "p.safetensors", {k: v for k, v in tensors(1).items() if not k.startswith(TEXT)})
    found = plan(assets, a, b)
    assert found.counts["text_encoder"] == (0, 2)
    assert "1 tensors are A's, for B has no text_encoder" in found.notes[0]


def test_files_that_have_nothing_to_do_with_each_other_are_refused_either_way(assets, tmp_path):
    a = save(tmp_path / "a.safetensors", tensors(0))
    other = save(tmp_path / "b.safetensors", {"emb_params": torch.ones(2, 768), "weights.of.something": torch.ones(4)})
    refused(
        assets, a, other, match=r"a\.safetensors.* is Stable Diffusion 1 and B .*b\.safetensors.* is", field="models.1"
    )
    refused(assets, other, a, match=r"choose checkpoints of one family", field="models.1")


def test_damaged_and_missing_files_are_named(assets, tmp_path):
    a, b = pair(tmp_path)
    b.write_bytes(b.read_bytes()[:-3])
    refused(assets, a, b, match="b.safetensors is truncated or damaged", field="models.1")
    (tmp_path / "a.safetensors.part").touch()
    refused(assets, a, a, match="half-finished download", field="models.0")
    refused(assets, tmp_path / "no.safetensors", a, match="no model at", field="models.0", kind=ModelNotFoundError)


def test_a_model_on_the_hub_must_be_downloaded_first(assets, tmp_path):
    a, _ = pair(tmp_path)
    refused(assets, a, "owner/name", match="download it first", field="models.1", kind=ModelNotFoundError)


def test_a_folder_and_a_file_are_two_layouts(assets, tmp_path):
    a, _ = pair(tmp_path)
    refused(assets, a, "builtin:emoji", match=r"A .* is one file and B \(builtin:emoji\) is a diffusers folder")


def test_parts_come_from_whom_they_are_told(assets, tmp_path):
    a, b = pair(tmp_path)
    found = plan(assets, a, b, parts={"vae": "b", "text_encoder": "0.25", "other": "none", "unet": "merge"})
    by_key = items(found)
    assert by_key[f"{VAE}decoder.conv_in.weight"].inputs[0].path == b
    assert by_key[f"{TEXT}encoder.layers.0.self_attn.q_proj.weight"].alpha == 0.25
    assert "alphas_cumprod" not in by_key
    assert by_key[ODD].alpha == 0.5


def test_a_vae_is_baked_from_a_file_that_has_it_alone(assets, tmp_path):
    a, b = pair(tmp_path)
    vae = save(tmp_path / "vae.safetensors", {"decoder.conv_in.weight": torch.ones(8, 4, 3, 3)})
    found = plan(assets, a, b, parts={"vae": str(vae)})
    assert items(found)[f"{VAE}decoder.conv_in.weight"].inputs[0].path == vae
    small = save(tmp_path / "small.safetensors", {"decoder.conv_in.weight": torch.ones(4, 4, 3, 3)})
    refused(assets, a, b, parts={"vae": str(small)}, match=r"\[8, 4, 3, 3\] in A and is \[4, 4, 3, 3\] there")
    refused(assets, a, b, parts={"vae": str(tmp_path / "none")}, match="no model at", kind=ModelNotFoundError)


def test_nothing_to_merge_is_said(assets, tmp_path):
    a, b = pair(tmp_path)
    refused(assets, a, b, parts={"unet": "a", "text_encoder": "b"}, match="nothing would be merged", kind=RequestError)
    refused(assets, a, b, parts={"text_encoder_2": "a"}, match="has no such part; it has other, ", kind=RequestError)


def test_blocks_have_alphas_in_supermergers_order(assets, tmp_path):
    a, b = pair(tmp_path)
    # BASE, IN00, IN01, M00, OUT00, OUT01 of the small U-Net.
    found = items(plan(assets, a, b, blocks=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)))
    alphas = {key: found[key].alpha for key in found if found[key].merged}
    assert alphas == {
        FIRST: 0.2,
        f"{UNET}time_embed.0.weight": 0.2,
        ODD: 0.3,
        f"{UNET}input_blocks.1.1.proj_in.weight": 0.3,
        f"{UNET}middle_block.0.in_layers.2.weight": 0.4,
        f"{UNET}output_blocks.0.0.in_layers.2.weight": 0.5,
        f"{UNET}output_blocks.1.0.in_layers.2.bias": 0.6,
        f"{UNET}out.2.weight": 0.6,
        f"{TEXT}encoder.layers.0.self_attn.q_proj.weight": 0.1,
    }
    refused(
        assets,
        a,
        b,
        blocks=(0.1,) * 26,
        match=r"26 alphas are given and this network has 6 blocks \(BASE, IN00 ... OUT01\)",
        field="blocks",
        kind=RequestError,
    )


def test_a_curve_runs_over_the_blocks(assets, tmp_path):
    found = items(plan(assets, *pair(tmp_path), curve="rising", alpha=0.8))
    assert found[ODD].alpha == pytest.approx(0.2)
    assert not found[FIRST].merged  # alpha is 0 there: A's, bit for bit
    assert not plan(assets, *pair(tmp_path), alpha=1.0).counts["unet"][0]


def test_the_last_rule_that_finds_a_tensor_counts(assets, tmp_path):
    rules = ({"keys": "attn2", "alpha": 0.1}, {"keys": r"to_k\.weight$", "alpha": 0.9}, {"keys": "zzz", "alpha": 0.1})
    found = plan(assets, *pair(tmp_path), rules=rules)
    assert items(found)[ODD].alpha == 0.9
    assert found.notes == ("The rule 'zzz' finds no tensor that is merged.",)


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("conditioner.embedders.1.model.ln_final.weight", "text_encoder_2"),
        ("conditioner.embedders.0.transformer.text_model.x", "text_encoder"),
        ("model_ema.decay", "ema"),
        ("unet/conv_in.weight", "unet"),
        ("transformer/pos_embed.proj.weight", "transformer"),
        ("denoiser.sigmas", "other"),
    ],
)
def test_parts_are_told_by_names(key, part):
    assert part_of(key) == part


def test_a_diffusers_folder_has_the_same_blocks_as_the_original_names(assets):
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(assets / "configs" / "sdxl" / "unet.json")
    with torch.device("meta"):
        keys = [f"unet/{key}" for key in UNet2DConditionModel.from_config(config).state_dict()]
    blocks = blocks_of([*keys, "text_encoder/x.weight"])
    assert len(block_names(blocks)) == 20
    assert set(blocks) == {*keys, "text_encoder/x.weight"}
    assert blocks["unet/down_blocks.1.attentions.0.norm.weight"] == "IN04"
    assert blocks["unet/up_blocks.0.upsamplers.0.conv.weight"] == "OUT02"
    assert blocks["unet/conv_norm_out.weight"] == "OUT08"
    assert blocks["unet/add_embedding.linear_1.bias"] == "IN00"
