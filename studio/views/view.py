"""A view made ready for one size: what the network is shown, how its answer is brought back, what a person sees.

In the equation  eps_hat = sum_i c_i P_i(eps(V_i x))  ``show`` is V and ``bring_back`` is P: V^T for orthogonal views,
the part F of the picture for factorised ones (F V^T when the part is moved as well).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from studio.views.components import Component
from studio.views.permutations import Parameters, Rearrangement, still
from studio.views.specs import ENTRIES, VIEWS, Entry, Kind, StepSpec, ViewSpec, parse_spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["ENTRIES", "VIEWS", "Entry", "StepSpec", "View", "ViewSpec", "build", "parse_spec"]


@dataclass(frozen=True, eq=False)
class View:
    """One view of pictures that are ``cells`` codes wide, every code ``cell`` pixels wide (1 in pixel space)."""

    spec: ViewSpec
    cells: int
    cell: int
    rearrangement: Rearrangement
    part: Component | None = None
    _indices: dict[tuple[str, torch.device], Tensor] = field(default_factory=dict, repr=False)

    @property
    def title(self) -> str:
        return self.spec.title

    @property
    def kind(self) -> Kind:
        return self.spec.kind

    @property
    def family(self) -> tuple[str, ...]:
        return self.spec.family

    @property
    def shown_as(self) -> str:
        """Equal for views that show the network the same: all parts of one picture share one look at it."""
        return self.spec.shown_as

    def show(self, x: Tensor) -> Tensor:
        """V x: what the network is shown of noisy codes (..., channels, cells, cells)."""
        return self._moved(x, "codes", lambda: self.rearrangement.source)

    def bring_back(self, prediction: Tensor) -> Tensor:
        """P eps: the network's answer to ``show(x)`` in the place of x, and of it only this view's part."""
        move = self.rearrangement
        x = _gather(prediction, self._index("back", prediction.device, move.inverse_source))
        x = _recoloured(x, tuple(np.argsort(move.channels)), move.sign)
        return x if self.part is None else self.part.part(x)

    def code(self, z: Tensor) -> Tensor:
        """What a viewer sees, done to clean codes (..., channels, cells, cells)."""
        return self.show(z if self.part is None else self.part.seen(z))

    def picture(self, x: Tensor) -> Tensor:
        """What a viewer sees of a finished picture (..., 3, cells * cell, cells * cell), RGB from -1 to 1."""
        side = self.cells * self.cell
        if tuple(x.shape[-2:]) != (side, side):
            raise ValueError(f"{self.spec} was built for pictures {side} pixels wide, not {tuple(x.shape[-2:])}")
        seen = x if self._picture_part is None else self._picture_part.seen(x)
        return self._moved(seen, "pixels", lambda: self.rearrangement.pixel_source(self.cell))

    @functools.cached_property
    def _picture_part(self) -> Component | None:
        first = self.spec.steps[0]
        return None if self.part is None else first.entry.build(first.parameters, self.cells * self.cell)

    def _moved(self, x: Tensor, name: str, source: Callable[[], NDArray[np.int32]]) -> Tensor:
        move = self.rearrangement
        return _recoloured(_gather(x, self._index(name, x.device, source)), move.channels, move.sign)

    def _index(self, name: str, device: torch.device, source: Callable[[], NDArray[np.int32]]) -> Tensor | None:
        """The gather index on x's device, made once; None where nothing moves."""
        if self.rearrangement.is_still:
            return None
        if (name, device) not in self._indices:
            from torch import from_numpy, inference_mode

            # A job thread samples in inference mode, but probes differentiate through the same index later.
            with inference_mode(False):
                self._indices[name, device] = from_numpy(source().astype(np.int64)).to(device)
        return self._indices[name, device]


def build(spec: ViewSpec | str, cells: int, cell: int = 1) -> View:
    """Make a view ready for codes ``cells`` wide, each ``cell`` pixels wide; the same answer twice is built once."""
    return _built(spec if isinstance(spec, ViewSpec) else parse_spec(spec), cells, cell)


@functools.lru_cache(maxsize=16)
def _built(spec: ViewSpec, cells: int, cell: int) -> View:
    made = [step.entry.build(step.parameters, cells) for step in spec.steps]
    part = made.pop(0) if isinstance(made[0], Component) else None
    move = functools.reduce(Rearrangement.then, made) if made else still(Parameters(), cells)
    return View(spec, cells, cell, move, part)


def _gather(x: Tensor, index: Tensor | None) -> Tensor:
    if index is None:
        return x
    flat = x.flatten(-2)
    return flat.gather(-1, index.expand(flat.shape)).reshape(x.shape)  # several times faster than index_select


def _recoloured(x: Tensor, channels: tuple[int, ...], sign: int) -> Tensor:
    """Reorder the first three channels, which are red, green and blue in a picture; further ones stay."""
    if channels != (0, 1, 2):
        if x.shape[-3] < 3:
            raise ValueError(f"three channels are needed to swap colours, not {x.shape[-3]}")
        order = [*channels, *range(3, x.shape[-3])]
        x = x.index_select(-3, x.new_tensor(order, dtype=int))
    return x if sign == 1 else -x
