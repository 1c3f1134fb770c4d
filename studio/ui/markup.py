"""Markup built from values: everything is escaped unless this module made it."""

from __future__ import annotations

import html

VOID = frozenset({"img", "input", "br", "hr"})


class Markup(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


NOTHING = Markup("")


def escaped(text: object) -> Markup:
    """``text`` as it may stand in markup; what is Markup already stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text), quote=True))


def tag(name: str, *children: object, **attributes: str | int | float | bool | None) -> Markup:
    """One element. ``cls`` stands for class, ``_`` in a name for ``-``; False and None leave an attribute out."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: object) -> Markup:
    """The children one after another, each escaped."""
    return Markup("".join(escaped(child) for child in children))


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = "class" if key == "cls" else key.strip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escaped(value)}"'


def icon(name: str) -> Markup:
    """One of the page's own line icons, hidden from screen readers because words stand beside it."""
    return Markup(
        f'<svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false"><path d="{ICONS[name]}"/></svg>'
    )


# Drawn on a 20 x 20 grid with a 1.6 px stroke.
ICONS = {
    "download": "M10 3v9m0 0 3.5-3.5M10 12 6.5 8.5M4 16h12",
    "vary": "M4 7h8a4 4 0 0 1 4 4m0 0-2.2-2.2M16 11l2-2.2M16 13H8a4 4 0 0 1-4-4m0 0 2.2 2.2M4 9l-2 2.2",
    "restore": "M4 10a6 6 0 1 0 2-4.5M4 3v4h4",
    "stop": "M6 6h8v8H6z",
    "delete": "M4 6h12M8 6V4h4v2m-6 0 .8 10h6.4L14 6",
    "look": "M10 3a7 7 0 1 0 0 14zM10 3a7 7 0 0 1 0 14M10 6h4.500M10 10h7M10 14h4.500",
    "pause": "M7 5v10M13 5v10",
    "play": "M7 4.500v11l9-5.500z",
    "send": "M4 10h11m0 0-4-4m4 4-4 4",
    "save": "M4 4h9l3 3v9H4zM7 4v4h5V4M7 16v-5h6v5",
    "copy": "M7 7h9v9H7zM4 13V4h9",
    "compare": "M10 3v14M4 6h3v8H4zM13 6h3v8h-3z",
}

# A head that is a duck's when its two lobes point left and a rabbit's when they point up.
MARK = Markup(
    '<svg class="mark" viewBox="0 0 64 64" aria-hidden="true" focusable="false">'
    '<path d="M61 35c0 12-9.500 21-22 21-8.800 0-14-4-17-9.500L6 45c-5-.5-5.500-6.500-.5-7L20 36.500 4.500 29'
    'C0 26.700 2 20.500 7 21.500l17.500 4C28 18.500 34 15 41 15c11.500 0 20 8.500 20 20z"/>'
    '<circle cx="40" cy="30" r="3.600"/></svg>'
)
