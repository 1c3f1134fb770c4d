"""Diversity, fidelity and the answer, on features that are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from studio.guidance.cells import Cell, Spot
from studio.guidance.grid import columns
from studio.guidance.metrics import Measured, Reader, measured, strange
from studio.guidance.request import GuidanceRequest
from studio.guidance.verdict import verdict
from studio.intervals import Estimate

WORDS = {"fox": 0, "fox, ink": 1, "duck": 2}


class Colours:
    """A scorer of three colours: a picture's features are its mean colour, a text's the axis of its word."""

    def features(self, pictures):
        return torch.nn.functional.normalize((pictures.mean((2, 3)) + 1) / 2, dim=1)

    def text_features(self, prompts):
        return torch.eye(3)[[WORDS[prompt] for prompt in prompts]]


def picture(red, green, blue):
    return Image.new("RGB", (4, 4), (red, green, blue))


def cells_of(*pictures, prompts=1):
    each = len(pictures) // prompts
    return {Spot(i // each, i % each, 0): Cell(pic, 10 + i, 0.5) for i, pic in enumerate(pictures)}


def reader(**words):
    return Reader(Colours(), ["fox", "fox"], **words)


def test_pictures_that_are_all_alike_have_no_diversity_and_orthogonal_ones_all():
    red, green, blue = picture(255, 0, 0), picture(0, 255, 0), picture(0, 0, 255)
    alike = measured(cells_of(red, red, red, red), reader(), 0).diversity
    assert (alike.value, alike.low, alike.high) == pytest.approx((0, 0, 0), abs=1e-6)
    assert measured(cells_of(red, green, blue), reader(), 0).diversity.value == pytest.approx(1, abs=1e-6)


def test_diversity_is_the_mean_over_prompts_and_lies_in_its_interval():
    red, green = picture(255, 0, 0), picture(0, 255, 0)
    one, other = [red, green, red, green], [red] * 4
    found = measured(cells_of(*one, *other, prompts=2), reader(), 0).diversity
    # Four of the six pairs of the first prompt are orthogonal, the two others alike; the second prompt's are all alike.
    assert found.value == pytest.approx((4 / 6 + 0) / 2, abs=1e-6)
    assert found.low <= found.value <= found.high
    assert found.high > found.low


def test_one_seed_has_fidelity_and_no_diversity():
    found = measured(cells_of(picture(255, 0, 0)), reader(), 0)
    assert found.diversity is None
    assert found.products == {}
    assert found.fidelity["pc_clip"].value == pytest.approx(2.5)


def test_fidelity_is_clip_score_style_direction_and_character_each_by_its_name():
    root = 0.5**0.5
    found = measured(cells_of(picture(255, 255, 0), picture(0, 0, 255)), reader(style="ink", character="duck"), 0)
    expected = {"pc_clip": 2.5 * np.mean([root, 0]), "sa_clip": np.mean([root - root, 0.0])}
    expected["cp_clip"] = 2.5 * np.mean([0, 1])
    assert {name: each.value for name, each in found.fidelity.items()} == pytest.approx(expected, abs=1e-6)
    assert found.products["pc_clip"] == pytest.approx(found.diversity.value * expected["pc_clip"])
    assert (found.pictures, found.evaluations, found.seconds) == (2, 10.5, 0.5)


def test_words_that_the_extractor_cannot_read_are_said_to_measure_nothing(models):
    asked = {"style": "pixel art", "character": "a fox"}
    said = models.scorer("builtin:clip", lambda scorer: strange(scorer, asked))
    assert said == ("builtin:clip does not know all words of the style 'pixel art': SA-clip says nothing of it.",)
    assert models.scorer("builtin:clip", lambda scorer: strange(scorer, {"style": "", "character": ""})) == ()


def test_a_column_of_which_nothing_is_drawn_has_no_figures():
    assert measured({}, reader(), 0) is None


def figures(diversity, fidelity, evaluations=40.0):
    around = [Estimate(value, value - 0.01, value + 0.01) for value in (diversity, fidelity)]
    return Measured(16, around[0], {"pc_clip": around[1]}, evaluations, 1.0)


@pytest.mark.parametrize(
    ("ours", "says"),
    [
        (figures(0.30, 0.80, 80), "Yes: AutoLoRA at 2.00 times the evaluations of LoRA + CFG gained diversity (0.200"),
        (figures(0.20, 0.70, 80), "No: AutoLoRA at 2.00 times the evaluations of LoRA + CFG lost PC-clip (0.800 to"),
        (figures(0.30, 0.70, 60), "It depends: AutoLoRA at 1.50 times the evaluations of LoRA + CFG gained diversity"),
        (figures(0.201, 0.801), "No: AutoLoRA at 1.00 times the evaluations of LoRA + CFG changed nothing that 16"),
    ],
)
def test_the_answer_is_one_sentence_backed_by_numbers(ours, says):
    found = columns(GuidanceRequest(guiders=("cfg", "autolora")))
    said = verdict(found, (figures(0.20, 0.80), ours))
    assert said.startswith(says)
    assert said.endswith(".")


def test_there_is_no_answer_without_both_sides_or_without_diversity():
    found = columns(GuidanceRequest(guiders=("cfg", "autolora")))
    alone = Measured(1, None, {}, 40.0, 1.0)
    assert verdict(found, (figures(0.2, 0.8), None)) == ""
    assert verdict(found, (alone, alone)) == ""
    assert verdict(columns(GuidanceRequest(guiders=("cfg",))), (figures(0.2, 0.8),)) == ""
