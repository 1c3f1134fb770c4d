"""What the page may show to one owner: jobs, results and examples, as markup. No components, no events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from studio.engines import engine_named
from studio.ui import compare, examples, history, result, stage, words
from studio.ui.drawings import DRAWINGS, drawing_of, made_on
from studio.ui.files import Files
from studio.ui.markup import NOTHING, Markup, icon, joined, tag

if TYPE_CHECKING:
    from studio.jobs import Snapshot
    from studio.workbench import Workbench

ENGINE = "illusion"
EMPTY: Mapping[str, tuple[str, str]] = {
    "illusions": (
        "Your illusion appears here",
        "Choose a preset or write one prompt per view, then press Generate.",
    ),
    "merge": (
        "A, B and what lies between appear here",
        "Choose two checkpoints, then press Preview: nothing is written until you save.",
    ),
    "train": (
        "Your model learns here",
        "Choose a preset or pictures of your own, then press Train: curves and samples appear as it learns.",
    ),
    "guidance": (
        "The same seeds under every guidance appear here",
        "Choose a LoRA and write a prompt, then press Compare: a table says what each guidance gains and costs.",
    ),
}
"""Tab -> what its result column says before anything was made there."""


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
            return example and self._example(key, example)
        snapshot = self.snapshot(key, owner)
        if snapshot is None or not snapshot.summary:
            return None
        return result.Result(
            key,
            snapshot.request,
            snapshot.summary,
            self._link(snapshot),
            engine=snapshot.engine,
            title=stage.heading(snapshot),
            folder=str(snapshot.folder) if self.workbench.settings.profile == "local" else "",
        )

    def _example(self, key: str, example: examples.Example) -> result.Result:
        """An example as a result; at home its files can be used from where they lie."""
        entry, at_home = engine_named(example.engine), self.workbench.settings.profile == "local"
        title = entry.headline(entry.request_class().model_validate(dict(example.request)))
        folder = str(example.folder) if at_home else ""
        link = _example_link(example.slug)
        return result.Result(key, example.request, example.summary, link, True, example.engine, title, folder)

    def request(self, key: str, owner: str, candidate: int | None = None) -> dict[str, Any] | None:
        """The settings behind what is shown; of a finished candidate those that make it alone."""
        found = self.result(key, owner)
        if found is None:
            snapshot = self.snapshot(key, owner)
            return dict(snapshot.request) if snapshot else None
        chosen = found.candidates[candidate] if candidate is not None and candidate < len(found.candidates) else None
        return dict(found.request) if chosen is None else found.alone(chosen)

    def engine(self, key: str, owner: str) -> str:
        """The engine that made what a key names; empty when the key means nothing to this owner."""
        found = self.snapshot(key, owner)
        example = None if found else self.examples.find(key)
        return found.engine if found else example.engine if example else ""

    def stage(self, key: str, owner: str, tab: str) -> Markup:
        """The result column for a key; empty when the key means nothing to this owner."""
        found = self.result(key, owner)
        if found is not None:
            return drawing_of(found.engine).result(found)
        snapshot = self.snapshot(key, owner)
        if snapshot is None:
            return stage.empty(*EMPTY[tab])
        drawing = drawing_of(snapshot.engine)
        body = joined(drawing.forming(snapshot), drawing.kept(snapshot, self._link(snapshot)))
        return stage.of(drawing.quiet(snapshot), body, *drawing.actions(snapshot))

    def first(self, owner: str, remembered: str, tab: str) -> str:
        """What a tab shows when the page opens: a job that still runs, what was shown before, or the first example."""
        active = self.active(owner, tab)
        if active:
            return active[0].id
        if remembered and self.engine(remembered, owner) in made_on(tab):
            return remembered
        found = (examples.key(example.slug) for engine in made_on(tab) for example in self.examples.of(engine))
        return next(found, "")

    def active(self, owner: str, tab: str | None = None) -> list[Snapshot]:
        """The owner's jobs that run or wait, newest first: all, or those of one tab."""
        engines = DRAWINGS if tab is None else made_on(tab)
        return [snapshot for snapshot in self._jobs(owner) if not snapshot.over and snapshot.engine in engines]

    def _jobs(self, owner: str) -> tuple[Snapshot, ...]:
        """At home every browser is the same, also one that has no token yet."""
        return self.workbench.history(owner) if owner or self.workbench.settings.profile == "local" else ()

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
        found = history.matching(self._jobs(owner), asked, now)
        nothing = history.EMPTY if asked.everything else history.NONE_MATCHES
        return history.cards(found, self._cover, now, nothing=nothing)

    def comparison(self, picked: Sequence[str], owner: str) -> Markup:
        """The owner's results that were picked, beside each other."""
        found = [self.result(key, owner) for key in picked[:2]]
        return compare.of([side for each in found if each and (side := drawing_of(each.engine).side(each))])

    def _cover(self, snapshot: Snapshot) -> str | None:
        name = drawing_of(snapshot.engine).cover(snapshot.summary or {})
        return self._link(snapshot)(name, 256) if name else None

    def _link(self, snapshot: Snapshot) -> Callable[[str, int | None], str]:
        return partial(self.files.link, snapshot.id, snapshot.owner)


def _example_link(slug: str) -> Callable[[str, int | None], str]:
    return lambda name, width: f"examples/{slug}/{name}" + (f"?w={width}" if width else "")


def _stop(job_id: str) -> dict[str, str]:
    return {"type": "button", "cls": "btn is-quiet", "data_act": "stop", "data_job": job_id, "aria_label": "Stop"}
