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
    stamps: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    def preview_due(self, now: float) -> bool:
        return now - self.watched <= WATCHED_FOR and now - self.previewed >= PREVIEW_EVERY

    def eta(self, now: float, remaining: int) -> float | None:
        """Seconds that ``remaining`` steps take at the pace of the last ones; the first step counts as start-up."""
        self.stamps.append(now)
        if len(self.stamps) < 2:
            return None
        return (now - self.stamps[0]) / (len(self.stamps) - 1) * max(0, remaining)


def drawn(pictures: Callable[[], tuple[Image.Image, ...]], px: int) -> tuple[str, ...]:
    """Previews as data URIs; a preview that cannot be drawn is logged and costs no job its result."""
    try:
        return tuple(jpeg_data_uri(picture, px) for picture in pictures())
    except Exception:
        log.exception("a preview could not be drawn")
        return ()
