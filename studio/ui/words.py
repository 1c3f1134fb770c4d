"""How numbers and states read in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

STATUS = {
    "queued": "Waiting",
    "running": "Running",
    "done": "Done",
    "failed": "Failed",
    "cancelled": "Stopped",
    "interrupted": "Interrupted",
}

ACTIVE = frozenset({"queued", "running"})


def count(number: int, noun: str) -> str:
    """``2 views``, ``1 view``, ``12,000 evaluations``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def about(seconds: float) -> str:
    """A duration that nobody should take for exact: ``about 4 s``, ``about 3 min``, ``about 2 h``."""
    if seconds < 1:
        return "about 1 s"
    if seconds < 90:
        return f"about {round(seconds)} s"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min"
    return f"about {round(seconds / 3600)} h"


def exactly(seconds: float) -> str:
    """A measured duration: ``1.9 s``, ``42 s``, ``3 min 5 s``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def ago(seconds: float) -> str:
    """How long since: ``just now``, ``5 min ago``, ``3 days ago``."""
    for limit, size, noun in ((90, None, ""), (5400, 60, "min"), (129600, 3600, "h")):
        if seconds < limit:
            return f"{max(1, round(seconds / size))} {noun} ago" if size else "just now"
    return f"{count(round(seconds / 86400), 'day')} ago"


def title(prompts: Sequence[str], length: int = 90) -> str:
    """The prompts as one heading, ``a fox / a penguin``."""
    text = " / ".join(prompts)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def view_title(spec: str, titles: Mapping[str, str]) -> str:
    """A view's spec in words: ``jigsaw(seed=3)+negate`` becomes ``Jigsaw (seed=3), then Negative``."""
    return ", then ".join(_one_view(part.strip(), titles) for part in spec.split("+"))


def _one_view(part: str, titles: Mapping[str, str]) -> str:
    name, bracket, parameters = part.partition("(")
    known = titles.get(name.strip(), name.strip())
    return f"{known} ({parameters.rstrip(')')})" if bracket and parameters.rstrip(")") else known


def cost(views: int, steps: int, candidates: int, evaluations: int, seconds: float | None) -> str:
    """What a run will take, ``2 views × 30 steps = 120 evaluations, about 4 s``."""
    factors = [count(views, "view"), count(steps, "step")]
    if candidates > 1:
        factors.append(count(candidates, "candidate"))
    text = f"{' × '.join(factors)} = {count(evaluations, 'evaluation')}"
    return text if seconds is None else f"{text}, {about(seconds)}"


def time_left(step: int, total: int, eta: float | None) -> str:
    """The line under the progress bar while a job runs."""
    if not total:
        return "Preparing"
    line = f"Step {step} of {total}"
    return f"{line}, {about(eta)} left" if eta is not None else line


def size(number: int) -> str:
    """Bytes as people count them: ``2.1 GB``, ``21 MB``, ``640 KB``."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if number >= factor:
            return f"{number / factor:.{1 if number < 10 * factor else 0}f} {unit}"
    return f"{max(1, round(number / 1000))} KB"
