"""The result column of a search: what read best, large, and every trial ranked behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.ui import words
from studio.ui.compare import Side
from studio.ui.markup import NOTHING, Markup, icon, joined, tag
from studio.ui.result import Result, chip, finished, spent
from studio.ui.strip_result import flat, said_alpha

SCORE = "How well the pictures match their prompts, on average over prompts and seeds; at most 1. Higher is better."


def of(result: Result) -> Markup:
    """Trials but the best are there, hidden, so that walking through them is instant."""
    trials = _trials(result.summary)
    return finished(
        result,
        result.title,
        facts(result),
        *[_trial(result, index, trial) for index, trial in enumerate(trials)],
        _ranking(result, trials),
        _curve(trials),
    )


def facts(result: Result) -> str:
    summary = result.summary
    parts = [words.count(len(_trials(summary)), "trial")]
    parts += spent(summary)
    return " · ".join([*parts, "nothing was saved"])


def cover(summary: Mapping[str, Any]) -> str | None:
    trials = _trials(summary)
    return trials[0]["image"] if trials else None


def told(summary: Mapping[str, Any]) -> list[str]:
    trials = _trials(summary)
    best = [said_alpha(trials[0].get("alpha"))] if trials and not trials[0].get("blocks") else []
    return [words.count(len(trials), "trial"), *best]


def side(result: Result) -> Side | None:
    trials = _trials(result.summary)
    if not trials:
        return None
    settings = flat(result.request) | {"alpha": trials[0].get("alpha"), "blocks": trials[0].get("blocks")}
    return Side(
        result.key, result.title, result.link(trials[0]["image"], None), settings, {"Score": trials[0]["score"]}
    )


def _trials(summary: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return summary.get("trials") or ()


def _name(trial: Mapping[str, Any]) -> str:
    return "blocks of its own" if trial.get("blocks") else said_alpha(trial.get("alpha"))


def _trial(result: Result, index: int, trial: Mapping[str, Any]) -> Markup:
    picture = tag("img", src=result.link(trial["image"], None), alt=f"Trial {index + 1}, {_name(trial)}")
    score = trial.get("score")
    chips = [chip("Score", f"{score:.3f}", SCORE, result.summary.get("scorer"))] if score is not None else []
    chips += [tag("span", _name(trial).capitalize(), cls="chip is-plain")]
    chips += [tag("span", "Tried ", tag("b", f"{trial['place']}."), cls="chip is-plain")] if trial.get("place") else []
    use = tag(
        "button", icon("restore"), "Use it", type="button", cls="btn", data_act="use-trial", data_trial=index,
        title="Put what was found into the form",
    )  # fmt: skip
    under = tag("div", tag("div", *chips, cls="chips"), tag("div", use, cls="actions"), cls="under")
    return tag(
        "section",
        tag("div", picture, cls="frame trial-picture"),
        _blocks(result, trial),
        under,
        cls="candidate",
        data_candidate=index,
        hidden=index > 0,
        aria_label=f"Trial {index + 1} of {len(_trials(result.summary))}, {_name(trial)}",
    )


def _blocks(result: Result, trial: Mapping[str, Any]) -> Markup:
    """The alpha of each block as a bar; a person reads the figure where it stands over it."""
    names, values = result.summary.get("block_names") or (), trial.get("blocks") or ()
    if not values:
        return NOTHING
    most = max(1.0, *map(abs, values))
    bars = [
        tag("i", style=f"height:{100 * max(0.0, value) / most:.0f}%", title=f"{name} {value:.2f}")
        for name, value in zip([*names, *[""] * len(values)], values, strict=False)
    ]
    said = "Alpha of each block: " + ", ".join(f"{value:.2f}" for value in values)
    return tag("div", *bars, cls="block-bars", role="img", aria_label=said)


def _ranking(result: Result, trials: Sequence[Mapping[str, Any]]) -> Markup:
    if len(trials) < 2:
        return NOTHING
    thumbs = [
        tag(
            "button",
            tag("img", src=result.link(trial["image"], 128), alt="", loading="lazy"),
            tag("span", f"{index + 1}", cls="rank"),
            tag("span", f"{trial['score']:.3f}" if trial.get("score") is not None else "–", cls="seed"),
            type="button",
            role="radio",
            cls="thumb",
            aria_checked="true" if index == 0 else "false",
            aria_label=f"Trial {index + 1} of {len(trials)}, {_name(trial)}",
            tabindex=0 if index == 0 else -1,
            data_pick=index,
        )
        for index, trial in enumerate(trials)
    ]
    heading = tag("h3", words.count(len(trials), "trial"), tag("small", "best first"))
    return joined(heading, tag("div", *thumbs, cls="strip", role="radiogroup", aria_label="Trials, best first"))


def _curve(trials: Sequence[Mapping[str, Any]]) -> Markup:
    """Score over alpha as a small plot, where alpha alone was searched."""
    points = sorted(
        (trial["alpha"], trial["score"])
        for trial in trials
        if not trial.get("blocks") and isinstance(trial.get("score"), int | float)
    )
    if len(points) < 3:
        return NOTHING
    (low, high), scores = (points[0][0], points[-1][0]), [score for _, score in points]
    span, rise = max(high - low, 1e-9), max(max(scores) - min(scores), 1e-9)
    placed = [(20 + 460 * (x - low) / span, 90 - 70 * (y - min(scores)) / rise) for x, y in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.500"/>' for x, y in placed)
    said = f"Score from {min(scores):.3f} to {max(scores):.3f} over alpha from {low:g} to {high:g}"
    plot = f'<svg viewBox="0 0 500 100" role="img" aria-label="{said}"><polyline points="{line}"/>{dots}</svg>'
    ends = tag("p", tag("span", f"alpha {low:g}"), tag("span", f"alpha {high:g}"), cls="mixer-ends")
    return tag("div", tag("h3", "Score over alpha"), Markup(plot), ends, cls="score-plot")
