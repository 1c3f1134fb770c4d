"""A real run: the built-in model learns the built-in subject, and says so in the loss on pictures it never saw."""

from __future__ import annotations

import pytest

from studio import training
from studio.training.request import TrainRequest


@pytest.mark.slow
def test_the_built_in_model_learns_the_mascot(models):
    request = TrainRequest(
        batch_size=4, steps=100, learning_rate=1e-3, rank=16, validation_share=0.15, validate_every=25, flip=True
    )
    result = training.run(request, models)
    values = [point.validation for point in result.points if point.validation is not None]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.8 * result.before
    assert result.best is None
