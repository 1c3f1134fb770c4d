"""Whether adapters that learn jointly make a model's illusions read better, at equal seeds.

``python -m tests.benchmarks.joint``: builtin:emoji draws 32 illusions of a fox that is a penguin upside down; on the
best eight, by the studio's own scorer, an adapter for each view is trained through it, first apart and then together.
New seeds are then drawn by the bare model, with the sum of the adapters before and after they learned together, with
the sum of adapters that learned apart on as many batches, and with one adapter per view. A folder that is given with
--out is gone on with.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from studio import illusions, training
from studio.errors import Cancelled
from studio.illusions.bench_report import estimate
from studio.illusions.request import IllusionRequest
from studio.models.store import ModelStore
from studio.progress import Step
from studio.training.request import TrainRequest
from tests.benchmarks.results import RESULTS, measured_on, write_section

SECTION = "Joint training: illusions before and after"
ASSETS = Path(__file__).parents[2] / "assets"
PROMPTS, VIEWS = ("a fox", "a penguin"), ("identity", "rotate_180")
POOL, FIRST, KEPT, BLOCK = 32, 1000, 8, 4  # illusions drawn, their first seed, those learned from; seeds drawn at once
APART, TOGETHER = 40, 40  # steps
HEAD = """| drawn by | A | C | A over the bare model's | C over the bare model's |
|---|---|---|---|---|"""
BARE, LONGER = "the bare model", "the sum, apart for as many batches"
Rows = dict[str, dict[str, tuple[float, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.joint", description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--out", type=Path, help="folder to keep and go on from")
    parser.add_argument("--write", action="store_true", help=f"put the table into {RESULTS.name}")
    args = parser.parse_args()
    store = ModelStore(ASSETS)
    with tempfile.TemporaryDirectory() as spare:
        folder = args.out or Path(spare)
        draw_set(store, folder / "set")
        learn(store, folder)
        rows = compare(store, folder, args.seeds)
    table = "\n".join([HEAD, *(line(rows, name) for name in settings(Path())), "", *remarks(rows)])
    print(table)
    if args.write:
        command = f"python -m tests.benchmarks.joint --seeds {args.seeds} --write"
        about = (
            f"{measured_on(command, ('torch', 'diffusers', 'peft'))}\n{args.seeds} seeds, none of which was trained "
            "on; brackets: 95 % intervals, bootstrapped over seeds. builtin:clip chose the pictures and reads the "
            "results."
        )
        write_section(SECTION, f"{about}\n\n{table}")


def asked(seed: int, **changes: object) -> IllusionRequest:
    return IllusionRequest(prompts=PROMPTS, views=VIEWS, seed=seed, **changes)


def draw_set(store: ModelStore, folder: Path) -> None:
    """The model's own best illusions, as they lie."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(FIRST, FIRST + POOL, 8)
    found = [c for seed in seeds for c in illusions.run(asked(seed, steps=12, candidates=8), store).candidates]
    for index, candidate in enumerate(sorted(found, key=lambda each: -each.score)[:KEPT]):
        candidate.image.save(folder / f"{index}.png")
    (folder / "done").touch()


def learn(store: ModelStore, folder: Path) -> None:
    """Adapters as they are after learning apart, after learning together from there, and after as much apart."""
    request = TrainRequest(
        method="joint",
        data=str(folder / "set"),
        template="",
        tasks=(
            {"name": "fox", "prompt": PROMPTS[0], "view": VIEWS[0], "weight": 0.7},
            {"name": "penguin", "prompt": PROMPTS[1], "view": VIEWS[1], "weight": 0.7},
        ),
        steps_apart=APART,
        steps=TOGETHER,
        batch_size=4,
        learning_rate=1e-3,
        validation_share=0.25,
        validate_every=20,
        checkpoint_every=1000,
        title="pair",
    )

    train(store, folder / "apart", request, halt=True)
    train(store, folder / "joint", request.model_copy(update={"resume": str(folder / "apart")}), halt=False)
    train(store, folder / "longer", request.model_copy(update={"steps_apart": APART + TOGETHER}), halt=True)


def train(store: ModelStore, place: Path, request: TrainRequest, *, halt: bool) -> None:
    """``halt``: before anything is learned together."""
    if (place / "result.json").exists():
        return

    def on_step(step: Step) -> None:
        if halt and step.index >= request.all_apart and step.note.startswith("loss"):
            raise Cancelled

    place.mkdir(exist_ok=True)
    try:
        result = training.run(request, store, on_step=on_step, folder=place)
    except Cancelled as stop:
        result = stop.kept
    (place / "result.json").write_text(json.dumps(result.save(place), indent=1), encoding="utf-8")


def compare(store: ModelStore, folder: Path, seeds: int) -> Rows:
    """Setting -> seed -> alignment and concealment."""
    path = folder / "rows.json"
    rows: Rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for seed in range(0, seeds, BLOCK):
        for name, worn in settings(folder).items():
            own = rows.setdefault(name, {})
            if str(seed) not in own:
                drawn = illusions.run(asked(seed, steps=20, candidates=BLOCK, **worn), store).candidates
                own |= {str(each.seed): (each.alignment, each.concealment) for each in drawn}
        path.write_text(json.dumps(rows), encoding="utf-8")
    return rows


def settings(folder: Path) -> Mapping[str, Mapping[str, object]]:
    def worn(**files: str) -> dict[str, object]:
        return {"adapters": {name: str(folder / file) for name, file in files.items()}}

    by_view = worn(fox="joint/pair-fox.safetensors", penguin="joint/pair-penguin.safetensors")
    return {
        BARE: {},
        "the sum, learned apart only": worn(pair="apart/pair.safetensors"),
        LONGER: worn(pair="longer/pair.safetensors"),
        "the sum, learned together": worn(pair="joint/pair.safetensors"),
        "one adapter per view, learned together": {**by_view, "view_adapters": ({"fox": 1.0}, {"penguin": 1.0})},
    }


def line(rows: Rows, name: str) -> str:
    cells = [str(estimate([scores[which] for scores in rows[name].values()])) for which in (0, 1)]
    for which in (0, 1):
        cells.append("-" if name == BARE else estimate(over(rows, name, BARE, which)).signed)
    return f"| {name} | {' | '.join(cells)} |"


def remarks(rows: Rows) -> Iterator[str]:
    """What learning together gives beyond learning longer, and what searching gives without learning anything."""
    gains = [estimate(over(rows, "the sum, learned together", LONGER, which)).signed for which in (0, 1)]
    yield f"Together over apart for as many batches, seed by seed: A {gains[0]}, C {gains[1]}."
    scores = [scores for _, scores in sorted(rows[BARE].items(), key=lambda row: int(row[0]))]
    best = [max(scores[at : at + BLOCK], key=lambda each: each[0] * each[1]) for at in range(0, len(scores), BLOCK)]
    found = [estimate([each[which] for each in best]) for which in (0, 1)]
    yield f"The best of {BLOCK} seeds of the bare model, by A times C: A {found[0]}, C {found[1]}."


def over(rows: Rows, name: str, other: str, which: int) -> list[float]:
    return [scores[which] - rows[other][seed][which] for seed, scores in rows[name].items()]


if __name__ == "__main__":
    main()
