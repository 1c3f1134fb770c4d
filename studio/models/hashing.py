"""SHA-256 beside the work: hashlib lets go of the interpreter's lock, so that a thread of its own takes the time."""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

AHEAD = 32 * 1024**2  # bytes that may wait to be hashed; they are kept in memory until they are
SMALL = 256 * 1024  # bytes that are hashed sooner than a thread is woken


class Hashing:
    """A SHA-256 that is fed in order and taken in its own thread; ``update`` waits when too many pieces do.

    What is given to ``update`` must not change afterwards.
    """

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._ahead = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        if not self._waiting and len(data) <= SMALL:
            self._sha.update(data)
            return
        self._waiting.append((self._thread.submit(self._sha.update, data), len(data)))
        self._ahead += len(data)
        while self._waiting and (self._ahead > AHEAD or self._waiting[0][0].done()):
            self._take()

    def hexdigest(self) -> str:
        while self._waiting:
            self._take()
        return self._sha.hexdigest()

    def _take(self) -> None:
        done, size = self._waiting.popleft()
        done.result()
        self._ahead -= size

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Hashing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
