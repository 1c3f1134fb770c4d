"""How much of their own pictures visitors may put in to train on. Pure rules, beside those of ``studio.policy``."""

from __future__ import annotations

import warnings
from pathlib import Path

from studio.errors import PolicyError
from studio.policy import Limits

NO_PICTURE = (OSError, ValueError, SyntaxError)  # what PIL raises for files that are none
FIELD = "data"


def check_set(files: int, size: int, limits: Limits) -> None:
    """Raises PolicyError for a set of more files, or more bytes, than may be put in."""
    if files > limits.max_set_files:
        raise _refused(f"a set has at most {limits.max_set_files:,} files here, not {files:,}; leave some out.")
    if size > limits.max_set_bytes:
        most = limits.max_set_bytes / 1024**2
        raise _refused(f"a set has at most {most:,.0f} MB here, not {size / 1024**2:,.0f} MB; shrink its pictures.")


def check_sets(owned: int, held: int, limits: Limits) -> None:
    """Raises PolicyError for one set more than the ``owned`` ones, where everybody's have ``held`` bytes together."""
    if limits.max_sets is not None and owned >= limits.max_sets:
        raise _refused(f"you have {owned} sets here already; add to one of them instead.")
    if limits.max_sets_bytes is not None and held >= limits.max_sets_bytes:
        raise _refused("there is no room for another set today; choose a built-in one.")


def check_set_picture(path: Path, limits: Limits) -> None:
    """Raises PolicyError for a picture too large to be decoded, read from its header alone.

    What is no picture at all is let through: whoever reads the set says so beside its name.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is the lower one
            with Image.open(path) as picture:
                width, height = picture.size
    except Image.DecompressionBombError:
        width = height = Image.MAX_IMAGE_PIXELS or 0  # a side of as many pixels as a whole picture may have
    except NO_PICTURE:
        return
    if width * height > limits.max_set_pixels:
        most = limits.max_set_pixels / 1e6
        raise _refused(f"the picture {path.name} has more than {most:.0f} million pixels; shrink it.")


def _refused(words: str) -> PolicyError:
    return PolicyError(f"{FIELD}: {words}", field=FIELD)
