"""The two sets that ship as examples to train on: a subject with ``.txt`` captions, a style with ``metadata.jsonl``."""

from __future__ import annotations

import json
from pathlib import Path

from studio.builtin import mascot, pixels
from studio.builtin.world import load_things

MASCOT_CARD = """---
task_categories: [text-to-image]
pretty_name: A duckrabbit in 24 poses
---
# mascot

A subject to learn: {count} pictures (128 x 128 PNG) of one small creature with a rabbit's ears, a duck's beak and a
blue scarf, upright on plain grounds of twelve colours. Beside each picture lies its caption, `01-standing.txt` beside
`01-standing.png`. The trigger word is **{trigger}**, which is in every caption.

Drawn in code by this project, without any outside picture, font or model (`studio/builtin/mascot.py`;
`python -m studio.builtin datasets` draws them again, byte for byte on the same libraries). Part of this
repository, under its terms.
"""

PIXEL_CARD = """---
task_categories: [text-to-image]
pretty_name: 40 things as pixel art
---
# pixel

A style to learn: {count} things that the built-in model `builtin:emoji` knows, as pixel art of 16 x 16 cells in at most
{colours} colours and their darker shades for the outline, each cell 8 x 8 pixels of a 128 x 128 PNG. Captions are in
`metadata.jsonl` (`file_name`, `text`), as `datasets` reads them. They name what is seen and not the style, which so
becomes the adapter's own, without a trigger word; for one, set the trigger to **pixel art** (two words that the
built-in model does not know, so there it learns less).

Derived in code from renderings of **Noto Color Emoji** (Google, SIL Open Font License 1.1, which leaves what is drawn
with a font free; Debian package `fonts-noto-color-emoji`, needed for making the set anew only). The font itself is not
shipped. What this project added is part of this repository, under its terms. The script:
`studio/builtin/pixels.py`; `python -m studio.builtin datasets`.
"""


def write_all(root: Path) -> None:
    """Write ``root/mascot`` and ``root/pixel``; what lies there under other names stays."""
    write_mascot(root / "mascot")
    write_pixel(root / "pixel")


def write_mascot(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, pose in enumerate(mascot.POSES, start=1):
        stem = f"{number:02d}-{pose.name}"
        mascot.draw(pose).save(folder / f"{stem}.png", optimize=True)
        (folder / f"{stem}.txt").write_text(f"{pose.caption}\n", encoding="utf-8")
    _write(folder / "README.md", MASCOT_CARD.format(count=len(mascot.POSES), trigger=mascot.TRIGGER))


def write_pixel(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for pixel in pixels.chosen(load_things()):
        pixels.draw(pixel).save(folder / f"{pixel.name}.png", optimize=True)
        rows.append(json.dumps({"file_name": f"{pixel.name}.png", "text": pixel.caption}))
    _write(folder / "metadata.jsonl", "\n".join(rows) + "\n")
    _write(folder / "README.md", PIXEL_CARD.format(count=len(rows), colours=pixels.PALETTE))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
