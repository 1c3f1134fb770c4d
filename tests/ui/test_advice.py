import pytest

from studio.ui import advice
from tests.ui.conftest import SMALL, make

THINGS = ("fox", "penguin", "snowman", "tropical fish", "cherry")
KNOWN = ("prompts.0", "prompts.1", "views.0", "views.1", "steps", "size", "model")


@pytest.fixture(scope="module")
def bench(world):
    bench = make(world, "advice")
    yield bench
    bench.close()


@pytest.mark.parametrize("prompt", ["a fox", "Two foxes, running", "TROPICAL FISH in the sea", "a fox-red penguin"])
def test_a_prompt_that_names_a_thing_gets_no_hint(prompt):
    assert advice.is_drawable(prompt, THINGS)


@pytest.mark.parametrize(("prompt", "near"), [("a foxx in the snow", "fox"), ("pengin", "penguin"), ("a castle", None)])
def test_an_unknown_prompt_is_offered_the_nearest_thing(prompt, near):
    assert not advice.is_drawable(prompt, THINGS)
    assert advice.nearest_thing(prompt, THINGS) == near


def test_the_cost_is_said_before_it_is_paid(bench):
    assert "2 views × 2 steps = 8 evaluations, about" in advice.cost(bench, {**SMALL, "model": "builtin:emoji"})


def test_an_empty_prompt_is_no_mistake_while_it_is_being_written(bench):
    data = {**SMALL, "model": "builtin:emoji", "prompts": ["a fox", " "]}
    assert advice.notes(bench, data, KNOWN) == {}
    assert "Give every view a prompt" in advice.cost(bench, data)


def test_mistakes_and_hints_stand_by_their_fields(bench):
    data = {"model": "builtin:emoji", "prompts": ["a fox", "a quasar"], "views": ["identity", "rotate_18"], "steps": 2}
    found = advice.notes(bench, data, KNOWN)
    assert "rotate_180" in found["views.1"]
    assert "is-hint" in found["prompts.1"]
    assert "prompts.0" not in found
