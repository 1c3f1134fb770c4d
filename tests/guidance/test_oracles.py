"""AutoLoRA's own identities, on real networks of every family that wear two LoRAs at once."""

from __future__ import annotations

import pytest
import torch

from studio.devices import seeded_noise
from studio.guidance.settings import SIGMA_MOST, Settings
from studio.guidance.terms import FACTORIES, Cast
from studio.sampling import build_scheduler, combine, denoise

PROMPTS = ("a blue penguin", "a red fox")  # the negative one first
BOTH = (("ink", 1.0), ("wash", -0.5))


def cast(stage, adapters=BOTH, **settings) -> Cast:
    return Cast(PROMPTS[1], PROMPTS[0], adapters, Settings(**settings), stage.network.prediction)


def answered(stage, name, adapters=BOTH, **settings):
    """A guider's first prediction, and the rows that were evaluated."""
    with torch.inference_mode():
        return combine(FACTORIES[name](cast(stage, adapters, **settings))(0, 2.0), stage.x, stage.predict(), 2.0)


def four(stage, worn=tuple(sorted(BOTH))):
    """b_u, b_c, l_u, l_c by switching the adapters off and on."""
    return [stage.toggled(prompt, adapters) for adapters in ((), worn) for prompt in PROMPTS]


def close(found, expected, of=None):
    """To 1e-5 of the largest number that went into the sum."""
    largest = max(float(each.abs().max()) for each in (of or [expected]))
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, largest), rtol=0)


def test_batched_rows_equal_adapters_that_are_switched_on_and_off(stage):
    b_u, b_c, l_u, l_c = answers = four(stage)
    assert float((l_c - b_c).abs().max()) > 1e-3  # the LoRAs do something
    found, rows = answered(stage, "autolora", w1=3, w2=5, gamma=1.5)
    assert rows == 4
    expected = -0.5 * (b_u + 3 * (b_c - b_u)) + 1.5 * (l_u + 5 * (l_c - l_u))
    close(found, expected, [7.5 * each for each in answers])


def test_gamma_1_is_lora_with_cfg_at_w2_and_gamma_0_the_base_model_with_cfg_at_w1(stage):
    b_u, b_c, l_u, l_c = four(stage)
    adapted, rows = answered(stage, "autolora", w1=3, w2=5, gamma=1)
    plain, plain_rows = answered(stage, "cfg", w1=3, w2=5)
    assert torch.equal(adapted, plain)
    assert (rows, plain_rows) == (2, 2)
    close(adapted, l_u + 5 * (l_c - l_u), [5 * l_c, 4 * l_u])
    base, rows = answered(stage, "autolora", w1=3, w2=5, gamma=0)
    assert rows == 2
    close(base, b_u + 3 * (b_c - b_u), [3 * b_c, 2 * b_u])


def test_for_equal_scales_autolora_is_cfg_on_extrapolated_predictions(stage):
    b_u, b_c, l_u, l_c = answers = four(stage)
    u, c = b_u + 1.75 * (l_u - b_u), b_c + 1.75 * (l_c - b_c)
    close(answered(stage, "autolora", w1=4, w2=4, gamma=1.75)[0], u + 4 * (c - u), [7 * each.abs() for each in answers])


def test_without_cfg_autolora_extrapolates_the_prompts_answer_alone(stage):
    _, b_c, _, l_c = four(stage)
    found, rows = answered(stage, "autolora_plain", gamma=2)
    assert rows == 2
    close(found, 2 * l_c - b_c, [2 * l_c, b_c])


def test_a_lora_that_changes_nothing_makes_gamma_irrelevant(stage):
    worn = (("none", 1.0),)
    expected, _ = answered(stage, "cfg", worn, w2=5)
    for gamma in (-1.0, 0.5, 3.0):
        for name in ("autolora", "autolora_refresh", "autolora_skip", "autolora_interval", "lora_scaled"):
            close(answered(stage, name, worn, w1=5, w2=5, gamma=gamma)[0], expected, [15 * expected])


def test_halving_the_lora_quarters_the_error_of_the_lora_times_gamma(stage):
    def error(scale: float) -> float:
        asked = {"w1": 2.0, "w2": 2.0, "gamma": 1.5, "lora_scale": scale}
        exact, _ = answered(stage, "autolora", **asked)
        first_order, rows = answered(stage, "lora_scaled", **asked)
        assert rows == 2
        return float((exact - first_order).norm())

    assert error(0.0125) / error(0.00625) == pytest.approx(4.0, rel=0.15)  # small, that nothing of third order shows


def drawn(stage, name, steps=4, **settings):
    """The latents of a whole run, and its evaluations."""
    network, seen = stage.network, []
    scheduler = build_scheduler("euler", network.scheduler_config, steps, network.device)
    guider = FACTORIES[name](cast(stage, steps=steps, **settings))
    found = denoise(network, scheduler, guider, seeded_noise(tuple(stage.x.shape), 3, network.device), seen.append)
    return found, seen[-1].evaluations


def test_the_tricks_are_exact_where_they_leave_nothing_out_and_cost_less_where_they_do(stage):
    exact, rows = drawn(stage, "autolora", w1=2, w2=3)
    assert rows == 4 * 4
    full, rows = drawn(stage, "autolora_interval", w1=2, w2=3, low=0, high=SIGMA_MOST)
    assert (torch.equal(full, exact), rows) == (True, 16)
    plain, rows = drawn(stage, "cfg", w1=2, w2=3)
    empty, empty_rows = drawn(stage, "autolora_interval", w1=2, w2=3, low=1, high=1)
    assert (torch.equal(empty, plain), rows, empty_rows) == (True, 8, 8)
    often, rows = drawn(stage, "autolora_refresh", w1=2, w2=3, every=1)
    close(often, exact, [10 * exact])
    assert rows == 16
    assert drawn(stage, "autolora_refresh", w1=2, w2=3, every=2)[1] == 12
    assert drawn(stage, "autolora_skip", w1=2, w2=3, agreement=-1)[1] == 12
    assert float((exact - plain).abs().max()) > 1e-3
