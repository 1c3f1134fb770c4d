"""Targets and weights of the loss, against values worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from studio.errors import RequestError
from studio.sampling import clean_estimate
from studio.training.objective import Objective, losses, offset
from tests.training.asked import asked

CLEAN, NOISE = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)


def objective(kind: str, alpha: float = 0.64, gamma: float | None = None) -> Objective:
    """One noise level: signal 0.8, noise 0.6 where alpha is 0.64."""
    return Objective(kind, torch.tensor([alpha]), 1, gamma=gamma)


@pytest.mark.parametrize(
    ("kind", "target"),
    [("epsilon", -1.0), ("v_prediction", 0.8 * -1.0 - 0.6 * 2.0), ("sample", 2.0)],
)
def test_noisy_codes_and_targets_are_those_of_the_papers(kind, target):
    found = objective(kind).noised(CLEAN, NOISE, torch.tensor([0]))
    assert found.x.item() == pytest.approx(0.8 * 2.0 + 0.6 * -1.0)
    assert found.target.item() == pytest.approx(target)
    assert found.weight.item() == 1.0


def test_flow_goes_straight_from_noise_to_picture():
    found = Objective("flow", None, 1000).noised(CLEAN, NOISE, torch.tensor([0.25]))
    assert found.x.item() == pytest.approx(0.75 * 2.0 + 0.25 * -1.0)
    assert found.target.item() == pytest.approx(-1.0 - 2.0)
    assert found.t.item() == 250.0


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_who_answers_with_the_target_leads_the_sampler_to_the_clean_codes(kind):
    clean, noise = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    if kind == "flow":
        found, sigma = Objective("flow", None, 1000).noised(clean, noise, torch.full((3,), 0.4)), 0.4 / 0.6
    else:
        found, sigma = objective(kind).noised(clean, noise, torch.zeros(3, dtype=torch.long)), 0.6 / 0.8
    torch.testing.assert_close(clean_estimate(found.target, found.x, sigma, kind), clean, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "gamma", "weight"),
    [
        ("epsilon", 5.0, 1.0),  # SNR 0.64 / 0.36 = 1.78 lies below gamma
        ("epsilon", 1.0, 0.36 / 0.64),
        ("v_prediction", 1.0, 1.0 / (0.64 / 0.36 + 1)),
        ("v_prediction", 5.0, 0.64),  # SNR / (SNR + 1) = alpha
        ("sample", 1.0, 1.0),
    ],
)
def test_min_snr_weighting(kind, gamma, weight):
    assert objective(kind, gamma=gamma).noised(CLEAN, NOISE, torch.tensor([0])).weight.item() == pytest.approx(weight)


def test_a_level_without_any_signal_has_a_finite_weight():
    for kind in ("epsilon", "v_prediction"):
        assert math.isfinite(objective(kind, alpha=0.0, gamma=5.0).noised(CLEAN, NOISE, torch.tensor([0])).weight)


def test_flows_levels_are_logit_normal_and_shifted_towards_noise():
    u = (torch.arange(1000) + 0.5) / 1000
    plain, shifted = Objective("flow", None, 1000).at(u), Objective("flow", None, 1000, shift=3.0).at(u)
    assert plain[499:501].mean().item() == pytest.approx(0.5, abs=1e-4)
    assert plain[841].item() == pytest.approx(1 / (1 + math.exp(-1)), abs=2e-3)  # one deviation above the middle
    assert shifted[499:501].mean().item() == pytest.approx(3 * 0.5 / (1 + 2 * 0.5), abs=1e-4)
    assert plain.min() > 0
    assert plain.max() < 1


def test_time_steps_are_even_and_never_one_too_many():
    levels = Objective("epsilon", torch.linspace(1, 0, 1000), 1000).at(torch.tensor([0.0, 0.4999, 0.5, 1.0]))
    assert levels.tolist() == [0, 499, 500, 999]


def test_the_loss_of_a_picture_is_its_mean_squared_error_times_its_weight():
    noised = objective("sample").noised(torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 2), torch.zeros(2).long())
    found = losses(torch.tensor([[[[1.0, 3.0]]], [[[0.0, 2.0]]]]), noised)
    assert found.tolist() == [5.0, 2.0]


def test_the_offset_is_one_number_for_each_channel():
    noise = torch.zeros(2, 3, 4, 4)
    assert offset(noise, 0.0, torch.Generator()) is noise
    found = offset(noise, 0.1, torch.Generator().manual_seed(0))
    assert found.flatten(2).std(2).max() == 0
    assert found[0, 0, 0, 0] != found[0, 1, 0, 0]


def test_a_model_that_flows_refuses_min_snr():
    network = SimpleNamespace(scheduler_config={"shift": 3.0}, prediction="flow", name="tiny")
    assert Objective.of(network, asked("x")).shift == 3.0
    with pytest.raises(RequestError, match="min_snr_gamma: tiny flows") as refused:
        Objective.of(network, asked("x", min_snr_gamma=5.0))
    assert refused.value.field == "min_snr_gamma"
