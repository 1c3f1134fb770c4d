"""Print-ready sheets of a puzzle: A4 and Letter PDF at 300 dpi, and its cut lines as SVG.

Three pages: the picture with its cut lines; the back, mirrored so that a number lies behind its piece when the sheet is
printed on both sides; and the guide with every solution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from studio.illusions.puzzle import PRINT_SIDE, Labels, Puzzle, anchors, outlines

DPI = 300
MM = DPI / 25.4  # pixels per millimetre
INK, SOFT = (40, 40, 44), (120, 120, 126)
LINE = (255, 255, 255), (60, 60, 66)  # light below dark, to be seen on any picture
MARGIN, TOP, GAP, UNDER = 12.0, 36.0, 6.0, 17.0  # millimetres of the guide: around, above, between and below boards


@dataclass(frozen=True)
class Paper:
    name: str
    title: str
    width: float  # millimetres
    height: float

    @property
    def size(self) -> tuple[int, int]:
        return round(self.width * MM), round(self.height * MM)


PAPERS = (Paper("a4", "A4", 210.0, 297.0), Paper("letter", "Letter", 215.9, 279.4))


@dataclass(frozen=True)
class Reading:
    """What a view's solution shows: its prompt, how it is seen, and the picture itself."""

    prompt: str
    seen: str
    picture: Image.Image


def save_sheets(puzzle: Puzzle, picture: Image.Image, readings: Sequence[Reading], stem: Path) -> dict[str, str]:
    """Write ``stem-puzzle-a4.pdf``, ``-letter.pdf`` and ``.svg``; returns their file names by kind.

    ``readings`` has one entry for every view of the request; those without a layout are left out of the guide.
    """
    files = {}
    for paper in PAPERS:
        path = stem.with_name(f"{stem.name}-puzzle-{paper.name}.pdf")
        first, *others = pages(puzzle, picture, readings, paper)
        first.save(path, "PDF", save_all=True, append_images=others, resolution=DPI, quality=92, title=_title(readings))
        files[paper.name] = path.name
    path = stem.with_name(f"{stem.name}-puzzle.svg")
    path.write_text(svg(puzzle), encoding="utf-8")
    return files | {"svg": path.name}


def svg(puzzle: Puzzle) -> str:
    """The cut lines in millimetres, the picture's corner at the origin, every edge cut once; the border is the last."""
    scale = PRINT_SIDE / puzzle.cells
    paths = [
        '<path d="M' + " L".join(f"{x * scale:.3f} {y * scale:.3f}" for x, y in line) + '"/>'
        for line in outlines(puzzle.printed)
    ]
    side = f"{PRINT_SIDE:g}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}mm" height="{side}mm" viewBox="0 0 {side} {side}">',
            f"<title>Cut lines of {puzzle.count} pieces</title>",
            '<g fill="none" stroke="#f00" stroke-width="0.1" stroke-linejoin="round">',
            *paths,
            "</g>",
            "</svg>\n",
        ]
    )


def pages(
    puzzle: Puzzle, picture: Image.Image, readings: Sequence[Reading], paper: Paper
) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Front, back and guide, each as large as ``paper`` at 300 dpi."""
    return _front(puzzle, picture, readings, paper), _back(puzzle, paper), _guide(puzzle, readings, paper)


def _front(puzzle: Puzzle, picture: Image.Image, readings: Sequence[Reading], paper: Paper) -> Image.Image:
    page, side = _blank(paper), round(PRINT_SIDE * MM)
    board = picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    _draw_lines(board, puzzle.printed)
    _place(page, board, paper)
    words = f"{_title(readings)}: {puzzle.count} pieces. Cut along the lines."
    _write(page, words, paper.height - 14, 4, SOFT)
    return page


def _back(puzzle: Puzzle, paper: Paper) -> Image.Image:
    page, side = _blank(paper), round(PRINT_SIDE * MM)
    mirrored = puzzle.printed[:, ::-1]
    board = Image.new("RGB", (side, side), "white")
    _draw_lines(board, mirrored)
    _draw_numbers(board, mirrored, np.zeros(puzzle.count, np.uint8), plain=True)
    _place(page, board, paper)
    _write(page, "The back: print it behind page 1, turned over the long edge.", paper.height - 14, 4, SOFT)
    return page


def _guide(puzzle: Puzzle, readings: Sequence[Reading], paper: Paper) -> Image.Image:
    """Every solution with the numbers where they belong, turned as the pieces are."""
    page = _blank(paper)
    _write(page, f"{puzzle.count} pieces, {len(puzzle.layouts)} solutions", 18, 7, INK)
    _write(page, "A number's underline is at the bottom of its piece as printed; turn pieces as shown.", 27, 4, SOFT)
    columns = 1 if len(puzzle.layouts) <= 2 else 2
    rows = math.ceil(len(puzzle.layouts) / columns)
    across = (paper.width - 2 * MARGIN - GAP * (columns - 1)) / columns
    side = min(across, (paper.height - TOP - MARGIN) / rows - UNDER)
    for index, layout in enumerate(puzzle.layouts):
        row, column = divmod(index, columns)
        left = paper.width / 2 + (column - columns / 2) * (side + GAP) + GAP / 2
        top = TOP + row * (side + UNDER)
        reading = readings[layout.view]
        board = reading.picture.convert("RGB").resize((round(side * MM),) * 2, Image.Resampling.LANCZOS)
        _draw_lines(board, layout.piece)
        _draw_numbers(board, layout.piece, layout.turns)
        page.paste(board, (round(left * MM), round(top * MM)))
        _write(page, f"{index + 1}. {reading.prompt}", top + side + 5, 5, INK, left + side / 2, side)
        _write(page, reading.seen, top + side + 10.5, 3.5, SOFT, left + side / 2, side)
    return page


def _blank(paper: Paper) -> Image.Image:
    return Image.new("RGB", paper.size, "white")


def _place(page: Image.Image, board: Image.Image, paper: Paper) -> None:
    """In the middle across, so that front and back lie upon each other when the sheet is turned."""
    page.paste(board, ((page.width - board.width) // 2, round((paper.height - PRINT_SIDE) * MM * 0.4)))


def _draw_lines(board: Image.Image, piece: Labels) -> None:
    draw, scale = ImageDraw.Draw(board), (board.width - 1) / len(piece)
    lines = [[(x * scale, y * scale) for x, y in line] for line in outlines(piece)]
    for colour, width in zip(LINE, (5, 2), strict=True):
        for line in lines:
            draw.line(line, fill=colour, width=width, joint="curve")


def _draw_numbers(board: Image.Image, piece: Labels, turns: Sequence[int], *, plain: bool = False) -> None:
    """A number on every piece, turned with it; on a picture (not ``plain``) each on a light plate."""
    scale = board.width / len(piece)
    places = anchors(piece)
    room = min(depth for _, _, depth in places) * 2 * scale
    font = ImageFont.load_default(max(1.6 * MM, min(6 * MM, 0.5 * room)))
    for label, ((x, y, _), turn) in enumerate(zip(places, turns, strict=True)):
        tile = _number(str(label + 1), font, plain).rotate(90 * int(turn), expand=True)
        board.paste(tile, (round(x * scale - tile.width / 2), round(y * scale - tile.height / 2)), tile)


def _number(text: str, font: ImageFont.FreeTypeFont, plain: bool) -> Image.Image:
    """An underlined number, so that 6 and 9 can be told apart however it lies."""
    left, top, right, bottom = font.getbbox(text)
    pad = max(2, round(font.size / 6))
    width, height = round(right - left) + 2 * pad, round(bottom - top) + 4 * pad
    tile = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(tile)
    if not plain:
        draw.rounded_rectangle((0, 0, width - 1, height - 1), pad, fill=(255, 255, 255, 215))
    draw.text((pad - left, pad - top), text, fill=INK, font=font)
    under = height - 2 * pad
    draw.line((pad, under, width - pad, under), fill=INK, width=max(2, pad // 2))
    return tile


def _write(
    page: Image.Image,
    text: str,
    y: float,
    size: float,
    ink: tuple[int, int, int],
    x: float | None = None,
    width: float | None = None,
) -> None:
    """One centred line at ``y``, ``size`` high, smaller where it is too long for ``width``; all in millimetres."""
    middle = page.width / 2 if x is None else x * MM
    most = page.width - 30 * MM if width is None else width * MM
    font = ImageFont.load_default(size * MM)
    if font.getlength(text) > most:
        font = ImageFont.load_default(max(1.8 * MM, size * MM * most / font.getlength(text)))
    while text and font.getlength(text) > most:
        text = text[:-2].rstrip() + "…"
    ImageDraw.Draw(page).text((middle, y * MM), text, fill=ink, font=font, anchor="mm")


def _title(readings: Sequence[Reading]) -> str:
    return " / ".join(reading.prompt for reading in readings)
