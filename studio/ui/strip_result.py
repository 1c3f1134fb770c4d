"""The result column of a preview: A, the merge and B side by side, a slider over alpha, and the whole strip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.ui import words
from studio.ui.compare import Side
from studio.ui.markup import NOTHING, Markup, icon, joined, tag
from studio.ui.merge_stage import MERGE, in_order, title
from studio.ui.result import Result, finished, spent

MATCH = "How well the picture matches its prompt: their similarity, at most 1. Higher is better."


def of(result: Result) -> Markup:
    """All merges are in the page, one of them visible, so that the slider swaps pictures at once."""
    alphas = merged_at(result.summary)
    middle = chosen(result)
    prompts = result.summary.get("prompts") or ()
    return finished(
        result,
        result.title,
        facts(result),
        _slider(alphas, middle),
        *[_row(result, index, prompt, middle) for index, prompt in enumerate(prompts)],
        _under(result, alphas, middle),
        _whole(result, alphas, middle),
        cls="stage strip-stage",
        data_at=middle,
    )


def facts(result: Result) -> str:
    """``7 pictures · 280 evaluations · 4.2 s · nothing was saved``."""
    summary = result.summary
    parts = ["Example"] if result.example else []
    parts += [words.count(len(summary.get("pictures") or ()), "picture")]
    parts += spent(summary)
    return " · ".join([*parts, f"seed {summary.get('seed', 0)}", "nothing was saved"])


def merged_at(summary: Mapping[str, Any]) -> list[float | None]:
    """The alphas that the merge was drawn at, in order; [None] where alpha has no say."""
    return list(dict.fromkeys(entry.get("alpha") for entry in _pictures(summary) if entry["model"] == MERGE))


def chosen(result: Result) -> int:
    """The place among ``merged_at`` of the request's own alpha, or the middle one."""
    alphas = merged_at(result.summary)
    merge = result.request.get("merge") or {}
    own = merge.get("alpha") if merge.get("task", "checkpoints") == "checkpoints" else 1.0
    return alphas.index(own) if own in alphas else len(alphas) // 2


def cover(summary: Mapping[str, Any]) -> str | None:
    """The merge in the middle of the strip stands for all."""
    found = [entry for entry in _pictures(summary) if entry["model"] == MERGE and entry.get("prompt", 0) == 0]
    return found[len(found) // 2]["image"] if found else None


def told(summary: Mapping[str, Any]) -> list[str]:
    prompts = words.title(summary.get("prompts") or (), 40)
    return [prompts, *([words.count(len(merged_at(summary)), "alpha")] if len(merged_at(summary)) > 1 else [])]


def side(result: Result) -> Side | None:
    """The merge at the request's own alpha, of the first prompt."""
    place = chosen(result)
    found = [entry for entry in _pictures(result.summary) if entry["model"] == MERGE and entry.get("prompt", 0) == 0]
    if place >= len(found):
        return None
    score = found[place].get("score")
    measured = {"Match with the prompt": score} if isinstance(score, int | float) else {}
    settings = flat(result.request) | {"alpha": found[place].get("alpha")}
    return Side(result.key, result.title, result.link(found[place]["image"], None), settings, measured)


def flat(request: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a preview or a search as one list: the merge's own, and what was drawn."""
    merge = {name: value for name, value in (request.get("merge") or {}).items() if name not in ("seed", "title")}
    return {**merge, **{name: value for name, value in request.items() if name not in ("merge", "alphas")}}


def said_alpha(alpha: float | None) -> str:
    return "merged" if alpha is None else f"alpha {alpha:g}"


def _pictures(summary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return summary.get("pictures") or ()


def _slider(alphas: Sequence[float | None], middle: int) -> Markup:
    """Steps over the alphas that were drawn; the page's script swaps the pictures."""
    if len(alphas) < 2:
        return NOTHING
    field = tag(
        "input",
        type="range",
        min=0,
        max=len(alphas) - 1,
        step=1,
        value=middle,
        data_alpha_slide=True,
        aria_label="Alpha of the merge that is shown",
        aria_valuetext=said_alpha(alphas[middle]),
    )
    ends = (tag("span", "A", cls="end"), tag("span", "B", cls="end"))
    ticks = tag("span", *[tag("i", f"{alpha:g}") for alpha in alphas], cls="ticks", aria_hidden="true")
    said = tag("output", said_alpha(alphas[middle]), cls="alpha-said")
    return tag("div", ends[0], tag("div", field, ticks, cls="track"), ends[1], said, cls="alpha-slide")


def _row(result: Result, index: int, prompt: str, middle: int) -> Markup:
    """One prompt: its picture by A, by every merge (one of them visible), and by the others."""
    of_prompt = [entry for entry in _pictures(result.summary) if entry.get("prompt", 0) == index]
    letters = [entry["model"].upper() for entry in of_prompt if entry["model"] != MERGE]
    columns = in_order(letters) if letters[:1] == ["A"] else [MERGE, *letters]
    figures = [_figure(result, column, of_prompt, prompt, middle) for column in columns]
    heading = tag("h3", prompt, cls="row-prompt")
    return joined(heading, tag("div", *figures, cls=f"views trio n-{len(figures)}-wide"))


def _figure(result: Result, column: str, entries: Sequence[Mapping[str, Any]], prompt: str, middle: int) -> Markup:
    mine = [entry for entry in entries if entry["model"] == (MERGE if column == MERGE else column.lower())]
    name = title(column, result.request.get("merge") or {})
    pictures = [
        tag(
            "img",
            src=result.link(entry["image"], None),
            alt=f"{prompt} by {'the merge, ' + said_alpha(entry.get('alpha')) if column == MERGE else name}",
            loading="eager",
            decoding="sync",
            data_at=place if column == MERGE else None,
            hidden=column == MERGE and place != middle,
        )
        for place, entry in enumerate(mine)
    ]
    captions = [
        tag("span", _caption(column, entry), data_at=place, hidden=place != middle) if column == MERGE
        else tag("span", _caption(column, entry))
        for place, entry in enumerate(mine)
    ]  # fmt: skip
    caption = tag("figcaption", tag("strong", name, title=name), *captions)
    cls = "view is-merge" if column == MERGE else "view"
    return tag("figure", caption, tag("div", *pictures, cls="frame"), cls=cls)


def _caption(column: str, entry: Mapping[str, Any]) -> str:
    score = entry.get("score")
    parts = [said_alpha(entry.get("alpha"))] if column == MERGE else []
    return " · ".join([*parts, *([f"match {score:.2f}"] if isinstance(score, int | float) else [])]) or "\u00a0"


def _under(result: Result, alphas: Sequence[float | None], middle: int) -> Markup:
    scorer = result.summary.get("scorer")
    tip = tag("span", f"{MATCH} Measured by {scorer}.", cls="tip", role="tooltip")
    chip = tag("span", "Match ", tag("b", f"by {scorer}"), tip, cls="chip", tabindex=0) if scorer else NOTHING
    alpha = "" if alphas[middle] is None else f"{alphas[middle]:.10g}"
    listed = " ".join("" if each is None else f"{each:.10g}" for each in alphas)
    use = _button("use-alpha", "Use this alpha", "Put the alpha that is shown into the form", "restore", alpha)
    save = _button("save-this", "Save this merge", "Write the merge that is shown to the disk", "save", alpha)
    restore = tag("button", icon("restore"), "Restore settings", type="button", cls="btn", data_act="restore")
    download = tag(
        "a", icon("download"), "Strip", cls="btn", href=result.link(result.summary["strip"], None),
        download="merge-strip.png", title="The whole strip as one PNG, with its recipe inside",
    ) if result.summary.get("strip") else NOTHING  # fmt: skip
    shown = [save, use] if len(alphas) > 1 or alphas[middle] is not None else [save]
    buttons = restore if result.example else joined(*shown, restore)
    return tag(
        "div", tag("div", chip, cls="chips"), tag("div", tag("div", buttons, download, cls="group"), cls="actions"),
        cls="under", data_alphas=listed,
    )  # fmt: skip


def _button(act: str, name: str, help_text: str, picture: str, alpha: str) -> Markup:
    return tag("button", icon(picture), name, type="button", cls="btn", title=help_text, data_act=act, data_alpha=alpha)


def _whole(result: Result, alphas: Sequence[float | None], middle: int) -> Markup:
    """Every picture at once: a row for each prompt, a column for each model and alpha; a press shows that alpha."""
    pictures = _pictures(result.summary)
    letters = list(dict.fromkeys(entry["model"] for entry in pictures if entry["model"] != MERGE))
    left, right = ([letters[0]], letters[1:]) if letters[:1] == ["a"] else ([], letters)
    columns = [*((letter, None) for letter in left), *((MERGE, alpha) for alpha in alphas)]
    columns += [(letter, None) for letter in right]
    if len(columns) < 2:
        return NOTHING
    heads = [
        tag("th", letter.upper() if letter != MERGE else said_alpha(alpha), scope="col") for letter, alpha in columns
    ]
    by_place = {(entry["model"], entry.get("alpha"), entry.get("prompt", 0)): entry for entry in pictures}
    rows = [
        tag(
            "tr",
            tag("th", prompt, scope="row"),
            *[_cell(result, by_place.get((*column, index)), alphas, middle, prompt) for column in columns],
        )
        for index, prompt in enumerate(result.summary.get("prompts") or ())
    ]
    table = tag("table", tag("thead", tag("tr", tag("td"), *heads)), tag("tbody", *rows))
    return joined(tag("h3", "The whole strip"), tag("div", table, cls="scroll whole-strip"))


def _cell(
    result: Result, entry: Mapping[str, Any] | None, alphas: Sequence[float | None], middle: int, prompt: str
) -> Markup:
    if entry is None:
        return tag("td")
    picture = tag("img", src=result.link(entry["image"], 128), alt="", loading="lazy")
    if entry["model"] != MERGE:
        return tag("td", tag("span", picture, cls="cell", role="img", aria_label=f"{prompt} by {entry['title']}"))
    place = alphas.index(entry.get("alpha"))
    label = f"Show {prompt} at {said_alpha(entry.get('alpha'))}"
    pressed = "true" if place == middle else "false"
    return tag("td", tag("button", picture, type="button", cls="cell", data_show_alpha=place, aria_label=label,
                         aria_pressed=pressed))  # fmt: skip
