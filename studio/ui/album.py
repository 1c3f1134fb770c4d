"""What the page says of a set: each picture with its captions, counts, and problems. No components, no markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from studio.training.dataset import edited
from studio.training.reading import picture_id
from studio.ui.words import count

if TYPE_CHECKING:
    from studio.training.edits import Edits
    from studio.training.reading import Reading
    from studio.training.records import Example, Problem

PER_PAGE = 24
SHOWS: Mapping[str, str] = {
    "all": "All",
    "uncaptioned": "No caption",
    "remarks": "With remarks",
    "left_out": "Left out",
}
OWN_REMARK = ("duplicate", "similar", "converted", "caption")
"""Kinds of problems that stand with their picture; it has to be there for that."""
KINDS: Mapping[str, str] = {
    "corrupt": "unreadable",
    "format": "other format",
    "too_small": "too small",
    "too_large": "too large",
    "duplicate": "doubled",
    "similar": "look alike",
    "converted": "converted",
    "uncaptioned": "no caption",
    "caption": "doubtful captions",
    "orphan": "captions without a picture",
    "left_out": "left out",
}


@dataclass(frozen=True)
class Shot:
    """One picture. ``written`` is its caption as found or edited, ``trained`` what the model is told."""

    name: str
    id: str
    written: str
    trained: str
    changed: bool
    out: bool
    size: tuple[int, int]
    version: str
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Album:
    """A set as far as it was looked at: ``looked_at`` of ``total`` pictures, all of them when ``done``."""

    shots: tuple[Shot, ...]
    problems: tuple[Problem, ...]
    looked_at: int
    total: int
    done: bool

    @property
    def fatal(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.fatal]

    @property
    def remarks(self) -> list[Problem]:
        return [problem for problem in self.problems if not problem.fatal]

    def shown(self, show: str) -> list[Shot]:
        """The pictures that one of ``SHOWS`` picks."""
        picks = {
            "uncaptioned": lambda shot: not shot.written and not shot.out,
            "remarks": lambda shot: bool(shot.remarks),
            "left_out": lambda shot: shot.out,
        }
        return [shot for shot in self.shots if picks[show](shot)] if show in picks else list(self.shots)

    def line(self) -> str:
        """``24 pictures, 3 left out, 2 without caption``."""
        if not self.done:
            return f"Looking at the pictures: {self.looked_at:,} of {self.total:,}"
        if not self.shots:
            return "No picture that can be trained on"
        out, bare = len(self.shown("left_out")), len(self.shown("uncaptioned"))
        parts = [count(len(self.shots), "picture")]
        parts += [f"{out:,} left out"] if out else []
        parts += [f"{bare:,} without caption"] if bare else []
        return ", ".join(parts)

    def remark_line(self) -> str:
        """``5 remarks: unreadable 2, look alike 3``."""
        kinds = Counter(KINDS.get(problem.kind, "the set as a whole") for problem in self.remarks)
        said = ", ".join(f"{words} {number:,}" for words, number in kinds.most_common())
        return f"{count(len(self.remarks), 'remark')}: {said}"


def album(reading: Reading, edits: Edits, trigger: str, template: str) -> Album:
    """What was seen of a set, with a person's edits. Raises RequestError for a trigger word that cannot be used."""
    found = reading.dataset
    whole = edited(found, edits, trigger=trigger, template=template)
    trained = {example.name: example.caption for example in whole.examples}
    remarks: dict[str, list[str]] = {}
    for problem in whole.problems:
        if problem.kind in OWN_REMARK:
            remarks.setdefault(problem.file, []).append(problem.what)
    shots = tuple(_shots(found.examples, edits, trained, remarks))
    total = len(reading.pictures)
    return Album(shots, whole.problems if reading.done else (), reading.looked_at, total, reading.done)


def _shots(
    examples: Sequence[Example], edits: Edits, trained: Mapping[str, str], remarks: Mapping[str, Sequence[str]]
) -> Iterator[Shot]:
    for example in examples:
        name, found = example.name, example.found or ""
        yield Shot(
            name=name,
            id=picture_id(name),
            written=edits.captions.get(name, found),
            trained=trained.get(name, ""),
            changed=name in edits.captions,
            out=name in edits.left_out,
            size=example.size,
            version=example.sha256[:12],
            remarks=tuple(remarks.get(name, ())),
        )
