"""Searches on curves whose best point is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from studio.merging import strategies
from studio.merging.strategies import STRATEGIES, Space, expected_improvement, fit_process, matern

PEAK = 0.371


def run(strategy, score, space):
    """All points that a strategy tries, in order, with their scores."""
    search, tried = STRATEGIES[strategy](space), []
    point = next(search)
    while True:
        tried.append((point, score(point)))
        if len(tried) == space.trials:
            return tried
        try:
            point = search.send(tried[-1][1])
        except StopIteration:
            return tried


def bump(point):
    """Like alignment over alpha: a broad hill with one top."""
    return 0.2 + 0.1 * math.exp(-(((point[0] - PEAK) / 0.25) ** 2))


def error(tried):
    best = max(tried, key=lambda each: each[1])[0]
    return abs(best[0] - PEAK)


def test_a_grid_goes_from_end_to_end_in_even_steps():
    assert [point for point, _ in run("grid", bump, Space((0.5,), 5))] == [(0.0,), (0.25,), (0.5,), (0.75,), (1.0,)]


def test_a_bayesian_search_finds_the_top_in_fewer_trials_than_a_grid():
    found = error(run("bayes", bump, Space((0.5,), 9)))
    assert found < 0.0025
    assert all(error(run("grid", bump, Space((0.5,), trials))) > found for trials in range(2, 21))


def test_a_bayesian_search_finds_the_higher_one_of_two_tops():
    def two(point):
        x = point[0]
        return 0.3 * math.exp(-(((x - 0.15) / 0.1) ** 2)) + 0.35 * math.exp(-(((x - 0.8) / 0.08) ** 2))

    best = max(run("bayes", two, Space((0.5,), 16)), key=lambda each: each[1])
    assert abs(best[0][0] - 0.8) < 0.02


def test_noise_in_the_scores_does_not_lead_a_bayesian_search_astray():
    draw = np.random.default_rng(3)
    tried = run("bayes", lambda point: bump(point) + draw.normal(0, 0.003), Space((0.5,), 20))
    assert error(tried) < 0.1


def test_a_coordinate_search_halves_its_step_where_the_score_does_not_grow():
    # Both ends are worse than 1/2. A quarter down is better, from there an eighth up, and that stays the best for long.
    points = [point[0] for point, _ in run("coordinate", bump, Space((0.5,), 9))]
    assert points == [0.5, 1.0, 0.0, 0.75, 0.25, 0.375, 0.4375, 0.3125, 0.40625]


def test_a_coordinate_search_ends_when_its_steps_are_tiny():
    tried = run("coordinate", bump, Space((0.5,), 1000))
    assert len(tried) < 40
    assert error(tried) < 1 / 256


@pytest.mark.parametrize("strategy", ["coordinate", "bayes"])
def test_block_alphas_are_searched_in_all_their_dimensions(strategy):
    target = np.array([0.1, 0.9, 0.5, 0.3, 0.7, 0.5, 0.9, 0.2, 0.6, 0.5, 0.4, 0.8])

    def score(point):
        return 0.3 - float(((np.array(point) - target) ** 2).mean())

    start = (0.5,) * len(target)
    tried = run(strategy, score, Space(start, 60, seed=1))
    assert max(found for _, found in tried) > score(start) + 0.5 * (0.3 - score(start))


@pytest.mark.parametrize("strategy", ["coordinate", "bayes"])
@pytest.mark.parametrize("dimensions", [1, 5])
def test_equal_scores_mean_equal_points_each_tried_but_once_and_inside(strategy, dimensions):
    space = Space((0.4,) * dimensions, 20, seed=7)
    first, second = (run(strategy, bump, space) for _ in range(2))
    points = [point for point, _ in first]
    assert first == second
    assert len(set(points)) == len(points)
    assert points[0] == space.start
    assert all(0.0 <= value <= 1.0 for point in points for value in point)


def test_a_way_there_and_back_again_is_no_new_place():
    start = (0.3 - 0.1) / 0.8  # a little less than a quarter
    points = [point[0] for point, _ in run("coordinate", lambda point: -abs(point[0] - 0.7), Space((start,), 12))]
    assert len({round(value, 6) for value in points}) == 12


def test_another_seed_looks_elsewhere_where_places_are_drawn():
    def last(seed):
        return run("bayes", bump, Space((0.4,) * 5, 6, seed=seed))[-1]

    assert last(0) != last(1)


def test_equal_scores_everywhere_are_no_trouble():
    assert len(run("bayes", lambda point: 0.25, Space((0.5,), 8))) == 8


def test_a_bayesian_search_ends_when_every_place_was_tried(monkeypatch):
    monkeypatch.setattr(strategies, "LINE", 21)
    assert len(run("bayes", lambda point: 0.0, Space((0.5,), 1000))) == 21


def test_the_kernel_is_one_at_no_distance_and_the_textbooks_value_at_one_length():
    points = np.array([[0.0], [0.5]])
    root = math.sqrt(5.0)
    assert matern(points, points, 0.5) == pytest.approx(
        np.array([[1.0, (1 + root + 5 / 3) * math.exp(-root)], [(1 + root + 5 / 3) * math.exp(-root), 1.0]])
    )


def test_expected_improvement_is_that_of_a_normal_distribution():
    # At the best mean z = 0: sigma / sqrt(2 pi). A sure improvement by 1 is 1, a sure loss is 0.
    found = expected_improvement(np.array([0.0, 1.0, -1.0]), np.array([2.0, 1e-9, 1e-9]), 0.0)
    assert found == pytest.approx([2.0 / math.sqrt(2 * math.pi), 1.0, 0.0])


def test_a_fitted_process_goes_through_exact_scores_and_is_unsure_between_them():
    points = np.array([[0.0], [0.3], [0.6], [1.0]])
    scores = np.sin(4 * points[:, 0])
    mean, deviation = fit_process(points, scores).at(np.array([[0.3], [0.8]]))
    assert mean[0] == pytest.approx(scores[1], abs=1e-3)
    assert deviation[0] < 0.1 * deviation[1]
