import pytest

from studio.illusions.course import Course, second_steps, tries, work
from studio.illusions.request import IllusionRequest
from studio.passes import IN_PICTURES, NOWHERE


def test_every_partner_is_tried_with_every_seed_and_the_last_prompt_is_one_of_them():
    request = IllusionRequest(prompts=("a fox", "an owl"), partners=("a bear", "an owl", "a cat"), seed=7, candidates=2)
    found = [(one.seed, one.prompts) for one in tries(request)]
    assert found == [(seed, ("a fox", last)) for seed in (7, 8) for last in ("an owl", "a bear", "a cat")]


def test_a_try_alone_tries_nothing_else():
    request = IllusionRequest(partners=("a bear",), candidates=3, stop_early=True, steps=12, upscale=2)
    for one in tries(request):
        assert tries(one) == (one,)
        assert (one.steps, one.upscale, one.stop_early) == (12, 2, False)


def test_seeds_go_round_at_their_end():
    assert [one.seed for one in tries(IllusionRequest(seed=2**32 - 1, candidates=2))] == [2**32 - 1, 0]


@pytest.mark.parametrize(
    ("changes", "second", "all_of_it"),
    [({}, 0, 30), ({"upscale": 2}, 12, 30 + 4 * 12), ({"upscale": 2, "upscale_strength": 0.1, "steps": 1}, 1, 5)],
)
def test_a_step_at_twice_the_size_counts_four_times(changes, second, all_of_it):
    request = IllusionRequest(**changes)
    assert second_steps(request) == second
    assert work(request, NOWHERE) == all_of_it


def test_what_is_stopped_is_taken_off_the_total():
    course = Course(each=10, tries=3)
    assert (course.number, course.done, course.total) == (1, 0, 30)
    course.finish()
    course.stop(4)
    assert (course.number, course.done, course.total) == (3, 14, 24)
    course.finish()
    assert course.done == course.total


def test_steps_that_are_repeated_count_as_often_at_both_sizes():
    """Of 10 steps those from the third to the eighth are taken twice; 4 steps are drawn over, two of them twice."""
    assert work(IllusionRequest(steps=10), IN_PICTURES) == 16
    assert work(IllusionRequest(steps=10, upscale=2, upscale_strength=0.4), IN_PICTURES) == 16 + 4 * 6
