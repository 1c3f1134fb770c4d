"""The result column of a merge that was saved: where it lies, how large it is, its hash, and what was made of what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.ui import words
from studio.ui.markup import NOTHING, Markup, icon, joined, tag
from studio.ui.merge_stage import ingredients
from studio.ui.result import Result, finished

PARTS_MOST = 8
HASH_HELP = "SHA-256 of the tensors: a replay of the recipe gives the same."


def of(result: Result) -> Markup:
    summary = result.summary
    return finished(
        result,
        result.title,
        facts(result),
        _faults(summary),
        _where(result),
        tag("div", tag("div", _download(result), _restore(), cls="group"), cls="actions saved-actions"),
        tag("h3", "Made from"),
        ingredients(result.request),
        _parts(summary),
        _energy(summary),
        _sources(summary),
    )


def facts(result: Result) -> str:
    """``Saved in 3.2 s · 21 MB``."""
    summary = result.summary
    parts = [f"Saved in {words.exactly(float(summary.get('seconds', 0)))}", words.size(int(summary.get("bytes", 0)))]
    parts += [words.count(int(summary["layers"]), "layer")] if summary.get("layers") else []
    parts += [f"rank {_span(summary['ranks'])}"] if summary.get("ranks") else []
    return " · ".join(parts)


def told(summary: Mapping[str, Any]) -> list[str]:
    return [words.size(int(summary["bytes"]))] if summary.get("bytes") else []


def _span(ranks: list[int]) -> str:
    return str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"


def _where(result: Result) -> Markup:
    """Path and hash, each with a button that copies it. Only the person at this machine sees its paths."""
    output = str(result.summary.get("output", ""))
    path = output if Path(output).is_absolute() or not result.folder else str(Path(result.folder) / output)
    rows = [("File" if path.endswith(".safetensors") else "Folder", path, "")]
    rows += [("SHA-256", str(result.summary.get("data_sha256", "")), HASH_HELP)]
    return tag("dl", *[_fact(*row) for row in rows if row[1]], cls="saved")


def _fact(name: str, value: str, help_text: str) -> Markup:
    copy = tag("button", icon("copy"), type="button", cls="btn is-quiet", data_copy=value, aria_label=f"Copy {name}")
    return joined(tag("dt", name), tag("dd", tag("code", value, title=help_text or value), copy))


def _download(result: Result) -> Markup:
    """What lies with the results can be fetched; what was written elsewhere is there already."""
    output = str(result.summary.get("output", ""))
    if not output or Path(output).is_absolute():
        return NOTHING
    name = output if output.endswith(".safetensors") else f"{output}.zip"
    return tag("a", icon("download"), "Download", cls="btn", href=result.link(name, None), download=name)


def _restore() -> Markup:
    return tag("button", icon("restore"), "Restore settings", type="button", cls="btn", data_act="restore")


def _faults(summary: Mapping[str, Any]) -> Markup:
    faults = summary.get("faults") or {}
    if not faults:
        return NOTHING
    listed = [tag("li", tag("code", key), f" {_counts(fault)}") for key, fault in list(faults.items())[:PARTS_MOST]]
    said = f"{words.count(len(faults), 'tensor')} with weights that are not finite, saved as you asked:"
    return tag("div", tag("p", said), tag("ul", *listed), cls="faults")


def _counts(fault: Mapping[str, Any]) -> str:
    titles = {"nan": "NaN", "infinite": "infinite", "overflow": "too large for the precision"}
    return ", ".join(f"{fault[kind]:,} {title}" for kind, title in titles.items() if fault.get(kind))


def _parts(summary: Mapping[str, Any]) -> Markup:
    parts = summary.get("parts") or {}
    if not parts:
        return NOTHING
    rows = [
        tag(
            "tr",
            tag("th", name.replace("_", " "), scope="row"),
            tag("td", f"{n['merged']:,}"),
            tag("td", f"{n['copied']:,}"),
        )
        for name, n in parts.items()
    ]
    heads = tag("tr", tag("td"), tag("th", "tensors merged", scope="col"), tag("th", "copied", scope="col"))
    table = tag("table", tag("thead", heads), tag("tbody", *rows))
    return tag("div", tag("div", table, cls="scroll"), cls="readings")


def _energy(summary: Mapping[str, Any]) -> Markup:
    """The layers of a LoRA that keep least of what they were made from."""
    energy = {name: kept for name, kept in (summary.get("energy") or {}).items() if kept < 1}
    if not energy:
        return NOTHING
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", f"{kept:.1%}")) for name, kept in energy.items()]
    table = tag("div", tag("table", tag("tbody", *rows)), cls="scroll")
    return tag("details", tag("summary", "Energy kept, least first"), table, cls="readings")


def _sources(summary: Mapping[str, Any]) -> Markup:
    """The SHA-256 of every file that went in, as the recipe holds them."""
    rows = [
        tag("tr", tag("th", f"{source['name']} {name}", scope="row"), tag("td", tag("code", sha256)))
        for source in summary.get("sources") or ()
        for name, sha256 in (source.get("files") or {}).items()
    ]
    if not rows:
        return NOTHING
    table = tag("div", tag("table", tag("tbody", *rows)), cls="scroll")
    return tag("details", tag("summary", "Hashes of the sources"), table, cls="readings")
