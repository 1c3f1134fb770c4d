"""LoRAs joined, baked and extracted: against the dense sums, in the kinds and names that files come in."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio import merging, runs
from studio.errors import ModelFileError, RequestError, StudioError
from studio.merging import recipe
from studio.merging.modules import diffusers_name, modules_of
from studio.merging.request import MergeRequest
from studio.merging.sources import read_source
from studio.models import lora_files
from studio.models.deltas import KINDS
from studio.requests import parse
from tests.merging.checkpoints import save, tensors

KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DOTTED = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
ORIGINAL = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q"
CONV, TEXT = "lora_unet_down_blocks_0_resnets_0_conv1", "lora_te_text_model_encoder_layers_0_mlp_fc1"


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def lora(stem, rank, alpha=None, seed=0, conv=False, dots=False):
    """One layer of 6 outputs and 4 inputs (x 3 x 3)."""
    down, up = noise(rank, 4, *[3, 3] * conv, seed=seed), noise(6, rank, *[1, 1] * conv, seed=seed + 1)
    names = ("lora_A.weight", "lora_B.weight") if dots else ("lora_down.weight", "lora_up.weight")
    held = {f"{stem}.{names[0]}": down, f"{stem}.{names[1]}": up}
    return held | ({} if alpha is None else {f"{stem}.alpha": torch.tensor(float(alpha))})


def write(path, *layers):
    save_file({key: value.contiguous() for layer in layers for key, value in layer.items()}, path)
    return str(path)


def run(store, folder, **settings):
    request = MergeRequest(**{"title": "m", "models": ()} | settings)
    summary = runs.keep(folder, merging.run(request, store))
    return summary, folder / summary["output"]


def changes(path):
    """Layer -> its whole change, read back as any network would."""
    file = lora_files.read_lora(path)
    targets = [lora_files.Target(piece, "unet", piece.name) for piece in file.pieces]
    found = zip(file.pieces, lora_files.load(file, targets), strict=True)
    return {piece.name: lora_files.scaling(piece.kind, t) * KINDS[piece.kind].change(t) for piece, t in found}


def test_a_join_is_the_exact_weighted_sum_over_ranks_alphas_convolutions_and_names(models, tmp_path):
    one = write(tmp_path / "1.safetensors", lora(KOHYA, 2, alpha=1), lora(CONV, 2, alpha=4, conv=True), lora(TEXT, 1))
    other = write(tmp_path / "2.safetensors", lora(DOTTED, 3, seed=5, dots=True))
    third = write(tmp_path / "3.safetensors", lora(ORIGINAL, 1, alpha=2, seed=9))
    summary, path = run(models, tmp_path / "out", task="join", adapters=(one, other, third), weights=(0.5, -2.0, 1.0))
    found, mine = changes(path), changes(tmp_path / "1.safetensors")
    assert found.keys() == {KOHYA, CONV, TEXT}
    wanted = 0.5 * mine[KOHYA] - 2.0 * changes(tmp_path / "2.safetensors")[DOTTED]
    wanted = wanted + changes(tmp_path / "3.safetensors")[ORIGINAL]
    torch.testing.assert_close(found[KOHYA], wanted)
    torch.testing.assert_close(found[CONV], 0.5 * mine[CONV])
    torch.testing.assert_close(found[TEXT], 0.5 * mine[TEXT])
    held = load_file(path)
    assert held[f"{KOHYA}.alpha"] == held[f"{KOHYA}.lora_down.weight"].shape[0] == 6
    assert held[f"{CONV}.lora_down.weight"].shape == (2, 4, 3, 3)
    assert summary["ranks"] == [1, 2, 6]
    assert "exact" in summary["notes"][0]


def test_a_join_to_a_rank_keeps_the_most_and_says_how_much(models, tmp_path):
    files = tuple(write(tmp_path / f"{i}.safetensors", lora(KOHYA, 3, seed=i)) for i in range(2))
    summary, path = run(models, tmp_path / "out", task="join", adapters=files, rank=2)
    whole = sum(changes(tmp_path / f"{i}.safetensors")[KOHYA] for i in range(2))
    lost = (changes(path)[KOHYA] - whole).norm()
    assert lost.item() == pytest.approx(torch.linalg.svdvals(whole)[2:].norm().item(), rel=1e-4)
    kept = 1 - (lost / whole.norm()).item() ** 2
    assert next(iter(summary["energy"].values())) == pytest.approx(kept, abs=1e-4)
    assert "Energy kept" in summary["notes"][0]


def test_a_lora_minus_itself_is_nothing(models, tmp_path):
    file = write(tmp_path / "1.safetensors", lora(KOHYA, 2))
    _, path = run(models, tmp_path / "out", task="join", adapters=(file, file), weights=(1.0, -1.0))
    assert changes(path)[KOHYA].abs().max() < 1e-5


def test_a_loha_joins_exactly_and_a_lokr_to_a_rank(models, tmp_path):
    loha = {f"{KOHYA}.hada_w{i}_{x}": noise(*s, seed=i) for i in (1, 2) for x, s in (("a", (6, 2)), ("b", (2, 4)))}
    one = write(tmp_path / "1.safetensors", loha)
    _, path = run(models, tmp_path / "out", task="join", adapters=(one,))
    torch.testing.assert_close(changes(path)[KOHYA], changes(tmp_path / "1.safetensors")[KOHYA])
    lokr = {f"{KOHYA}.lokr_w1": noise(2, 2), f"{KOHYA}.lokr_w2": noise(3, 2)}
    two = write(tmp_path / "2.safetensors", lokr)
    with pytest.raises(RequestError, match="no low rank of its own; set a rank"):
        run(models, tmp_path / "none", task="join", adapters=(one, two))
    _, path = run(models, tmp_path / "ranked", task="join", adapters=(one, two), rank=4)
    wanted = sum(changes(tmp_path / f"{i}.safetensors")[KOHYA] for i in (1, 2))
    torch.testing.assert_close(changes(path)[KOHYA], wanted, rtol=1e-4, atol=1e-4)


def test_a_join_in_diffusers_names_needs_dots(models, tmp_path):
    one = write(tmp_path / "1.safetensors", lora(DOTTED, 3, dots=True))
    _, path = run(models, tmp_path / "out", task="join", adapters=(one,), names="diffusers")
    assert set(load_file(path)) == {f"{DOTTED}.lora_A.weight", f"{DOTTED}.lora_B.weight"}
    two = write(tmp_path / "2.safetensors", lora(KOHYA, 3))
    with pytest.raises(RequestError, match="choose kohya"):
        run(models, tmp_path / "none", task="join", adapters=(two,), names="diffusers")


def test_loras_that_cannot_be_added_up_are_refused(models, tmp_path):
    one = write(tmp_path / "1.safetensors", lora(KOHYA, 2))
    wide = write(tmp_path / "2.safetensors", lora(KOHYA, 2) | {f"{KOHYA}.lora_down.weight": noise(2, 8)})
    with pytest.raises(ModelFileError, match=r"different networks: .* is \[6, 4\] in one and \[6, 8\] in the other"):
        run(models, tmp_path / "none", task="join", adapters=(one, wide))
    dora = write(tmp_path / "3.safetensors", lora(KOHYA, 2), {f"{KOHYA}.dora_scale": torch.ones(6, 1)})
    with pytest.raises(ModelFileError, match="is a DoRA, .* bake it"):
        run(models, tmp_path / "none", task="join", adapters=(dora,))
    checkpoint = str(save(tmp_path / "4.safetensors", tensors(0)))
    with pytest.raises(ModelFileError, match="a whole checkpoint, not a LoRA"):
        run(models, tmp_path / "none", task="join", adapters=(checkpoint,))


def test_a_joined_lora_replays_to_the_same_bytes(models, tmp_path):
    files = tuple(write(tmp_path / f"{i}.safetensors", lora(KOHYA, 3, seed=i)) for i in range(2))
    _, path = run(models, tmp_path / "out", task="join", adapters=files, rank=2)
    again = runs.keep(tmp_path / "again", merging.run(parse(MergeRequest, recipe.read(path)["request"]), models))
    assert (tmp_path / "again" / again["output"]).read_bytes() == path.read_bytes()


def layers_of(source):
    return {(part, module) for part, held in modules_of(source).items() for module in held}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_original_names_of_a_whole_unet_lead_back_to_diffusers_names(assets, family):
    from diffusers import UNet2DConditionModel

    from tests import ldm

    config = UNet2DConditionModel.load_config(assets / "configs" / family / "unet.json")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    wanted = {name for name, shape in lora_files.shapes_of({"unet": unet})["unet"].items()}
    names = [key.removeprefix("model.diffusion_model.").removesuffix(".weight") for key in ldm.unet(unet)]
    assert wanted <= {diffusers_name(name) for name in names}


def test_a_lora_baked_into_a_folder_is_what_the_network_would_wear(models, assets, tmp_path):
    key = "unet/down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    source = read_source("builtin:emoji", assets, None, field="models.0")
    key = next(k for k in source.tensors if k.endswith("attn1.to_q.weight"))
    out, inside = source.tensors[key].shape
    stem = "lora_unet_" + key.removeprefix("unet/").removesuffix(".weight").replace(".", "_")
    layer = {
        f"{stem}.lora_down.weight": noise(2, inside),
        f"{stem}.lora_up.weight": noise(out, 2),
        f"{stem}.alpha": torch.tensor(1.0),
    }
    file = write(tmp_path / "l.safetensors", layer)
    summary, path = run(
        models, tmp_path / "out", task="bake", models=("builtin:emoji",), adapters=(file,), weights=(0.1,)
    )
    name = key.removeprefix("unet/")
    before = load_file(assets / "models" / "emoji" / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(path / "unet" / "diffusion_pytorch_model.safetensors")
    change = 0.1 * 0.5 * layer[f"{stem}.lora_up.weight"] @ layer[f"{stem}.lora_down.weight"]
    wanted = (before[name].float() + change).to(before[name].dtype)
    torch.testing.assert_close(after[name], wanted, rtol=2e-3, atol=1e-3)
    assert [k for k in before if not torch.equal(before[k], after[k])] == [name]
    assert summary["parts"]["unet"]["merged"] == 1
    assert [s["name"] for s in summary["sources"]] == ["builtin:emoji", file]


def single_file(path, seed, folder):
    from diffusers import StableDiffusionPipeline

    from tests import ldm
    from tests.tiny import save_tiny_pipeline

    pipeline = StableDiffusionPipeline.from_pretrained(save_tiny_pipeline(folder, "epsilon", seed=seed))
    held = ldm.unet(pipeline.unet) | ldm.vae(pipeline.vae)
    return str(save(path, held | ldm.clip(pipeline.text_encoder, "cond_stage_model.transformer.")))


def test_what_is_extracted_from_single_files_bakes_back_and_fits_a_network(models, tmp_path):
    a, b = (single_file(tmp_path / f"{i}.safetensors", i, tmp_path / str(i)) for i in range(2))
    # Full rank of every layer of these small networks, so that nothing is lost.
    summary, path = run(models, tmp_path / "out", task="extract", models=(a, b), rank=512, precision="fp32")
    assert min(summary["energy"].values()) == pytest.approx(1.0, abs=1e-5)
    _, baked = run(models, tmp_path / "baked", task="bake", models=(a,), adapters=(str(path),))
    found, first, wanted = load_file(baked), load_file(a), load_file(b)
    layers = [key for key in wanted if wanted[key].dim() in (2, 4) and "first_stage" not in key and "embed" not in key]
    changed = [key for key in layers if not torch.equal(found[key], first[key])]
    assert len(changed) > 30
    for key in changed:
        torch.testing.assert_close(found[key], wanted[key], rtol=1e-3, atol=1e-4)
    shapes = lora_files.shapes_in(tmp_path / "0")
    assert lora_files.match(lora_files.read_lora(path), shapes, "the same network in diffusers' layout")


def test_extraction_says_how_much_a_rank_keeps_and_refuses_two_equal_models(models, tmp_path):
    a, b = (str(save(tmp_path / f"{i}.safetensors", tensors(i))) for i in range(2))
    summary, path = run(models, tmp_path / "out", task="extract", models=(a, b), rank=2, conv_rank=4)
    assert summary["ranks"] == [2, 4]
    assert 0.0 < min(summary["energy"].values()) < 0.9
    assert lora_files.read_lora(path).kinds == ("LoRA",)
    with pytest.raises(StudioError, match="there is nothing to save"):
        run(models, tmp_path / "none", task="extract", models=(a, a), rank=2)
    xl = str(save(tmp_path / "xl.safetensors", tensors(1, width=2048)))
    with pytest.raises(ModelFileError, match="is Stable Diffusion 1 and B .* is SDXL"):
        run(models, tmp_path / "none", task="extract", models=(a, xl), rank=2)


def test_a_lora_for_another_network_is_not_baked(models, tmp_path):
    a = str(save(tmp_path / "a.safetensors", tensors(0)))
    file = write(tmp_path / "l.safetensors", lora(CONV, 2, conv=True))
    with pytest.raises(ModelFileError, match="is a LoRA for") as found:
        run(models, tmp_path / "none", task="bake", models=(a,), adapters=(file,))
    assert found.value.field == "adapters.0"
