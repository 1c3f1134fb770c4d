"""``python -m studio illusion-bench``: the options of the benchmark, its files and its lines on the terminal."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from studio.illusions import bench, bench_report, preflight
from studio.progress import Step
from studio.settings import Settings, add_machine_arguments, machine_values, prepare_environment

if TYPE_CHECKING:
    from studio.models.store import ModelStore

NAME = "illusion-bench"
ABOUT = "the field's benchmark: mean, alternate, weighted and rectified, and search, compared on one model"
TABLE, FIGURES = "table.md", "figures.json"
EPILOG = """\
The same command goes on where it was stopped, and makes nothing twice. For a model of your own:
  python -m studio illusion-bench --pairs cifar10 --model DIR --scorer CLIP_DIR --seeds 10
"""


class Progress(Protocol):
    """What shows the steps, and ends its line."""

    def __call__(self, step: Step) -> None: ...

    def close(self) -> None: ...


def main(argv: Sequence[str], make_store: Callable[[Settings], ModelStore], progress: Progress) -> int:
    """Run what is missing, write the table and print it. Exit codes: 0 done, 130 stopped with Ctrl+C."""
    options = _parser().parse_args(argv)
    plan = _plan(options)
    settings = Settings(**machine_values(options))
    pairs = bench.load_pairs(settings.assets, plan.pairs)
    plan.check()
    prepare_environment(settings)
    preflight.check(plan.request(bench.tasks(plan, pairs)[0]), settings)
    folder = options.out or settings.outputs / NAME / plan.pairs
    try:
        records = bench.run(plan, pairs, _draw(make_store(settings)), folder, progress)
    except KeyboardInterrupt:
        progress.close()
        print(f"Stopped; the same command goes on from {folder}.", file=sys.stderr)
        return 130
    finally:
        progress.close()
    found = bench_report.lines(records, plan.methods)
    table = bench_report.markdown(plan, found)
    (folder / TABLE).write_text(table, encoding="utf-8")
    (folder / FIGURES).write_text(json.dumps(bench_report.as_json(plan, found), indent=1), encoding="utf-8")
    print(table)
    print(folder / TABLE, folder / FIGURES, sep="\n")
    return 0


def _draw(models: ModelStore) -> bench.Draw:
    from studio.illusions.engine import run

    return lambda request: run(request, models)


def _plan(options: argparse.Namespace) -> bench.Plan:
    named = ("pairs", "first", "seeds", "steps", "model", "scorer", "view", "guidance_scale")
    methods = tuple(name.strip() for name in options.methods.split(","))
    return bench.Plan(methods=methods, **{name: getattr(options, name) for name in named})


def _parser() -> argparse.ArgumentParser:
    default = bench.Plan()
    parser = argparse.ArgumentParser(
        prog=f"python -m studio {NAME}",
        description=f"Run {ABOUT}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--pairs", default=default.pairs, help="list of prompt pairs: emoji (default) or cifar10")
    add("--first", type=int, metavar="N", help="only the first N pairs (default: all of the list)")
    add("--methods", default=",".join(default.methods), help=f"of {', '.join(bench.NAMED)} (default: %(default)s)")
    add("--seeds", type=int, default=default.seeds, metavar="N", help="pictures a pair (default: %(default)s)")
    add("--steps", type=int, default=default.steps, metavar="N", help="denoising steps (default: %(default)s)")
    add("--guidance-scale", type=float, default=default.guidance_scale, metavar="W", help="default: %(default)s")
    add("--view", default=default.view, help="the second view (default: %(default)s)")
    add("--model", default=default.model, help="default: %(default)s")
    add("--scorer", default=default.scorer, help="CLIP model that reads the pictures (default: %(default)s)")
    add("--out", type=Path, metavar="DIR", help="folder to keep and go on from (default: in outputs/)")
    add_machine_arguments(parser)
    return parser
