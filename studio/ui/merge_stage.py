"""The result column of a merge, a preview or a search of it while it waits or runs, and after it ended early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from studio.ui.markup import NOTHING, Markup, icon, tag
from studio.ui.stage import figure, preview

if TYPE_CHECKING:
    from studio.jobs import Snapshot

MERGE = "merge"
LETTERS = "ABCDEFGH"
NOT_FINITE = "NonFiniteError"


def forming(snapshot: Snapshot) -> Markup:
    """The picture that forms, in its own place among A, the merge and B; empty frames keep the others' places."""
    merge = snapshot.request.get("merge") or {}
    alone = snapshot.engine == "merge-search"
    columns = [MERGE] if alone else in_order(LETTERS[: len(merge.get("models") or ())])
    sources: dict[str, str] = {}
    captions: dict[str, str] = {}
    for label, source in zip(snapshot.labels, snapshot.previews, strict=False):
        prompt, _, what = label.rpartition(", ")
        column = what if what in columns else MERGE
        sources[column] = source
        captions[column] = f"{prompt}, {what}" if column == MERGE else prompt
    figures = [
        figure(
            title(column, merge),
            captions.get(column, "\u00a0"),
            preview(sources.get(column, ""), captions.get(column, column)),
        )
        for column in columns
    ]
    return tag("div", *figures, cls=f"views trio n-{len(figures)}-wide")


def in_order(letters: Sequence[str]) -> list[str]:
    """A, the merge, then the others: what lies between two stands between them."""
    return [*letters[:1], MERGE, *letters[1:]]


def title(column: str, merge: Mapping[str, Any]) -> str:
    """``A · emoji``; the merge is just that."""
    if column == MERGE:
        return "Merge"
    models = merge.get("models") or ()
    index = LETTERS.index(column)
    return f"{column} · {short(models[index])}" if index < len(models) else column


def short(name: object) -> str:
    """A model's name without where it lies."""
    last = str(name).replace("\\", "/").rstrip("/").rpartition("/")[2]
    return last.removeprefix("builtin:").removesuffix(".safetensors")


def sources(snapshot: Snapshot) -> Markup:
    """What is being made from what: a merge that is saved draws nothing."""
    return ingredients(snapshot.request)


def ingredients(request: Mapping[str, Any]) -> Markup:
    """The checkpoints and LoRAs of a merge, each with its letter or weight."""
    rows = [(letter, name) for letter, name in zip(LETTERS, request.get("models") or (), strict=False)]
    if request.get("task") == "join":
        rows = []
    weights = request.get("weights") or [1] * len(request.get("adapters") or ())
    rows += [(f"× {weight:g}", name) for weight, name in zip(weights, request.get("adapters") or (), strict=False)]
    if not rows:
        return NOTHING
    items = [tag("li", tag("b", letter), tag("span", short(name), title=str(name))) for letter, name in rows]
    return tag("ul", *items, cls="ingredients")


def actions(snapshot: Snapshot) -> Sequence[Markup]:
    """Weights that are not finite are saved only when a person says so."""
    if snapshot.error is None or snapshot.error.type != NOT_FINITE:
        return ()
    said = "Write the file with these weights in it"
    return (
        tag("button", icon("save"), "Save all the same", type="button", cls="btn", title=said, data_act="save-anyway"),
    )
