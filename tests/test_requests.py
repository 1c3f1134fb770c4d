from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from studio.errors import RequestError
from studio.illusions.request import IllusionRequest
from studio.requests import defaults, parse, with_settings


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rank: int = Field(4, gt=0, lt=9)


class Sample(BaseModel):
    """One field of each kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    needed: str
    share: float = Field(0.5, ge=0, le=1)
    flag: bool = False
    colour: Literal["red", "green"] = "red"
    pair: tuple[str, ...] = Field((), min_length=2, max_length=3)
    code: str = Field("abc", min_length=3)
    inner: Inner = Inner()


def refusal(data, request_class=IllusionRequest):
    with pytest.raises(RequestError) as refused:
        parse(request_class, data)
    return refused.value


def test_good_data_becomes_a_request():
    assert parse(IllusionRequest, {"steps": 4, "seed": "7"}) == IllusionRequest(steps=4, seed=7)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"steps": 0}, "steps: must be at least 1, got 0."),
        ({"steps": 1000}, "steps: must be at most 200, got 1000."),
        ({"steps": "many"}, "steps: must be a whole number, got 'many'."),
        ({"steps": 1.5}, "steps: must be a whole number, got 1.5."),
        ({"steps": None}, "steps: must be a whole number, got nothing."),
        ({"seed": -1}, "seed: must be at least 0, got -1."),
        ({"seed": 2**32}, "seed: must be at most 4,294,967,295, got 4294967296."),
        ({"guidance_scale": [7]}, "guidance_scale: must be a number, got a list of 1."),
        ({"guidance_scale": "nan"}, "guidance_scale: must be a finite number, got 'nan'."),
        ({"size": 100}, "size: must be a multiple of 8, got 100."),
        ({"scheduler": "ddmi"}, "scheduler: must be one of 'ddim', 'euler', 'dpm++2m', got 'ddmi'."),
        ({"model": 3}, "model: must be text, got 3."),
        ({"prompts": "a fox"}, "prompts: must be a list, got 'a fox'."),
        ({"prompts": ["", "b"]}, "prompts.0: must not be empty."),
        ({"promts": ["a", "b"]}, "promts: there is no such setting, did you mean 'prompts'?"),
        (
            {"prompts": ["a" * 10_000, "b"]},
            "prompts.0: must have at most 400 characters, got 10,000; shorten it.",
        ),
        (
            {"prompts": ["a", "b", "c"]},
            "prompts: 3 prompts for 2 views; give each view exactly one prompt.",
        ),
        (
            {"views": ["identity"] * 5, "prompts": ["a"] * 4},
            "views: must have at most 4 entries, got 5; leave the others out.",
        ),
    ],
)
def test_a_problem_is_one_plain_sentence_with_its_field(data, sentence):
    error = refusal(data)
    assert str(error) == sentence
    assert error.field == sentence.partition(":")[0]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "needed: is needed; give it a value."),
        ({"share": 1.25}, "share: must be at most 1, got 1.25."),
        ({"share": "inf"}, "share: must be at most 1, got 'inf'."),
        ({"flag": "maybe"}, "flag: must be true or false, got 'maybe'."),
        ({"pair": ["a"]}, "pair: must have at least 2 entries, got 1."),
        ({"code": "a"}, "code: must have at least 3 characters, got 1."),
        ({"inner": 3}, "inner: must be an object, got 3."),
        ({"inner": {"rank": 0}}, "inner.rank: must be more than 0, got 0."),
        ({"inner": {"rank": 9}}, "inner.rank: must be less than 9, got 9."),
        ({"inner": {"rnak": 1}}, "inner.rnak: there is no such setting; leave it out."),
    ],
)
def test_every_kind_of_bound_has_words(data, sentence):
    assert str(refusal({"needed": "x", **data} if data else {}, Sample)) == sentence


def test_all_problems_are_reported_at_once_and_the_first_names_the_field():
    error = refusal({"steps": 0, "seed": -1, "bogus": 1})
    assert error.field == "steps"
    assert [part in str(error) for part in ("steps: must", "seed: must", "bogus: there is no such")] == [True] * 3


def test_a_flood_of_problems_is_cut_short():
    message = str(refusal({f"x{i}": i for i in range(1000)}))
    assert message.endswith("And 992 more problems like these.")
    assert len(message) < 3000


def test_long_values_and_names_are_shortened():
    assert len(str(refusal({"steps": "9" * 5000 + "x"}))) < 200
    assert len(str(refusal({"y" * 5000: 1}))) < 500


@pytest.mark.parametrize("data", [None, [], "x", 3, {1: 2}])
def test_what_is_no_object_is_refused(data):
    assert "must be an object of named settings" in str(refusal(data))


@pytest.mark.parametrize("data", [{"steps": 0}, {"prompts": 3}, {"zz": 1}, {"size": "x"}, {"views": [1, 2]}])
def test_no_jargon_and_no_links(data):
    message = str(refusal(data)).lower()
    assert not any(word in message for word in ("pydantic", "http", "input", "valid ", "tuple", "string", "[type"))


def test_defaults_are_plain_data_that_parse_again():
    assert defaults(IllusionRequest)["views"] == ["identity", "rotate_180"]
    assert parse(IllusionRequest, defaults(IllusionRequest)) == IllusionRequest()
    assert "needed" not in defaults(Sample)


def test_settings_are_put_into_a_copy():
    data = {"seed": 1, "views": ["identity", "flip_vertical"]}
    changed = with_settings(data, ["seed=7", "views.1=rotate_180", "size=null", "guidance_scale=2.5"])
    assert changed == {"seed": 7, "views": ["identity", "rotate_180"], "size": None, "guidance_scale": 2.5}
    assert data == {"seed": 1, "views": ["identity", "flip_vertical"]}


def test_settings_may_hold_lists_and_equals_signs():
    assert with_settings({}, ['prompts=["a", "b=c"]']) == {"prompts": ["a", "b=c"]}
    assert with_settings({"views": ["a"]}, ["views.0=jigsaw(seed=3)"]) == {"views": ["jigsaw(seed=3)"]}


def test_a_text_stays_a_text_even_if_it_reads_like_a_number():
    assert with_settings({"prompts": ["a"]}, ["prompts.0=7"]) == {"prompts": ["7"]}


def test_a_list_grows_by_one_entry():
    assert with_settings({"views": ["a"]}, ["views.1=b", "views.2=3"]) == {"views": ["a", "b", "3"]}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("steps", "name=value"),
        ("=3", "name=value"),
        ("views.5=a", "the list has the entries 0 to 0"),
        ("views.first=a", "the list has the entries 0 to 0"),
        ("seed.0=a", "it has no parts"),
        ("viws.0=a", "choose one of views, seed"),
    ],
)
def test_a_setting_that_fits_nowhere_is_refused_with_the_fix(setting, says):
    with pytest.raises(RequestError, match=says.replace("(", r"\(")):
        with_settings({"views": ["a"], "seed": 1}, [setting])
