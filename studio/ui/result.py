"""The result column of an illusion: its views as they form, its candidates, what was measured, what can be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.ui import words
from studio.ui.markup import NOTHING, Markup, icon, joined, tag
from studio.ui.stage import figure, preview
from studio.views.specs import VIEWS

if TYPE_CHECKING:
    from studio.jobs import Snapshot

TITLES: Mapping[str, str] = {entry.name: entry.title for entry in VIEWS}

SEARCHING: Mapping[str, Any] = {"partners": [], "stop_early": False, "adapter_study": False}
"""The settings that make a request more than one picture, switched off."""

Link = Callable[[str, int | None], str]
"""From a file's name, and a width in pixels for a thumbnail, to its address."""


@dataclass(frozen=True)
class Result:
    """A finished job as its folder holds it. ``key`` names it to the page: a job id, or example:<slug>."""

    key: str
    request: Mapping[str, Any]
    summary: Mapping[str, Any]
    link: Link
    example: bool = False
    engine: str = "illusion"
    title: str = ""
    folder: str = ""

    @property
    def candidates(self) -> Sequence[Mapping[str, Any]]:
        return self.summary.get("candidates") or ()

    @property
    def prompts(self) -> Sequence[str]:
        return self.summary.get("prompts") or self.request.get("prompts") or ()

    def shown_in(self, candidate: Mapping[str, Any]) -> Sequence[str]:
        """The prompts of one candidate: a search over partners gives each its own."""
        return candidate.get("prompts") or self.prompts

    def alone(self, candidate: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that make one candidate again and nothing else."""
        own = {"seed": candidate["seed"], "prompts": list(self.shown_in(candidate)), "candidates": 1}
        return {**self.request, **own, **{name: off for name, off in SEARCHING.items() if name in self.request}}

    @property
    def views(self) -> Sequence[str]:
        return self.summary.get("views") or self.request.get("views") or ()


@dataclass(frozen=True)
class Measure:
    """A number beside the pictures, and the sentence that says what it means."""

    name: str
    title: str
    help: str


MEASURES = (
    Measure(
        "alignment",
        "Alignment",
        "How well the weakest view shows its own prompt: the smallest similarity of a view with its prompt, at most 1. "
        "Higher is better.",
    ),
    Measure(
        "concealment",
        "Concealment",
        "How well each view hides the other prompts: how surely a view and its prompt find each other, from "
        "{chance:.2f} (chance) to 1. Higher is better.",
    ),
)

DOWNLOADS = (
    ("image", "PNG", "The picture, with its recipe inside: drop it on this page to restore every setting"),
    ("grid", "Grid", "All views side by side as one PNG"),
    ("webp", "WebP", "The animation, in full colour"),
    ("gif", "GIF", "The animation, for places that show only GIF"),
)

PUZZLES = (
    ("a4", "Puzzle A4", "Sheets to print and cut, on A4 paper"),
    ("letter", "Puzzle Letter", "Sheets to print and cut, on US Letter paper"),
    ("svg", "Puzzle SVG", "The outlines of the pieces, for a cutting machine"),
)


def forming(snapshot: Snapshot) -> Markup:
    """Every view as it forms, each under its own prompt; empty frames keep the place until the first preview."""
    request = snapshot.request
    specs: Sequence[str] = request.get("views") or ()
    prompts: Sequence[str] = snapshot.labels or request.get("prompts") or ()
    previews = [*snapshot.previews, *[""] * (len(prompts) - len(snapshot.previews))]
    figures = [
        figure(prompt, words.view_title(spec, TITLES), preview(source, prompt))
        for prompt, spec, source in zip(prompts, [*specs, *[""] * (len(prompts) - len(specs))], previews, strict=False)
    ]
    motion = figure("In motion", "drawn last", tag("div", cls="frame"), cls="view is-motion")
    return tag("div", *figures, motion, cls=f"views n-{len(figures)}")


def of(result: Result) -> Markup:
    """The whole result column; candidates but the first are there, hidden, so that walking through them is instant."""
    candidates = [_candidate(result, index) for index in range(len(result.candidates))]
    return finished(
        result,
        words.title(result.prompts),
        facts(result),
        *candidates,
        _strip(result),
        _study(result),
        _stopped(result),
        *[_readings(result, index) for index in range(len(result.candidates))],
    )


def finished(result: Result, title: str, line: str, *parts: Markup, cls: str = "stage", **more: object) -> Markup:
    """The frame of every finished result: what it is called, one line of what it came to, and remarks at its end."""
    return tag(
        "article",
        tag("h2", title),
        tag("div", cls="bar is-done", aria_hidden="true"),
        tag("p", line, cls="stage-line"),
        *parts,
        remarks(result),
        cls=cls,
        data_state="done",
        data_job=result.key,
        **more,
    )


def spent(summary: Mapping[str, Any]) -> list[str]:
    """``120 evaluations``, ``1.9 s``, as far as they are known."""
    parts = [words.count(int(summary["evaluations"]), "evaluation")] if summary.get("evaluations") else []
    return parts + ([words.exactly(float(summary["seconds"]))] if summary.get("seconds") is not None else [])


def facts(result: Result) -> str:
    """One line of what was spent: ``Example · builtin:emoji · 120 evaluations · 1.9 s``."""
    summary = result.summary
    parts = ["Example"] if result.example else []
    parts += [str(summary["model"])] if summary.get("model") else []
    parts += spent(summary)
    return " · ".join(parts)


def cover(summary: Mapping[str, Any]) -> str | None:
    """The file that stands for a result in lists: its best candidate."""
    found = summary.get("candidates") or ()
    return found[0]["image"] if found else None


def told(summary: Mapping[str, Any]) -> list[str]:
    """What a list says of a result."""
    found = summary.get("candidates") or ()
    counted = [words.count(len(found), "candidate")] if len(found) > 1 else []
    return [f"seed {found[0].get('seed')}", *counted] if found else []


def _candidate(result: Result, index: int) -> Markup:
    candidate = result.candidates[index]
    return tag(
        "section",
        _pictures(result, candidate, eager=index == 0),
        tag("div", _chips(result, candidate), _actions(result, candidate, index), cls="under"),
        cls="candidate",
        data_candidate=index,
        hidden=index > 0,
        aria_label=f"Candidate {index + 1}, seed {candidate.get('seed')}",
    )


def _pictures(result: Result, candidate: Mapping[str, Any], *, eager: bool) -> Markup:
    loading = "eager" if eager else "lazy"
    seen = zip(result.shown_in(candidate), result.views, candidate.get("views") or (), strict=False)
    figures = [
        figure(
            prompt,
            words.view_title(spec, TITLES),
            tag("div", tag("img", src=result.link(name, None), alt=prompt, loading=loading), cls="frame"),
        )
        for prompt, spec, name in seen
    ]
    return tag("div", *figures, _motion(result, candidate, loading), cls=f"views n-{len(figures)}")


def _motion(result: Result, candidate: Mapping[str, Any], loading: str) -> Markup:
    """The animation, with a button that holds it still: what moves by itself must be stoppable."""
    if not candidate.get("webp"):
        return NOTHING
    moving, still = result.link(candidate["webp"], None), result.link(candidate["image"], None)
    names = " into ".join(result.shown_in(candidate))
    picture = tag(
        "img", src=moving, alt=f"Animation turning {names}", loading=loading, data_moving=moving, data_still=still
    )
    hold = tag("button", icon("pause"), type="button", cls="hold", aria_label="Pause the animation", data_hold=True)
    frame = tag("div", picture, hold, cls="frame")
    return figure("In motion", "one picture, every reading", frame, cls="view is-motion")


def _chips(result: Result, candidate: Mapping[str, Any]) -> Markup:
    scorer = result.summary.get("scorer")
    chance = 1 / max(1, len(result.prompts))
    chips = [
        chip(measure.title, f"{candidate[measure.name]:.2f}", measure.help.format(chance=chance), scorer)
        for measure in MEASURES
        if isinstance(candidate.get(measure.name), int | float)
    ]
    seed = tag("span", "Seed ", tag("b", candidate.get("seed", "")), cls="chip is-plain")
    return tag("div", *chips, seed, cls="chips")


def chip(title: str, value: str, help_text: str, scorer: object) -> Markup:
    measured = f" Measured by {scorer}." if scorer else ""
    tip = tag("span", help_text + measured, cls="tip", role="tooltip")
    return tag("span", f"{title} ", tag("b", value), tip, cls="chip", tabindex=0)


def _actions(result: Result, candidate: Mapping[str, Any], index: int) -> Markup:
    files = {**candidate, **(candidate.get("puzzle") or {})}
    groups = [
        [
            _download(result, candidate, name, files[name], (title, said))
            for name, title, said in table
            if files.get(name)
        ]
        for table in (DOWNLOADS, PUZZLES)
    ]
    vary = _button("vary", "Vary", "Make the same again from the next seeds", "vary", index)
    restore = _button("restore", "Restore settings", "Put these settings and this seed into the form", "restore", index)
    return tag(
        "div", *[tag("div", *group, cls="group") for group in (*groups, [vary, restore]) if group], cls="actions"
    )


def _download(
    result: Result, candidate: Mapping[str, Any], name: str, file: str, title_and_help: tuple[str, str]
) -> Markup:
    title, help_text = title_and_help
    saved_as = _file_name(result, candidate, name, file)
    return tag(
        "a", icon("download"), title, cls="btn", href=result.link(file, None), download=saved_as, title=help_text
    )


def _button(act: str, title: str, help_text: str, picture: str, index: int) -> Markup:
    return tag(
        "button", icon(picture), title, type="button", cls="btn", title=help_text, data_act=act, data_candidate=index
    )


def _file_name(result: Result, candidate: Mapping[str, Any], name: str, file: str) -> str:
    """``fox-penguin-seed7.gif``: a name that says what it is, from characters every file system takes."""
    kept = [
        "".join(c if c.isalnum() and c.isascii() else "-" for c in prompt.lower())
        for prompt in result.shown_in(candidate)
    ]
    stem = "-".join(part for part in "-".join(kept).split("-") if part not in ("", "a", "an", "the"))[:60].strip("-")
    suffix = file.rpartition(".")[2]
    kind = {"grid": "-grid", "a4": "-puzzle-a4", "letter": "-puzzle-letter", "svg": "-puzzle"}.get(name, "")
    return f"{stem or 'illusion'}-seed{candidate.get('seed', 0)}{kind}.{suffix}"


def _readings(result: Result, index: int) -> Markup:
    """What the scorer reads in every view: one row a view, one column a prompt, its own prompt on the diagonal."""
    candidate = result.candidates[index]
    rows = candidate.get("similarities")
    if not rows:
        return NOTHING
    head = tag("tr", tag("td"), *[tag("th", prompt, scope="col") for prompt in result.shown_in(candidate)])
    body = [
        tag(
            "tr",
            tag("th", words.view_title(spec, TITLES), scope="row"),
            *[tag("td", f"{value:.2f}", cls="own" if x == y else None) for x, value in enumerate(row)],
        )
        for y, (spec, row) in enumerate(zip(result.views, rows, strict=False))
    ]
    table = tag("div", tag("table", tag("thead", head), tag("tbody", *body)), cls="scroll")
    said = f"Similarity of every view with every prompt, by {result.summary.get('scorer', 'the scorer')}."
    return tag(
        "details",
        tag("summary", "What each view reads as"),
        tag("p", said, cls="hint"),
        table,
        cls="readings",
        data_candidate=index,
        hidden=index > 0,
    )


def _strip(result: Result) -> Markup:
    """The candidates as thumbnails, best first; arrow keys walk through them."""
    if len(result.candidates) < 2:
        return NOTHING
    thumbs = [
        tag(
            "button",
            tag("img", src=result.link(candidate["image"], 128), alt="", loading="lazy"),
            tag("span", f"{index + 1}", cls="rank"),
            tag("span", _told_apart(result, candidate), cls="seed"),
            type="button",
            role="radio",
            cls="thumb",
            aria_checked="true" if index == 0 else "false",
            aria_label=f"Candidate {index + 1} of {len(result.candidates)}, {_told_apart(result, candidate)}",
            tabindex=0 if index == 0 else -1,
            data_pick=index,
        )
        for index, candidate in enumerate(result.candidates)
    ]
    title = tag("h3", words.count(len(thumbs), "candidate"), tag("small", "best first"))
    return joined(title, tag("div", *thumbs, cls="strip", role="radiogroup", aria_label="Candidates, best first"))


def _told_apart(result: Result, candidate: Mapping[str, Any]) -> str:
    """What tells candidates apart: their seeds, and what the last view shows where partners were tried."""
    seed = f"seed {candidate.get('seed')}"
    lasts = {tuple(result.shown_in(each))[-1:] for each in (*result.candidates, *(result.summary.get("stopped") or ()))}
    return f"{result.shown_in(candidate)[-1]}, {seed}" if len(lasts) > 1 else seed


def _study(result: Result) -> Markup:
    """The grid of a study of adapters: one row a seed, one column a setting."""
    grid = (result.summary.get("study") or {}).get("grid")
    if not grid:
        return NOTHING
    address = result.link(grid, None)
    picture = tag("img", src=address, alt="Every setting of the adapters, from the same seeds", loading="lazy")
    save = tag("a", icon("download"), "Grid of the adapters", cls="btn", href=address, download=grid)
    return joined(
        tag("h3", "Adapters", tag("small", "the same seed in a row, the same setting in a column")),
        tag("div", picture, cls="scroll study"),
        tag("div", tag("div", save, cls="group"), cls="actions"),
    )


def _stopped(result: Result) -> Markup:
    """Candidates that were left unfinished, with how they looked then and why; each PNG's recipe finishes it."""
    stopped = result.summary.get("stopped") or ()
    if not stopped:
        return NOTHING
    items = [
        tag(
            "li",
            tag("img", src=result.link(left["grid"], 256), alt=" and ".join(result.shown_in(left)), loading="lazy"),
            tag("div", tag("b", _told_apart(result, left)), tag("p", left.get("why", ""), cls="hint")),
        )
        for left in stopped
    ]
    title = tag("summary", words.count(len(items), "candidate"), " stopped early")
    return tag("details", title, tag("ul", *items, cls="left-off"), cls="readings")


def remarks(result: Result) -> Markup:
    """What was noticed on the way, folded: figures for those who want them, and which known failure was found."""
    notes = result.summary.get("notes") or ()
    if not notes:
        return NOTHING
    failures = (result.candidates[0].get("failures") or ()) if result.candidates else ()
    found = ", ".join(str(failure["title"]).lower() for failure in failures if failure.get("found"))
    title = tag("summary", "Remarks", tag("small", found) if found else NOTHING)
    return tag("details", title, tag("ul", *[tag("li", note) for note in notes]), cls="readings remarks")
