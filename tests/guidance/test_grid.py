"""Columns: every guider at every point of a sweep that makes a difference to it."""

from __future__ import annotations

import itertools

import pytest

from studio.errors import RequestError
from studio.guidance.grid import columns
from studio.guidance.guiders import GUIDERS
from studio.guidance.preflight import MOST_CELLS, cells, check, evaluations, headline
from studio.guidance.request import GuidanceRequest
from studio.guidance.settings import Settings


def request(**changes) -> GuidanceRequest:
    return GuidanceRequest(**changes)


def titles(**changes) -> list[str]:
    return [column.title for column in columns(request(**changes))]


def test_without_a_sweep_there_is_a_column_for_every_guider():
    assert titles() == ["LoRA + CFG", "AutoLoRA", "LoRA times gamma"]


def test_a_guider_has_columns_only_for_what_it_heeds():
    asked = {"guiders": ("cfg", "autolora"), "sweep": ({"setting": "gamma", "values": (1.5, 1.75, 2)},)}
    assert titles(**asked) == ["LoRA + CFG", "AutoLoRA · γ 1.5", "AutoLoRA · γ 1.75", "AutoLoRA · γ 2"]


def test_two_axes_are_every_pair_and_w_is_both_scales():
    sweep = ({"setting": "lora_scale", "values": (0.4, 1)}, {"setting": "w", "values": (3.5, 5)})
    found = columns(request(guiders=("none", "autolora"), sweep=sweep))
    first = ["LoRA alone · LoRA 0.4", "LoRA alone · LoRA 1", "AutoLoRA · LoRA 0.4, w 3.5"]
    assert [column.title for column in found[:3]] == first
    assert len(found) == 2 + 4
    assert {(c.settings.lora_scale, c.settings.w1, c.settings.w2) for c in found[2:]} == {
        (scale, w, w) for scale, w in itertools.product((0.4, 1.0), (3.5, 5.0))
    }


def test_equal_budget_stands_there_once_for_each_number_of_steps():
    asked = {"guiders": ("cfg_budget",), "settings": {"steps": 10}}
    alike = columns(request(**asked, sweep=({"setting": "gamma", "values": (1.5, 2)},)))
    assert [(column.title, column.steps) for column in alike] == [("LoRA + CFG, as dear as AutoLoRA", 20)]
    unlike = columns(request(**asked, sweep=({"setting": "gamma", "values": (1, 1.5, 2)},)))
    assert [(column.point, column.steps) for column in unlike] == [((("gamma", 1.0),), 10), ((("gamma", 1.5),), 20)]


@pytest.mark.parametrize("name", GUIDERS)
def test_no_two_columns_of_a_guider_draw_the_same_and_none_has_the_name_of_another(name):
    sweep = ({"setting": "gamma", "values": (0, 1, 1.5, 1.5)}, {"setting": "w", "values": (1, 5)})
    found = columns(request(guiders=(name,), sweep=sweep))
    assert len({column.title for column in found}) == len(found)
    assert all(a.drawn != b.drawn for a, b in itertools.combinations(found, 2))


def test_cells_and_evaluations_are_worked_out_before_the_run():
    asked = request(
        guiders=("cfg", "autolora", "cfg_budget"),
        prompts=("a fox", "a cat"),
        seeds=3,
        settings={"steps": 10},
        sweep=({"setting": "gamma", "values": (1, 1.5)},),
    )
    # LoRA + CFG 20; AutoLoRA 20 and 40; equal budget 20 and 40: each for two prompts and three seeds.
    assert cells(asked) == 5 * 6
    assert evaluations(asked) == (20 + 20 + 40 + 20 + 40) * 6
    assert headline(asked) == "a fox: LoRA + CFG, AutoLoRA, LoRA + CFG, as dear as AutoLoRA"


def test_the_most_evaluations_are_those_that_equation_7_needs():
    (column,) = columns(request(guiders=("autolora",), settings={"w1": 1, "steps": 7}))
    assert column.most_evaluations == 7 * 3
    assert GUIDERS["autolora"].rows(Settings(w1=1)) == 3


def test_a_grid_of_more_cells_than_a_run_may_have_is_refused_with_its_number():
    sweep = ({"setting": "lora_scale", "values": (0.5, 1)}, {"setting": "gamma", "values": (1.5, 2)})
    asked = request(guiders=("autolora",), sweep=sweep, seeds=1000, prompts=("a", "b", "c"))
    with pytest.raises(RequestError, match="sweep: 12,000 pictures are more than the 10,000 of one run") as refused:
        check(asked)
    assert refused.value.field == "sweep"
    check(request(guiders=("autolora",), sweep=sweep, seeds=MOST_CELLS // 4 // 10, prompts=tuple("abcdefghij")))


@pytest.mark.parametrize(
    ("setting", "values", "says"),
    [
        ("gamma", (1, 7), "sweep: gamma must be less than or equal to 6, got 7"),
        ("w", (31,), "sweep: w1 must be less than or equal to 30, got 31"),
        ("steps", (2.5,), "sweep: steps must be a valid integer, got a number with a fractional part, got 2.5"),
        ("low", (0, 1000), "sweep: one of its intervals is upside down (1000 to 10)"),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_one_sentence_whoever_heeds_it(setting, values, says):
    asked = request(guiders=("none",), settings={"high": 10}, sweep=({"setting": setting, "values": values},))
    with pytest.raises(RequestError) as refused:
        columns(asked)
    assert says in str(refused.value)
    assert refused.value.field == "sweep"
