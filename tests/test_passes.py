"""Time travel: where steps repeat, and that going back keeps the noise what it was."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from studio.devices import derived_seed, seeded_noise
from studio.passes import NOWHERE, Travel
from studio.sampling import (
    FLOW_SCHEDULERS,
    SCHEDULERS,
    Plan,
    Route,
    build_scheduler,
    clean_estimate,
    denoise,
    from_clean,
    gone_back,
    noise_share,
)

CPU = torch.device("cpu")
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "clip_sample": False}


def test_steps_repeat_in_the_middle_of_a_run_only():
    travel = Travel(repeats=3, start=0.2, end=0.8)
    assert [travel.at(index, 10) for index in range(10)] == [1, 1, 3, 3, 3, 3, 3, 3, 1, 1]
    assert travel.passes(10) == 22
    assert NOWHERE.passes(10) == 10


@pytest.mark.parametrize("steps", range(1, 6))
def test_the_last_step_of_a_short_run_is_taken_once(steps):
    assert Travel(repeats=2).at(steps - 1, steps) == 1


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_going_back_keeps_the_clean_picture_and_the_strength_of_the_noise(kind):
    clean, old, fresh = (seeded_noise((1, 4, 128, 128), seed, CPU) for seed in range(3))
    sigma, lower = 1.5, 0.9
    a, b = (1 - noise_share(sigma), noise_share(sigma)) if kind == "flow" else (1 / 3.25**0.5, 1.5 / 3.25**0.5)
    x = gone_back(clean, a * clean + b * old, fresh, (sigma, lower), kind)
    expected = a * clean + b * (0.6 * old + 0.8 * fresh)
    torch.testing.assert_close(x, expected)
    torch.testing.assert_close(clean_estimate(from_clean(clean, x, sigma, kind), x, sigma, kind), clean)
    assert ((x - a * clean) / b).std().item() == pytest.approx(1, abs=0.02)


def test_noise_on_the_way_is_new_noise():
    """Noise that went back in must not be what the run began with: that would add up instead of taking its place."""
    seen, clean = [], torch.zeros(1, 4, 64, 64)

    def guider(step, sigma):
        def join(sums, at):
            seen.append(at.x)
            return from_clean(clean, at.x, at.sigma, "epsilon")

        return Plan([[]], join)

    start = seeded_noise((1, 4, 64, 64), 5, CPU)
    network = SimpleNamespace(prediction="epsilon", noise_scale=1.0)
    travel = Travel(repeats=4, start=0.25, end=0.75, seed=5)
    denoise(network, build_scheduler("ddim", BETAS, 4, CPU), guider, start, route=Route(travel=travel))
    repeated = [x.flatten() for x in seen[1:9]]
    for x, earlier in zip(repeated[1:4], repeated, strict=False):
        assert (x.std() / earlier.std()).item() == pytest.approx(1, abs=0.03)  # 1.1 and more where it adds up
        assert 0 < torch.corrcoef(torch.stack([x, earlier]))[0, 1] < 0.99
    assert torch.corrcoef(torch.stack([repeated[-1], start.flatten()]))[0, 1].abs() < 0.2


def test_derived_seeds_differ_in_the_bits_that_count():
    seeds = {derived_seed(seed, kind, index) for seed in range(3) for kind in (1, 2) for index in range(50)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("kind", ["epsilon", "flow"])
def test_every_scheduler_ends_where_it_would_without_time_travel(scheduler, kind):
    """A network that always means the same picture is taken to it, whatever noise was put in on the way."""
    assert SCHEDULERS.keys() == FLOW_SCHEDULERS.keys()
    clean = seeded_noise((2, 4, 8, 8), 1, CPU)

    def guider(step, sigma):
        return Plan([[]], lambda sums, at: from_clean(clean, at.x, at.sigma, kind))

    network = SimpleNamespace(prediction=kind, noise_scale=1.0)
    built = build_scheduler(scheduler, FLOW if kind == "flow" else BETAS, 8, CPU)
    steps = []
    found = denoise(
        network, built, guider, seeded_noise((2, 4, 8, 8), 0, CPU), steps.append, Route(travel=Travel(repeats=3))
    )
    # DDIM's last step stops at the smallest noise of the training.
    torch.testing.assert_close(found, clean, atol=0.15 if scheduler == "ddim" else 1e-3, rtol=0)
    assert [step.index for step in steps] == list(range(1, 8 + 2 * 4 + 1))
    assert {step.total for step in steps} == {16}
    sigmas = [step.sigma for step in steps]
    assert sigmas == sorted(sigmas, reverse=True)
    assert len(set(sigmas)) == 8
