"""Low-rank algebra against dense matrices."""

from __future__ import annotations

import pytest
import torch

from studio.models.factors import Factors, cut, found_in, joined


def matrix(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random(rank, seed):
    return Factors(matrix(12, rank, seed=seed), matrix(rank, 9, seed=seed + 100))


def best_error(whole, rank):
    return torch.linalg.svdvals(whole)[rank:].square().sum().sqrt().item()


def test_joining_is_the_weighted_sum_and_ranks_add_up():
    one, other = random(2, 0), random(3, 1)
    found = joined([(0.5, one), (-2.0, other)])
    assert found.rank == 5
    torch.testing.assert_close(found.whole, 0.5 * one.whole - 2.0 * other.whole)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_cut_is_the_best_of_its_rank_and_says_what_it_keeps(rank):
    whole = random(6, 2)
    found = cut(whole, rank)
    assert found.rank == rank
    lost = (whole.whole - found.whole).norm().item()
    assert lost == pytest.approx(best_error(whole.whole, rank), rel=1e-4)
    assert found.energy == pytest.approx(1 - lost**2 / whole.whole.square().sum().item(), abs=1e-5)
    assert cut(whole, 6) is whole


@pytest.mark.parametrize(("shape", "decay"), [((160, 200), 0.5), ((300, 120), 1.0), ((20, 30), 0.0)])
def test_the_randomised_svd_is_within_one_percent_of_the_full_one(shape, decay):
    # Singular values that fall off like i^-decay: heavy tails, as the differences of real fine-tunings have.
    u, _, vh = torch.linalg.svd(matrix(*shape), full_matrices=False)
    sizes = torch.arange(1, min(shape) + 1).float() ** -decay
    whole = (u * sizes) @ vh
    found = found_in(whole, 8, torch.Generator().manual_seed(0))
    assert (whole - found.whole).norm().item() <= 1.01 * best_error(whole, 8)
    assert found.energy == pytest.approx((sizes[:8].square().sum() / sizes.square().sum()).item(), rel=0.02)
    again = found_in(whole, 8, torch.Generator().manual_seed(0))
    assert torch.equal(found.up, again.up)


def test_nothing_has_all_its_energy():
    assert found_in(torch.zeros(4, 4), 2, torch.Generator()).energy == 1.0
