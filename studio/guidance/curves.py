"""Curves as SVG, without a drawing library: diversity against fidelity, each guider a line, cost as the dots' size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 460, 64, 210, 40, 52
TICKS = 5
# Okabe & Ito 2008: told apart without seeing red and green.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#777777")


@dataclass(frozen=True)
class Dot:
    """A column: where it stands, the half widths of its intervals, its price (area of the dot), and its words."""

    x: tuple[float, float, float]  # value, low, high
    y: tuple[float, float, float]
    price: float
    words: str


@dataclass(frozen=True)
class Curve:
    title: str
    dots: Sequence[Dot]


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        return [self.low + (self.high - self.low) * index / (TICKS - 1) for index in range(TICKS)]


def svg(title: str, curves: Sequence[Curve], x_words: str, y_words: str) -> str:
    """A figure of its own; every dot shows its numbers when it is pointed at."""
    dots = [dot for curve in curves for dot in curve.dots]
    x = _scale([value for dot in dots for value in dot.x], LEFT, WIDTH - RIGHT)
    y = _scale([value for dot in dots for value in dot.y], HEIGHT - BOTTOM, TOP)
    most = max(dot.price for dot in dots)
    body = [*_axes(x, y, x_words, y_words)]
    for index, curve in enumerate(curves):
        body += _curve(curve, COLOURS[index % len(COLOURS)], x, y, most)
        body.append(_text(WIDTH - RIGHT + 34, TOP + 8 + 22 * index, curve.title, "start"))
        body.append(_disc(WIDTH - RIGHT + 20, TOP + 4 + 22 * index, 6, COLOURS[index % len(COLOURS)]))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            f'<text x="{LEFT}" y="22" font-size="15">{escape(title)}</text>',
            *body,
            "</svg>",
            "",
        ]
    )


def _scale(values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.5
    return _Scale(low - room, high + room, start, end)


def _axes(x: _Scale, y: _Scale, x_words: str, y_words: str) -> list[str]:
    floor, left = HEIGHT - BOTTOM, LEFT
    parts = [f'<path d="M{left} {TOP}V{floor}H{WIDTH - RIGHT}" fill="none" stroke="#444"/>']
    parts += [_text(x(tick), floor + 18, f"{tick:.3g}", "middle") for tick in x.ticks()]
    parts += [_text(left - 8, y(tick) + 4, f"{tick:.3g}", "end") for tick in y.ticks()]
    parts.append(_text((left + WIDTH - RIGHT) / 2, HEIGHT - 12, x_words, "middle"))
    middle = (TOP + floor) / 2
    parts.append(f'<text x="16" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 16 {middle:.1f})">')
    parts[-1] += f"{escape(y_words)}</text>"
    return parts


def _curve(curve: Curve, colour: str, x: _Scale, y: _Scale, most: float) -> list[str]:
    points = " ".join(f"{x(dot.x[0]):.1f},{y(dot.y[0]):.1f}" for dot in curve.dots)
    parts = [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>']
    for dot in curve.dots:
        across = f"M{x(dot.x[1]):.1f} {y(dot.y[0]):.1f}H{x(dot.x[2]):.1f}"
        along = f"M{x(dot.x[0]):.1f} {y(dot.y[1]):.1f}V{y(dot.y[2]):.1f}"
        parts.append(f'<path d="{across}{along}" stroke="{colour}" stroke-opacity="0.18"/>')
        parts.append(_disc(x(dot.x[0]), y(dot.y[0]), 9 * (dot.price / most) ** 0.5, colour, dot.words))
    return parts


def _disc(x: float, y: float, radius: float, colour: str, words: str = "") -> str:
    inner = f"<title>{escape(words)}</title>" if words else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" fill-opacity="0.75">{inner}</circle>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
