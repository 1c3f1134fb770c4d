"""Where pictures come from: a folder, a zip, or a list of files, all made into one list of files with names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio.errors import RequestError
from studio.training.archives import list_entries
from studio.training.records import FIELD, File, Limits, clean_name

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
FOREIGN = frozenset({".heic", ".heif", ".jxl", ".jp2", ".svg", ".psd", ".xcf", ".eps", ".pdf", ".ico", ".tga"})
FOREIGN |= {".exr", ".hdr", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".mp4", ".mov", ".webm"}
OTHER_ARCHIVES = frozenset({".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"})
UNSEEN = frozenset({"__macosx", "thumbs.db", "desktop.ini", "$recycle.bin"})  # what systems leave behind


def list_files(source: Path | Sequence[Path], limits: Limits) -> tuple[tuple[File, ...], Path]:
    """Every file of a set, sorted by name, and the set's root. Hidden files are left out.

    Raises RequestError with one sentence for a source that cannot be read as a whole.
    """
    try:
        if isinstance(source, Path) and stat.S_ISDIR(source.stat().st_mode):
            return _sorted(_walked(source, limits.max_files)), source
        return _listed([source] if isinstance(source, Path) else list(source), limits)
    except FileNotFoundError:
        raise _refused("There is no such folder or file; choose a folder, a zip or pictures.") from None
    except (OSError, ValueError) as error:  # not allowed, gone meanwhile, or a name that no disk takes
        words = error.strerror if isinstance(error, OSError) and error.strerror else "its name cannot be used"
        raise _refused(f"The pictures cannot be listed ({words}); choose another folder or file.") from None


def _listed(paths: list[Path], limits: Limits) -> tuple[tuple[File, ...], Path]:
    if len(paths) == 1 and (paths[0].suffix.lower() == ".zip" or _is_zip(paths[0])):
        return _sorted(_zipped(paths[0], limits)), paths[0]
    archives = [path for path in paths if path.suffix.lower() in OTHER_ARCHIVES | {".zip"}]
    if archives:
        raise _refused(f"{archives[0].name} cannot be read here: give a zip alone, and make one of any other archive.")
    return _sorted(_named(paths, limits.max_files)), paths[0].parent if paths else Path()


def _walked(root: Path, most: int) -> Iterator[File]:
    """The files below a folder; links to folders are not followed, so that no walk is endless."""
    count = 0
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _unseen(name))
        for name in names:
            path = Path(folder, name)
            if _unseen(name) or not path.is_file():
                continue
            count += 1
            _check_count(count, most)
            yield File(clean_name(path.relative_to(root).as_posix()), path, path.stat().st_size)


def _zipped(path: Path, limits: Limits) -> Iterator[File]:
    entries = list_entries(
        path,
        max_files=limits.max_files,
        max_bytes=limits.max_archive_bytes,
        max_ratio=limits.max_archive_ratio,
    )
    for name, entry in entries:
        if not any(_unseen(part) for part in name.split("/")):
            yield File(clean_name(name), path, entry.size, entry)


def _named(paths: list[Path], most: int) -> Iterator[File]:
    """Files from anywhere by their last names; of equal ones the second becomes ``name-2``, and so its caption."""
    _check_count(len(paths), most)
    seen: dict[str, int] = {}
    for path in paths:
        if not path.is_file():
            raise _refused(f"There is no file {path.name}; choose the pictures again.")
        if _unseen(path.name):
            continue
        count = seen[path.name] = seen.get(path.name, 0) + 1
        name = path.name if count == 1 else f"{path.stem}-{count}{path.suffix}"
        yield File(clean_name(name), path, path.stat().st_size)


def _sorted(files: Iterator[File]) -> tuple[File, ...]:
    """By name, so that order and seeds mean the same on every disk; one file for each name."""
    unique = {file.name: file for file in files}
    return tuple(unique[name] for name in sorted(unique))


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise _refused(f"There are more than {most:,} files; choose the folder of the pictures alone.")


def _refused(message: str) -> RequestError:
    return RequestError(message, field=FIELD)


def _unseen(name: str) -> bool:
    return name.startswith(".") or name.lower() in UNSEEN


def _is_zip(path: Path) -> bool:
    if path.suffix.lower() in PICTURES or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
