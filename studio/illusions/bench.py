"""The benchmark of the field: ways of making two-view illusions, compared on one model in one run.

The protocol is that of Visual Anagrams (Geng, Park & Owens 2024, section 4.3): a vertical flip, pairs of prompts, ten
pictures a pair, alignment A and concealment C with their .9 and .95 quantiles. No torch here: what draws is handed in.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from studio.errors import RequestError, UnknownNameError
from studio.illusions.request import IllusionRequest
from studio.progress import OnStep, Step, ignore
from studio.requests import parse

PAIRS_FILE = Path("benchmarks") / "illusion-pairs.json"
SETTINGS, RECORDS = "bench.json", "records.jsonl"
OWN_SCORER = "builtin:clip"  # reads the built-in model's world and nothing else

Pair = tuple[str, str]


@dataclass(frozen=True)
class Method:
    """One way of making an illusion. One that searches makes one illusion of all seeds of a pair."""

    name: str
    title: str
    settings: dict[str, Any]
    searches: bool = False


METHODS: tuple[Method, ...] = (
    Method("mean", "mean (Visual Anagrams)", {"reduction": "mean"}),
    Method("alternate", "alternate (views take turns)", {"reduction": "alternate"}),
    Method("weighted_rectified", "weighted, rectified (after Anagram-MTL)", {"reduction": "weighted_rectified"}),
    Method("search", "best of N, hopeless ones stopped early", {"reduction": "mean", "stop_early": True}, True),
    Method("weighted", "weighted", {"reduction": "weighted"}),
    Method("rectified", "rectified", {"reduction": "rectified"}),
)
NAMED: dict[str, Method] = {method.name: method for method in METHODS}
COMPARED = ("mean", "alternate", "weighted_rectified", "search")


@dataclass(frozen=True)
class Plan:
    """What is compared on what: everything that the figures depend on. ``first`` None takes every pair of the list."""

    pairs: str = "emoji"
    first: int | None = None
    methods: tuple[str, ...] = COMPARED
    seeds: int = 10
    steps: int = 30
    model: str = "builtin:emoji"
    scorer: str = OWN_SCORER
    view: str = "flip_vertical"
    guidance_scale: float = 7.0

    def check(self) -> None:
        """Raises RequestError or UnknownNameError for what cannot be compared."""
        for name in self.methods:
            if name not in NAMED:
                raise UnknownNameError("method", name, NAMED, field="methods")
        for name in ("seeds", "steps", "first"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RequestError(f"{name}: must be at least 1, got {value}.", field=name)
        if self.scorer == OWN_SCORER and self.pairs != "emoji":
            raise RequestError(
                f"scorer: {OWN_SCORER} knows emoji only; name the folder of a CLIP model, for example of ViT-B/32.",
                field="scorer",
            )
        for name in self.methods:
            self.request(Task(name, 0, 0, ("a", "b")))

    def request(self, task: Task) -> IllusionRequest:
        """The request of one illusion; RequestError for settings that none can have."""
        method = NAMED[task.method]
        asked = {
            "model": self.model,
            "scorer": self.scorer,
            "prompts": task.prompts,
            "views": ("identity", self.view),
            "steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "seed": task.seed,
            "candidates": self.seeds if method.searches else 1,
            **method.settings,
        }
        return parse(IllusionRequest, asked)


@dataclass(frozen=True)
class Task:
    """One illusion to make."""

    method: str
    pair: int
    seed: int
    prompts: Pair

    @property
    def key(self) -> tuple[str, int, int]:
        return self.method, self.pair, self.seed


@dataclass(frozen=True)
class Record:
    """One illusion made: how it scored and what it took (evaluations of the network, seconds with scoring)."""

    method: str
    pair: int
    seed: int
    alignment: float
    concealment: float
    evaluations: int
    seconds: float

    @property
    def key(self) -> tuple[str, int, int]:
        return self.method, self.pair, self.seed


class Made(Protocol):
    """What is needed of an illusion result."""

    @property
    def candidates(self) -> Sequence[Any]: ...

    @property
    def evaluations(self) -> int: ...


Draw = Callable[[IllusionRequest], Made]


def load_pairs(assets: Path, name: str) -> tuple[Pair, ...]:
    """The pairs of prompts of a list in the data table."""
    lists = json.loads((assets / PAIRS_FILE).read_text(encoding="utf-8"))
    if name not in lists:
        raise UnknownNameError("list of pairs", name, lists, field="pairs")
    return tuple((first, second) for first, second in lists[name])


def tasks(plan: Plan, pairs: Sequence[Pair]) -> tuple[Task, ...]:
    """Every illusion of the plan, pair by pair, so that a part of the run already compares all methods."""
    return tuple(
        Task(name, index, seed, prompts)
        for index, prompts in enumerate(pairs[: plan.first])
        for name in plan.methods
        for seed in range(1 if NAMED[name].searches else plan.seeds)
    )


def run(plan: Plan, pairs: Sequence[Pair], draw: Draw, folder: Path, on_step: OnStep = ignore) -> tuple[Record, ...]:
    """Make what is still missing in ``folder`` and return every record. It may be ended at any time and go on later.

    Whatever ``on_step`` raises ends the run; a folder of another plan is refused.
    """
    wanted = tasks(plan, pairs)
    records = {record.key: record for record in resumed(plan, folder)}
    missing = [task for task in wanted if task.key not in records]
    on_step(Step(len(wanted) - len(missing), len(wanted), note="Loading the model"))
    for name in dict.fromkeys(task.method for task in missing):  # so that no figure holds the loading of models
        draw(plan.request(Task(name, 0, 0, pairs[0])).model_copy(update={"steps": 1, "candidates": 1}))
    pace = _Pace(plan, missing)
    with (folder / RECORDS).open("a", encoding="utf-8") as file:
        for task in missing:
            record = _made(plan.request(task), task, draw)
            records[task.key] = record
            file.write(json.dumps(asdict(record)) + "\n")
            file.flush()
            pace.passed(task, record.seconds)
            note = f"pair {task.pair + 1}, {task.method}, {pace}"
            on_step(Step(len(records), len(wanted), note=note, evaluations=record.evaluations))
    return tuple(records[task.key] for task in wanted)


def resumed(plan: Plan, folder: Path) -> Iterator[Record]:
    """What a folder holds of this plan already; a last line that was cut off is cut off for good."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out: the folder {folder} cannot be made ({error.strerror}); name another.") from None
    settings, path = folder / SETTINGS, folder / RECORDS
    now = json.loads(json.dumps(asdict(plan)))
    before = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else now
    if before != now:
        changed = ", ".join(
            f"{name} {before.get(name)} then, {now[name]} now" for name in now if before.get(name) != now[name]
        )
        raise RequestError(f"--out: {folder} holds another benchmark ({changed}); name another folder.", field="out")
    settings.write_text(json.dumps(now, indent=1), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        path.write_text("".join(whole), encoding="utf-8")
    return (Record(**json.loads(line)) for line in whole)


def _made(request: IllusionRequest, task: Task, draw: Draw) -> Record:
    begun = time.perf_counter()
    result = draw(request)
    seconds = round(time.perf_counter() - begun, 4)
    best = result.candidates[0]
    return Record(task.method, task.pair, task.seed, best.alignment, best.concealment, result.evaluations, seconds)


class _Pace:
    """What is left in words, from what each method took so far and, before that, from how much it has to draw."""

    def __init__(self, plan: Plan, missing: Sequence[Task]) -> None:
        self.weights = {name: plan.seeds if NAMED[name].searches else 1 for name in plan.methods}
        self.left = {name: sum(task.method == name for task in missing) for name in plan.methods}
        self.spent: dict[str, list[float]] = {name: [] for name in plan.methods}

    def passed(self, task: Task, seconds: float) -> None:
        self.left[task.method] -= 1
        self.spent[task.method].append(seconds)

    def __str__(self) -> str:
        seen = [(sum(times), len(times) * self.weights[name]) for name, times in self.spent.items()]
        rate = sum(seconds for seconds, _ in seen) / sum(drawn for _, drawn in seen)
        each = {name: sum(t) / len(t) if t else rate * self.weights[name] for name, t in self.spent.items()}
        seconds = sum(count * each[name] for name, count in self.left.items())
        return f"about {seconds / 60:.0f} min left" if seconds > 90 else f"about {seconds:.0f} s left"
