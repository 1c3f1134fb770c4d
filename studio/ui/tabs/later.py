"""A tab whose engine is not there yet: it says so, and has nothing to press."""

from __future__ import annotations

from studio.ui.markup import tag
from studio.ui.place import place


def draw(title: str, promise: str) -> None:
    """One heading and what the tab will do."""
    section = tag("section", tag("h2", title), tag("p", promise), tag("p", "It is not there yet."), cls="later")
    place(section)
