"""Sets that a person has put in: ``datasets/<id>/{set.json, edits.json, files/..., earlier/...}``.

Uploads are copied, and a zip's entries read by the rules for zips. What comes second never takes the place of what is
there: of two pictures with one name the later lies in a folder of its own, and a caption that gives way is kept.
"""

from __future__ import annotations

import filecmp
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from studio.errors import RequestError
from studio.policy import UPLOADED_SET, Limits
from studio.runs import NEW
from studio.training import layouts, sources
from studio.training.edits import alone
from studio.training.records import FIELD, File, clean_name
from studio.training.records import Limits as ReadLimits
from studio.upload_rules import check_set, check_set_picture

UPLOAD = "upload:"
FILES, EARLIER = "files", "earlier"
LONGEST_PART = 200  # bytes of a folder's or file's name
DEEPEST = 8  # folders in folders
KOHYA = layouts.KOHYA


@dataclass(frozen=True)
class Given:
    """A file that somebody chose, and its name with the folders it lay in, as a browser tells it."""

    path: Path
    name: str


def files_of(name: str, datasets: Path | None) -> Path | None:
    """The folder of the files of ``upload:id``; None where there is no such set."""
    folder = folder_of(name, datasets)
    return None if folder is None else folder / FILES


def folder_of(name: str, datasets: Path | None) -> Path | None:
    """The set's own folder, if it is there. No path can be made of a name: it is 32 hexadecimal digits."""
    if datasets is None or not UPLOADED_SET.fullmatch(name):
        return None
    folder = datasets / name.removeprefix(UPLOAD)
    return folder if (folder / FILES).is_dir() else None


def new_name() -> str:
    """``upload:`` and 128 random bits."""
    return UPLOAD + secrets.token_hex(16)


def put_in(given: Sequence[Given], folder: Path, limits: Limits) -> tuple[str, ...]:
    """Copy what was chosen into the set's ``folder``, which may be new; returns names of files that no set holds.

    All or nothing: raises RequestError or PolicyError, and the set is as it was, when it comes to more than
    ``limits`` allow, or when one file is a zip that cannot be read.
    """
    files, others = _chosen(given, limits)
    if not files:
        named = f" ({_few(others)})" if others else ""
        raise RequestError(
            f"data: there is no picture or caption among these files{named}; drop pictures, .txt files or a .zip.",
            field=FIELD,
        )
    held = {path.relative_to(folder / FILES).as_posix(): size for path, size in _sizes(folder / FILES)}
    both = held | {file.name: file.size for file in files}
    check_set(len(both), sum(both.values()), limits)
    with _written(), _staging(folder) as staged:
        for file in files:
            _copy(file, staged / file.name)
            if file.suffix in sources.PICTURES:
                check_set_picture(staged / file.name, limits)
        (folder / FILES).mkdir(parents=True, exist_ok=True)
        with alone(folder):
            _merge(staged, folder)
    return tuple(others)


def title_of(given: Sequence[Given]) -> str:
    """What a new set is called: the zip, the folder, or the day."""
    first = Path(clean_name(given[0].name.replace("\\", "/")))
    tops = {name.replace("\\", "/").split("/")[0] for name in (each.name for each in given)}
    if len(given) == 1 and first.suffix.lower() == ".zip":
        return first.stem[:60]
    if len(tops) == 1 and "/" in given[0].name.replace("\\", "/"):
        return next(iter(tops))[:60]
    return time.strftime("Pictures of %d %b, %H:%M")


def size_of(folder: Path) -> int:
    """Bytes of everything in a folder."""
    return sum(size for _, size in _sizes(folder))


def _chosen(given: Sequence[Given], limits: Limits) -> tuple[list[File], list[str]]:
    """What a set holds of the chosen files, by the names it gets there; and the names of all others."""
    files: list[File] = []
    others: list[str] = []
    loose: list[File] = []
    for each in given:
        name = _safe(each.name)
        file = File(name, each.path, each.path.stat().st_size)
        if file.suffix == ".zip":
            inside = _of_zip(each.path, limits)
            files += _unwrapped([each for each in inside if _belongs(each)])
            others += [each.name for each in inside if each.suffix in sources.FOREIGN]
        elif _belongs(file):
            loose.append(file)
        elif not name.rpartition("/")[2].startswith("."):
            others.append(name)
    files += _unwrapped(loose)
    unique = {file.name: file for file in files}
    return list(unique.values()), others


def _of_zip(path: Path, limits: Limits) -> list[File]:
    bounds = ReadLimits(max_files=limits.max_set_files, max_archive_bytes=limits.max_set_bytes)
    files, _ = sources.list_files(path, bounds)
    return [File(_safe(file.name), file.path, file.size, file.entry) for file in files]


def _belongs(file: File) -> bool:
    captions = file.suffix in layouts.SIDECARS or file.name.rpartition("/")[2] == layouts.METADATA
    return captions or file.suffix in sources.PICTURES


def _unwrapped(files: list[File]) -> list[File]:
    """Without the folder that all lie in, unless its name says something of them (kohya's ``10_sks dog``)."""
    tops = {file.name.partition("/")[0] if "/" in file.name else "" for file in files}
    (top,) = tops if len(tops) == 1 else ("",)
    if not top or KOHYA.fullmatch(top):
        return files
    return _unwrapped([File(file.name.partition("/")[2], file.path, file.size, file.entry) for file in files])


def _safe(name: str) -> str:
    """A name from outside as one that lies inside. Raises RequestError for one that points elsewhere."""
    parts = [part for part in clean_name(name.replace("\\", "/")).split("/") if part not in ("", ".")]
    if ".." in parts or not parts or len(parts) > DEEPEST:
        raise RequestError(f"data: the name {name[:80]!r} cannot be used; rename the file.", field=FIELD)
    shown = ["".join(mark if mark.isprintable() and mark != ":" else "_" for mark in part) for part in parts]
    if any(len(part.encode()) > LONGEST_PART for part in shown):
        raise RequestError(f"data: the name {name[:40]!r}… is too long; rename the file.", field=FIELD)
    return "/".join(shown)


def _copy(file: File, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.entry is None:
        shutil.copyfile(file.path, target)
    else:
        target.write_bytes(file.read(file.size))


def _merge(staged: Path, folder: Path) -> None:
    """Move what is staged to where it belongs. Called by one thread at a time."""
    files = folder / FILES
    new = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
    new = {name: path for name, path in new.items() if not _same(path, files / name)}
    clashing = {name for name in new if _is_picture(name) and (files / name).exists()}
    stems = {_stem(name) for name in clashing} if clashing else set()
    aside = _free_folder(files) if clashing else ""
    for name, path in new.items():
        moved = name in clashing or _stem(name) in stems or (bool(clashing) and _is_metadata(name))
        target = files / aside / name if moved else files / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            _make_way(target, folder / EARLIER, path)
        path.replace(target)


def _make_way(there: Path, earlier: Path, new: Path) -> None:
    """Captions that are there already are kept aside; of a metadata.jsonl the new rows come after the old ones."""
    earlier.mkdir(exist_ok=True)
    kept = earlier / f"{time.time_ns()}-{there.name}"
    shutil.copyfile(there, kept)
    if _is_metadata(there.name):
        new.write_bytes(there.read_bytes().rstrip() + b"\n" + new.read_bytes().removeprefix(b"\xef\xbb\xbf"))


def _free_folder(files: Path) -> str:
    number = 2
    while (files / str(number)).exists():
        number += 1
    return str(number)


def _same(path: Path, there: Path) -> bool:
    return there.is_file() and filecmp.cmp(path, there, shallow=False)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in sources.PICTURES


def _is_metadata(name: str) -> bool:
    return name.rpartition("/")[2] == layouts.METADATA


def _stem(name: str) -> str:
    """The name without its suffixes: "fox.png", "fox.txt" and "fox.png.txt" have one."""
    stem = re.sub(r"\.(txt|caption)$", "", name)
    return str(Path(stem).with_suffix("")) if _is_picture(stem) else stem


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A folder beside the sets; what a studio that was killed leaves of it is swept away later."""
    staged = folder.parent / f"{NEW}{secrets.token_hex(8)}"
    staged.mkdir(parents=True)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _written() -> Iterator[None]:
    """A disk that is full, or a name it does not take, is said in words."""
    try:
        yield
    except OSError as error:
        words = error.strerror or str(error)
        raise RequestError(
            f"data: the pictures cannot be kept ({words}); mend that and drop them again.", field=FIELD
        ) from None


def _sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    """Every file below a folder with its bytes."""
    for place, _, names in os.walk(folder):
        yield from ((Path(place, name), os.stat(Path(place, name)).st_size) for name in names)


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
    return ", ".join(name.rpartition("/")[2][:60] for name in names[:2]) + more
