"""Addresses of the pictures of a set: each holds a token that only its owner's page was given; thumbnails alone."""

from __future__ import annotations

import hashlib
import hmac
import io
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from studio.errors import RequestError
from studio.training.pictures import decode
from studio.training.reading import Key, key_of

if TYPE_CHECKING:
    from studio.training.records import File
    from studio.workbench import Workbench

SMALL, LARGE = 320, 1280  # pixels of the longer side
MOST_TOKENS = 20_000
HEADERS = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


class PictureFiles:
    """Knows which token stands for whose set. Tokens end with the process; pages that reconnect get new ones."""

    def __init__(self, workbench: Workbench) -> None:
        self._workbench = workbench
        self._secret = secrets.token_bytes(32)
        self._sets: dict[str, tuple[str, str]] = {}

    def token(self, owner: str, data: str) -> str:
        """What stands for an owner's set in addresses."""
        token = hmac.new(self._secret, f"{len(owner)}:{owner}:{data}".encode(), hashlib.sha256).hexdigest()[:40]
        if token not in self._sets:
            while len(self._sets) >= MOST_TOKENS:
                self._sets.pop(next(iter(self._sets)), None)
            self._sets[token] = (owner, data)
        return token

    def routes(self) -> list[Route]:
        return [Route("/pictures/{token}/{picture}", self._picture, methods=["GET"])]

    async def _picture(self, request: Request) -> Response:
        owner, data = self._sets.get(request.path_params["token"], ("", ""))
        size = LARGE if request.query_params.get("size") == "large" else SMALL
        found = await run_in_threadpool(self._drawn, owner, data, request.path_params["picture"], size)
        if found is None:
            return PlainTextResponse(
                "There is no such picture.", status_code=404, headers={"Cache-Control": "no-store"}
            )
        return Response(found, media_type="image/jpeg", headers=HEADERS)

    def _drawn(self, owner: str, data: str, picture: str, size: int) -> bytes | None:
        """A picture of the set as it would be trained on, made small; None for whatever is none of it."""
        try:
            reading = self._workbench.sets(owner).reading(data) if data else None
            file = reading.by_id.get(picture) if reading else None
            if file is None:
                return None
            return _thumbnail(_Place(file, key_of(file))) if size == SMALL else _jpeg(file, size)
        except (RequestError, OSError):  # somebody took it away since, or it is no picture
            return None


class _Place:
    """A file with what changes when it does, by which alone it is remembered."""

    def __init__(self, file: File, key: Key) -> None:
        self.file, self.key = file, key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Place) and self.key == other.key


@lru_cache(maxsize=1024)
def _thumbnail(place: _Place) -> bytes:
    return _jpeg(place.file, SMALL)


def _jpeg(file: File, side: int) -> bytes:
    from studio.training.records import Limits

    limits = Limits(min_side=1)
    picture, _ = decode(file.read(limits.max_picture_bytes), limits)
    picture.thumbnail((side, side))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()
