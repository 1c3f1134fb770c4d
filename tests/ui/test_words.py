import pytest

from studio.ui import words

TITLES = {"jigsaw": "Jigsaw", "negate": "Negative", "identity": "As it is"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "about 1 s"), (4.2, "about 4 s"), (89, "about 89 s"), (200, "about 3 min"), (7300, "about 2 h")],
)
def test_an_estimate_does_not_sound_exact(seconds, text):
    assert words.about(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(1.87, "1.9 s"), (9.97, "10 s"), (89.4, "89 s"), (185, "3 min 5 s")])
def test_a_measured_time_is_exact(seconds, text):
    assert words.exactly(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "just now"), (300, "5 min ago"), (7200, "2 h ago"), (172800, "2 days ago"), (-5, "just now")],
)
def test_a_time_since_is_rounded(seconds, text):
    assert words.ago(seconds) == text


def test_the_cost_is_spelled_out():
    assert words.cost(2, 30, 1, 120, 3.6) == "2 views × 30 steps = 120 evaluations, about 4 s"
    assert words.cost(1, 1, 4, 12000, None) == "1 view × 1 step × 4 candidates = 12,000 evaluations"


def test_views_read_as_words():
    assert words.view_title("identity", TITLES) == "As it is"
    assert words.view_title("jigsaw(seed=3)+negate", TITLES) == "Jigsaw (seed=3), then Negative"
    assert words.view_title("unheard_of", TITLES) == "unheard_of"


def test_a_long_title_is_cut():
    assert words.title(["a" * 80, "b" * 80]) == "a" * 80 + " / bbbbbb…"


def test_the_time_left_is_said_once_it_is_known():
    assert words.time_left(0, 0, None) == "Preparing"
    assert words.time_left(3, 30, None) == "Step 3 of 30"
    assert words.time_left(3, 30, 2.6) == "Step 3 of 30, about 3 s left"
