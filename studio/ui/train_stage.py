"""The result column of a training while it waits or runs, and after it ended without a result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from studio.training import curves, folder
from studio.ui import curve
from studio.ui.markup import NOTHING, Markup, icon, joined, tag
from studio.ui.result import Link, chip
from studio.ui.stage import figure
from studio.workbench import LOCAL_OWNER

if TYPE_CHECKING:
    from studio.jobs import Snapshot

THUMB = 256  # pixels, of samples in rows
ROWS, LIVE_ROWS = 40, 8  # of samples that are listed; while it runs they are sent with every pull
HELP = {
    "loss": "How far the network's answer is from the noise that was added: a mean of the last steps. Lower is better. "
    "Min-SNR weighting makes it smaller than what validation measures.",
    "validation": "The loss on pictures that are held out, with the same noise every time. When it rises again, the "
    "pictures are being learned by heart.",
    "rate": "The size of a step of the optimiser.",
    "epoch": "How often every picture was seen.",
    "speed": "Pictures that the network learned from in a second.",
    "memory": "The most memory so far, the model and all else included.",
}


@dataclass(frozen=True)
class Row:
    """The samples of one step. ``best``: where validation was lowest; ``value``: what was measured there."""

    step: int
    names: tuple[str, ...]
    value: float | None = None
    best: bool = False


def quiet(snapshot: Snapshot) -> Snapshot:
    """The snapshot as the line under its bar tells it: the chips say the rest."""
    said = snapshot.data.get("words")
    return replace(snapshot, evaluations=0, note="" if said and snapshot.note == said else snapshot.note)


def forming(snapshot: Snapshot) -> Markup:
    """The numbers of now; empty until there is a step to tell of."""
    data = told(snapshot)
    return chips(data) if data.get("points") else NOTHING


def kept(snapshot: Snapshot, link: Link) -> Markup:
    """The samples so far, the newest large, and the curves."""
    if snapshot.status == "queued":
        return NOTHING
    prompts, data = snapshot.request.get("sample_prompts") or (), told(snapshot)
    values = values_of(data)
    found = folder.samples(snapshot.folder).items() if prompts else ()
    rows = [Row(step, tuple(names), values.get(step), step == data.get("best")) for step, names in sorted(found)]
    whole = [row for row in rows if len(row.names) == len(prompts)]
    wanted = snapshot.status == "running"
    drawn = curve.drawn(data, snapshot.total, f"curve-{snapshot.id}") if wanted or data.get("points") else NOTHING
    return learned(whole, prompts, link, drawn, wanted=wanted)


def told(snapshot: Snapshot) -> Mapping[str, Any]:
    """What the run says of itself, or after a restart of the studio its log."""
    if snapshot.data or not snapshot.over:
        return snapshot.data
    return curves.read(snapshot.folder)


def values_of(data: Mapping[str, Any]) -> dict[int, float]:
    """Step -> what was measured there; 0 is before learning."""
    before = {0: data["before"]} if data.get("before") is not None else {}
    return before | {int(step): value for step, value in data.get("validation") or ()}


def learned(rows: Sequence[Row], prompts: Sequence[str], link: Link, drawn: Markup, *, wanted: bool = False) -> Markup:
    """The newest samples large, the curves, then every step as a row; the same while it runs and when it is done."""
    newest = samples(rows, prompts, link, wanted=wanted)
    most = LIVE_ROWS if wanted else ROWS
    return joined(newest, drawn, _rows(rows, prompts, link, most) if rows[1:] else NOTHING)


def samples(rows: Sequence[Row], prompts: Sequence[str], link: Link, *, wanted: bool = False) -> Markup:
    """The newest, large; with ``wanted`` empty frames keep the place of the first ones."""
    if not rows:
        frames = [figure(prompt, "first sample soon", tag("div", cls="frame")) for prompt in prompts] if wanted else []
        return tag("div", *frames, cls=large(len(frames))) if frames else NOTHING
    last = rows[-1]
    figures = [
        figure(prompt, said(last), tag("div", _picture(link(name, None), prompt, last), cls="frame"))
        for prompt, name in zip(prompts, last.names, strict=False)
    ]
    return tag("div", *figures, cls=large(len(figures)))


def large(count: int) -> str:
    return f"views learned n-{min(count, 4)}-wide"


def said(row: Row) -> str:
    return "before learning" if row.step == 0 else f"step {row.step:,}"


def _picture(source: str, prompt: str, row: Row) -> Markup:
    return tag("img", src=source, alt=f"{prompt}, {said(row)}", decoding="sync")


def _rows(rows: Sequence[Row], prompts: Sequence[str], link: Link, most: int) -> Markup:
    """A row for each step, the newest first, a column for each prompt."""
    shown = listed(rows, most)
    head = tag("tr", tag("td"), *[tag("th", prompt, scope="col", title=prompt) for prompt in prompts])
    body = [tag("tr", _step(row), *_cells(row, prompts, link), cls="is-best" if row.best else None) for row in shown]
    table = tag("table", tag("thead", head), tag("tbody", *body))
    title = tag("h3", "Step by step", tag("small", "each column from the same noise"))
    return joined(title, tag("div", table, cls="scroll steps"))


def listed(rows: Sequence[Row], most: int) -> list[Row]:
    """The newest first; of many the latest, and always the first and the best, to see where it came from."""
    latest = {row.step for row in rows[-most:]} | {rows[0].step}
    return [row for row in reversed(rows) if row.step in latest or row.best]


def _step(row: Row) -> Markup:
    value = tag("small", f"validation {row.value:.4f}") if row.value is not None else NOTHING
    return tag("th", said(row), value, tag("small", "best", cls="badge") if row.best else NOTHING, scope="row")


def _cells(row: Row, prompts: Sequence[str], link: Link) -> Iterator[Markup]:
    for prompt, name in zip(prompts, row.names, strict=False):
        picture = tag("img", src=link(name, THUMB), alt=f"{prompt}, {said(row)}", decoding="sync")
        yield tag("td", tag("a", picture, href=link(name, None), target="_blank", rel="noopener"))


def chips(data: Mapping[str, Any]) -> Markup:
    """The numbers of now, each with a sentence that says what it means."""
    last, measured = data["points"][-1], data.get("validation") or ()
    found = [("Loss", f"{last[2]:.4f}", "loss")]
    found += [("Validation", f"{measured[-1][1]:.4f}", "validation")] if measured else []
    found.append(("Learning rate", f"{last[3]:.3g}", "rate"))
    found += [("Epoch", f"{data['epoch']:,.1f}", "epoch")] if data.get("epoch") is not None else []
    found += [("Pictures/s", f"{data['speed']:.1f}", "speed")] if data.get("speed") else []
    found += [("Memory", f"{data['memory'] / 1024**3:.1f} GB", "memory")] if data.get("memory") else []
    return tag("div", *[chip(title, value, HELP[name], None) for title, value, name in found], cls="chips")


def actions(snapshot: Snapshot) -> Sequence[Markup]:
    """A run that ended without a result goes on from its last checkpoint, where one was kept."""
    step = folder.reached(snapshot.folder) if snapshot.owner == LOCAL_OWNER else None
    return () if step is None else (resume(step),)


def resume(step: int) -> Markup:
    help_text = "Go on with the same settings, as if it had never stopped"
    words = f"Resume from step {step:,}"
    return tag("button", icon("play"), words, type="button", cls="btn", title=help_text, data_act="resume")
