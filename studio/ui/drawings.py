"""How the jobs of each engine look: one line of a table for the stage, the history, the comparison and the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.ui import (
    compare,
    guidance_result,
    guidance_stage,
    merge_result,
    merge_stage,
    result,
    search_result,
    strip_result,
    train_result,
    train_stage,
)
from studio.ui.markup import NOTHING, Markup

if TYPE_CHECKING:
    from studio.jobs import Snapshot

Summary = Mapping[str, Any]


def _nothing(given: object) -> None:
    return None


def _no_actions(snapshot: Snapshot) -> Sequence[Markup]:
    return ()


def _none_kept(snapshot: Snapshot, link: result.Link) -> Markup:
    return NOTHING


def _as_it_is(snapshot: Snapshot) -> Snapshot:
    return snapshot


@dataclass(frozen=True)
class Drawing:
    """One engine's jobs on the page, made on ``tab``.

    ``forming`` draws one that waits, runs or ended early, ``actions`` what can be done after an early end, ``result`` a
    finished one; ``cover`` names the file that stands for it in lists (None where it made no picture), ``told`` what
    lists say of it, and ``side`` is its part in a comparison. ``kept`` draws files that a job leaves while it runs,
    and ``quiet`` is the job as the line under its bar tells it, without what ``forming`` shows.
    """

    engine: str
    tab: str
    forming: Callable[[Snapshot], Markup]
    result: Callable[[result.Result], Markup]
    told: Callable[[Summary], Sequence[str]]
    cover: Callable[[Summary], str | None] = _nothing
    side: Callable[[result.Result], compare.Side | None] = _nothing
    actions: Callable[[Snapshot], Sequence[Markup]] = _no_actions
    kept: Callable[[Snapshot, result.Link], Markup] = _none_kept
    quiet: Callable[[Snapshot], Snapshot] = _as_it_is


DRAWINGS: Mapping[str, Drawing] = {
    drawing.engine: drawing
    for drawing in (
        Drawing("illusion", "illusions", result.forming, result.of, result.told, result.cover, compare.side),
        Drawing("merge", "merge", merge_stage.sources, merge_result.of, merge_result.told, actions=merge_stage.actions),
        Drawing(
            "merge-strip", "merge", merge_stage.forming, strip_result.of, strip_result.told, strip_result.cover,
            strip_result.side,
        ),
        Drawing(
            "merge-search", "merge", merge_stage.forming, search_result.of, search_result.told, search_result.cover,
            search_result.side,
        ),
        Drawing(
            "train", "train", train_stage.forming, train_result.of, train_result.told, train_result.cover,
            train_result.side, train_stage.actions, train_stage.kept, train_stage.quiet,
        ),
        Drawing(
            "guidance", "guidance", guidance_stage.forming, guidance_result.of, guidance_result.told,
            guidance_result.cover, guidance_result.side, guidance_stage.actions,
        ),
    )
}  # fmt: skip


def drawing_of(engine: str) -> Drawing:
    """The engine's line; what an older or newer studio made under another name is drawn as an illusion."""
    return DRAWINGS.get(engine, DRAWINGS["illusion"])


def made_on(tab: str) -> tuple[str, ...]:
    """The engines whose jobs are made on a tab."""
    return tuple(drawing.engine for drawing in DRAWINGS.values() if drawing.tab == tab)
