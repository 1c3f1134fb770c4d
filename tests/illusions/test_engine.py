"""The engine end to end on the built-in model, with few steps."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from studio import illusions
from studio.devices import seeded_noise
from studio.errors import Cancelled, ModelError, RequestError, UnknownNameError, ViewError
from studio.illusions.drawing import Drawing
from studio.illusions.request import IllusionRequest
from studio.imaging import read_recipe


def request(**changes) -> IllusionRequest:
    return IllusionRequest(**({"steps": 3, "seed": 5} | changes))


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


@pytest.fixture(scope="module")
def result(models):
    return illusions.run(request(candidates=2), models)


def test_each_view_is_the_rearranged_picture(result):
    for candidate in result.candidates:
        assert np.array_equal(pixels(candidate.views[0]), pixels(candidate.image))
        assert np.array_equal(pixels(candidate.views[1]), np.rot90(pixels(candidate.image), 2))


def test_candidates_take_the_next_seeds_and_come_best_first(result):
    assert sorted(candidate.seed for candidate in result.candidates) == [5, 6]
    scores = [candidate.score for candidate in result.candidates]
    assert scores == sorted(scores, reverse=True)


def test_evaluations_are_views_times_two_times_steps_times_candidates(result):
    assert result.evaluations == 2 * 2 * 3 * 2


def test_a_candidate_alone_is_the_same_picture(result, models):
    last = max(result.candidates, key=lambda candidate: candidate.seed)
    alone = illusions.run(request(seed=last.seed), models).candidates[0]
    assert np.array_equal(pixels(alone.image), pixels(last.image))


def test_every_saved_file_is_there_and_the_summary_names_it(result, tmp_path):
    summary = result.save(tmp_path)
    assert summary["scorer"] == "builtin:clip"
    for candidate in summary["candidates"]:
        names = [candidate["image"], *candidate["views"], candidate["grid"], candidate["webp"], candidate["gif"]]
        assert all((tmp_path / name).stat().st_size > 0 for name in names)
        with Image.open(tmp_path / candidate["webp"]) as moving:
            assert moving.n_frames > 10


def test_the_recipe_in_a_saved_picture_makes_the_same_picture_again(result, models, tmp_path):
    summary = result.save(tmp_path)
    recipe = read_recipe(tmp_path / summary["candidates"][0]["image"])
    again = illusions.run(IllusionRequest(**recipe["request"]), models)
    with Image.open(tmp_path / summary["candidates"][0]["image"]) as saved:
        assert np.array_equal(pixels(again.candidates[0].image), pixels(saved))


def test_previews_show_every_view_of_the_same_small_picture(models):
    seen = []
    illusions.run(request(), models, on_step=lambda step: seen.append(step) if step.pictures else None)
    assert [step.index for step in seen] == [1, 2, 3]
    upright, turned = seen[-1].pictures()
    assert upright.size == (64, 64)
    assert np.array_equal(np.rot90(pixels(upright), 2), pixels(turned))
    assert seen[-1].labels == ("a fox", "a penguin")


def test_a_cancel_stops_within_one_step_and_the_next_run_is_unharmed(models, result):
    steps = []

    def stop(step):
        steps.append(step.index)
        if step.index == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        illusions.run(request(), models, on_step=stop)
    assert max(steps) == 1
    again = illusions.run(request(candidates=2), models)
    assert np.array_equal(pixels(again.candidates[0].image), pixels(result.candidates[0].image))


@pytest.mark.parametrize(
    "views",
    [
        ("identity", "flip_vertical"),
        ("identity", "rotate_90", "rotate_180", "rotate_270"),
        ("low_pass", "high_pass"),
        ("identity", "square_hinge"),
        ("flip_horizontal", "rotate_90+flip_vertical"),
    ],
)
def test_many_kinds_of_views_run(views, models):
    found = illusions.run(request(views=views, prompts=("a fox",) * len(views)), models)
    assert len(found.candidates[0].views) == len(views)


@pytest.mark.parametrize("reduction", ["mean", "alternate"])
def test_alternating_views_cost_one_view_a_step(reduction, models):
    found = illusions.run(request(reduction=reduction, steps=4), models)
    assert found.evaluations == {"mean": 16, "alternate": 8}[reduction]


def test_guidance_of_one_evaluates_no_empty_prompt(models):
    assert illusions.run(request(guidance_scale=1.0), models).evaluations == 2 * 3


def test_a_bigger_picture_keeps_its_views_in_step(models):
    found = illusions.run(request(size=192, views=("identity", "jigsaw")), models).candidates[0]
    assert found.image.size == (192, 192)
    assert sorted(pixels(found.views[1]).flatten()) == sorted(pixels(found.image).flatten())


@pytest.mark.parametrize("view", ["negate", "channel_permutation"])
def test_a_view_that_the_codes_cannot_carry_is_refused_with_the_measured_reason(view, models):
    with pytest.raises(ViewError, match=r"\d\.\d+.*%.*choose space=picture"):
        illusions.run(request(views=("identity", view), space="latent"), models)


def test_an_unknown_view_suggests_the_nearest(models):
    with pytest.raises(UnknownNameError, match="rotate_180"):
        illusions.run(request(views=("identity", "rotate_18")), models)


def test_a_part_without_its_partner_names_the_partner(models):
    with pytest.raises(RequestError, match="high_pass"):
        illusions.run(request(views=("low_pass", "low_pass")), models)


def test_a_scorer_cannot_draw(models):
    with pytest.raises(ModelError, match="scorer"):
        illusions.run(request(model="builtin:clip"), models)


def test_another_model_of_the_same_family_runs_through_the_same_engine(tiny_pipeline, models):
    # Random codes carry no rearrangement, so the tiny model is asked for the one view that needs none.
    found = illusions.run(
        request(model=str(tiny_pipeline), prompts=("a fox",), views=("identity",)), models
    ).candidates[0]
    assert found.image.size == (32, 32)


@pytest.mark.parametrize(
    ("changes", "weights"),
    [
        ({"reduction": "weighted"}, "measured"),
        ({"reduction": "weighted", "weights": (1, 3)}, (0.25, 0.75)),
        ({"reduction": "rectified"}, (0.5, 0.5)),
        ({"reduction": "weighted_rectified"}, "measured"),
    ],
)
def test_weighing_and_rectifying_cost_the_network_nothing(changes, weights, models):
    found = illusions.run(request(**changes), models)
    assert found.evaluations == 2 * 2 * 3
    own = found.candidates[0].weights
    assert sum(own) == pytest.approx(1)
    assert own == pytest.approx(weights) if weights != "measured" else own != (0.5, 0.5)


def test_measured_weights_stay_even_while_previews_tell_nothing(models):
    with models.lease("builtin:emoji") as network, models.lease("builtin:clip") as scorer:
        drawing = Drawing(request(steps=10, reduction="weighted"), network, scorer, lambda step: None)
        clean = seeded_noise((1, network.channels, 16, 16), 1, network.device)
        assert drawing._weigh(clean, 3) == (0.5, 0.5)
        assert drawing._weigh(clean, 4) != (0.5, 0.5)


def test_the_failure_modes_of_every_candidate_are_in_the_summary_and_those_of_the_best_in_the_notes(result, tmp_path):
    summary = result.save(tmp_path)
    for candidate in summary["candidates"]:
        named = [failure["name"] for failure in candidate["failures"]]
        assert named == ["independent_synthesis", "noise_shift", "correlated_noise"]
        assert 0 < candidate["failures"][1]["measured"]["kept"] < 1.5
    best = summary["candidates"][0]["failures"]
    assert summary["notes"][-3:] == [f"{failure['title']}: {failure['words']}" for failure in best]
    assert summary["candidates"][0]["weights"] is None


def test_a_puzzle_of_the_best_candidate_is_saved_when_it_is_asked_for(models, tmp_path):
    summary = illusions.run(request(views=("identity", "jigsaw"), puzzle=True, steps=1), models).save(tmp_path)
    files = summary["candidates"][0]["puzzle"]
    assert sorted(files) == ["a4", "letter", "svg"]
    assert all((tmp_path / name).stat().st_size > 0 for name in files.values())
