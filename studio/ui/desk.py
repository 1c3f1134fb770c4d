"""What the page may show to one owner: jobs, results and examples, as markup. No components, no events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from studio.illusions.specs import VIEWS
from studio.ui import compare, examples, history, result, stage, words
from studio.ui.files import Files
from studio.ui.markup import NOTHING, Markup, icon, tag

if TYPE_CHECKING:
    from studio.jobs import Snapshot
    from studio.workbench import Workbench

ENGINE = "illusion"
TITLES: Mapping[str, str] = {entry.name: entry.title for entry in VIEWS}


class Desk:
    """Looks things up in the workbench for their owner and draws them."""

    def __init__(self, workbench: Workbench, found: examples.Examples, files: Files) -> None:
        self.workbench, self.examples, self.files = workbench, found, files

    def snapshot(self, key: str, owner: str) -> Snapshot | None:
        return self.workbench.snapshot(key, owner) if key and owner and not key.startswith(examples.PREFIX) else None

    def result(self, key: str, owner: str) -> result.Result | None:
        """A finished job of this owner's, or an example, by the key that the page holds."""
        if key.startswith(examples.PREFIX):
            example = self.examples.find(key)
            return example and result.Result(key, example.request, example.summary, _example_link(example.slug), True)
        snapshot = self.snapshot(key, owner)
        if snapshot is None or not snapshot.summary:
            return None
        return result.Result(key, snapshot.request, snapshot.summary, self._link(snapshot))

    def request(self, key: str, owner: str, candidate: int | None = None) -> dict[str, Any] | None:
        """The settings behind what is shown; of a finished candidate those that make it alone."""
        found = self.result(key, owner)
        if found is None:
            snapshot = self.snapshot(key, owner)
            return dict(snapshot.request) if snapshot else None
        chosen = found.candidates[candidate] if candidate is not None and candidate < len(found.candidates) else None
        return {**found.request, **({"seed": chosen["seed"], "candidates": 1} if chosen else {})}

    def stage(self, key: str, owner: str) -> Markup:
        """The result column for a key; empty when the key means nothing to this owner."""
        found = self.result(key, owner)
        if found is not None:
            return result.of(found, TITLES)
        snapshot = self.snapshot(key, owner)
        return stage.of(snapshot, TITLES) if snapshot else stage.empty()

    def first(self, owner: str, remembered: str) -> str:
        """What a page shows when it opens: a job that still runs, what was shown before, or the first example."""
        active = self.active(owner)
        if active:
            return active[0].id
        if remembered and (self.result(remembered, owner) or self.snapshot(remembered, owner)):
            return remembered
        return next((examples.key(example.slug) for example in self.examples), "")

    def active(self, owner: str) -> list[Snapshot]:
        """The owner's jobs that run or wait, newest first."""
        return [snapshot for snapshot in self.workbench.history(owner) if not snapshot.over] if owner else []

    def pill(self, active: list[Snapshot]) -> Markup:
        """What runs and how far, with Stop; nothing when nothing runs."""
        if not active:
            return NOTHING
        shown = next((snapshot for snapshot in active if snapshot.status == "running"), active[-1])
        share = shown.step / shown.total if shown.total else 0
        state = f"{share:.0%}" if shown.status == "running" else "waiting"
        others = len(active) - 1
        more = tag("span", f"+{others}", title=f"{words.count(others, 'more job')}") if others else NOTHING
        opening = tag(
            "button",
            tag("b", stage.heading(shown)),
            tag("span", state),
            more,
            tag("i", style=f"width:{share:.1%}"),
            type="button",
            cls="pill-open",
            data_act="queue",
            aria_label=f"{words.STATUS[shown.status]}: {stage.heading(shown)}. Open the queue",
        )
        return tag("div", opening, tag("button", icon("stop"), **_stop(shown.id)), cls="pill")

    def history(self, owner: str, asked: history.Filter) -> Markup:
        """What ended, filtered."""
        now = time.time()
        found = history.matching(self.workbench.history(owner) if owner else (), asked, now)
        nothing = history.EMPTY if asked.everything else history.NONE_MATCHES
        return history.cards(found, self._cover, now, nothing=nothing)

    def comparison(self, picked: Sequence[str], owner: str) -> Markup:
        """The owner's results that were picked, beside each other."""
        found = [self.result(key, owner) for key in picked[:2]]
        return compare.of([side for each in found if each and (side := compare.side(each))], TITLES)

    def _cover(self, snapshot: Snapshot) -> str | None:
        found = (snapshot.summary or {}).get("candidates") or ()
        return self._link(snapshot)(found[0]["image"], 256) if found else None

    def _link(self, snapshot: Snapshot) -> Callable[[str, int | None], str]:
        return partial(self.files.link, snapshot.id, snapshot.owner)


def _example_link(slug: str) -> Callable[[str, int | None], str]:
    return lambda name, width: f"examples/{slug}/{name}" + (f"?w={width}" if width else "")


def _stop(job_id: str) -> dict[str, str]:
    return {"type": "button", "cls": "btn is-quiet", "data_act": "stop", "data_job": job_id, "aria_label": "Stop"}
