import pytest

from studio.training.captions import CaptionRules, check_words, drawn, from_template, with_trigger

TAGS = "sks, fox, red, running, snow, night"


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red fox", "sks, a red fox"),
        ("a {trigger} fox", "a sks fox"),
        ("[trigger] in the snow", "sks in the snow"),
        ("SKS in the snow", "SKS in the snow"),
        ("asks a fox", "sks, asks a fox"),
        ("sks", "sks"),
        ("", "sks"),
        ("a   fox\n asleep", "sks, a fox asleep"),
    ],
)
def test_the_trigger_word_is_put_in_once(caption, expected):
    assert with_trigger(caption, "sks") == expected
    assert with_trigger(expected, "sks") == expected


def test_without_a_trigger_word_its_placeholders_go():
    assert with_trigger("a {trigger} fox", "") == "a fox"
    assert with_trigger("a red fox", "") == "a red fox"


@pytest.mark.parametrize(
    ("template", "trigger", "expected"),
    [
        ("a photo of {trigger}", "sks", "a photo of sks"),
        ("a photo of {trigger}", "", ""),
        ("a watercolour", "", "a watercolour"),
        ("a watercolour", "sks", "sks, a watercolour"),
        ("{name} in {trigger} style", "sks", "red fox in sks style"),
        ("{name}", "", "red fox"),
    ],
)
def test_a_template_is_filled(template, trigger, expected):
    assert from_template(template, trigger, "dir/red_fox-002") == expected


def test_words_that_can_be_used_pass():
    for trigger, template in (("", ""), ("sks dog", "a {name} of {trigger}"), ("día", "[trigger]")):
        check_words(trigger, template)


def test_no_rules_leave_the_caption_as_it_is():
    assert drawn("a,b ,c", CaptionRules(), seed=1, epoch=2, index=3) == "a,b ,c"
    assert not CaptionRules().varied
    assert CaptionRules(dropout=0.1).varied


def test_shuffling_keeps_the_first_tags_and_loses_none():
    rules = CaptionRules(shuffle=True, keep=2)
    seen = {drawn(TAGS, rules, seed=0, epoch=epoch, index=0) for epoch in range(50)}
    assert len(seen) > 15  # of 24
    for caption in seen:
        assert caption.startswith("sks, fox, ")
        assert sorted(caption.split(", ")) == sorted(TAGS.split(", "))


def test_the_same_three_numbers_give_the_same_caption_and_others_another():
    rules = CaptionRules(shuffle=True, tag_dropout=0.3, dropout=0.1)
    draws = [drawn(TAGS, rules, seed=seed, epoch=e, index=i) for seed in (0, 1) for e in range(5) for i in range(5)]
    assert draws == [
        drawn(TAGS, rules, seed=seed, epoch=e, index=i) for seed in (0, 1) for e in range(5) for i in range(5)
    ]
    assert len(set(draws)) > 30


def test_draws_are_those_of_every_machine():
    rules = CaptionRules(shuffle=True, keep=1)
    assert drawn(TAGS, rules, seed=7, epoch=0, index=0) == "sks, snow, fox, red, running, night"


def test_dropout_empties_its_share_of_captions():
    rules = CaptionRules(dropout=0.25)
    empty = sum(drawn("a fox", rules, seed=3, epoch=e, index=i) == "" for e in range(100) for i in range(40))
    assert abs(empty / 4000 - 0.25) < 0.03  # four standard deviations


def test_dropout_of_zero_and_one_are_never_and_always():
    assert all(drawn("a", CaptionRules(dropout=0.0), seed=0, epoch=e, index=0) == "a" for e in range(100))
    assert all(drawn("a", CaptionRules(dropout=1.0), seed=0, epoch=e, index=0) == "" for e in range(100))


def test_tag_dropout_spares_the_kept_tags():
    rules = CaptionRules(tag_dropout=0.5, keep=1)
    draws = [drawn(TAGS, rules, seed=0, epoch=epoch, index=0).split(", ") for epoch in range(400)]
    assert all(tags[0] == "sks" for tags in draws)
    assert abs(sum(len(tags) - 1 for tags in draws) / 2000 - 0.5) < 0.05
    assert all(tags == [tag for tag in TAGS.split(", ") if tag in tags] for tags in draws)  # in their order


def test_switching_one_rule_on_leaves_what_another_draws_as_it_is():
    plain, dropping = CaptionRules(shuffle=True), CaptionRules(shuffle=True, dropout=0.5)
    for epoch in range(20):
        with_dropout = drawn(TAGS, dropping, seed=0, epoch=epoch, index=0)
        assert with_dropout in ("", drawn(TAGS, plain, seed=0, epoch=epoch, index=0))


def test_another_separator_is_kept():
    rules = CaptionRules(shuffle=True, separator=";")
    assert sorted(drawn("a b; c d;e", rules, seed=0, epoch=0, index=0).split("; ")) == ["a b", "c d", "e"]
