"""The kinds of adapters as a table: what change of a weight each kind's tensors stand for, in float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Kind:
    """``change``: the change of a weight, in any shape of its size; ``rank``: what alpha is divided by (None: not)."""

    title: str
    reference: str
    marks: tuple[frozenset[str], ...]  # any of these sets of tensors makes a piece this kind
    change: Callable[[Tensors], Tensor]
    rank: Callable[[Tensors], int | None]


def lora_change(t: Tensors) -> Tensor:
    """B A; for convolutions (LoCon) A is k x k and B is 1 x 1, or, with a core in the middle, both are 1 x 1."""
    up, down = t["up"].flatten(1), t["down"]
    if "mid" in t:
        return torch.einsum("oa,abkl,bi->oikl", up, t["mid"], down.flatten(1))
    return up @ down.flatten(1)


def loha_change(t: Tensors) -> Tensor:
    """(B1 A1) * (B2 A2), each factor with its own core for convolutions in Tucker form."""
    return _factor(t, "hada_w1", "hada_t1") * _factor(t, "hada_w2", "hada_t2")


def lokr_change(t: Tensors) -> Tensor:
    """The Kronecker product W1 x W2, either of them whole or factored."""
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    second = t["lokr_w2"] if "lokr_w2" in t else _factor(t, "lokr_w2", "lokr_t2")
    # A core leaves ``second`` in another order of its dimensions, which kron cannot look at.
    return torch.kron(first.reshape(*first.shape, *[1] * (second.dim() - 2)), second.contiguous())


def _factor(t: Tensors, name: str, core: str) -> Tensor:
    """B A, or with a Tucker core C (r x r x k x k): sum_ab C_ab B_a A_b, where B is r x out and A is r x in."""
    b, a = t[f"{name}_a"], t[f"{name}_b"]
    return torch.einsum("abkl,ao,bi->oikl", t[core], b, a) if core in t else b @ a.flatten(1)


def _lokr_rank(t: Tensors) -> int | None:
    """LyCORIS divides by the rank of whichever part is factored, the second first; two whole ones are not scaled."""
    if "rank" in t:
        return int(t["rank"])
    return next((t[name].shape[0] for name in ("lokr_w2_b", "lokr_w1_b") if name in t), None)


KINDS: Mapping[str, Kind] = {
    "lora": Kind(
        "LoRA",
        "Hu et al. 2021; convolutions as LoCon in LyCORIS (Yeh et al. 2023)",
        (frozenset({"down", "up"}),),
        lora_change,
        lambda t: t["down"].shape[0],
    ),
    "loha": Kind(
        "LoHa",
        "Yeh et al. 2023, section 3.2 (after FedPara, Hyeon-Woo et al. 2021)",
        (frozenset({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}),),
        loha_change,
        lambda t: t["hada_w1_b"].shape[0],
    ),
    "lokr": Kind(
        "LoKr",
        "Yeh et al. 2023, section 3.3",
        tuple(
            frozenset({*first, *second})
            for first in (("lokr_w1",), ("lokr_w1_a", "lokr_w1_b"))
            for second in (("lokr_w2",), ("lokr_w2_a", "lokr_w2_b"))
        ),
        lokr_change,
        _lokr_rank,
    ),
    "full": Kind("full difference", "LyCORIS", (frozenset({"diff"}),), lambda t: t["diff"], lambda t: None),
}
"""Every one of these may carry a DoRA magnitude beside it (Liu et al. 2024)."""


def kind_of(roles: Sequence[str]) -> str | None:
    """The kind that a module's tensors make, None when some are missing."""
    return next((name for name, kind in KINDS.items() if any(mark <= set(roles) for mark in kind.marks)), None)


def magnitude_ratio(magnitude: Tensor, changed: Tensor, by_output: bool) -> Tensor:
    """m / ||W + change||, shaped to multiply the weight (Liu et al. 2024, eq. 5), one per output or per input.

    Both are in use: PEFT and LyCORIS's ``wd_on_out`` take norms over each output's weights, older LyCORIS over each
    input's.
    """
    axis = 0 if by_output else 1
    others = [dim for dim in range(changed.dim()) if dim != axis]
    norm = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
    return magnitude.reshape(norm.shape) / norm
