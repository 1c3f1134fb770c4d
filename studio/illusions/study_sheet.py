"""The picture of a study: rows and columns of panels with headings that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from studio.imaging import grid

MOST, LEAST = 256, 200  # pixels: a picture's side at most, a column's width at least
GAP, LINE = 12, 24
HEAD, TEXT = 18, 15  # font sizes
INK, SOFT = (40, 40, 44), (96, 96, 102)


@dataclass(frozen=True)
class Panel:
    """One cell: the pictures of its views side by side, and the line under them."""

    pictures: Sequence[Image.Image]
    caption: str


def sheet(
    heads: Sequence[str], rows: Sequence[tuple[str, Sequence[Panel]]], means: Sequence[str], words: str
) -> Image.Image:
    """A heading over every column, a name before every row, ``means`` (if any) as a last row and ``words`` below."""
    boards = [[_board(panel.pictures) for panel in panels] for _, panels in rows]
    width = max(LEAST, *(board.width for line in boards for board in line))
    height = max(board.height for line in boards for board in line)
    head, text = ImageFont.load_default(HEAD), ImageFont.load_default(TEXT)
    titles = [_lines(title, head, width) for title in heads]
    left = 2 * GAP + round(max(text.getlength(name) for name in ("mean", *(name for name, _ in rows))))
    top = GAP + LINE * max(map(len, titles)) + GAP
    step = height + LINE + GAP
    bottom = top + step * len(rows) + (LINE if means else 0)
    page = Image.new("RGB", (left + (width + GAP) * len(heads), bottom + LINE + GAP), "white")
    pen = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        middle = left + column * (width + GAP) + width / 2
        for index, line in enumerate(title):
            pen.text((middle, GAP + LINE * (index + 0.5)), line, INK, head, anchor="mm")
        for row, (_, panels) in enumerate(rows):
            board = boards[row][column]
            page.paste(board, (round(middle - board.width / 2), top + row * step))
            pen.text((middle, top + row * step + height + LINE / 2), panels[column].caption, INK, text, anchor="mm")
        if means:
            pen.text((middle, bottom - LINE / 2), means[column], INK, text, anchor="mm")
    for row, (name, _) in enumerate(rows):
        pen.text((GAP, top + row * step + height / 2), name, INK, text, anchor="lm")
    if means:
        pen.text((GAP, bottom - LINE / 2), "mean", INK, text, anchor="lm")
    pen.text((GAP, bottom + LINE / 2), words, SOFT, text, anchor="lm")
    return page


def _board(pictures: Sequence[Image.Image]) -> Image.Image:
    small = [picture.copy() for picture in pictures]
    for picture in small:
        picture.thumbnail((MOST, MOST), Image.Resampling.LANCZOS)
    return grid(small, len(small), gap=4)


def _lines(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    """``text`` broken before a sign where a line would be too long; a single summand that is too long is cut."""
    lines = [""]
    for part in text.replace(" + ", "\n+ ").replace(" - ", "\n- ").split("\n"):
        joined = f"{lines[-1]} {part}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(_cut(part, font, width))
    return [line for line in lines if line]


def _cut(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    while text and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text
