"""Everything that can go wrong, as one tree. A message is one sentence that names the field and the fix.

StudioError
+-- RequestError             a value that cannot be used; ``field`` says which
|   +-- UnknownNameError     a name that is in no table; suggests the nearest
|   +-- PolicyError          a value this studio does not allow its visitors
+-- ViewError                a view that noise or this model's codes cannot carry, with the measured reason
+-- RecipeError              a file whose recipe is missing or cannot be read
+-- ModelError               a model that cannot be used
|   +-- ModelNotFoundError   nothing lies there
|   +-- ModelFileError       something lies there, but it is damaged, a pickle, or of another kind
|   +-- OutOfMemoryError     it does not fit, even after everything else was evicted
+-- QueueFullError           too many jobs wait already

Cancelled derives from BaseException, so that no library's ``except Exception`` can swallow a stop; Closing is one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class StudioError(Exception):
    """Base of all errors that are shown to a person as they are."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class RequestError(StudioError):
    pass


class UnknownNameError(RequestError):
    def __init__(self, kind: str, name: str, known: Iterable[str], *, field: str | None = None) -> None:
        names = list(known)
        near = nearest(name, names)
        fix = f"did you mean {near!r}?" if near else f"choose one of {', '.join(names)}."
        super().__init__(f"There is no {kind} {shortened(name)!r}: {fix}", field=field)


class PolicyError(RequestError):
    pass


class ViewError(StudioError):
    pass


class RecipeError(StudioError):
    pass


class ModelError(StudioError):
    pass


class ModelNotFoundError(ModelError):
    pass


class ModelFileError(ModelError):
    pass


class OutOfMemoryError(ModelError):
    pass


class QueueFullError(StudioError):
    pass


class Cancelled(BaseException):
    """Raised inside a job at the step after its owner asked it to stop.

    An engine whose work so far is worth keeping raises it anew with ``kept``: a ``runs.Saveable``, as it returns one.
    """

    def __init__(self, kept: Any = None) -> None:
        super().__init__()
        self.kept = kept


class Closing(Cancelled):
    """Raised in place of a stop when the studio itself ends: what works in a process of its own goes on."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like ``name``, or None when nothing is near."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def shortened(text: str, length: int = 60) -> str:
    """Text of a visitor's for an error message: at most ``length`` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
