from __future__ import annotations

import math

import pytest
import torch

from studio.illusions.metrics import alignment, concealment, score


def test_alignment_is_the_weakest_view():
    assert alignment(torch.tensor([[0.31, 0.10], [0.05, 0.24]])) == pytest.approx(0.24)


def test_concealment_of_a_tie_is_chance():
    assert concealment(torch.full((2, 2), 0.3), temperature=0.01) == pytest.approx(0.5)
    assert concealment(torch.full((4, 4), 0.3), temperature=0.01) == pytest.approx(0.25)


def test_concealment_by_hand():
    # Differences of one temperature in every row and column: softmax gives e / (e + 1) on the diagonal, both ways.
    similarities = torch.tensor([[0.02, 0.01], [0.01, 0.02]])
    assert concealment(similarities, temperature=0.01) == pytest.approx(math.e / (math.e + 1))


def test_both_directions_count():
    # Rows tell the prompts apart, columns do not tell the views apart: (0.5 + nearly 1) / 2 for each.
    similarities = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    rows, columns = similarities.div(0.01).softmax(1), similarities.div(0.01).softmax(0)
    by_hand = sum((rows[i, i] + columns[i, i]) / 2 for i in range(2)) / 2
    assert concealment(similarities, 0.01) == pytest.approx(by_hand.item())


def test_a_picture_that_reads_as_neither_has_no_score():
    assert score(torch.tensor([[-0.1, 0.0], [0.0, 0.2]]), 0.01) == 0.0
