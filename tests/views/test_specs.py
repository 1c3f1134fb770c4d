"""The language that names views, and what it says about mistakes."""

from __future__ import annotations

import pytest

from studio.errors import RequestError, UnknownNameError
from studio.views.specs import VIEWS, parse_spec


@pytest.mark.parametrize("entry", VIEWS, ids=lambda entry: entry.name)
def test_every_name_is_its_own_canonical_text(entry):
    assert str(parse_spec(entry.name)) == entry.name
    assert parse_spec(entry.name).title == entry.title


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        (" jigsaw( seed = 3 ) + negate ", "jigsaw(seed=3)+negate"),
        ("jigsaw(seed=0)", "jigsaw"),
        ("patch_permute(patches=8,seed=1)", "patch_permute(seed=1,patches=8)"),
        ("skew(slope=-2.50)", "skew(slope=-2.5)"),
        ("skew(slope=1e+0)+rotate_90", "skew(slope=1)+rotate_90"),
        ("jigsaw(seed=4294967295)", "jigsaw(seed=4294967295)"),
        ("inner_circle(angle=90)", "inner_circle(angle=90)"),
        ("low_pass(sigma=0.1)+rotate_180", "low_pass(sigma=0.1)+rotate_180"),
        ("negate()", "negate"),
    ],
)
def test_texts_have_one_canonical_form_that_reads_back_equal(text, canonical):
    assert str(parse_spec(text)) == canonical
    assert parse_spec(canonical) == parse_spec(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotate_18", "There is no view 'rotate_18': did you mean 'rotate_180'?"),
        ("identity+jigsawn", "There is no view 'jigsawn': did you mean 'jigsaw'?"),
        ("jigsaw(sed=3)", "There is no parameter of jigsaw 'sed': did you mean 'seed'?"),
        ("negate(much=3)", "negate has nothing to set: leave out 'much'."),
        ("jigsaw(seed=-1)", "jigsaw: seed must be a whole number from 0 to 4294967295, not -1."),
        ("jigsaw(seed=1.5)", "jigsaw: seed must be a whole number from 0 to 4294967295, not 1.5."),
        ("inner_circle(angle=45)", "inner_circle: angle must be one of 90, 180, 270, not 45."),
        ("skew(slope=nan)", "skew: slope must be a number from -4 to 4, not nan."),
        ("jigsaw(seed)", "jigsaw: write 'seed' as parameter=value."),
        ("jigsaw(seed=1,seed=2)", "jigsaw: seed is given twice; give it once."),
        ("triple_low(fine=0.2)", "triple_low: coarse must be larger than fine, which is 0.2."),
        ("rotate_180+low_pass", "low_pass has to come first: write low_pass+rotate_180."),
        ("jigsaw(seed=3", "'jigsaw(seed=3' is not a view: write name, name(parameter=value) or several joined by +."),
    ],
)
def test_a_mistake_gets_one_sentence_with_the_fix(text, message):
    with pytest.raises(RequestError) as error:
        parse_spec(text)
    assert str(error.value) == message
    assert error.value.field == "views"


@pytest.mark.parametrize("text", ["", "+", "rotate_90+", "a b", "__import__('os')", "x" * 10_000, "jigsaw(" * 500])
def test_nonsense_is_refused_shortly(text):
    with pytest.raises(RequestError) as error:
        parse_spec(text)
    assert len(str(error.value)) < 600


def test_an_unknown_name_is_its_own_error():
    with pytest.raises(UnknownNameError):
        parse_spec("upside")


def test_views_that_show_the_network_the_same_say_so():
    assert parse_spec("high_pass").shown_as == parse_spec("low_pass").shown_as == "identity"
    assert parse_spec("low_pass+rotate_180").shown_as == parse_spec("rotate_180").shown_as
