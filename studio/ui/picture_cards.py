"""A set as markup: its counts and problems, and a page of pictures with captions to write in."""

from __future__ import annotations

import math
from collections.abc import Sequence

from studio.ui.album import PER_PAGE, SHOWS, Album, Shot
from studio.ui.markup import NOTHING, Markup, icon, joined, tag
from studio.ui.words import count

MOST_LISTED = 200  # remarks; who has more reads the first ones first
LONGEST_CAPTION = 2_000  # characters, as many as are read of a file


def head(title: str, album: Album, show: str, note: Markup = NOTHING) -> Markup:
    """What the set is, how many pictures it has, and what is wrong with it. ``note``: what is made of its captions."""
    return tag(
        "div",
        tag("h2", title),
        tag("div", counts(album), id="pictures-count"),
        note,
        tag("div", problems(album), id="pictures-problems"),
        tag("div", tools(album, show), id="pictures-tools", cls="pictures-tools"),
        cls="pictures-head",
    )


def counts(album: Album) -> Markup:
    """The line of numbers; with a bar as long as pictures are looked at."""
    line = tag("p", album.line(), cls="stage-line", role="status")
    if album.done:
        return line
    share = album.looked_at / max(1, album.total)
    return joined(tag("div", tag("span", style=f"width:{share:.1%}"), cls="bar"), line)


def problems(album: Album) -> Markup:
    """What must be solved first, in red; remarks folded, with their kinds in the fold's line."""
    fatal = [tag("p", _sentence(each.file, each.what), cls="is-error") for each in album.fatal]
    if not album.remarks:
        return joined(*fatal)
    items = [tag("li", _sentence(each.file, each.what, each.kind)) for each in album.remarks[:MOST_LISTED]]
    more = len(album.remarks) - MOST_LISTED
    items += [tag("li", f"And {more:,} more like these.")] if more > 0 else []
    fold = tag("details", tag("summary", album.remark_line()), tag("ul", *items), cls="set-remarks")
    return joined(*fatal, fold)


def tools(album: Album, show: str) -> Markup:
    """Which pictures are shown: buttons that are there only where they pick something."""
    buttons = []
    for name, title in SHOWS.items():
        number = len(album.shown(name))
        if number or name in ("all", show):
            said, pressed = tag("span", f"{number:,}", cls="number"), "true" if name == show else "false"
            kind = {"type": "button", "cls": "btn pick", "aria_pressed": pressed}
            buttons.append(tag("button", title, said, data_act="show", data_show=name, **kind))
    if len(buttons) < 2:
        return NOTHING
    return tag("div", *buttons, cls="picks", role="group", aria_label="Which pictures are shown")


def grid(album: Album, show: str, page: int, token: str, known: str) -> Markup:
    """One page of pictures. ``token`` stands for the set in addresses, ``known`` in what a browser keeps of it."""
    here, number = on_page(album, show, page), len(album.shown(show))
    pages = pages_of(number)
    if not here:
        empty = "No picture is picked by this." if album.shots else ""
        return tag("p", empty, cls="hint") if empty else NOTHING
    cards = [card(shot, token) for shot in here]
    return joined(
        tag("ul", *cards, cls="shots", data_set=known, aria_label="Pictures and their captions"),
        pager(min(page, pages - 1), pages, number),
    )


def on_page(album: Album, show: str, page: int) -> list[Shot]:
    """The pictures of one page; behind the last one stands the last."""
    shots = album.shown(show)
    page = min(page, pages_of(len(shots)) - 1)
    return shots[page * PER_PAGE : (page + 1) * PER_PAGE]


def pages_of(number: int) -> int:
    return max(1, math.ceil(number / PER_PAGE))


def card(shot: Shot, token: str) -> Markup:
    """One picture: its caption to write in, what is trained of it, and what is wrong with it."""
    address = f"pictures/{token}/{shot.id}"
    width, height = shot.size
    picture = tag(
        "img",
        src=f"{address}?v={shot.version}",
        alt=shot.written or shot.name,
        loading="lazy",
        decoding="async",
        width=width,
        height=height,
    )
    large = tag(
        "a",
        picture,
        href=f"{address}?size=large&v={shot.version}",
        target="_blank",
        rel="noopener",
        cls="frame",
        title=f"{shot.name}, {width} × {height} pixels",
        aria_label=f"{shot.name}, open it large",
    )
    caption = tag(
        "textarea",
        shot.written,
        id=f"caption-{shot.id}",
        rows=3,
        maxlength=LONGEST_CAPTION,
        placeholder="No caption",
        spellcheck="false",
        aria_label=f"Caption of {shot.name}",
        aria_describedby=f"trained-{shot.id}",
        data_caption=shot.id,
    )
    return tag(
        "li",
        large,
        tag("div", shot.name, cls="shot-name", title=shot.name),
        caption,
        tag("div", under(shot), id=f"trained-{shot.id}", cls="shot-said"),
        _buttons(shot),
        cls=f"shot{' is-out' if shot.out else ''}{' is-changed' if shot.changed else ''}",
        id=f"shot-{shot.id}",
        data_out="true" if shot.out else "false",
    )


def under(shot: Shot) -> Markup:
    """What the model is told, where that is not what stands in the field, and remarks on the picture."""
    lines = []
    if shot.out:
        lines.append(tag("p", "Left out of training."))
    elif not shot.trained:
        lines.append(tag("p", "Trained with an empty prompt.", cls="is-hint"))
    elif shot.trained != shot.written:
        lines.append(tag("p", "Trained as ", tag("q", shot.trained)))
    if not shot.out:
        lines += [tag("p", _sentence("", remark), cls="is-hint") for remark in shot.remarks]
    return joined(*lines)


def patch(shots: Sequence[Shot], album: Album, show: str, *, answers: str, serial: str) -> Markup:
    """What changed after an edit, for the page to put in its places, so that nobody loses the field they write in."""
    pieces = [
        tag("div", counts(album), data_into="pictures-count"),
        tag("div", problems(album), data_into="pictures-problems"),
        tag("div", tools(album, show), data_into="pictures-tools"),
    ]
    for shot in shots:
        pieces.append(tag("div", under(shot), data_into=f"trained-{shot.id}"))
        state = {"data_card": shot.id, "data_out": "true" if shot.out else "false"}
        pieces.append(tag("i", shot.written, data_changed="true" if shot.changed else "false", **state))
    return tag("div", *pieces, data_serial=serial, data_answers=answers, hidden=True)


def refusal(message: str, *, answers: str, serial: str) -> Markup:
    """An edit that could not be kept."""
    return tag("div", tag("i", message, data_refused=answers), data_serial=serial, data_answers=answers, hidden=True)


def pager(page: int, pages: int, number: int) -> Markup:
    """Earlier, later, and where this page stands."""
    if pages < 2:
        return NOTHING
    first, last = page * PER_PAGE + 1, min(number, (page + 1) * PER_PAGE)
    return tag(
        "nav",
        _turn("First", 0, page > 0),
        _turn("Earlier", page - 1, page > 0),
        tag("span", f"{first:,} to {last:,} of {number:,}"),
        _turn("Later", page + 1, page + 1 < pages),
        _turn("Last", pages - 1, page + 1 < pages),
        cls="pager",
        aria_label="Pages of pictures",
    )


def nothing(title: str, words: str, wrong: bool = False) -> Markup:
    """No set to show; ``wrong``: because something is wrong with it."""
    if wrong:
        return tag("div", tag("h2", title), tag("p", words, cls="is-error", role="alert"), cls="pictures-head")
    return tag("div", tag("h2", title), tag("p", words), cls="stage", data_state="empty")


def left_over(names: Sequence[str]) -> str:
    """``2 other files were left out: a.mp4, b.exe.``"""
    named = ", ".join(name.rpartition("/")[2][:60] for name in names[:3]) + (" …" if len(names) > 3 else "")
    return f"{count(len(names), 'other file')} {'was' if len(names) == 1 else 'were'} left out: {named}."


def _buttons(shot: Shot) -> Markup:
    out = tag(
        "button",
        tag("span", "Leave out", cls="when-in"),
        tag("span", "Take back", cls="when-out"),
        tag("span", shot.name, cls="unseen"),
        type="button",
        cls="btn is-quiet",
        data_act="leave-out",
        data_picture=shot.id,
    )
    undo = tag(
        "button",
        icon("restore"),
        tag("span", "As found ", tag("span", shot.name, cls="unseen")),
        type="button",
        cls="btn is-quiet as-found",
        title="Back to the caption that was found",
        data_act="as-found",
        data_picture=shot.id,
    )
    return tag("div", out, undo, tag("span", cls="kept-said", role="status"), cls="shot-acts")


def _turn(words: str, page: int, possible: bool) -> Markup:
    kind = {"type": "button", "cls": "btn is-quiet", "data_act": "turn", "data_page": str(page)}
    return tag("button", words, disabled=not possible, **kind)


def _sentence(name: str, words: str, kind: str = "") -> str:
    """``fox.png has no caption.``, ``fox.png: its 16 bits become 8.``, or the words alone, begun as a sentence."""
    between = ": " if kind == "converted" else " "
    return f"{name}{between}{words}" if name else words[:1].upper() + words[1:]
