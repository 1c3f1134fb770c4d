"""Merges from request to disk: exact, whole or not there, replayable, and never at a source's cost."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from studio import merging, runs
from studio.errors import Cancelled, ModelFileError, RecipeError, RequestError, StudioError
from studio.merging import recipe, weights
from studio.merging.catalogue import METHODS
from studio.merging.fit import fit
from studio.merging.request import MergeRequest
from studio.merging.result import NonFiniteError
from studio.merging.weights import Weights, readers
from studio.models import known_hashes, streams
from studio.models.known_hashes import KnownHashes
from studio.requests import parse
from tests.merging.checkpoints import FIRST, IDS, ODD, TEXT, UNET, VAE, pair, save, tensors

TE = f"{TEXT}encoder.layers.0.self_attn.q_proj.weight"


def merge(models, folder, *names, on_step=lambda step: None, **settings):
    """Merge and keep, as a job does; the summary and the result's place."""
    request = MergeRequest(models=tuple(map(str, names)), **{"title": "m"} | settings)
    folder.mkdir(exist_ok=True)
    summary = runs.keep(folder, merging.run(request, models, on_step=on_step))
    return summary, folder / summary["output"]


def metadata(path):
    with safe_open(path, "pt") as opened:
        return opened.metadata()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_weighted_sum_is_the_float32_reference_rounded_once(models, tmp_path):
    a, b = pair(tmp_path)
    summary, path = merge(models, tmp_path / "out", a, b, alpha=0.3)
    found, one, other = load_file(path), load_file(a), load_file(b)
    assert found.keys() == one.keys()
    for key in (FIRST, ODD, TE):
        x, y = one[key].numpy().astype(np.float32), other[key].numpy().astype(np.float32)
        assert np.array_equal(found[key].numpy(), (x + np.float32(0.3) * (y - x)).astype(np.float16)), key
    for key in (IDS, "alphas_cumprod", f"{VAE}decoder.conv_in.weight"):
        assert torch.equal(found[key], one[key])
        assert found[key].dtype == one[key].dtype
    assert summary["parts"]["unet"] == {"merged": 8, "copied": 0}
    assert summary["faults"] == {}


def odd_bits(seed):
    """Numbers that arithmetic would not keep: minus zero, the smallest, the largest."""
    held = tensors(seed)
    held[TE].flatten()[:5] = torch.tensor([-0.0, 0.0, 6e-8, -6e-8, 65504.0]).half()
    return held


@pytest.mark.parametrize("name", METHODS)
def test_over_the_whole_table_neutral_ends_and_a_with_itself_keep_every_bit(models, tmp_path, name):
    method = METHODS[name]
    files = [save(tmp_path / f"{i}.safetensors", odd_bits(i)) for i in range(method.models[0])]
    cases = [([files[0]] * len(files), 0.37, 0)] + [(files, alpha, index) for alpha, index in method.ends.items()]
    for number, (chosen, alpha, index) in enumerate(cases):
        _, path = merge(models, tmp_path / f"out{number}", *chosen, method=name, alpha=alpha)
        found, wanted = load_file(path), load_file(files[index])
        for key in (FIRST, ODD, TE):
            assert torch.equal(found[key].view(torch.int16), wanted[key].view(torch.int16)), (name, alpha, key)


@pytest.mark.parametrize("name", METHODS)
def test_a_tensor_in_pieces_is_the_tensor_whole(models, tmp_path, monkeypatch, name):
    files = [save(tmp_path / f"{i}.safetensors", odd_bits(i)) for i in range(METHODS[name].models[0])]
    settings = {"method": name, "alpha": 0.3, "accept_nonfinite": True}
    _, whole = merge(models, tmp_path / "whole", *files, **settings)
    monkeypatch.setattr(weights, "NUMBERS", 7)
    _, pieces = merge(models, tmp_path / "pieces", *files, **settings)
    assert pieces.read_bytes() == whole.read_bytes()


def test_what_a_preview_would_draw_with_is_what_is_saved(models, assets, tmp_path):
    a, b = pair(tmp_path)
    plan = fit(MergeRequest(models=(str(a), str(b)), method="slerp", alpha=0.3), assets)
    _, path = merge(models, tmp_path / "out", a, b, method="slerp", alpha=0.3)
    saved = load_file(path)
    with readers() as files:
        made = Weights(plan, files)
        assert all(torch.equal(made.tensor(item), saved[item.key]) for item in plan.items)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_another_precision_is_of_all_floats_and_of_no_integer(models, tmp_path, precision, dtype):
    a, b = pair(tmp_path)
    _, path = merge(models, tmp_path / "out", a, b, precision=precision)
    found = load_file(path)
    assert {key for key, value in found.items() if value.dtype != dtype} == {IDS}
    assert torch.equal(found["alphas_cumprod"], load_file(a)["alphas_cumprod"].to(dtype))


def test_of_an_inpainting_model_four_channels_are_merged(models, tmp_path):
    wide = save(tmp_path / "wide.safetensors", tensors(0, channels=9))
    plain, base = save(tmp_path / "b.safetensors", tensors(1)), save(tmp_path / "c.safetensors", tensors(2))
    _, path = merge(models, tmp_path / "out", wide, plain, base, method="add_difference", alpha=1.0)
    a, b, c, found = (load_file(file)[FIRST].float() for file in (wide, plain, base, path))
    assert torch.equal(found[:, 4:], a[:, 4:])
    assert torch.equal(found[:, :4], (a[:, :4] + (b - c)).half().float())


def test_the_recipe_in_the_header_replays_to_the_same_bytes(models, tmp_path):
    a, b = pair(tmp_path)
    settings = {
        "method": "dare",
        "alpha": 0.7,
        "seed": 3,
        "parts": {"vae": "b"},
        "rules": ({"keys": "out", "alpha": 1},),
    }
    summary, path = merge(models, tmp_path / "out", a, b, **settings)
    again = recipe.read(path)
    assert again["request"]["verify"] == {"0/a.safetensors": sha256(a), "1/b.safetensors": sha256(b)}
    replayed = runs.keep(tmp_path / "again", merging.run(parse(MergeRequest, again["request"]), models))
    assert sha256(tmp_path / "again" / replayed["output"]) == sha256(path)
    assert replayed["data_sha256"] == summary["data_sha256"]
    assert metadata(path)["modelspec.hash_sha256"] == f"0x{summary['data_sha256']}"


def test_headers_hold_texts_that_a1111_and_modelspec_readers_know(models, tmp_path):
    a, b = pair(tmp_path)
    _, first = merge(models, tmp_path / "out", a, b, alpha=0.3)
    _, second = merge(models, tmp_path / "next", first, b, alpha=0.25, title="again")
    said = metadata(second)
    assert said["modelspec.architecture"] == "stable-diffusion-v1"
    assert said["modelspec.title"] == "again"
    own, known = json.loads(said["sd_merge_recipe"]), json.loads(said["sd_merge_models"])
    assert (own["interp_method"], own["multiplier"]) == ("Weighted sum", 0.25)
    assert (own["primary_model_hash"], own["secondary_model_hash"]) == (sha256(first), sha256(b))
    assert known.keys() == {sha256(first), sha256(a), sha256(b)}
    assert known[sha256(first)]["sd_merge_recipe"]["multiplier"] == 0.3


def test_a_changed_or_lost_source_stops_a_replay(models, tmp_path):
    a, b = pair(tmp_path)
    _, path = merge(models, tmp_path / "out", a, b)
    request = parse(MergeRequest, recipe.read(path)["request"])
    save(b, tensors(5))
    with pytest.raises(RecipeError, match="b.safetensors is not the file that the recipe was made with"):
        merging.run(request, models)
    b.unlink()
    with pytest.raises(StudioError, match="no model at"):
        merging.run(request, models)


def test_sources_hashed_before_are_not_hashed_again_until_they_change(models, tmp_path, monkeypatch):
    monkeypatch.setattr(known_hashes, "SETTLED", 0)
    monkeypatch.setattr(models, "hashes", KnownHashes())
    a, b = pair(tmp_path)
    first, _ = merge(models, tmp_path / "out", a, b)
    hashed = []
    monkeypatch.setattr(streams.Reader, "sha256", lambda reader: hashed.append(reader.path) or "f" * 64)
    second, _ = merge(models, tmp_path / "again", a, b)
    assert (second["sources"], hashed) == (first["sources"], [])
    save(b, tensors(5))
    changed, _ = merge(models, tmp_path / "changed", a, b)
    assert hashed == [b]
    assert changed["sources"][0] == first["sources"][0]
    assert changed["sources"][1]["files"] == {"b.safetensors": "f" * 64}


def test_who_verifies_a_recipe_reads_every_source_whatever_is_known_of_it(models, tmp_path, monkeypatch):
    monkeypatch.setattr(known_hashes, "SETTLED", 0)
    monkeypatch.setattr(models, "hashes", KnownHashes())
    a, b = pair(tmp_path)
    _, path = merge(models, tmp_path / "out", a, b)
    models.hashes.keep(a, "0" * 64)
    merging.run(parse(MergeRequest, recipe.read(path)["request"]), models)
    assert models.hashes.of(a) == sha256(a)


@pytest.mark.parametrize("name", ["a.safetensors", "no.safetensors", "."])
def test_a_file_without_a_recipe_says_so(tmp_path, name):
    pair(tmp_path)
    with pytest.raises(RecipeError, match=r"recipe"):
        recipe.read(tmp_path / name)


def test_weights_that_are_not_finite_need_an_agreement(models, tmp_path):
    held = tensors(0)
    held[ODD][0, :3] = torch.tensor([float("nan"), float("inf"), 65504.0]).half()
    a, b = save(tmp_path / "a.safetensors", held), save(tmp_path / "b.safetensors", tensors(1))
    settings = {"method": "task_arithmetic", "alpha": -1.0}
    with pytest.raises(
        NonFiniteError, match=r"1 tensors hold .*1 NaN, 1 infinite, 1 too large.*first .*attn2"
    ) as found:
        merge(models, tmp_path / "out", a, b, **settings)
    assert found.value.field == "accept_nonfinite"
    assert names_in(tmp_path / "out") == set()
    summary, path = merge(models, tmp_path / "out", a, b, accept_nonfinite=True, **settings)
    assert summary["faults"] == {ODD: {"nan": 1, "infinite": 1, "overflow": 1}}
    assert path.exists()


def test_a_stop_leaves_nothing_and_the_sources_alone(models, tmp_path):
    a, b = pair(tmp_path)
    before = [sha256(a), sha256(b)]

    def stop(step):
        if step.note.startswith("Merging"):
            raise Cancelled

    with pytest.raises(Cancelled):
        merge(models, tmp_path / "out", a, b, on_step=stop)
    assert names_in(tmp_path / "out") == set()
    assert [sha256(a), sha256(b)] == before


def test_a_full_disk_is_said_before_and_leaves_nothing_when_it_comes_later(models, tmp_path, monkeypatch):
    a, b = pair(tmp_path)
    monkeypatch.setattr(streams, "SPARE", 10**18)
    with pytest.raises(StudioError, match="make room there"):
        merge(models, tmp_path / "out", a, b)
    monkeypatch.undo()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(streams.Writer, "write", full)
    with pytest.raises(StudioError, match="No space left on device"):
        merge(models, tmp_path / "out", a, b)
    assert names_in(tmp_path / "out") == set()


def test_a_target_is_written_whole_and_never_a_source_or_unasked(models, tmp_path):
    a, b = pair(tmp_path)
    target = tmp_path / "mine.safetensors"
    merge(models, tmp_path / "out", a, b, target=str(target))
    first = sha256(target)
    for wrong, says in [
        (target, "there is mine.safetensors already"),
        (a, "one of the sources"),
        (tmp_path / "mine", "ends in .safetensors"),
        (tmp_path / "no" / "x.safetensors", "cannot be written"),
        ("/sys/x.safetensors", "cannot be written"),
        ("inside.safetensors", "models folder"),
    ]:
        with pytest.raises(RequestError, match=says) as found:
            merge(models, tmp_path / "out", a, b, target=str(wrong))
        assert found.value.field == "target"
    merge(models, tmp_path / "out", a, b, target=str(target), overwrite=True, alpha=0.9)
    assert sha256(target) != first


def test_a_result_in_the_run_folder_replaces_no_source(models, tmp_path):
    a, b = pair(tmp_path)
    with pytest.raises(RequestError, match="one of the sources"):
        merge(models, tmp_path, a, b, title="a")


def test_a_source_that_changes_meanwhile_makes_no_result(models, tmp_path):
    a, b = pair(tmp_path)

    def change(step):
        if step.note.startswith("Merging"):
            b.touch()

    with pytest.raises(ModelFileError, match="b.safetensors changed while it was read"):
        merge(models, tmp_path / "out", a, b, on_step=change)
    assert names_in(tmp_path / "out") == set()


def test_a_diffusers_folder_becomes_a_folder_that_loads(models, tmp_path, tiny_pipeline):
    from diffusers import StableDiffusionPipeline

    from tests.tiny import save_tiny_pipeline

    other = save_tiny_pipeline(tmp_path / "other", prediction_type="epsilon", seed=1)
    summary, path = merge(models, tmp_path / "out", tiny_pipeline, other, alpha=0.25)
    one, two, found = (
        StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
        for folder in (tiny_pipeline, other, path)
    )
    wanted = torch.lerp(one.unet.conv_in.weight, two.unet.conv_in.weight, 0.25)
    torch.testing.assert_close(found.unet.conv_in.weight, wanted, rtol=1e-6, atol=1e-7)
    assert torch.equal(found.vae.encoder.conv_in.weight, one.vae.encoder.conv_in.weight)
    again = recipe.read(path)
    replayed = runs.keep(tmp_path / "again", merging.run(parse(MergeRequest, again["request"]), models))
    same = tmp_path / "again" / replayed["output"]
    assert all(
        (same / file.relative_to(path)).read_bytes() == file.read_bytes() for file in path.glob("*/*.safetensors")
    )
    assert replayed["data_sha256"] == summary["data_sha256"]
    with pytest.raises(RequestError, match="needs all its parts"):
        merge(models, tmp_path / "none", tiny_pipeline, other, parts={"vae": "none"})


def test_the_built_in_model_with_itself_is_itself_and_draws(models, assets, tmp_path):
    _, path = merge(models, tmp_path / "out", "builtin:emoji", "builtin:emoji", alpha=0.4)
    for file in (assets / "models" / "emoji").glob("*/*.safetensors"):
        found, wanted = load_file(path / file.parent.name / file.name), load_file(file)
        assert all(torch.equal(found[key], value) for key, value in wanted.items())
    shutil.copytree(path, tmp_path / "models" / "merged")
    from studio.models.refs import list_models

    assert "merged" in [choice.name for choice in list_models(assets, tmp_path / "models")]


def test_a_stock_diffusers_loads_what_is_merged_from_single_files(models, tmp_path, tiny_pipeline):
    from diffusers import StableDiffusionPipeline

    from tests import ldm
    from tests.tiny import save_tiny_pipeline

    files = []
    for seed in (0, 1):
        folder = save_tiny_pipeline(tmp_path / str(seed), prediction_type="epsilon", seed=seed)
        pipeline = StableDiffusionPipeline.from_pretrained(folder)
        held = ldm.unet(pipeline.unet) | ldm.vae(pipeline.vae)
        held |= ldm.clip(pipeline.text_encoder, "cond_stage_model.transformer.")
        files.append(save(tmp_path / f"{seed}.safetensors", held))
    _, path = merge(models, tmp_path / "out", *files, alpha=0.5)
    loaded = StableDiffusionPipeline.from_single_file(path, config=str(tiny_pipeline), local_files_only=True)
    key = f"{UNET}input_blocks.0.0.weight"
    assert torch.equal(loaded.unet.conv_in.weight, load_file(path)[key])
    wanted = torch.lerp(*(load_file(file)[key] for file in files), 0.5)
    torch.testing.assert_close(loaded.unet.conv_in.weight, wanted, rtol=1e-6, atol=1e-7)
