"""Which views can be used: measured, never assumed.

Three questions: does noise stay white through a view (A A^T = I), do several views fit together, and can a model's
codes carry a view at all, that is, does rearranging codes rearrange the picture they stand for?
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from studio.errors import RequestError, ViewError
from studio.views.specs import Kind, StepSpec, ViewSpec
from studio.views.view import View

if TYPE_CHECKING:
    from torch import Tensor

NOISE_VALUES = 400_000  # enough for a standard error of 0.002 in variance and correlation
TOLERANCE = 0.02
EXACT = 1e-4
MOST_LOST = 0.25

Codec = Callable[["Tensor"], "Tensor"]


class Linear(Protocol):
    """What is needed of a view to judge it: its matrix, its return and its words."""

    @property
    def cells(self) -> int: ...

    @property
    def title(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    def show(self, x: Tensor) -> Tensor: ...

    def bring_back(self, prediction: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Evidence:
    """What white noise becomes under a view's matrix A.

    ``identity_error`` is |A A^T z - z| / |z| and ``return_error`` |P A z - z| / |z| for random z; ``correlation`` is
    the larger one of horizontal and vertical neighbours.
    """

    identity_error: float
    return_error: float
    variance: float
    correlation: float

    @property
    def is_white(self) -> bool:
        near = max(abs(self.variance - 1), abs(self.correlation)) <= TOLERANCE
        return near and max(self.identity_error, self.return_error) <= EXACT

    def __str__(self) -> str:
        return (
            f"noise seen through it has variance {self.variance:.2f} (1.00 needed) and neighbour correlation "
            f"{self.correlation:.2f} (0.00 needed), A A^T is off the identity by {self.identity_error:.2f} "
            f"and the way back by {self.return_error:.2f}"
        )


def admit(view: Linear, channels: int = 4, seed: int = 0) -> Evidence:
    """Measure a view for codes of this many channels; ViewError with the numbers when noise does not stay white."""
    evidence = measure(view, channels, seed)
    if not evidence.is_white:
        raise ViewError(
            f"{view.title} cannot be used: {evidence}; choose a view that only moves, turns or negates.", field="views"
        )
    return evidence


def measure(view: Linear, channels: int = 4, seed: int = 0) -> Evidence:
    """Probe a view with white noise; A^T comes from differentiating ``show``, not from what the view claims."""
    import torch

    count = math.ceil(NOISE_VALUES / (channels * view.cells**2))
    shape = (count, channels, view.cells, view.cells)
    # The caller may be sampling in inference mode, in which nothing can be differentiated.
    with torch.inference_mode(False), torch.enable_grad():
        rng = torch.Generator().manual_seed(seed)
        x = torch.randn(shape, generator=rng).requires_grad_()
        z = torch.randn(shape, generator=rng)
        seen = view.show(x)
        (turned_back,) = torch.autograd.grad(seen, x, z)
        seen, x = seen.detach(), x.detach()
        # A factorised part brings back only itself, so its way back is judged with its family, in ``check_set``.
        returned = x if view.kind == "component" else view.bring_back(seen)
        return Evidence(
            identity_error=_relative(view.show(turned_back), z),
            return_error=_relative(returned, x),
            variance=seen.square().mean().item(),
            correlation=_neighbour_correlation(seen),
        )


def _relative(result: Tensor, expected: Tensor) -> float:
    return ((result - expected).norm() / expected.norm()).item()


def _neighbour_correlation(x: Tensor) -> float:
    power = x.square().mean().item()
    across = (x[..., :, 1:] * x[..., :, :-1]).mean().item() / power
    down = (x[..., 1:, :] * x[..., :-1, :]).mean().item() / power
    return max(across, down, key=abs)


def check_set(views: Sequence[View]) -> Kind:
    """Refuse views that do not fit together; returns the kind they share.

    Orthogonal views stand together in any number. Factorised parts must be one whole family with equal settings
    (RequestError says what is missing), and are measured to sum to the identity (ViewError).
    """
    kind = check_specs([view.spec for view in views])
    if kind == "component":
        _check_partition(views)
    return kind


def check_specs(specs: Sequence[ViewSpec]) -> Kind:
    """``check_set`` without building anything: what the words alone tell."""
    parts = [spec.steps[0] for spec in specs if spec.kind == "component"]
    if not parts:
        return "orthogonal"
    _check_whole_family(parts)
    whole = [str(spec) for spec in specs if spec.kind == "orthogonal"]
    if whole:
        raise RequestError(
            f"{parts[0].name} is one part of a picture and {whole[0]} shows all of it, which does not add up: "
            f"leave out {whole[0]}, or write {parts[0]}+{whole[0]} to move the part.",
            field="views",
        )
    return "component"


def _check_whole_family(parts: list[StepSpec]) -> None:
    first, family = parts[0], parts[0].entry.family
    for part in parts[1:]:
        if part.entry.family != family:
            raise RequestError(
                f"{first.name} and {part.name} are parts of different wholes: use {' with '.join(family)}.",
                field="views",
            )
        if part.parameters != first.parameters:
            fitting = StepSpec(part.name, first.parameters)
            raise RequestError(f"{first} and {part} do not add up: write {fitting}.", field="views")
    names = [part.name for part in parts]
    missing = [str(StepSpec(name, first.parameters)) for name in family if name not in names]
    if missing:
        raise RequestError(f"{first.name} is only a part: add {' and '.join(missing)}.", field="views")
    if len(names) > len(family):
        raise RequestError(f"{max(names, key=names.count)} is there twice: name each part once.", field="views")


def _check_partition(views: Sequence[View]) -> None:
    import torch

    side = views[0].cells
    x = torch.randn((1, 4, side, side), generator=torch.Generator().manual_seed(0))
    error = (sum(view.bring_back(view.show(x)) for view in views) - x).abs().max().item()
    if error > EXACT:
        names = " and ".join(view.title for view in views)
        raise ViewError(f"{names} cannot be used together: their sum is off the whole by {error:.2g}.", field="views")


@dataclass(frozen=True)
class Headroom:
    """Root mean square errors (0 to 2, for RGB in [-1, 1]) of a view A carried by a model's codes.

    ``measured``: Dec(A Enc(x)) against A x. ``floor``: Dec(Enc(A x)) against A x, the codec's own error. ``null``: x
    itself against A x, as if nothing had been done. ``mismatch``: another picture against A x.
    """

    measured: float
    floor: float
    null: float
    mismatch: float

    @property
    def lost(self) -> float:
        """0 when the codes carry the view as well as they carry any picture, 1 when the result is a stranger to it."""
        return max(0.0, self.measured - self.floor) / max(self.mismatch - self.floor, 1e-6)

    def __str__(self) -> str:
        return (
            f"seen through its codes a picture is off by {self.measured:.3f}, at best by {self.floor:.3f}, "
            f"an unrelated one by {self.mismatch:.3f}: {min(self.lost, 9.99):.0%} lost, {MOST_LOST:.0%} allowed"
        )


def headroom(view: View, encode: Codec, decode: Codec, pictures: Tensor) -> Headroom:
    """Measure how well codes carry a view.

    ``pictures`` is at least two, count x 3 x S x S in [-1, 1] with S = view.cells * view.cell; ``encode`` makes codes
    (count x channels x cells x cells) of them, ``decode`` pictures of codes.
    """
    import torch

    if len(pictures) < 2:
        raise ValueError("at least two pictures are needed, to have an unrelated one")
    with torch.no_grad():
        wanted = view.picture(pictures)
        made = decode(view.code(encode(pictures)))
        return Headroom(
            measured=_rms(made, wanted),
            floor=_rms(decode(encode(wanted)), wanted),
            null=_rms(pictures, wanted),
            mismatch=_rms(wanted.roll(1, 0), wanted),
        )


def _rms(result: Tensor, expected: Tensor) -> float:
    return (result - expected).square().mean().sqrt().item()


def carried(headroom: Headroom) -> bool:
    """Whether at most a quarter of the way from the codec's own error to an unrelated picture is lost."""
    return headroom.lost <= MOST_LOST


def check_headroom(view: View, headroom: Headroom) -> None:
    """ViewError with the measured numbers when a model's codes cannot carry a view."""
    if not carried(headroom):
        raise ViewError(
            f"This model cannot carry {view.spec}: {headroom}; choose space=picture, or a flip, a turn or a shuffle.",
            field="views",
        )


def dead_leaves(count: int, side: int, seed: int = 0, leaves: int = 120) -> Tensor:
    """Pictures to probe codecs with: overlapping shaded discs of all sizes, count x 3 x side x side in [-1, 1].

    Their edges and sizes are distributed as in photographs (Lee, Mumford & Huang 2001).
    """
    import torch

    rng = torch.Generator().manual_seed(seed)
    place = (torch.arange(side) + 0.5) / side
    pictures = torch.zeros(count, 3, side, side)
    for picture in pictures:
        for _ in range(leaves):
            row, column, size, shade, *colour = torch.rand(7, generator=rng).tolist()
            radius = 0.03 / (0.05 + 0.95 * size) ** 0.8
            down, across = place[:, None] - row, place[None, :] - column
            disc = down**2 + across**2 < radius**2
            paint = torch.tensor(colour)[:, None, None] * 1.6 - 0.8 + (shade - 0.5) * (down + across) / radius * 0.3
            picture.copy_(torch.where(disc, paint.clamp(-1, 1), picture))
    return pictures
