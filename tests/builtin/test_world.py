from __future__ import annotations

import numpy as np
import pytest

from studio.builtin.world import COLOURS, FONT, SIZE, Thing, Wobble, caption, load_things, render, vocabulary

needs_font = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is not installed")


def test_names_are_few_words_and_unique():
    names = [thing.name for thing in load_things()]
    assert len(names) == len(set(names)) == 200
    assert max(len(name.split()) for name in names) <= 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [("fox", "a fox"), ("owl", "an owl"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella"), ("grapes", "grapes")],
)
def test_articles_are_what_a_person_would_write(name, expected):
    assert Thing("x", name).with_article == expected


def test_every_caption_is_made_of_known_words():
    things = load_things()
    known, rng = set(vocabulary(things)), np.random.default_rng(0)
    for thing in things:
        for colour in (None, *COLOURS):
            words = caption(thing, colour, rng).replace(",", " , ").split()
            assert set(words) <= known


@needs_font
def test_a_rendering_stands_on_the_ground_it_names():
    picture = np.asarray(render(Thing("🦊", "fox"), np.random.default_rng(0), "teal"))
    assert picture.shape == (SIZE, SIZE, 3)
    assert np.abs(picture[0, 0].astype(int) - COLOURS["teal"]).max() <= 10


@needs_font
def test_a_rendering_without_wobble_is_upright_and_centred():
    still = Wobble(shift=0, scale=(0.9, 0.9), tilt=0)
    picture = np.asarray(render(Thing("⭐", "star"), np.random.default_rng(0), "black", still)).astype(float)
    drawn = (picture.sum(2) > 300).nonzero()
    assert abs(drawn[1].mean() - SIZE / 2) < 3


@needs_font
def test_the_same_seed_renders_the_same_picture():
    one, two = (np.asarray(render(Thing("🦊", "fox"), np.random.default_rng(5))) for _ in range(2))
    assert np.array_equal(one, two)
