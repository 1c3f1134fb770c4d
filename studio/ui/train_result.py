"""The result column of a training: what was learned, how, step by step, and where it can be used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.training import folder
from studio.training.methods import METHODS
from studio.ui import curve, words
from studio.ui.compare import Side
from studio.ui.markup import NOTHING, Markup, icon, joined, tag
from studio.ui.result import Result, chip, finished
from studio.ui.train_stage import HELP, Row, learned, resume, values_of

HASH_HELP = "SHA-256 of the file."
FORMATS = (
    ("kohya", "kohya", "For A1111, ComfyUI and this studio"),
    ("diffusers", "diffusers", "As diffusers loads it"),
    ("peft", "PEFT", "A folder for PEFT, as an archive"),
)
USES = (
    ("use-illusions", "illusions", "#adapters", "Use in Illusions", "Put it among the adapters of an illusion"),
    ("use-merge", "merge", "#loras", "Use in Merge", "Bake it into its model, or join it with other LoRAs"),
    ("use-guidance", "guidance", "#guidance-lora", "Use in Guidance", "Is AutoLoRA worth its price for it?"),
)
"""What a file can be sent to: what the press is called, the tab that opens, the field there, and words."""


@dataclass(frozen=True)
class Saved:
    """One of the adapters of a run: ``slot`` is best or last, ``names`` its files by format."""

    slot: str
    step: int
    names: Mapping[str, str]
    value: float | None


def of(result: Result) -> Markup:
    summary, prompts = result.summary, result.request.get("sample_prompts") or ()
    data = dict(summary.get("curves") or {}) | {"best": summary.get("best_step")}
    name = f"curve-{result.key.replace(':', '-').replace('.', '-')}"
    return finished(
        result,
        result.title,
        facts(result),
        _chips(summary),
        learned(rows(summary), prompts, result.link, curve.drawn(data, int(summary.get("steps") or 0), name)),
        tag("h3", "What was learned"),
        *[_saved(result, saved) for saved in adapters(summary)],
        tag("div", tag("div", *_actions(result), cls="group"), cls="actions learned-actions"),
    )


def facts(result: Result) -> str:
    """``Stopped after step 45 · 2.0 epochs · 21 s · builtin:emoji``."""
    summary = result.summary
    steps = int(summary.get("steps") or 0)
    parts = ["Example"] if result.example else []
    parts += [f"Stopped after step {steps:,}" if summary.get("stopped") else words.count(steps, "step")]
    parts += [f"{float(summary['epochs']):,.1f} epochs"] if summary.get("epochs") else []
    parts += [words.exactly(float(summary["seconds"]))] if summary.get("seconds") is not None else []
    return " · ".join([*parts, str(summary.get("model", ""))])


def told(summary: Mapping[str, Any]) -> list[str]:
    """What a list says of a result."""
    steps = words.count(int(summary.get("steps") or 0), "step") if summary else ""
    return [f"stopped after {steps}" if summary.get("stopped") else steps] if steps else []


def cover(summary: Mapping[str, Any]) -> str | None:
    """The first sample of the last step that was drawn."""
    found = rows(summary)
    return found[-1].names[0] if found else None


def side(result: Result) -> Side | None:
    """The last sample of the first prompt, with all settings and what was measured."""
    name = cover(result.summary)
    if name is None:
        return None
    titles = (("Validation loss", "validation"), ("Best validation loss", "best_validation"), ("Loss", "loss"))
    measured = {title: value for title, key in titles if isinstance(value := result.summary.get(key), int | float)}
    return Side(result.key, result.title, result.link(name, None), result.request, measured)


def rows(summary: Mapping[str, Any]) -> list[Row]:
    """The samples by step, oldest first, with what was measured at that step."""
    values = values_of(summary.get("curves") or {})
    best = summary.get("best_step")
    found = [(entry["step"], tuple(entry["pictures"])) for entry in summary.get("samples") or () if entry["pictures"]]
    return [Row(step, names, values.get(step), step == best) for step, names in found]


def adapters(summary: Mapping[str, Any]) -> list[Saved]:
    """The best first, where it is not the last; the last is the best where validation says so."""
    files, measured = summary.get("files") or {}, ("best_step", "best_validation")
    best, value = (summary.get(name) for name in measured)
    last = Saved("last", int(summary.get("steps") or 0), files.get("last") or {}, summary.get("validation"))
    found = [Saved("best", int(best or 0), files["best"], value)] if files.get("best") else []
    return [*found, last]


def place(result: Result, slot: str) -> Path | None:
    """Where the file lies that other tabs take; None for strangers, who cannot name it."""
    name = next((each.names.get("kohya") for each in adapters(result.summary) if each.slot == slot), None)
    return Path(result.folder) / name if name and result.folder else None


def named_files(summary: Mapping[str, Any]) -> set[str]:
    """What of a run's folder may be fetched; PEFT's folders as archives."""
    files = [name for saved in adapters(summary) for name in saved.names.values()]
    names = [name if name.endswith(".safetensors") else f"{name}.zip" for name in files]
    pictures = [name for row in rows(summary) for name in row.names]
    return {*names, *pictures}


def _chips(summary: Mapping[str, Any]) -> Markup:
    found = [("Loss", summary.get("loss"), "loss"), ("Validation", summary.get("validation"), "validation")]
    chips = [chip(title, f"{value:.4f}", HELP[name], None) for title, value, name in found if value is not None]
    if summary.get("best_step") is not None and summary.get("best_validation") is not None:
        value = f"{summary['best_validation']:.4f} at step {summary['best_step']:,}"
        chips.append(chip("Best", value, HELP["validation"], None))
    if summary.get("speed"):
        chips.append(chip("Pictures/s", f"{summary['speed']:.1f}", HELP["speed"], None))
    if summary.get("peak_memory"):
        chips.append(chip("Memory", f"{summary['peak_memory'] / 1024**3:.1f} GB", HELP["memory"], None))
    return tag("div", *chips, cls="chips")


def _saved(result: Result, saved: Saved) -> Markup:
    """One adapter: its files to fetch, the tabs that can take it, its path and its hash."""
    whole = len(adapters(result.summary)) == 1
    title = {"best": "The best", "last": "The last"}[saved.slot]
    title = "The last, which is the best" if whole and result.summary.get("best_step") == saved.step else title
    measured = f" · validation {saved.value:.4f}" if saved.value is not None else ""
    heading = tag("p", tag("b", title), tag("span", f"step {saved.step:,}{measured}"), cls="learned-name")
    fetched = [_download(result, saved.names[name], words) for name, *words in FORMATS if saved.names.get(name)]
    parts = [tag("div", *fetched, cls="group"), tag("div", *_uses(result, saved), cls="group")]
    marked = saved.slot == "best" or title.endswith("best")
    cls = "learned-file is-best" if marked and result.summary.get("best_step") is not None else "learned-file"
    return tag("section", heading, tag("div", *parts, cls="actions"), _where(result, saved), cls=cls)


def _download(result: Result, name: str, title_and_help: Sequence[str]) -> Markup:
    title, help_text = title_and_help
    file = name if name.endswith(".safetensors") else f"{name}.zip"
    return tag("a", icon("download"), title, cls="btn", href=result.link(file, None), download=file, title=help_text)


def _uses(result: Result, saved: Saved) -> list[Markup]:
    way = METHODS.get(str(result.request.get("method")))
    if place(result, saved.slot) is None or (way is not None and way.form != "lora"):  # a word is no adapter
        return []
    return [
        tag(
            "button",
            icon("send"),
            title,
            type="button",
            cls="btn",
            title=help_text,
            data_act=act,
            data_slot=saved.slot,
            data_open=tab,
            data_see=field,
        )
        for act, tab, field, title, help_text in USES
    ]


def _where(result: Result, saved: Saved) -> Markup:
    """Path and hash, each with a button that copies it. Only the person at this machine sees its paths."""
    path, name = place(result, saved.slot), saved.names.get("kohya", "")
    hashes = result.summary.get("sha256") or {}
    found = [("File", str(path), str(path))] if path else []
    found += [("SHA-256", hashes[name], HASH_HELP)] if hashes.get(name) else []
    return tag("dl", *[_fact(*row) for row in found], cls="saved") if found else NOTHING


def _fact(name: str, value: str, help_text: str) -> Markup:
    copy = tag("button", icon("copy"), type="button", cls="btn is-quiet", data_copy=value, aria_label=f"Copy {name}")
    return joined(tag("dt", name), tag("dd", tag("code", value, title=help_text), copy))


def _actions(result: Result) -> list[Markup]:
    """Going on, at home, where the run's folder holds what that takes; and the settings back into the form."""
    again = tag("button", icon("restore"), "Restore settings", type="button", cls="btn", data_act="restore")
    step = folder.reached(Path(result.folder)) if result.folder else None
    if step is None:
        return [again]
    if result.summary.get("stopped"):
        return [resume(step), again]
    help_text = "Put these settings into the form, to go on from here with more steps"
    longer = tag("button", icon("play"), "Train longer", type="button", cls="btn", title=help_text, data_act="go-on")
    return [longer, again]
