"""The figures of a benchmark run: means with bootstrap intervals, quantiles, differences, as Markdown and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from studio.illusions.bench import NAMED, Plan, Record
from studio.intervals import LEVEL, Estimate, estimate

BASE = "mean"


@dataclass(frozen=True)
class Line:
    """One method: A, C, their quantiles over its illusions, and what one illusion takes; differences to the mean."""

    method: str
    illusions: int
    alignment: Estimate
    concealment: Estimate
    alignment_quantiles: tuple[float, float]
    concealment_quantiles: tuple[float, float]
    evaluations: float
    seconds: float
    more_alignment: Estimate | None
    more_concealment: Estimate | None


@dataclass(frozen=True)
class Bar:
    """One thing that is to hold, and whether it does: by the means, and with the interval clear of zero."""

    text: str
    holds: bool
    clear: bool

    def __str__(self) -> str:
        said = "holds, clear of chance" if self.clear else "holds, within chance" if self.holds else "does not hold"
        return f"{self.text}: {said}"


def lines(records: Sequence[Record], methods: Sequence[str]) -> tuple[Line, ...]:
    """One line for every method that has records."""
    return tuple(_line(records, name) for name in methods if any(record.method == name for record in records))


def bars(found: Sequence[Line]) -> tuple[Bar, ...]:
    """The bars of the comparison, as far as its methods are there."""
    by_name = {line.method: line for line in found}
    better = [by_name[name] for name in ("weighted_rectified", "search") if name in by_name]
    made = []
    if BASE in by_name and better:
        gains = [(line.more_alignment, line.more_concealment) for line in better]
        holds = any(min(a.value, c.value) > 0 for a, c in gains)
        clear = any(min(a.low, c.low) > 0 for a, c in gains)
        names = " or ".join(line.method for line in better)
        made.append(Bar(f"{names} beats mean in both A and C", holds, clear))
    if BASE in by_name and "alternate" in by_name:
        less = by_name["alternate"].more_alignment
        made.append(Bar("mean beats alternate in A", less.value < 0, less.high < 0))
    return tuple(made)


def markdown(plan: Plan, found: Sequence[Line]) -> str:
    """The table, what it was made with, and the bars."""
    head = (
        "| method | illusions | A | A .9 / .95 | C | C .9 / .95 | A over mean | C over mean | evaluations | seconds |"
    )
    rows = [head, "|" + "---|" * 10, *map(_row, found)]
    about = (
        f"{plan.model}, `{plan.view}`, pairs `{plan.pairs}`, {plan.seeds} seeds, {plan.steps} steps, guidance "
        f"{plan.guidance_scale:g}, scored by {plan.scorer}. Evaluations and seconds are for one illusion. Brackets: "
        f"{LEVEL:.0%} intervals, bootstrapped over pairs. Search keeps the best of the {plan.seeds} seeds of a pair by "
        "A times C of the same scorer."
    )
    return "\n".join([about, "", *rows, "", *[f"- {bar}." for bar in bars(found)], ""])


def as_json(plan: Plan, found: Sequence[Line]) -> dict[str, Any]:
    return {
        "plan": asdict(plan),
        "methods": [asdict(line) for line in found],
        "bars": [asdict(bar) for bar in bars(found)],
    }


def by_pair(records: Sequence[Record], method: str, name: str) -> dict[int, float]:
    """The mean of a figure over the seeds of every pair."""
    values: dict[int, list[float]] = {}
    for record in records:
        if record.method == method:
            values.setdefault(record.pair, []).append(getattr(record, name))
    return {pair: sum(found) / len(found) for pair, found in values.items()}


def _line(records: Sequence[Record], method: str) -> Line:
    own = [record for record in records if record.method == method]
    figures = {name: [getattr(record, name) for record in own] for name in Record.__dataclass_fields__}
    quantiles = {
        name: tuple(float(q) for q in np.quantile(figures[name], (0.9, 0.95))) for name in ("alignment", "concealment")
    }
    return Line(
        method=method,
        illusions=len(own),
        alignment=estimate([*by_pair(records, method, "alignment").values()]),
        concealment=estimate([*by_pair(records, method, "concealment").values()]),
        alignment_quantiles=quantiles["alignment"],
        concealment_quantiles=quantiles["concealment"],
        evaluations=float(np.mean(figures["evaluations"])),
        seconds=float(np.mean(figures["seconds"])),
        more_alignment=_more(records, method, "alignment"),
        more_concealment=_more(records, method, "concealment"),
    )


def _more(records: Sequence[Record], method: str, name: str) -> Estimate | None:
    """The paired difference to the plain mean, pair by pair; None for the mean itself and where it was not run."""
    own, base = by_pair(records, method, name), by_pair(records, BASE, name)
    both = [pair for pair in own if pair in base]
    return estimate([own[pair] - base[pair] for pair in both]) if method != BASE and both else None


def _row(line: Line) -> str:
    quantiles = [f"{a:.3f} / {b:.3f}" for a, b in (line.alignment_quantiles, line.concealment_quantiles)]
    more = [each.signed if each else "-" for each in (line.more_alignment, line.more_concealment)]
    cells = [
        NAMED[line.method].title,
        f"{line.illusions}",
        str(line.alignment),
        quantiles[0],
        str(line.concealment),
        quantiles[1],
        *more,
        f"{line.evaluations:.0f}",
        f"{line.seconds:.2f}",
    ]
    return f"| {' | '.join(cells)} |"
