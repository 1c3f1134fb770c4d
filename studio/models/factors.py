"""Low-rank algebra: W = up down, joined exactly, cut to a rank by SVD, and found in a whole matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

OVERSAMPLING, POWERS = 8, 4


@dataclass(frozen=True)
class Factors:
    """up: outputs x rank, down: rank x inputs, both float32; ``energy``: share of the squared norm that is kept."""

    up: Tensor
    down: Tensor
    energy: float = 1.0

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def whole(self) -> Tensor:
        return self.up @ self.down


def joined(parts: Sequence[tuple[float, Factors]]) -> Factors:
    """sum_i w_i up_i down_i as one product of rank sum_i r_i: exact, and signs and scales go into ``up``."""
    up = torch.cat([weight * factors.up for weight, factors in parts], 1)
    return Factors(up, torch.cat([factors.down for _, factors in parts]))


def cut(factors: Factors, rank: int) -> Factors:
    """The best approximation of that rank (Eckart and Young), from small matrices only: QR of both, SVD of R1 R2^T."""
    if rank >= factors.rank:
        return factors
    left, up = torch.linalg.qr(factors.up)
    right, down = torch.linalg.qr(factors.down.T)
    u, s, vh = torch.linalg.svd(up @ down.T)
    return _split(left @ u[:, :rank], s, vh[:rank] @ right.T, float(s.square().sum()))


def found_in(matrix: Tensor, rank: int, draw: torch.Generator) -> Factors:
    """Randomised SVD (Halko, Martinsson and Tropp 2011, algorithms 4.4 and 5.1) of outputs x inputs.

    Four power iterations and eight extra columns keep the error within 1 % of the best one; where they save nothing
    the SVD is taken whole.
    """
    columns = min(rank + OVERSAMPLING, *matrix.shape)
    total = float(matrix.double().square().sum())
    if 2 * columns >= min(matrix.shape):
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return _split(u[:, :rank], s, vh[:rank], total)
    basis = torch.linalg.qr(matrix @ torch.randn(matrix.shape[1], columns, generator=draw)).Q
    for _ in range(POWERS):
        basis = torch.linalg.qr(matrix @ torch.linalg.qr(matrix.T @ basis).Q).Q
    u, s, vh = torch.linalg.svd(basis.T @ matrix, full_matrices=False)
    return _split((basis @ u)[:, :rank], s, vh[:rank], total)


def _split(u: Tensor, s: Tensor, vh: Tensor, total: float) -> Factors:
    """Singular values shared evenly; the signs are made the same on every machine."""
    kept = s[: vh.shape[0]]
    signs = torch.sign(u.gather(0, u.abs().argmax(0, keepdim=True))).squeeze(0)
    root = kept.sqrt()
    energy = float(kept.double().square().sum()) / total if total > 0.0 else 1.0
    return Factors(u * (signs * root), vh * (signs * root)[:, None], min(1.0, energy))
