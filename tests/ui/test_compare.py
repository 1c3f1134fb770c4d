import re

from studio.ui import compare
from studio.ui.result import Result
from studio.ui.tabs.history import toggled, without

REQUEST = {"prompts": ["a <b>", "a cat"], "views": ["identity", "rotate_180"], "steps": 8, "seed": 0, "candidates": 4}


def made(key, best, **changes):
    summary = {"candidates": [best], "prompts": REQUEST["prompts"], "views": REQUEST["views"]}
    return compare.side(Result(key, {**REQUEST, **changes}, summary, lambda name, width: f"{key}/{name}"))


LEFT = made("one", {"seed": 3, "image": "a.png", "alignment": 0.5, "concealment": 0.75})
RIGHT = made("two", {"seed": 7, "image": "a.png", "alignment": 0.625}, steps=30, candidates=1)


def rows(drawn):
    return re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>', drawn)


def test_only_what_differs_is_listed_and_everything_that_was_measured():
    assert rows(compare.of([LEFT, RIGHT])) == [
        ("Seed", "3", "7"),  # of the candidates that are shown, not the first seed of the run
        ("Steps", "8", "30"),
        ("Alignment", "0.50", "0.62"),
        ("Concealment", "0.75", "–"),
    ]


def test_views_are_listed_in_words():
    turned = made("three", {"seed": 3, "image": "a.png"}, views=["rotate_180", "identity"])
    assert rows(compare.of([LEFT, turned]))[0] == ("Views", "As it is, Half turn", "Half turn, As it is")


def test_both_pictures_are_there_for_the_slider_and_for_the_map():
    drawn = compare.of([LEFT, RIGHT])
    assert re.findall(r'src="([^"]+)"', drawn) == ["two/a.png", "one/a.png"]
    assert 'data-left="one/a.png" data-right="two/a.png"' in drawn
    assert 'data-picked="one two"' in drawn
    assert "a <b>" not in drawn


def test_one_result_asks_for_a_second_and_none_for_nothing():
    assert "Choose a second picture to compare with <b>a &lt;b&gt; / a cat</b>" in compare.of([LEFT])
    assert compare.of([]) == '<div class="comparison" data-picked=""></div>'


def test_a_result_without_a_picture_has_no_side():
    assert compare.side(Result("x", REQUEST, {"candidates": []}, lambda name, width: name)) is None


def test_of_three_picked_the_oldest_gives_way_and_a_second_press_gives_one_back():
    assert toggled(["a", "b"], "c") == ["b", "c"]
    assert toggled(["a", "b"], "a") == ["b"]
    assert without(["a", "b"], "b") == ["a"]
