from __future__ import annotations

import torch


def test_features_are_unit_vectors_at_any_picture_size(models):
    with models.lease("builtin:clip") as scorer, torch.inference_mode():
        for side in (64, 128, 200):
            features = scorer.features(torch.rand(2, 3, side, side) * 2 - 1)
            torch.testing.assert_close(features.norm(dim=1), torch.ones(2))


def test_similarities_are_cosines_of_every_picture_with_every_prompt(models):
    with models.lease("builtin:clip") as scorer, torch.inference_mode():
        pictures = torch.rand(2, 3, 128, 128) * 2 - 1
        found = scorer.similarities(pictures, ["a fox", "a penguin", "a red apple"])
        expected = scorer.features(pictures) @ scorer.text_features(["a fox", "a penguin", "a red apple"]).T
    assert found.shape == (2, 3)
    assert found.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(found, expected)


def test_the_temperature_is_the_inverse_of_the_logit_scale(models):
    with models.lease("builtin:clip") as scorer:
        assert scorer.temperature * scorer.model.logit_scale.exp().item() == 1.0 or (
            abs(scorer.temperature * scorer.model.logit_scale.exp().item() - 1) < 1e-6
        )
