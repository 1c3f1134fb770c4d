"""What is refused before a file is looked at."""

from __future__ import annotations

import pytest

from studio.errors import PolicyError, RequestError
from studio.merging.catalogue import METHODS
from studio.merging.curves import CURVES
from studio.merging.preflight import check, file_name, headline, options_of
from studio.merging.request import MergeRequest
from studio.policy import LOCAL, SHARED, check_merge
from studio.requests import parse

BUILTINS = ("builtin:emoji", "builtin:ink")


@pytest.mark.parametrize(
    ("data", "field", "says"),
    [
        ({"alpha": 1.5}, "alpha", "alpha: must lie from 0 to 1 for Weighted sum, got 1.5"),
        ({"alpha": 3}, "alpha", "must be at most 2"),
        ({"alpha": "nan"}, "alpha", "finite"),
        ({"method": "weightd_sum"}, "method", "did you mean 'weighted_sum'"),
        ({"method": "add_difference"}, "models", "Add difference needs 3 checkpoints, got 2"),
        ({"models": ["a"]}, "models", "Weighted sum needs 2 checkpoints, got 1"),
        ({"method": "ties", "options": {"densty": 0.5}}, "options.densty", r"no such option \(ties has density\)"),
        ({"method": "ties", "options": {"density": 0}}, "options.density", "must be greater than 0"),
        ({"curve": "rizing"}, "curve", "did you mean 'rising'"),
        ({"curve": "rising", "blocks": [0.1]}, "curve", "leave out one"),
        ({"rules": [{"keys": "(", "alpha": 0.1}]}, "rules.0.keys", "no regular expression"),
        ({"rules": [{"keys": "x", "alpha": -1}]}, "rules.0.alpha", "must lie from 0 to 1"),
        ({"parts": {"unet": "z"}}, "parts.unet", "none of merge, none, a, b or an alpha"),
        ({"parts": {"unte": "a"}}, None, "parts.unte"),
        ({"parts": {"unet": "c"}}, "parts.unet", "none of"),
        ({"adapters": ["x"]}, "adapters", "choose the task bake"),
        ({"weights": [1.0]}, None, "1 weights for 0 LoRAs"),
        ({"task": "join"}, "adapters", "at least one LoRA"),
        ({"task": "bake", "adapters": ["x"]}, "models", "bake needs one checkpoint, got 2"),
        ({"task": "extract"}, "rank", "extract needs a rank"),
        ({"title": "../x"}, "title", None),
        ({"verify": {"0/a": "short"}}, None, "verify"),
    ],
)
def test_settings_that_cannot_be_used_are_named(data, field, says):
    with pytest.raises(RequestError, match=says) as found:
        check(parse(MergeRequest, data))
    if field:
        assert found.value.field == field


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_asked_for_as_it_stands(name):
    request = MergeRequest(method=name, models=("builtin:emoji",) * METHODS[name].models[0])
    check(request)
    assert isinstance(options_of(request), METHODS[name].options)


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_multiplies_alpha_by_at_most_one(name):
    assert all(0.0 <= CURVES[name].at(step / 24) <= 1.0 for step in range(25))


def test_a_result_is_named_after_its_sources_and_safely():
    request = MergeRequest(models=("builtin:emoji", "/tmp/my model.safetensors"), alpha=0.3)
    assert headline(request) == "emoji+my model weighted_sum-0.3"
    assert file_name(request) == "emoji+my-model-weighted_sum-0.3"
    assert file_name(MergeRequest(title="..")) == "merge"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"models": ["builtin:emoji", "mine.safetensors"]}, "models.1"),
        ({"target": "x"}, "target"),
        ({"rules": [{"keys": "(a+)+$", "alpha": 0.1}]}, "rules"),
        ({"parts": {"vae": "/etc/passwd"}}, "parts.vae"),
        ({"parts": {"vae": "secret.safetensors"}}, "parts.vae"),
        ({"task": "join", "adapters": ["/etc/passwd"]}, "adapters"),
    ],
)
def test_strangers_merge_built_in_models_and_name_no_file(data, field):
    request = parse(MergeRequest, data)
    check_merge(request, LOCAL, [])
    with pytest.raises(PolicyError) as found:
        check_merge(request, SHARED, [*BUILTINS, "mine.safetensors"])
    assert found.value.field == field


def test_strangers_may_set_parts_and_alphas():
    request = parse(MergeRequest, {"parts": {"vae": "merge", "unet": "0.25"}, "alpha": 0.1})
    check_merge(request, SHARED, BUILTINS)
