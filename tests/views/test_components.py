"""The smoothing behind factorised views: linear, symmetric, and true to the mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studio.views.components import Motion, gaussian, mirror_filter, moved_along


@pytest.mark.parametrize("n", [8, 33, 64])
@pytest.mark.parametrize("sigma", [0.005, 0.04, 0.25])
def test_a_blur_is_symmetric_and_keeps_the_mean(n, sigma):
    reach = np.arange(min(n, int(np.ceil(3.5 * sigma * n))) + 1)
    matrix = mirror_filter(np.exp(-0.5 * (reach / (sigma * n)) ** 2), n)
    assert (matrix == matrix.T).all()
    assert np.allclose(matrix.sum(0), 1, atol=1e-6)


def test_mirroring_folds_the_kernel_back_at_the_border():
    expected = np.array([[0.75, 0.25, 0, 0], [0.25, 0.5, 0.25, 0], [0, 0.25, 0.5, 0.25], [0, 0, 0.25, 0.75]])
    assert np.allclose(mirror_filter(np.array([2.0, 1.0]), 4), expected)


def test_a_blur_spreads_a_point_by_its_sigma():
    x = torch.zeros(1, 65, 65)
    x[0, 32, 32] = 1
    place = torch.arange(65.0) - 32
    blurred = gaussian(5.0, 65)(x)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)
    assert (blurred[0].sum(0) * place**2).sum().sqrt().item() == pytest.approx(5, rel=0.02)


def test_a_movement_smears_along_its_direction_only():
    x = torch.zeros(1, 16, 16)
    x[0, 8, 8] = 1
    smeared = moved_along(Motion(length=0.25, direction="vertical"), 16)(x)
    assert smeared[0, :, 8].tolist() == pytest.approx([0] * 6 + [0.125, 0.25, 0.25, 0.25, 0.125] + [0] * 5)
    assert smeared.sum().item() == pytest.approx(1)
    assert torch.equal(moved_along(Motion(length=0.25), 16)(x.mT).mT, smeared)


def test_codes_and_pictures_are_blurred_alike():
    codes = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    picture = codes.repeat_interleave(8, 1).repeat_interleave(8, 2)
    small, large = gaussian(0.1 * 16, 16)(codes), gaussian(0.1 * 128, 128)(picture)
    pooled = torch.nn.functional.avg_pool2d(large, 8)
    assert (pooled - small).abs().max() < 0.03
