"""Live previews of a job: made in its own thread, only while somebody looks, at a limited rate and size."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from studio.imaging import jpeg_data_uri

if TYPE_CHECKING:
    from PIL import Image

log = logging.getLogger(__name__)

PREVIEW_EVERY = 0.25  # seconds
WATCHED_FOR = 5.0  # seconds after somebody last asked


@dataclass
class Pace:
    """When a preview is worth its making, and how long the rest will take; all times are of one monotonic clock."""

    watched: float = -math.inf
    previewed: float = -math.inf
    stamps: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=20))

    def preview_due(self, now: float) -> bool:
        return now - self.watched <= WATCHED_FOR and now - self.previewed >= PREVIEW_EVERY

    def eta(self, now: float, index: int, total: int) -> float | None:
        """Seconds to step ``total`` at the pace of the last steps; what came before the first one was start-up."""
        if index > 0 and (not self.stamps or index != self.stamps[-1][1]):
            self.stamps.append((now, index))
        if not self.stamps or index <= self.stamps[0][1]:
            return None
        then, first = self.stamps[0]
        return (now - then) / (index - first) * max(0, total - index)


def drawn(pictures: Callable[[], tuple[Image.Image, ...]], px: int) -> tuple[str, ...]:
    """Previews as data URIs; a preview that cannot be drawn is logged and costs no job its result."""
    try:
        return tuple(jpeg_data_uri(picture, px) for picture in pictures())
    except Exception:
        log.exception("a preview could not be drawn")
        return ()
