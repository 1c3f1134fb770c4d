"""Where a result goes, checked before the work: never onto a source, never over what lies there unasked."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from studio import runs
from studio.errors import RequestError
from studio.merging.preflight import file_name
from studio.merging.request import MergeRequest

SUFFIX = ".safetensors"
LONGEST_NAME = 200  # bytes; disks know 255, and a partial file is called a little longer


def target_of(request: MergeRequest, models_dir: Path | None, sources: Sequence[Path], *, folder: bool) -> Path | None:
    """The place that the request names, made sure of; None where the result goes to the run's own folder."""
    if not request.target:
        return None
    path = Path(os.path.expanduser(request.target))
    if not path.is_absolute():
        if models_dir is None or ".." in path.parts:
            raise RequestError(
                "target: a relative target lies inside the models folder, and there is none or it leads out of it; "
                "name an absolute one.",
                field="target",
            )
        path = models_dir / path
    if folder == (path.suffix == SUFFIX):
        kind = "a folder, without .safetensors" if folder else f"a file that ends in {SUFFIX}"
        raise RequestError(f"target: the result is {kind}; name one.", field="target")
    check_place(path, sources, overwrite=request.overwrite)
    return path


def check_place(path: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Raises RequestError when ``path`` is a source, is taken, or cannot be written."""
    if any(_is_same(path, source) for source in sources):
        raise RequestError(f"target: {path.name} is one of the sources; name another.", field="target")
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise RequestError(f"target: a name of {len(path.name)} characters is too long; shorten it.", field="target")
    if os.path.exists(path) and not overwrite:
        raise RequestError(f"target: there is {path.name} already; name another, or set overwrite.", field="target")
    if os.path.isdir(path):
        raise RequestError(f"target: the folder {path.name} is not replaced; name another.", field="target")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise RequestError(
            f"target: {path.parent} cannot be written ({error.strerror}); name another place.", field="target"
        ) from None


def output_in(folder: Path, request: MergeRequest, sources: Sequence[Path], *, as_folder: bool) -> Path:
    """The result's path in a run's folder (or in the partial one that becomes it); refuses to replace a source."""
    path = folder / (file_name(request) + ("" if as_folder else SUFFIX))
    final = folder.parent / path.name if folder.name == runs.PARTIAL else path
    if any(_is_same(final, source) for source in sources):
        raise RequestError(f"title: {path.name} is one of the sources there; choose another title.", field="title")
    return path


@contextlib.contextmanager
def fresh_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that gets its name when the block ends well, and is gone when it does not."""
    fresh = path.with_name(f".{path.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _is_same(path: Path, source: Path) -> bool:
    return os.path.exists(path) and path.samefile(source)
