"""Is AutoLoRA worth its price here? One sentence, from the figures and their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from studio.guidance.grid import Column
from studio.guidance.guiders import GUIDERS
from studio.guidance.metrics import Measured
from studio.intervals import Estimate

ASKED, AGAINST = ("autolora", "autolora_interval", "autolora_refresh", "autolora_skip"), "cfg"


def verdict(columns: Sequence[Column], found: Sequence[Measured | None]) -> str:
    """Compares the first AutoLoRA with LoRA + CFG at the same point of the grid; empty where one of them is missing."""
    pairs = [(column, each) for column, each in zip(columns, found, strict=True) if each is not None]
    ours = next(((column, each) for name in ASKED for column, each in pairs if column.guider == name), None)
    plain = next((each for column, each in pairs if column.guider == AGAINST), None)
    if ours is None or plain is None or ours[1].diversity is None or plain.diversity is None:
        return ""
    column, each = ours
    price = each.evaluations / plain.evaluations
    parts = [_told("diversity", each.diversity, plain.diversity)]
    parts += [_told(_named(name), each.fidelity[name], plain.fidelity[name]) for name in each.fidelity]
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


def _told(name: str, ours: Estimate, plain: Estimate) -> tuple[str, int]:
    """The change in words, and its sign where the two intervals do not overlap."""
    sign = 1 if ours.low > plain.high else -1 if ours.high < plain.low else 0
    return f"{name} ({plain.value:.3f} to {ours.value:.3f})", sign


def _named(name: str) -> str:
    return {"pc_clip": "PC-clip", "sa_clip": "SA-clip", "cp_clip": "CP-clip"}[name]


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
