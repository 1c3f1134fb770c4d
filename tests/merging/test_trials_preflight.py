"""What is refused of a preview or a search before a file is looked at, and what strangers may ask for."""

from __future__ import annotations

import pytest

from studio.errors import PolicyError, RequestError
from studio.merging import trials_preflight
from studio.merging.request import MergeRequest
from studio.merging.trials_request import SearchRequest, StripRequest, at_alpha
from studio.policy import LOCAL, SHARED, check_search, check_strip
from studio.requests import parse

BAKE = {"task": "bake", "models": ["builtin:emoji"], "adapters": ["x", "y"], "weights": [2, -6]}


@pytest.mark.parametrize(
    ("record", "data", "field", "says"),
    [
        (StripRequest, {"merge": {"task": "join", "adapters": ["x"]}}, "merge.task", "bake it into a checkpoint"),
        (StripRequest, {"merge": {"alpha": 1.5}}, "merge.alpha", "merge.alpha: must lie from 0 to 1 for Weighted"),
        (StripRequest, {"merge": {"alfa": 1}}, "merge.alfa", "no such setting"),
        (StripRequest, {"merge": {"method": "x"}}, "merge.method", "There is no method 'x'"),
        (StripRequest, {"merge": {"models": ["a"]}}, "merge.models", "merge.models: Weighted sum needs 2"),
        (StripRequest, {"alphas": [0.1, 1.5]}, "alphas.1", "alphas.1: must lie from 0 to 1 for Weighted sum, got 1.5"),
        (StripRequest, {"alphas": [0.1] * 10}, "alphas", "at most 9 entries"),
        (StripRequest, {"prompts": []}, "prompts", "at least one"),
        (StripRequest, {"prompts": ["a"] * 5}, "prompts", "at most 4"),
        (
            StripRequest,
            {"alphas": [0.5], "merge": {"method": "average"}},
            "merge.method",
            "Average of all has no alpha",
        ),
        (StripRequest, {"alphas": [0.5], "merge": {"blocks": [0.1]}}, "merge.blocks", "alphas of their own"),
        (StripRequest, {"alphas": [2.0], "merge": BAKE}, "alphas.0", "2 times the LoRAs' weights is up to 12"),
        (SearchRequest, {"low": 0.5, "high": 0.52}, "high", "at least 0.05 above low, which is 0.5; got 0.52"),
        (SearchRequest, {"high": 1.5}, "high", "must lie from 0 to 1"),
        (SearchRequest, {"trials": 1}, "trials", "at least 2"),
        (SearchRequest, {"scorer": ""}, "scorer", "must not be empty"),
        (SearchRequest, {"over": "blocks", "strategy": "grid"}, "strategy", "thousands of trials"),
        (SearchRequest, {"over": "blocks", "merge": BAKE}, "over", "without block alphas"),
        (SearchRequest, {"merge": {"blocks": [0.1]}}, "merge.blocks", "alphas of their own"),
    ],
)
def test_settings_that_cannot_be_used_are_named(record, data, field, says):
    with pytest.raises(RequestError, match=says) as found:
        trials_preflight.check(parse(record, data))
    assert found.value.field == field


def test_block_alphas_of_the_merge_are_where_their_search_begins():
    trials_preflight.check(parse(SearchRequest, {"over": "blocks", "merge": {"blocks": [0.1, 0.2]}}))


def test_another_alpha_is_another_strength_of_loras_where_they_are_baked():
    bake = parse(MergeRequest, BAKE)
    assert at_alpha(bake, 0.5).weights == (1.0, -3.0)
    assert at_alpha(bake, None) is bake
    assert at_alpha(MergeRequest(), 0.25) == MergeRequest(alpha=0.25)


def test_the_alphas_that_are_drawn_are_in_order_and_each_once():
    assert StripRequest(alphas=(0.5, 0.1, 0.5)).points == (0.1, 0.5)
    assert StripRequest(merge={"alpha": 0.3}).points == (0.3,)
    assert StripRequest(merge={"method": "average"}).points == (None,)
    assert parse(StripRequest, {"merge": BAKE}).points == (None,)


def test_jobs_are_called_after_their_merge():
    assert trials_preflight.headline(StripRequest(merge={"title": "mine"})) == "Preview of mine"
    assert trials_preflight.headline(SearchRequest(merge={"title": "mine"})) == "Best alpha of mine"


def test_a_search_costs_its_trials_with_all_prompts_and_seeds():
    request = SearchRequest(prompts=("a", "b"), seeds=3, trials=5, steps=7)
    assert trials_preflight.evaluations(request) == 5 * 3 * 7 * 2 * 2


@pytest.mark.parametrize(
    ("record", "check", "data", "field"),
    [
        (StripRequest, check_strip, {"merge": {"models": ["builtin:emoji", "mine.safetensors"]}}, "merge.models.1"),
        (StripRequest, check_strip, {"merge": {"parts": {"vae": "/etc/passwd"}}}, "merge.parts.vae"),
        (StripRequest, check_strip, {"merge": {"rules": [{"keys": "(a+)+$", "alpha": 0.1}]}}, "merge.rules"),
        (StripRequest, check_strip, {"merge": BAKE}, "merge.adapters"),
        (StripRequest, check_strip, {"scorer": "someone/clip"}, "scorer"),
        (StripRequest, check_strip, {"steps": 101}, "steps"),
        (
            StripRequest,
            check_strip,
            {"steps": 100, "alphas": [i / 9 for i in range(9)], "prompts": ["a", "b"]},
            "alphas",
        ),
        (SearchRequest, check_search, {"merge": {"target": "x"}}, "merge.target"),
        (SearchRequest, check_search, {"trials": 13}, "trials"),
        (SearchRequest, check_search, {"trials": 12, "seeds": 4, "steps": 100}, "trials"),
    ],
)
def test_strangers_have_limits_that_the_owner_does_not_have(record, check, data, field):
    request = parse(record, data)
    check(request, LOCAL, [])
    with pytest.raises(PolicyError) as found:
        check(request, SHARED, ["builtin:emoji", "mine.safetensors"])
    assert found.value.field == field


@pytest.mark.parametrize(("record", "check"), [(StripRequest, check_strip), (SearchRequest, check_search)])
def test_the_default_requests_are_allowed_everywhere(record, check):
    trials_preflight.check(record())
    for limits in (LOCAL, SHARED):
        check(record(), limits, ["builtin:emoji", "builtin:ink"], [])


def test_even_at_home_a_search_has_an_end():
    request = SearchRequest(trials=200, seeds=16, steps=200, prompts=("a", "b", "c", "d"))
    with pytest.raises(PolicyError, match="at most 50,000 are allowed here; lower steps or trials"):
        check_search(request, LOCAL, [])
