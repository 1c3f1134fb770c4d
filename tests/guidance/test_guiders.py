"""Every line of the table of guiders: what it heeds, what it evaluates, and what the two that are no sums compute."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
import torch

from studio.guidance.guiders import GUIDERS
from studio.guidance.request import GuiderName
from studio.guidance.settings import SIGMA_MOST, Settings
from studio.guidance.terms import FACTORIES
from studio.sampling import clean_estimate, combine, from_clean
from tests.guidance.actors import SIGMAS, WORN, cast, noisy, played, sines

# Numbers under which each of them matters, and another value of each.
BASE = {"w1": 3.0, "w2": 5.0, "gamma": 1.5, "lora_scale": 1.0, "low": 1.0, "high": 10.0, "every": 2}
BASE |= {"agreement": -1.0, "rescale": 0.7, "eta": 0.1, "norm": 0.3, "momentum": -0.5}
OTHER = {"w1": 4.0, "w2": 6.0, "gamma": 2.0, "lora_scale": 0.7, "low": 2.0, "high": 5.0, "every": 3}
OTHER |= {"agreement": 1.0, "rescale": 0.2, "eta": 0.9, "norm": 0.1, "momentum": 0.4}


def apart(first, second) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def test_every_number_of_the_settings_is_looked_at():
    assert set(BASE) == set(OTHER) == set(Settings.model_fields) - {"steps"}


def test_the_table_the_factories_and_the_request_name_the_same_guiders():
    assert tuple(GUIDERS) == tuple(FACTORIES) == get_args(GuiderName)
    assert len({entry.title for entry in GUIDERS.values()}) == len(GUIDERS)


@pytest.mark.parametrize("name", GUIDERS)
def test_every_guider_says_what_it_does_and_where_it_is_from(name):
    entry = GUIDERS[name]
    assert entry.name == name
    assert entry.help.endswith(".")
    assert "20" in entry.reference or "first order" in entry.reference
    assert set(entry.heeds) | set(entry.lengthened_by) <= set(Settings.model_fields)


@pytest.mark.parametrize("changed", OTHER)
@pytest.mark.parametrize("name", GUIDERS)
def test_a_guider_heeds_exactly_the_settings_that_change_its_prediction(name, changed):
    before, _ = played(name, **BASE)
    after, _ = played(name, **BASE | {changed: OTHER[changed]})
    heeds = changed in (*GUIDERS[name].heeds, "lora_scale")
    assert (apart(before, after) > 1e-6) == heeds


@pytest.mark.parametrize("name", GUIDERS)
def test_no_step_evaluates_more_rows_than_the_table_says_and_one_evaluates_as_many(name):
    for gamma, w1, w2 in itertools.product((0.0, 1.0, 1.5), (0.0, 1.0, 3.0), (0.0, 1.0, 5.0)):
        asked = {"gamma": gamma, "w1": w1, "w2": w2, "low": 1.0, "high": 10.0, "agreement": -1.0}
        _, rows = played(name, **asked)
        assert max(rows) == GUIDERS[name].rows(Settings(**asked)), asked


@pytest.mark.parametrize("name", GUIDERS)
def test_no_guider_asks_for_a_row_of_no_weight_or_for_one_twice(name):
    rows = []

    def counted(x, asked):
        rows.append(asked)
        return sines(x, asked)

    guider = FACTORIES[name](cast(**BASE))
    for step, sigma in enumerate(SIGMAS):
        combine(guider(step, sigma), noisy(step), counted, sigma)
    assert all(len(set(asked)) == len(asked) for asked in rows)


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({}, 4),
        ({"w1": 1}, 3),
        ({"w2": 1}, 3),
        ({"w1": 1, "w2": 1}, 2),
        ({"gamma": 1}, 2),
        ({"gamma": 0}, 2),
        ({"gamma": 1, "w2": 1}, 1),
        ({"gamma": 0, "w1": 0}, 1),
    ],
)
def test_autolora_evaluates_the_rows_whose_coefficient_is_not_zero(settings, rows):
    assert GUIDERS["autolora"].rows(Settings(**settings)) == rows
    assert set(played("autolora", **settings)[1]) == {rows}


@pytest.mark.parametrize(
    ("settings", "times"), [({}, 2), ({"w1": 1}, 2), ({"gamma": 1}, 1), ({"w1": 1, "w2": 1}, 2), ({"w2": 1}, 3)]
)
def test_equal_budget_spends_autoloras_rows_on_steps(settings, times):
    entry, asked = GUIDERS["cfg_budget"], Settings(**settings)
    assert entry.longer(asked) == times
    assert times * entry.rows(asked) == pytest.approx(GUIDERS["autolora"].rows(asked), abs=1)


def test_the_four_coefficients_of_equation_7_sum_to_one():
    terms = FACTORIES["autolora"](cast(w1=5, w2=5, gamma=1.5))(0, 1.0)
    assert [term.weight for term in terms] == pytest.approx([2.0, -2.5, -6.0, 7.5])
    assert sum(term.weight for term in terms) == pytest.approx(1.0)
    assert [term.adapters for term in terms] == [(), (), WORN, WORN]


def test_the_refreshed_difference_is_exact_when_it_is_looked_at_every_step():
    assert apart(played("autolora")[0], played("autolora_refresh", every=1)[0]) < 1e-5


def test_between_two_looks_the_refreshed_difference_is_the_last_ones():
    found, rows = played("autolora_refresh", every=3, gamma=1.75)
    assert rows == [4, 2, 2, 4, 2, 2]
    adapted = played("cfg")[0]
    base = played("cfg", lora_scale=0)[0]
    expected = adapted[1] + 0.75 * (adapted[0] - base[0])
    torch.testing.assert_close(found[1], expected, atol=1e-5, rtol=0)


def test_the_base_is_asked_until_the_models_agree_twice_in_a_row():
    assert played("autolora_skip", agreement=-1.0)[1] == [4, 4, 2, 2, 2, 2]
    assert played("autolora_skip", agreement=1.0)[1] == [4] * 6
    never = played("autolora_skip", agreement=1.0)[0]
    assert apart(never, played("autolora")[0]) < 1e-5
    assert apart(played("autolora_skip", agreement=-1.0)[0][2:], played("cfg")[0][2:]) < 1e-6


@pytest.mark.parametrize("sigmas", [SIGMAS, (float("inf"), 2.0, 0.1)], ids=["diffusion", "flow"])
def test_an_interval_of_everything_is_autolora_and_one_of_nothing_is_lora_with_cfg(sigmas):
    kind = "flow" if sigmas[0] == float("inf") else "epsilon"
    full = played("autolora_interval", sigmas, kind, low=0.0, high=SIGMA_MOST)
    assert apart(full[0], played("autolora", sigmas, kind)[0]) == 0.0
    for edge in (0.0, 2.0, SIGMA_MOST):
        empty = played("autolora_interval", sigmas, kind, low=edge, high=edge)
        assert apart(empty[0], played("cfg", sigmas, kind)[0]) == 0.0
        assert set(empty[1]) == {2}


def test_an_interval_is_open_below_and_closed_above():
    assert played("autolora_interval", low=1.5, high=6.0)[1] == [2, 4, 4, 2, 2, 2]
    assert played("cfg_interval", low=1.5, high=6.0)[1] == [1, 2, 2, 1, 1, 1]


def answers(step: int):
    """Null and prompt, as the adapted model of the made-up network answers them."""
    x = noisy(step)
    rows = [("identity", prompt, WORN) for prompt in ("", "a fox")]
    return x.numpy(), *(each[None] for each in sines(torch.cat([x, x]), rows).numpy())


def test_rescaled_guidance_is_equation_15_and_16_worked_out_by_hand():
    found = played("cfg_rescaled", w2=7.5, rescale=0.6)[0][0].numpy()
    _, null, prompt = answers(0)
    guided = null + 7.5 * (prompt - null)
    rescaled = guided * (prompt.std(ddof=1) / guided.std(ddof=1))
    np.testing.assert_allclose(found, 0.6 * rescaled + 0.4 * guided, atol=1e-5)


@pytest.mark.parametrize(("kind", "norm"), [("epsilon", 0.2), ("epsilon", 0.0), ("v_prediction", 0.2), ("flow", 0.2)])
def test_projected_guidance_is_algorithm_1_worked_out_by_hand(kind, norm):
    """Two steps, so that the momentum of the first is in the second."""
    w, eta, momentum, running = 6.0, 0.25, -0.5, 0.0
    found, _ = played("apg", SIGMAS[:2], kind, w2=w, eta=eta, norm=norm, momentum=momentum)
    for step, sigma in enumerate(SIGMAS[:2]):
        x, null, prompt = answers(step)
        share, root = sigma / (1 + sigma), np.sqrt(1 / (1 + sigma**2))
        clean = {
            "epsilon": lambda e, x=x, root=root: (x - np.sqrt(1 - root**2) * e) / root,
            "v_prediction": lambda v, x=x, root=root: root * x - np.sqrt(1 - root**2) * v,
            "flow": lambda v, x=x, share=share: x - share * v,
        }[kind]
        running = clean(prompt) - clean(null) + momentum * running
        length = np.sqrt((running**2).mean())
        change = running * min(1.0, norm / length) if norm else running
        onto = clean(prompt)
        along = (change * onto).sum() / (onto**2).sum() * onto
        guided = onto + (w - 1) * (change - along + eta * along)
        np.testing.assert_allclose(clean(found[step].numpy()), guided, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow", "sample"])
def test_a_prediction_is_got_back_from_its_clean_estimate(kind):
    x, prediction = noisy(0), noisy(1)
    back = from_clean(clean_estimate(prediction, x, 2.5, kind), x, 2.5, kind)
    torch.testing.assert_close(back, prediction, atol=1e-5, rtol=0)
