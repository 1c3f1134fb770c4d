"""A search draws and scores merges with equal prompts and seeds, ranks them, and keeps what it had when stopped."""

from __future__ import annotations

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from studio import runs
from studio.errors import Cancelled, RequestError
from studio.imaging import read_recipe
from studio.merging import search, strip, trials_preflight
from studio.merging.request import MergeRequest
from studio.merging.trials_request import SearchRequest, StripRequest
from studio.requests import parse
from tests.tiny import save_tiny_pipeline

SMALL = {"steps": 1, "seed": 5, "prompts": ("a fox", "a penguin"), "trials": 4}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two diffusers folders of one architecture."""
    root = tmp_path_factory.mktemp("pair")
    return tuple(str(save_tiny_pipeline(root / name, "epsilon", seed)) for seed, name in enumerate("ab"))


def found(store, folder, on_step=lambda step: None, **settings):
    """The summary of a search, saved as a job does."""
    request = SearchRequest(**SMALL | settings)
    return runs.keep(folder, search.run(request, store, on_step=on_step))


def scores_of_strip(store, **settings):
    """The mean alignment of the merge in a strip with the same settings."""
    column = strip.run(StripRequest(**settings), store).columns[-1]
    return sum(column.scores) / len(column.scores)


def test_a_grid_tries_even_alphas_and_ranks_them_by_mean_alignment(models, pair, tmp_path):
    summary = found(models, tmp_path / "out", merge={"models": pair}, strategy="grid", seeds=2)
    assert {trial["alpha"] for trial in summary["trials"]} == {0.0, 0.3333, 0.6667, 1.0}
    assert sorted(trial["place"] for trial in summary["trials"]) == [1, 2, 3, 4]
    scores = [trial["score"] for trial in summary["trials"]]
    assert scores == sorted(scores, reverse=True)
    shared = {"merge": {"models": pair, "alpha": 0.3333}, "prompts": SMALL["prompts"], "steps": 1}
    wanted = sum(scores_of_strip(models, **shared, seed=seed) for seed in (5, 6)) / 2
    there = next(trial for trial in summary["trials"] if trial["alpha"] == 0.3333)
    assert there["score"] == pytest.approx(wanted, abs=1e-4)
    assert there["blocks"] is None


def test_the_best_is_a_merge_that_is_ready_to_be_made(models, pair, tmp_path):
    summary = found(models, tmp_path / "out", merge={"models": pair, "title": "mine"}, strategy="grid")
    best = summary["best"]
    assert {name: best[name] for name in summary["trials"][0]} == summary["trials"][0]
    assert parse(MergeRequest, best["merge"]) == MergeRequest(models=pair, title="mine", alpha=best["alpha"])
    assert f"number {best['place']} (alpha {best['alpha']:g}) reads best" in summary["notes"][0]


def test_every_trial_has_its_pictures_and_they_draw_themselves_again(models, pair, tmp_path):
    summary = found(models, tmp_path / "out", merge={"models": pair}, strategy="grid")
    trial = summary["trials"][1]
    picture = Image.open(tmp_path / "out" / trial["image"])
    assert picture.size == (32, 2 * 32 + 8)
    recipe = read_recipe(tmp_path / "out" / trial["image"])
    assert recipe["engine"] == "merge-strip"
    request = parse(StripRequest, recipe["request"])
    assert request.merge.alpha == trial["alpha"]
    drawn = strip.run(request, models).columns[-1].pictures
    assert picture.crop((0, 0, 32, 32)).tobytes() == drawn[0].tobytes()
    assert picture.crop((0, 40, 32, 72)).tobytes() == drawn[1].tobytes()


@pytest.mark.parametrize("strategy", ["coordinate", pytest.param("bayes", marks=pytest.mark.slow)])
def test_equal_requests_try_equal_alphas_from_the_merges_own(models, pair, tmp_path, strategy):
    settings = {"merge": {"models": pair, "alpha": 0.3}, "strategy": strategy, "low": 0.1, "high": 0.9}
    first, second = (found(models, tmp_path / name, **settings) for name in "xy")
    assert first["trials"] == second["trials"]
    by_place = {trial["place"]: trial["alpha"] for trial in first["trials"]}
    assert by_place[1] == 0.3
    assert all(0.1 <= alpha <= 0.9 for alpha in by_place.values())
    assert len(set(by_place.values())) == 4
    assert first["evaluations"] == trials_preflight.evaluations(SearchRequest(**SMALL | settings)) == 4 * 2 * 2


def test_block_alphas_are_searched_from_the_curve_of_the_merge(models, pair, tmp_path):
    summary = found(models, tmp_path / "out", merge={"models": pair, "curve": "rising"}, over="blocks")
    first = next(trial for trial in summary["trials"] if trial["place"] == 1)
    names = summary["block_names"]
    assert (names[0], names[-1][:3]) == ("BASE", "OUT")
    assert len(first["blocks"]) == len(names)
    assert (first["blocks"][0], first["blocks"][1], first["blocks"][-1]) == (0.5, 0.0, 0.5)
    best = parse(MergeRequest, summary["best"]["merge"])
    assert (best.curve, best.blocks) == ("flat", tuple(summary["best"]["blocks"]))


def test_a_baked_loras_strength_is_searched(models, pair, tmp_path):
    import torch

    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    lora = {f"{stem}.lora_down.weight": torch.randn(2, 16), f"{stem}.lora_up.weight": torch.randn(16, 2)}
    save_file(lora, tmp_path / "l.safetensors")
    merge = {"task": "bake", "models": pair[:1], "adapters": (str(tmp_path / "l.safetensors"),), "weights": (2.0,)}
    summary = found(models, tmp_path / "out", merge=merge, strategy="grid", trials=3)
    by_alpha = {trial["alpha"]: trial for trial in summary["trials"]}
    assert by_alpha.keys() == {0.0, 0.5, 1.0}
    assert summary["best"]["merge"]["weights"] == [2.0 * summary["best"]["alpha"]]


def stopping_at(place, stop):
    def on_step(step):
        if step.pictures and step.labels[0].startswith(f"a penguin, trial {place} of"):
            raise stop

    return on_step


@pytest.mark.parametrize("stop", [Cancelled, pytest.param(KeyboardInterrupt, marks=pytest.mark.slow)])
def test_what_was_tried_before_a_stop_is_kept(models, pair, tmp_path, stop):
    whole = found(models, tmp_path / "whole", merge={"models": pair}, strategy="grid")
    request = SearchRequest(**SMALL, merge={"models": pair}, strategy="grid")
    with pytest.raises(Cancelled) as stopped:
        search.run(request, models, on_step=stopping_at(3, stop))
    summary = runs.keep(tmp_path / "out", stopped.value.kept)
    wanted = [trial for trial in whole["trials"] if trial["place"] <= 2]
    assert summary["trials"] == wanted
    assert summary["best"]["place"] == wanted[0]["place"]
    assert "Stopped after 2 of 4 trials; these were kept." in summary["notes"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"result.json", "trial-1.png", "trial-2.png"}


def test_a_stop_before_the_first_trial_was_scored_keeps_nothing(models, pair):
    request = SearchRequest(**SMALL, merge={"models": pair}, strategy="grid")
    with pytest.raises(Cancelled) as stopped:
        search.run(request, models, on_step=stopping_at(1, Cancelled))
    assert stopped.value.kept is None


def test_a_stop_while_the_last_trial_is_scored_keeps_them_all(models, pair):
    def on_step(step):
        if step.note == "Ranking":
            raise Cancelled

    request = SearchRequest(**SMALL, merge={"models": pair}, strategy="grid")
    with pytest.raises(Cancelled) as stopped:
        search.run(request, models, on_step=on_step)
    assert len(stopped.value.kept.trials) == 4


def test_an_error_in_a_trial_ends_the_search_as_an_error(models, pair):
    request = SearchRequest(**SMALL, merge={"models": pair}, strategy="grid")
    with pytest.raises(RuntimeError, match="broken"):
        search.run(request, models, on_step=stopping_at(3, RuntimeError("broken")))


def test_pictures_that_are_not_finite_are_the_worst(models, pair, tmp_path):
    broken = save_tiny_pipeline(tmp_path / "broken", "epsilon", 1)
    path = broken / "unet" / "diffusion_pytorch_model.safetensors"
    held = load_file(path)
    held["conv_out.bias"][:] = float("nan")
    save_file(held, path, metadata={"format": "pt"})
    summary = found(models, tmp_path / "out", merge={"models": (pair[0], str(broken))}, strategy="grid", trials=2)
    assert [trial["alpha"] for trial in summary["trials"]] == [0.0, 1.0]
    assert any("not finite" in note for note in summary["notes"])


def test_blocks_that_a_network_does_not_have_are_refused(models, tmp_path):
    from tests.tiny import save_tiny_prx

    models_without = tuple(str(save_tiny_prx(tmp_path / name, seed)) for seed, name in enumerate("ab"))
    with pytest.raises(RequestError, match="has no U-Net whose blocks could have alphas") as refused:
        search.run(SearchRequest(**SMALL, merge={"models": models_without}, over="blocks"), models)
    assert refused.value.field == "over"
