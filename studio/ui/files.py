"""Addresses of finished files: each holds a token that only its owner's page was given, and serves nothing else."""

from __future__ import annotations

import hashlib
import hmac
import io
import secrets
import zipfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from studio.training import folder as training
from studio.ui import guidance_result, train_result
from studio.ui.picture_files import PictureFiles

if TYPE_CHECKING:
    from studio.ui.examples import Examples
    from studio.workbench import Workbench

THUMBNAIL_WIDTHS = (128, 256, 512)
MOST_TOKENS = 20_000
KINDS = {".png": "image/png", ".webp": "image/webp", ".gif": "image/gif"}
SAVED = {".pdf": "application/pdf", ".svg": "image/svg+xml"}  # what is never shown in place, only saved
SAVED |= {".csv": "text/csv", ".json": "application/json"}
MODEL, ZIP = ".safetensors", ".zip"  # a folder is packed while it is sent
MODELS = {MODEL: "application/octet-stream"}  # large: fetched once, not kept by a browser
CHUNK = 1024**2  # bytes
ONCE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
SAVE = {"Content-Disposition": "attachment"}  # under the name that the link on the page gives
HEADERS = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


class Files:
    """Knows which token stands for whose job. Tokens end with the process; pages that reconnect get new ones."""

    def __init__(self, workbench: Workbench, examples: Examples) -> None:
        self._workbench, self._examples = workbench, examples
        self._secret = secrets.token_bytes(32)
        self._jobs: dict[str, tuple[str, str]] = {}
        self.pictures = PictureFiles(workbench)

    def link(self, job_id: str, owner: str, name: str, width: int | None = None) -> str:
        """The address of one of a job's files, or of a thumbnail of it."""
        token = hmac.new(self._secret, f"{len(owner)}:{owner}:{job_id}".encode(), hashlib.sha256).hexdigest()[:40]
        if token not in self._jobs:
            while len(self._jobs) >= MOST_TOKENS:
                self._jobs.pop(next(iter(self._jobs)), None)
            self._jobs[token] = (job_id, owner)
        return f"outputs/{token}/{name}" + (f"?w={width}" if width else "")

    def routes(self) -> list[Route]:
        return [
            Route("/outputs/{token}/{name}", self._output, methods=["GET"]),
            Route("/examples/{slug}/{name}", self._example, methods=["GET"]),
            *self.pictures.routes(),
        ]

    async def _output(self, request: Request) -> Response:
        job_id, owner = self._jobs.get(request.path_params["token"], ("", ""))
        snapshot = self._workbench.snapshot(job_id, owner) if job_id else None
        if snapshot is None:
            return _missing()
        if not snapshot.summary:
            return _sample(snapshot.folder, request) if snapshot.engine == "train" else _missing()
        return await _served(snapshot.folder, snapshot.summary, request)

    async def _example(self, request: Request) -> Response:
        example = self._examples.find(request.path_params["slug"])
        return await _served(example.folder, example.summary, request) if example else _missing()


def _sample(folder: Path, request: Request) -> Response:
    """A picture that a training drew while it learns; it is as small as its thumbnail would be."""
    path = training.sample(folder, request.path_params["name"])
    if path is None or not path.is_file():
        return _missing()
    return FileResponse(path, media_type=KINDS[path.suffix], headers=HEADERS)


async def _served(folder: Path, summary: Mapping[str, Any], request: Request) -> Response:
    """A file that the summary names, and no other that may lie beside it."""
    name = request.path_params["name"]
    path = folder / name
    if name not in named_files(summary):
        return _missing()
    if path.suffix == ZIP and path.with_suffix("").is_dir():
        headers = ONCE | {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(zipped(path.with_suffix("")), media_type="application/zip", headers=headers)
    if path.suffix not in KINDS | SAVED | MODELS or not path.is_file():
        return _missing()
    if path.suffix in MODELS:
        return FileResponse(path, media_type=MODELS[path.suffix], headers=ONCE, filename=name)
    if path.suffix in SAVED:
        return FileResponse(path, media_type=SAVED[path.suffix], headers=HEADERS | SAVE)
    width = request.query_params.get("w", "")
    if width in map(str, THUMBNAIL_WIDTHS):
        small = await run_in_threadpool(_thumbnail, path, int(width), path.stat().st_mtime_ns)
        return Response(small, media_type="image/jpeg", headers=HEADERS)
    return FileResponse(path, media_type=KINDS[path.suffix], headers=HEADERS)


def zipped(folder: Path) -> Iterator[bytes]:
    """A folder as an archive, piece by piece: weights are not made smaller by packing, so they are only put in line."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = zipfile.ZipInfo.from_file(path, Path(folder.name) / path.relative_to(folder))
            with path.open("rb") as source, archive.open(inside, "w", force_zip64=True) as out:
                while piece := source.read(CHUNK):
                    out.write(piece)
                    yield pipe.taken()
    yield pipe.taken()


class _Pipe(io.RawIOBase):
    """Takes what is written until somebody takes it away."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        return len(data)

    def taken(self) -> bytes:
        held, self._held = bytes(self._held), bytearray()
        return held


def named_files(summary: Mapping[str, Any]) -> set[str]:
    """Every file name that a result's summary mentions; that of a merged folder stands with ``.zip`` behind it."""
    if summary.get("checkpoints") is not None:
        return train_result.named_files(summary)
    if summary.get("columns") is not None:
        return guidance_result.named_files(summary)
    found = {entry["image"] for part in ("pictures", "trials") for entry in summary.get(part) or ()}
    found |= {summary["strip"]} if summary.get("strip") else set()
    found |= {left["grid"] for left in summary.get("stopped") or ()}
    found |= {study["grid"]} if (study := summary.get("study")) else set()
    output = str(summary.get("output") or "")
    found |= {output if output.endswith(MODEL) else f"{output}{ZIP}"} if output else set()
    for candidate in summary.get("candidates") or ():
        found.update(value for key, value in candidate.items() if isinstance(value, str) and key != "seed")
        found.update(candidate.get("views") or ())
        found.update((candidate.get("puzzle") or {}).values())
    return {name for name in found if Path(name).name == name}


@lru_cache(maxsize=256)
def _thumbnail(path: Path, width: int, changed: int) -> bytes:
    from PIL import Image

    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((width, width))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def _missing() -> Response:
    return PlainTextResponse("There is no such file.", status_code=404, headers={"Cache-Control": "no-store"})
