from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from studio.illusions.reductions import REDUCTIONS
from studio.illusions.request import IllusionRequest, Reduction


def problems(**values) -> str:
    with pytest.raises(ValidationError) as caught:
        IllusionRequest(**values)
    return str(caught.value)


def test_the_default_is_a_two_view_illusion_on_the_builtin_model():
    request = IllusionRequest()
    assert (request.model, len(request.prompts), len(request.views)) == ("builtin:emoji", 2, 2)


def test_three_prompts_for_two_views_are_counted_out():
    assert "3 prompts for 2 views" in problems(prompts=("a", "b", "c"), views=("identity", "rotate_180"))


@pytest.mark.parametrize(
    "values",
    [{"upscale": 3}, {"upscale": 0}, {"upscale_strength": 1}, {"partners": ("",)}, {"partners": ("a",) * 16}],
)
def test_what_a_search_or_a_second_size_cannot_be_names_its_field(values):
    assert next(iter(values)) in problems(**values)


@pytest.mark.parametrize(
    "values",
    [{"steps": 0}, {"steps": 201}, {"candidates": 0}, {"size": 100}, {"seed": -1}, {"guidance_scale": 31}],
)
def test_numbers_out_of_bounds_name_their_field(values):
    assert next(iter(values)) in problems(**values)


def test_an_unknown_key_is_an_error():
    assert "promts" in problems(promts=("a",))


def test_an_empty_prompt_is_an_error_also_when_it_is_only_spaces():
    assert "prompts.1" in problems(prompts=("a fox", "   "), views=("identity", "rotate_180"))


def test_a_request_cannot_be_changed():
    with pytest.raises(ValidationError):
        IllusionRequest().steps = 3


def test_a_request_survives_json():
    request = IllusionRequest(prompts=("a", "b", "c"), views=("identity", "rotate_90", "jigsaw(seed=3)"), seed=9)
    assert IllusionRequest.model_validate_json(request.model_dump_json()) == request


def test_weights_are_one_per_view_and_positive():
    assert IllusionRequest(weights=(1, 2.5)).weights == (1.0, 2.5)
    assert "3 weights for 2 views" in problems(weights=(1, 1, 1))
    assert "weights.1" in problems(weights=(1, 0))
    assert "weights" in problems(weights=(1, float("inf")))


def test_every_reduction_that_can_be_asked_for_is_in_the_table():
    assert get_args(Reduction) == ("auto", *(entry.name for entry in REDUCTIONS))
