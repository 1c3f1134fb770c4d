"""Drawing with smooth shapes in frames that can be turned: points are in pixels of a 128 x 128 picture, y downwards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from PIL import Image, ImageDraw

SIZE = 128
FINE = 8  # times larger while it is drawn, so that edges are smooth
LINE = (88, 58, 48)
LINE_WIDTH = 2.6
TURN = 48  # corners of an ellipse
SMOOTH = 10  # corners of a curve between two of its points

Point = tuple[float, float]
Colour = tuple[int, int, int]
Frame = tuple[float, float, float, float, float, float]


class Sketch:
    """A picture in the making. Shapes are filled and outlined; ``frame`` moves everything that is drawn inside it."""

    def __init__(self, ground: Colour) -> None:
        self.image = Image.new("RGB", (SIZE * FINE, SIZE * FINE), ground)
        self._draw = ImageDraw.Draw(self.image)
        self._frame: Frame = (1, 0, 0, 0, 1, 0)

    def picture(self) -> Image.Image:
        return self.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)

    @contextmanager
    def frame(self, pivot: Point, angle: float = 0.0, shift: Point = (0, 0), scale: Point = (1, 1)) -> Iterator[None]:
        """Scaled and turned (degrees, clockwise) about ``pivot``, then shifted; frames may stand in one another."""
        kept = self._frame
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        a, b, d, e = cos * scale[0], -sin * scale[1], sin * scale[0], cos * scale[1]
        c, f = pivot[0] + shift[0] - a * pivot[0] - b * pivot[1], pivot[1] + shift[1] - d * pivot[0] - e * pivot[1]
        self._frame = _after(kept, (a, b, c, d, e, f))
        try:
            yield
        finally:
            self._frame = kept

    def shape(
        self, points: Sequence[Point], fill: Colour, line: Colour | None = LINE, width: float = LINE_WIDTH
    ) -> None:
        """A filled polygon with an outline of round corners."""
        fine = self._fine(points)
        self._draw.polygon(fine, fill)
        if line is not None:
            self._line([*fine, fine[0]], line, width)

    def ellipse(
        self,
        at: Point,
        radii: Point,
        fill: Colour,
        angle: float = 0.0,
        line: Colour | None = LINE,
        width: float = LINE_WIDTH,
    ) -> None:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        corners = []
        for index in range(TURN):
            x, y = (radii[0] * math.cos(math.tau * index / TURN), radii[1] * math.sin(math.tau * index / TURN))
            corners.append((at[0] + cos * x - sin * y, at[1] + sin * x + cos * y))
        self.shape(corners, fill, line, width)

    def blob(
        self, points: Sequence[Point], fill: Colour, line: Colour | None = LINE, width: float = LINE_WIDTH
    ) -> None:
        """A smooth closed shape through ``points``."""
        self.shape(curve(points, closed=True), fill, line, width)

    def stroke(self, points: Sequence[Point], colour: Colour = LINE, width: float = LINE_WIDTH) -> None:
        """A smooth open line through ``points`` with round ends."""
        self._line(self._fine(curve(points, closed=False)), colour, width)

    def limb(self, start: Point, end: Point, width: float, fill: Colour, line: Colour = LINE) -> None:
        """A straight limb with round ends and an outline."""
        fine = self._fine([start, end])
        self._line(fine, line, width + LINE_WIDTH)
        self._line(fine, fill, width - LINE_WIDTH)

    def _fine(self, points: Sequence[Point]) -> list[Point]:
        a, b, c, d, e, f = self._frame
        return [((a * x + b * y + c) * FINE, (d * x + e * y + f) * FINE) for x, y in points]

    def _line(self, fine: list[Point], colour: Colour, width: float) -> None:
        self._draw.line(fine, colour, round(width * FINE), joint="curve")
        radius = width * FINE / 2
        for x, y in (fine[0], fine[-1]):
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)


def curve(points: Sequence[Point], *, closed: bool) -> list[Point]:
    """Catmull and Rom's spline (1974) through ``points``, as corners of a polygon."""
    count = len(points)

    def at(index: int) -> Point:
        return points[index % count] if closed else points[min(max(index, 0), count - 1)]

    found = []
    for index in range(count if closed else count - 1):
        around = [at(index + step) for step in (-1, 0, 1, 2)]
        for part in range(SMOOTH):
            t = part / SMOOTH
            weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3)
            found.append(tuple(sum(w * p[axis] for w, p in zip(weights, around, strict=True)) / 2 for axis in (0, 1)))
    return found if closed else [*found, points[-1]]


def _after(outer: Frame, inner: Frame) -> Frame:
    """The frame that applies ``inner`` first and ``outer`` then."""
    a, b, c, d, e, f = outer
    g, h, i, j, k, m = inner
    return (a * g + b * j, a * h + b * k, a * i + b * m + c, d * g + e * j, d * h + e * k, d * i + e * m + f)
