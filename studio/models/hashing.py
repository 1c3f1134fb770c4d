"""SHA-256, and writing, beside the work: both let go of the interpreter's lock, so a thread of their own does them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

AHEAD = 32 * 1024**2  # bytes that may wait to be hashed; they are kept in memory until they are
SMALL = 256 * 1024  # bytes that are hashed sooner than a thread is woken


class Hashing:
    """A SHA-256 that is fed in order and taken in its own thread; ``update`` waits when too many pieces do.

    ``first`` is called with every piece before it is hashed, in the same order and thread: it writes the file, say.
    What that raises is raised by a later call. What is given to ``update`` must not change afterwards.
    """

    def __init__(self, first: Callable[[bytes | bytearray | memoryview], object] | None = None) -> None:
        self._sha, self._first = hashlib.sha256(), first
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sha256")
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._ahead = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        if not self._waiting and len(data) <= SMALL:
            self._work(data)
            return
        self._waiting.append((self._thread.submit(self._work, data), len(data)))
        self._ahead += len(data)
        while self._waiting and (self._ahead > AHEAD or self._waiting[0][0].done()):
            self._take()

    def hexdigest(self) -> str:
        self.wait()
        return self._sha.hexdigest()

    def wait(self) -> None:
        """Until everything that was given is hashed, and written where ``first`` writes."""
        while self._waiting:
            self._take()

    def _work(self, data: bytes | bytearray | memoryview) -> None:
        if self._first is not None:
            self._first(data)
        self._sha.update(data)

    def _take(self) -> None:
        done, size = self._waiting.popleft()
        self._ahead -= size
        done.result()

    def close(self) -> None:
        """Drop what waits, and wait for what is being done."""
        self._thread.shutdown(cancel_futures=True)

    def __enter__(self) -> Hashing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
