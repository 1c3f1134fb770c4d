"""Captions where people keep them: beside the picture, in a metadata.jsonl, or in the folder's name."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from studio.training.records import File, Limits, Problem, clean_name

SIDECARS = (".txt", ".caption")  # the first that is there counts
METADATA = "metadata.jsonl"
TEXT_KEYS = ("text", "caption", "prompt")  # the first that is there counts; `datasets` writes text
KOHYA = re.compile(r"(?P<repeats>\d{1,6})_(?P<words>.+)")
REGULARISATION = frozenset({"reg", "regularization", "regularisation"})
NO_CAPTION = re.compile(r"(readme|licen[cs]e|notice|copying|requirements|changelog).*", re.IGNORECASE)
MAX_REPEATS = 1_000
MAX_TEXT, MAX_METADATA = 1024**2, 256 * 1024**2  # bytes


@dataclass(frozen=True)
class Captions:
    """``by_name`` holds a picture's caption by its name; only what has words is there."""

    by_name: Mapping[str, str]
    problems: tuple[Problem, ...]


def find_captions(pictures: Sequence[File], files: Sequence[File], limits: Limits, root: str = "") -> Captions:
    """Captions of the pictures among all files of a set. A sidecar counts more than metadata, that than a folder."""
    problems: list[Problem] = []
    found = {picture.name: folder_words(picture, root)[1] for picture in pictures}
    for file in files:
        if file.name.rpartition("/")[2] == METADATA:
            found |= _metadata(file, {picture.name for picture in pictures}, problems)
    for suffix in reversed(SIDECARS):
        found |= _sidecars([file for file in files if file.suffix == suffix], pictures, problems)
    found = {name: _bounded(name, caption, limits, problems) for name, caption in found.items() if caption}
    return Captions(found, tuple(problems))


def folder_words(picture: File, root: str = "") -> tuple[int, str]:
    """Repeats and words of kohya's folder names: "10_sks dog" is (10, "sks dog"), any other name (1, "").

    ``root`` is the name of the set's own folder, which counts for what lies right in it.
    """
    match = KOHYA.fullmatch(picture.folder.rpartition("/")[2] or root)
    return (int(match["repeats"]), match["words"].replace("_", " ").strip()) if match else (1, "")


def is_regularisation(picture: File) -> bool:
    """Whether it lies in kohya's folder of pictures that are no examples."""
    return any(part.lower() in REGULARISATION for part in picture.folder.split("/"))


def _sidecars(texts: Sequence[File], pictures: Sequence[File], problems: list[Problem]) -> dict[str, str]:
    """ "fox.txt" and "fox.png.txt" both belong to fox.png."""
    owners: dict[str, list[str]] = {}
    for picture in pictures:
        owners.setdefault(picture.stem, []).append(picture.name)
        owners.setdefault(picture.name, []).append(picture.name)
    found: dict[str, str] = {}
    for text in texts:
        if text.stem not in owners:
            if not NO_CAPTION.fullmatch(text.name.rpartition("/")[2]):
                problems.append(_orphan(text.name, "is a caption without its picture"))
            continue
        caption = _text(text, problems)
        if caption == "":
            problems.append(Problem(text.name, "is empty, as if there were no caption; write one.", kind="caption"))
        elif caption is not None:
            found |= dict.fromkeys(owners[text.stem], caption)
    return found


def _text(file: File, problems: list[Problem]) -> str | None:
    """A text file's words on one line, or None when it cannot be read."""
    try:
        data = file.read(MAX_TEXT)
    except OSError:
        problems.append(Problem(file.name, "cannot be read, so its caption is not used; save it anew.", kind="caption"))
        return None
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            return one_line(data.decode(encoding))
        except UnicodeDecodeError:
            problems.append(
                Problem(file.name, "is not UTF-8, so letters may be wrong; save it as UTF-8.", kind="caption")
            )
    return one_line(data.decode("latin-1"))


def _metadata(file: File, names: set[str], problems: list[Problem]) -> dict[str, str]:
    """The rows {"file_name": ..., "text": ...} of `datasets`' ImageFolder; names count from the file's own folder."""
    try:
        lines = file.read(MAX_METADATA).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        problems.append(Problem(file.name, "is no UTF-8 text, so it is not used; save it anew.", kind="caption"))
        return {}
    found: dict[str, str] = {}
    broken: list[int] = []
    lost: list[str] = []
    for number, line in enumerate(lines, start=1):
        row = _row(line) if line.strip() else ("", "")
        if row is None:
            broken.append(number)
        elif row[0]:
            name = posixpath.normpath(posixpath.join(file.folder, row[0]))
            found[name] = row[1]
            lost += [] if name in names else [row[0]]
    problems.extend(_metadata_problems(file, broken, lost))
    return {name: caption for name, caption in found.items() if name in names}


def _row(line: str) -> tuple[str, str] | None:
    """A picture's name and caption, or None when the line says neither."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        return None
    text = next((row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)), None)
    return None if text is None else (clean_name(row["file_name"].replace("\\", "/")), one_line(text))


def _metadata_problems(file: File, broken: list[int], lost: list[str]) -> Iterator[Problem]:
    if broken:
        lines = f"line {broken[0]:,}" + (f" and {len(broken) - 1:,} more" if len(broken) > 1 else "")
        yield Problem(
            file.name, f'{lines}: no {{"file_name": ..., "text": ...}}, so it is not used; mend it.', kind="caption"
        )
    if lost:
        more = f" and {len(lost) - 1:,} more" if len(lost) > 1 else ""
        yield _orphan(file.name, f"names {one_line(lost[0])[:80]!r}{more} without a picture of that name")


def _orphan(name: str, what: str) -> Problem:
    return Problem(name, f"{what}; add the picture or delete the caption.", kind="orphan")


def _bounded(name: str, caption: str, limits: Limits, problems: list[Problem]) -> str:
    if len(caption) <= limits.max_caption:
        return caption
    most = f"{limits.max_caption:,}"
    problems.append(Problem(name, f"has a caption of more than {most} characters; it is cut there.", kind="caption"))
    return caption[: limits.max_caption]


def one_line(text: str) -> str:
    """Words with single blanks between them; control characters become blanks."""
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
