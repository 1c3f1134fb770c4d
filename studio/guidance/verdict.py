"""Is AutoLoRA worth its price here? One sentence, from the figures and their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from studio.guidance.grid import Column
from studio.guidance.guiders import GUIDERS
from studio.guidance.metrics import Measured
from studio.intervals import Estimate

ASKED, AGAINST = ("autolora", "autolora_interval", "autolora_refresh", "autolora_skip"), "cfg"
NAMES = {"diversity": "diversity", "pc_clip": "PC-clip", "sa_clip": "SA-clip", "cp_clip": "CP-clip"}


def pair(columns: Sequence[Column], found: Sequence[Measured | None]) -> tuple[int, int] | None:
    """The first AutoLoRA and the first LoRA + CFG that were drawn with several seeds; None where one is missing."""
    there = [(index, column.guider) for index, column in enumerate(columns) if found[index] and found[index].diversity]
    ours = next((index for name in ASKED for index, guider in there if guider == name), None)
    plain = next((index for index, guider in there if guider == AGAINST), None)
    return None if ours is None or plain is None else (ours, plain)


def verdict(columns: Sequence[Column], found: Sequence[Measured | None], changes: Mapping[str, Estimate]) -> str:
    """Compares the two of ``pair`` by what changed between pictures of the same noise; empty where there is no pair."""
    compared = pair(columns, found)
    if compared is None:
        return ""
    column, each, plain = columns[compared[0]], found[compared[0]], found[compared[1]]
    price = each.evaluations / plain.evaluations
    before, after = ({"diversity": one.diversity, **one.fidelity} for one in (plain, each))
    parts = [_told(name, before[name].value, after[name].value, change) for name, change in changes.items()]
    clear = [part for part in parts if part[1]]
    gained, lost = [part[0] for part in clear if part[1] > 0], [part[0] for part in clear if part[1] < 0]
    title = GUIDERS[column.guider].title
    price_words = f"at {price:.2f} times the evaluations of LoRA + CFG"
    if not clear:
        return f"No: {title} {price_words} changed nothing that {each.pictures} pictures could tell from chance."
    if not lost:
        return f"Yes: {title} {price_words} gained {_listed(gained)}."
    if not gained:
        return f"No: {title} {price_words} lost {_listed(lost)}."
    return f"It depends: {title} {price_words} gained {_listed(gained)}, and lost {_listed(lost)}."


def _told(name: str, before: float, after: float, change: Estimate) -> tuple[str, int]:
    """The change in words, and its sign where its interval leaves zero out."""
    sign = 1 if change.low > 0 else -1 if change.high < 0 else 0
    return f"{NAMES[name]} ({before:.3f} to {after:.3f})", sign


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
