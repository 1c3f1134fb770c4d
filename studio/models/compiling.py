"""torch.compile for a denoiser: quicker after a warm-up for each shape, and never in the way of a picture."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from studio.devices import is_out_of_memory
from studio.models.adapters import Attached
from studio.models.residence import Residence

COMPILING = "Compiling, once per shape"
Shape = tuple[tuple[int, ...], torch.dtype]


class CompiledForward:
    """A module's ``forward`` through torch.compile (Ansel et al. 2024), put in its place.

    It runs as it was while adapters are attached, whose hooks compiled code would pass by, while its parts are moved,
    and for good once compiling failed, for want of a C++ compiler or Triton, say; ``trouble`` says why.
    """

    def __init__(
        self,
        module: nn.Module,
        attached: Attached,
        residence: Residence,
        backend: str | Callable[..., Any] = "inductor",
    ) -> None:
        self.attached, self.residence = attached, residence
        self.plain = module.forward
        self.fast = torch.compile(module.forward, backend=backend, dynamic=False)
        self.seconds: dict[Shape, float] = {}  # what the first forward of a shape took
        self.trouble = ""
        module.forward = self

    def is_new(self, x: Tensor) -> bool:
        """Whether a forward of x (N x C x h x w) is going to be compiled first."""
        return self._applies() and _shape(x) not in self.seconds

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._applies():
            return self.plain(*args, **kwargs)
        start = time.perf_counter()
        try:
            found = self.fast(*args, **kwargs)
        except (RuntimeError, OSError, ImportError) as error:
            # Compilers fail in many ways; what else is wrong with this forward fails in the plain one again.
            if is_out_of_memory(error):
                raise
            self.trouble = _said(error)
            return self.plain(*args, **kwargs)
        x = next(iter([*args, *kwargs.values()]))
        self.seconds.setdefault(_shape(x), time.perf_counter() - start)
        return found

    def words(self) -> str:
        """What compiling came to, for a result's notes."""
        if self.trouble:
            return f"The model ran without being compiled: {self.trouble}."
        if not self._applies():
            return "The model ran without being compiled, as it does with adapters and where its parts are offloaded."
        return f"Compiling took {sum(self.seconds.values()):.0f} s, once for each of {len(self.seconds)} shapes."

    def _applies(self) -> bool:
        return not (self.trouble or self.attached.names or self.residence.offloaded)


def _said(error: Exception) -> str:
    """The first line that says something: torch begins with who raised it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(". ")


def _shape(x: Tensor) -> Shape:
    return tuple(x.shape), x.dtype
