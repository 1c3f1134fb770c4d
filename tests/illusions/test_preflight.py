import pytest

from studio.errors import RequestError, UnknownNameError
from studio.illusions.preflight import check, evaluations, headline
from studio.illusions.request import IllusionRequest


def request(*views, prompts=None, **values):
    prompts = prompts or tuple(f"thing {index}" for index in range(len(views)))
    return IllusionRequest(views=views, prompts=prompts, **{"steps": 10, **values})


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        (request("identity", "rotate_180"), 10 * 4),
        (request("identity", "rotate_180", candidates=3), 10 * 4 * 3),
        (request("identity", "rotate_180", guidance_scale=1.0), 10 * 2),
        (request("identity", "rotate_180", guidance_scale=0.0), 10 * 2),
        (request("identity", "rotate_180", reduction="alternate"), 10 * 2),
        (request("identity", "rotate_180", reduction="weighted_rectified"), 10 * 4),
        (request("identity", "rotate_180", reduction="weighted", weights=(1, 3)), 10 * 4),
        (request("identity"), 10 * 2),
        (request("low_pass", "high_pass"), 10 * 3),
        (request("low_pass+rotate_180", "high_pass"), 10 * 4),
        (request("identity", "identity", prompts=("a fox", "a fox")), 10 * 2),
        (request("identity", "rotate_180", prompts=("a fox", "an owl"), negative_prompt="a fox"), 10 * 3),
        (request("identity", "rotate_180", partners=("an owl", "a bear"), candidates=2), 10 * 4 * 3 * 2),
        (request("identity", "rotate_180", partners=("an owl",), negative_prompt="an owl"), 10 * (4 + 3)),
        (request("identity", "rotate_180", upscale=2), (10 + 4) * 4),
        (request("identity", "rotate_180", upscale=2, upscale_strength=0.5, reduction="alternate"), (10 + 5) * 2),
        (request("identity", "rotate_180", candidates=3, stop_early=True), 10 * 4 * 3),
    ],
)
def test_rows_are_counted_once_and_not_where_their_weight_is_zero(asked, rows):
    assert evaluations(asked) == rows


def test_an_unknown_view_names_its_place_and_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'rotate_180'") as refused:
        check(request("identity", "rotate_18"))
    assert refused.value.field == "views.1"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (request("low_pass", "identity"), "views"),
        (request("identity", "rotate_180", reduction="sum"), "reduction"),
        (request("identity", "rotate_180", reduction="mean", weights=(1, 3)), "weights"),
        (request("low_pass", "high_pass", reduction="weighted"), "reduction"),
        (request("identity", "rotate_180", puzzle=True), "puzzle"),
        (request("identity", "jigsaw(sed=3)"), "views.1"),
    ],
)
def test_views_that_do_not_fit_are_refused(asked, field):
    with pytest.raises(RequestError) as refused:
        check(asked)
    assert refused.value.field == field


def test_a_good_request_passes():
    check(request("identity", "rotate_180", "flip_vertical+negate", "jigsaw(seed=3)"))


def test_a_headline_is_the_prompts_and_short():
    assert headline(request("identity", "rotate_180", prompts=("a fox", "an owl"))) == "a fox / an owl"
    assert len(headline(request("identity", prompts=("x" * 400,)))) == 120


def test_partners_are_in_the_headline():
    assert headline(request("identity", "rotate_180", partners=("a bear",))) == "thing 0 / thing 1 or a bear"
