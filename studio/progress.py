"""The only seam an engine has to the outside: it calls ``on_step`` and knows nothing of threads or pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One finished step of ``total``. ``pictures`` draws the previews, one per view, only when somebody calls it.

    ``data`` are plain numbers and texts that a page can draw, such as curves: never written to afterwards, and few.
    """

    index: int
    total: int
    note: str = ""
    sigma: float = 0.0
    evaluations: int = 0
    clean: Tensor | None = None
    pictures: Callable[[], tuple[Image.Image, ...]] | None = None
    labels: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)


OnStep = Callable[[Step], None]


def ignore(step: Step) -> None:
    """The default ``on_step``."""
