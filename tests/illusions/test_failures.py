"""The three failure modes: what is measured, and that the words follow the numbers."""

from __future__ import annotations

import pytest
import torch

from studio.devices import seeded_noise
from studio.illusions.failures import (
    Noise,
    Watch,
    correlated_noise,
    diagnose,
    independent_synthesis,
    neighbour_correlation,
    noise_shift,
)
from studio.sampling import Plan, combine, guidance
from studio.views.view import build

PROMPTS = ("a fox", "a penguin")


def noise(seed: int) -> torch.Tensor:
    return seeded_noise((1, 4, 32, 32), seed, torch.device("cpu"))


def predict(x, rows):
    return torch.cat([noise(len(prompt)) for _, prompt, _ in rows])


def by_view():
    return [guidance(prompt, "", 1.0, 1.0, build("identity", 32)) for prompt in PROMPTS]


def watched(watch: Watch, terms) -> torch.Tensor:
    follow = watch.over(lambda step, sigma: terms)
    return [combine(follow(step, 1.0), noise(50), predict, 1.0)[0] for step in range(3)][-1]


def test_watching_changes_neither_the_numbers_nor_what_the_network_is_asked():
    terms = [term for group in by_view() for term in group]
    plain, evaluated = combine(terms, noise(50), predict, 1.0)
    watch = Watch("epsilon", by_view())
    seen, counted = combine(watch.over(lambda step, sigma: terms)(0, 1.0), noise(50), predict, 1.0)
    assert torch.equal(seen, plain)
    assert counted == evaluated == 2


def test_the_mean_of_independent_predictions_keeps_half_of_their_variance():
    halves = [guidance(prompt, "", 1.0, 0.5, build("identity", 32)) for prompt in PROMPTS]
    watch = Watch("epsilon", by_view())
    watched(watch, [term for group in halves for term in group])
    found = watch.noise()
    assert found.kept == pytest.approx(0.5, abs=0.05)
    assert found.lowest == pytest.approx(found.kept)
    assert found.between_views == pytest.approx(0, abs=0.05)
    assert found.between_neighbours == pytest.approx(0, abs=0.05)
    assert noise_shift(found).found
    assert "reduction=rectified" in noise_shift(found).words
    assert not correlated_noise(found).found


def test_views_that_take_turns_are_measured_by_what_was_predicted_alone():
    watch = Watch("epsilon")
    watched(watch, by_view()[0])
    found = watch.noise()
    assert found.variance == pytest.approx(1, abs=0.05)
    assert found.kept is None
    assert not noise_shift(found).found
    assert set(correlated_noise(found).measured) == {"between_neighbours"}


def test_a_plan_with_a_join_of_its_own_is_watched_too():
    watch = Watch("epsilon", by_view())
    follow = watch.over(lambda step, sigma: Plan(by_view(), lambda sums, at: sums[0]))
    joined, _ = combine(follow(0, 1.0), noise(50), predict, 1.0)
    assert torch.equal(joined, noise(5))


def test_neighbours_of_white_noise_do_not_correlate_and_those_of_blurred_noise_do():
    blurred = torch.nn.functional.avg_pool2d(noise(1), 3, 1)
    assert neighbour_correlation(noise(1)).item() == pytest.approx(0, abs=0.05)
    assert neighbour_correlation(blurred).item() == pytest.approx(2 / 3, abs=0.05)
    assert correlated_noise(Noise(1.0, 0.66)).found


@pytest.mark.parametrize(
    ("similarities", "found", "says"),
    [
        ([[0.40, 0.10], [0.10, 0.40]], False, "Every prompt is seen in its own view"),
        ([[0.40, 0.10], [0.40, 0.10]], True, "“a fox” dominates"),
        ([[0.10, 0.40], [0.10, 0.40]], True, "“a penguin” dominates"),
        ([[0.30, 0.30], [0.30, 0.30]], True, "side by side"),
        ([[0.56, 0.64], [0.66, 0.57]], True, "side by side"),
        ([[0.71, 0.74], [0.62, 0.75]], False, "the weakest is read there with 35% certainty"),
    ],
)
def test_who_dominates_is_read_from_the_similarities(similarities, found, says):
    failure = independent_synthesis(torch.tensor(similarities), 0.05, PROMPTS)
    assert failure.found == found
    assert says in failure.words


def test_dominance_runs_from_nothing_to_one():
    even = independent_synthesis(torch.tensor([[0.9, 0.0], [0.0, 0.9]]), 0.01, PROMPTS).measured
    one = independent_synthesis(torch.tensor([[0.9, 0.0], [0.9, 0.0]]), 0.01, PROMPTS).measured
    assert even["dominance"] == pytest.approx(0, abs=1e-5)
    assert even["own"] == pytest.approx(1, abs=1e-5)
    assert one["dominance"] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("variance", "found", "says"),
    [(1.0, False, "No shift of the predicted noise"), (0.7, True, "grainy"), (2.5, True, "smaller guidance")],
)
def test_a_shift_is_named_by_its_direction(variance, found, says):
    failure = noise_shift(Noise(variance, 0.0, 0.6, 0.15, 0.9))
    assert failure.found == found
    assert says in failure.words


def test_views_whose_predictions_differ_as_guidance_makes_them_are_no_failure():
    answers = diagnose(Noise(1.03, 0.02, 0.58, 0.15, 0.15), torch.eye(2) * 0.3 + 0.4, 0.03, PROMPTS)
    assert not any(answer.found for answer in answers)
    assert "correlate by 0.15" in answers[2].words


def test_a_single_view_has_three_answers_as_well():
    answers = diagnose(Noise(1.0, 0.02), torch.tensor([[0.4]]), 0.05, ("a fox",))
    assert [answer.name for answer in answers] == ["independent_synthesis", "noise_shift", "correlated_noise"]
    assert not any(answer.found for answer in answers)
    assert answers[1].summary()["measured"] == {"variance": 1.0}
