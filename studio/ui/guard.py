"""Who may speak to a studio that runs for one person: this machine's own names, and no page of another site."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from studio.settings import Settings

THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]")


class OwnPagesOnly:
    """Refuses requests that a browser sends for another site's page: it could fill the disk without reading a reply."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        self.app, self.names = app, {name.strip("[]") for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.is_own(Headers(scope=scope).get("origin")):
            refusal = PlainTextResponse("Another site's page asked; only this studio's own may.", status_code=403)
            return await refusal(scope, receive, send)
        return await self.app(scope, receive, send)

    def is_own(self, origin: str | None) -> bool:
        """Programs send no origin; sandboxed pages send "null"."""
        return origin is None or urlsplit(origin).hostname in self.names


def middleware(settings: Settings) -> list[Middleware]:
    """At home only: a shared studio is reached under names that it does not know itself."""
    if settings.profile != "local":
        return []
    names = (*THIS_MACHINE, settings.host)
    return [
        # Another site may point its own name at this machine; its pages then ask under that name.
        Middleware(TrustedHostMiddleware, allowed_hosts=list(names)),
        Middleware(OwnPagesOnly, names=names),
    ]
