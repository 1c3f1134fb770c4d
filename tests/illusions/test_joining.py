"""Weights and variance correction, by hand and against what they promise."""

from __future__ import annotations

import pytest
import torch

from studio.devices import seeded_noise
from studio.errors import RequestError
from studio.illusions.joining import (
    WEIGH_EVERY,
    Joint,
    balanced,
    from_noise,
    guider,
    noise_estimate,
    power,
    rectification,
)
from studio.illusions.reductions import ENTRIES, REDUCTIONS, is_measured, resolve
from studio.sampling import Moment, Plan, Term, combine, guidance
from studio.views.view import build

CPU = torch.device("cpu")
KINDS = ("epsilon", "v_prediction", "flow")


def noise(seed: int, batch: int = 1) -> torch.Tensor:
    return seeded_noise((batch, 4, 16, 16), seed, CPU)


def moment(sigma: float = 1.3, batch: int = 1) -> Moment:
    return Moment(noise(9, batch), sigma)


def by_view(scale: float = 3.0):
    views = [build("identity", 16), build("rotate_180", 16)]
    return [guidance(prompt, "", scale, 1.0, view) for prompt, view in zip(("fox", "penguin"), views, strict=True)]


class Drawn:
    """predict(x, rows): noise of its own for every prompt, and a count of what was asked."""

    def __init__(self) -> None:
        self.calls: list[list] = []

    def __call__(self, x, rows):
        self.calls.append(rows)
        return torch.cat([noise(len(prompt)) for _, prompt, _ in rows])


@pytest.mark.parametrize("entry", REDUCTIONS, ids=lambda entry: entry.name)
def test_every_reduction_asks_the_network_once_a_step_for_no_more_than_its_views(entry):
    steps = guider(entry, by_view(), "epsilon", weigh=lambda clean, step: (0.5, 0.5))
    predict = Drawn()
    for step in range(2 * WEIGH_EVERY):
        joined, evaluated = combine(steps(step, 1.0), noise(9), predict, 1.0)
        assert len(predict.calls) == step + 1
        assert evaluated == (2 if entry.name == "alternate" else 4)
        assert joined.shape == (1, 4, 16, 16)


@pytest.mark.parametrize("entry", REDUCTIONS, ids=lambda entry: entry.name)
def test_every_reduction_names_its_equation_and_where_it_is_from(entry):
    assert entry.equation.startswith("eps = ")
    assert entry.reference.startswith("https://")
    assert resolve(entry.name, entry.kind).name == entry.name


def test_equal_weights_are_the_mean():
    mean, _ = combine(guider(ENTRIES["mean"], by_view(), "epsilon")(0, 1.0), noise(9), Drawn())
    weighted, _ = combine(guider(ENTRIES["weighted"], by_view(), "epsilon", [2, 2])(0, 1.0), noise(9), Drawn())
    torch.testing.assert_close(weighted, mean)


def test_given_weights_count_by_their_shares():
    plan = guider(ENTRIES["weighted"], by_view(1.0), "epsilon", [3, 1])(0, 1.0)
    joined, _ = combine(plan, noise(9), Drawn())
    torch.testing.assert_close(joined, 0.75 * noise(3) + 0.25 * noise(7).rot90(2, (2, 3)))


def test_rectification_is_the_formula_of_measured_covariances():
    a, b = noise(1) * 0.9, noise(2) * 0.7 + noise(1) * 0.2
    var_a, var_b, cov = a.square().mean(), b.square().mean(), (a * b).mean()
    expected = ((0.7 * var_a + 0.3 * var_b) / (0.49 * var_a + 0.09 * var_b + 2 * 0.21 * cov)).sqrt()
    torch.testing.assert_close(rectification([a, b], (0.7, 0.3)).squeeze(), expected)


@pytest.mark.parametrize(("strength", "restored"), [(0.5, 2**0.5), (1.2, 1 / 0.72**0.5), (2.0, 1.0)])
def test_what_is_as_strong_as_white_noise_is_not_made_stronger(strength, restored):
    pair = [strength * noise(seed) / power(noise(seed)).sqrt() for seed in (1, 2)]
    found = rectification(pair, (0.5, 0.5)).item()
    assert found == pytest.approx(restored, rel=0.03)
    assert found >= 1


def test_for_predictions_of_variance_one_rectification_is_that_of_anagram_mtl():
    a, b = (each / power(each).sqrt() for each in (noise(1), noise(1) + noise(2)))
    rho = (a * b).mean()
    expected = 1 / (0.7**2 + 0.3**2 + 2 * 0.7 * 0.3 * rho).sqrt()
    torch.testing.assert_close(rectification([a, b], (0.7, 0.3)).squeeze(), expected)


def test_independent_predictions_get_back_the_variance_that_their_mean_loses():
    sums = [noise(1), noise(2)]
    joint = Joint(by_view(), "epsilon", [1, 1], rectified=True)
    joined = joint(0, 1.0).join(sums, moment())
    assert power(sum(sums) / 2).item() == pytest.approx(0.5, abs=0.05)
    torch.testing.assert_close(power(joined), ((power(sums[0]) + power(sums[1])) / 2).clamp_max(1))


@pytest.mark.parametrize("kind", KINDS)
def test_variance_is_restored_in_the_noise_whatever_the_network_predicts(kind):
    at = moment()
    noises = [noise(1), noise(2)]
    sums = [from_noise(each, at, kind) for each in noises]
    joined = Joint(by_view(), kind, [1, 1], rectified=True)(0, 1.0).join(sums, at)
    wanted = (sum(power(each) for each in noises) / 2).clamp_max(1)
    torch.testing.assert_close(power(noise_estimate(joined, at, kind)), wanted)


def test_pictures_of_a_batch_are_rectified_each_by_itself():
    pair = [noise(1, 2), noise(2, 2)]
    alone = rectification([each[1:] for each in pair], (0.5, 0.5))
    torch.testing.assert_close(rectification(pair, (0.5, 0.5))[1:], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_estimates_and_predictions_are_inverse(kind):
    at = moment()
    torch.testing.assert_close(from_noise(noise_estimate(noise(1), at, kind), at, kind), noise(1), atol=1e-5, rtol=1e-5)


def test_the_weaker_view_gets_more_and_the_more_the_later():
    early, late = balanced([0.3, 0.2], 0.01, 0.0), balanced([0.3, 0.2], 0.01, 1.0)
    assert early[1] > early[0]
    assert late[1] > early[1]
    assert sum(early) == pytest.approx(1)
    assert early[1] == pytest.approx(0.25 + 0.5 / (1 + 2.718281828**-0.8))


def test_a_view_that_cannot_be_helped_leaves_the_other_half_of_its_share():
    assert balanced([0.9, -0.9], 0.01, 1.0) == pytest.approx((0.25, 0.75))
    assert min(balanced([0.9, 0.9, -0.9], 0.01, 1.0)) >= 1 / 6


def test_at_clips_similarities_weights_have_the_slope_of_anagram_mtl():
    own = [0.26, 0.24]
    published = [value**-1.5 for value in own]
    assert balanced(own, 0.01, 0.5)[0] == pytest.approx(published[0] / sum(published), abs=1e-3)


def test_views_that_read_as_nothing_are_weighed_too():
    assert sum(balanced([-0.4, 0.0, 0.9], 0.001, 1.0)) == pytest.approx(1)


def test_measured_weights_start_equal_and_change_every_few_steps_from_the_clean_estimate():
    asked = []

    def weigh(clean, step):
        asked.append((step, tuple(clean.shape)))
        return (0.25, 0.75)

    joint = Joint(by_view(), "epsilon", [1, 1], weigh=weigh)
    for step in range(WEIGH_EVERY):
        assert joint.weights == (0.5, 0.5)
        joint(step, 1.0).join([noise(1), noise(2)], moment())
    assert joint.weights == (0.25, 0.75)
    assert asked == [(WEIGH_EVERY - 1, (1, 4, 16, 16))]


def test_given_weights_are_not_measured():
    def weigh(clean, step):
        raise AssertionError

    joint = guider(ENTRIES["weighted"], by_view(), "epsilon", [1, 3], weigh)
    for step in range(WEIGH_EVERY):
        joint(step, 1.0).join([noise(1), noise(2)], moment())
    assert joint.weights == (0.25, 0.75)
    assert not is_measured("weighted", (1, 3))
    assert is_measured("weighted", None)
    assert not is_measured("auto", None)


def test_weights_alone_choose_the_weighted_reduction():
    assert resolve("auto", "orthogonal", (1, 2)).name == "weighted"


@pytest.mark.parametrize(
    ("reduction", "kind"), [("mean", "orthogonal"), ("alternate", "orthogonal"), ("auto", "component")]
)
def test_a_reduction_without_weights_says_which_ones_take_them(reduction, kind):
    with pytest.raises(RequestError, match="choose weighted or rectified") as refused:
        resolve(reduction, kind, (1, 2))
    assert refused.value.field == "weights"


@pytest.mark.parametrize("reduction", ["weighted", "rectified", "weighted_rectified"])
def test_parts_of_a_picture_are_not_weighed(reduction):
    with pytest.raises(RequestError, match="choose sum or auto"):
        resolve(reduction, "component")


def test_a_plan_sums_its_groups_and_shares_their_rows():
    prompt, nothing = Term(1.0, "fox"), Term(-1.0, "")
    predict = Drawn()
    plan = Plan([[prompt, nothing], [prompt]], lambda sums, at: 2 * sums[0] + sums[1] + at.sigma)
    joined, evaluated = combine(plan, noise(9), predict, 0.5)
    assert evaluated == 2
    torch.testing.assert_close(joined, 3 * noise(3) - 2 * noise(0) + 0.5)
