"""Search over seeds and partners, on the built-in model with few steps."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from studio import illusions
from studio.errors import ModelError
from studio.illusions import search
from studio.illusions.request import IllusionRequest
from studio.imaging import read_recipe

FOX, OWL = ("a fox", "a penguin"), ("a fox", "an owl")
CLEAN = torch.zeros(1, 4, 2, 2)


def request(**changes) -> IllusionRequest:
    return IllusionRequest(**({"steps": 3, "seed": 5} | changes))


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture)


@pytest.fixture(scope="module")
def stopping(models):
    """Two seeds of two partners, of which everything is stopped that can be; and the steps that were reported."""
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "MARGIN", -1e6)
        asked = request(partners=("an owl",), candidates=2, stop_early=True)
        return illusions.run(asked, models, on_step=steps.append), steps


def test_only_a_score_far_below_the_best_of_the_same_prompts_is_hopeless():
    race = search.Race(temperature=0.04)
    race.judge(FOX, 0.30, CLEAN)
    race.judge(FOX, 0.30 - 4.0 * 0.04 + 1e-6, CLEAN)
    race.judge(OWL, 0.0, CLEAN)
    with pytest.raises(search.Stopped) as stopped:
        race.judge(FOX, 0.13, CLEAN)
    assert (stopped.value.score, stopped.value.best) == (0.13, 0.30)


def test_the_best_so_far_is_never_stopped_and_raises_the_bar():
    race = search.Race(temperature=0.04)
    for score in (0.0, 0.2, 0.4):
        race.judge(FOX, score, CLEAN)
    with pytest.raises(search.Stopped):
        race.judge(FOX, 0.2, CLEAN)


@pytest.mark.parametrize(("steps", "judged"), [(1, 1), (3, 2), (15, 11), (30, 22), (200, 150)])
def test_candidates_are_held_against_each_other_three_quarters_of_the_way(steps, judged):
    assert search.judged_step(steps) == judged


def test_the_first_of_every_prompt_is_finished_and_the_rest_is_stopped_here(stopping):
    result, _ = stopping
    assert {(found.seed, found.prompts[-1]) for found in result.candidates} == {(5, "a penguin"), (5, "an owl")}
    assert {(left.request.seed, left.request.prompts[-1]) for left in result.stopped} == {
        (6, "a penguin"),
        (6, "an owl"),
    }
    assert [left.score for left in result.stopped] == sorted((left.score for left in result.stopped), reverse=True)


def test_what_was_stopped_cost_the_steps_until_then(stopping):
    result, _ = stopping
    assert result.evaluations == 4 * (2 * 3 + 2 * 2)


def test_progress_ends_at_its_total_which_shrinks_with_every_stop(stopping):
    _, steps = stopping
    assert steps[0].total == 12
    assert (steps[-1].index, steps[-1].total) == (10, 10)
    counted = [step.index for step in steps if step.clean is not None]
    assert counted == sorted(counted)
    assert {step.note for step in steps if step.clean is not None} == {f"Candidate {i} of 4" for i in range(1, 5)}


def test_a_finished_candidate_is_the_picture_of_its_seed_and_prompts_alone(stopping, models):
    for found in stopping[0].candidates:
        alone = illusions.run(request(prompts=found.prompts), models).candidates[0]
        assert np.array_equal(pixels(alone.image), pixels(found.image))


def test_stopped_candidates_are_listed_with_a_picture_and_the_reason(stopping, tmp_path):
    summary = stopping[0].save(tmp_path)
    assert json.loads(json.dumps(summary)) == summary
    assert len(summary["stopped"]) == 2
    for left in summary["stopped"]:
        assert "After 2 of 3 steps its preview scored" in left["why"]
        recipe = read_recipe(tmp_path / left["grid"])["request"]
        assert (recipe["seed"], recipe["prompts"][-1]) == (6, left["prompts"][-1])
        assert (recipe["stop_early"], recipe["partners"], recipe["candidates"]) == (False, [], 1)
    assert "2 of 4 candidates were stopped early." in summary["notes"]


def test_the_summary_names_the_prompt_that_went_best(stopping, tmp_path):
    summary = stopping[0].save(tmp_path)
    best = summary["candidates"][0]
    assert summary["prompts"] == best["prompts"] == list(stopping[0].candidates[0].prompts)
    assert f"Of 2 prompts for the last view, “{best['prompts'][-1]}” went best with the others." in summary["notes"]
    assert read_recipe(tmp_path / best["image"])["request"]["prompts"] == best["prompts"]


def test_a_model_that_cannot_score_is_refused_before_the_work(models):
    steps = []
    with pytest.raises(ModelError, match="no CLIP model") as refused:
        illusions.run(request(scorer="builtin:emoji"), models, on_step=steps.append)
    assert refused.value.field == "scorer"
    assert steps == []


def test_a_scorer_in_a_folder_reads_as_the_same_one_built_in(models, assets):
    named = illusions.run(request(steps=1, scorer=str(assets / "models" / "clip")), models)
    plain = illusions.run(request(steps=1), models)
    assert named.candidates[0].similarities == plain.candidates[0].similarities
    assert named.scorer == str(assets / "models" / "clip")
