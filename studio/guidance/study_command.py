"""``python -m studio guidance-study``: the options of the study, its files and its lines on the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from studio.errors import Cancelled
from studio.guidance.preflight import check
from studio.progress import Step
from studio.settings import Settings, add_machine_arguments, machine_values, prepare_environment

if TYPE_CHECKING:
    from studio.guidance.study import Draw, Plan
    from studio.models.store import ModelStore

NAME = "guidance-study"
ABOUT = "the study of AutoLoRA: LoRA, CFG and AutoLoRA scales, every guider, and what a cheaper one keeps"
EPILOG = """\
The same command goes on where it was stopped, and draws nothing twice. The study in the repository:
  python -m studio guidance-study --tables assets/studies/autolora
"""


class Progress(Protocol):
    """What shows the steps, and ends its line."""

    def __call__(self, step: Step) -> None: ...

    def close(self) -> None: ...


def main(argv: Sequence[str], make_store: Callable[[Settings], ModelStore], progress: Progress) -> int:
    """Draw what is missing, write tables and figures. Exit codes: 0 done, 130 stopped with Ctrl+C."""
    from studio.guidance import study, study_report

    options = _parser().parse_args(argv)
    plan, settings = _plan(options), Settings(**machine_values(options))
    for name in plan.sheets:
        check(plan.request(name), settings)
    prepare_environment(settings)
    folder = options.out or settings.outputs / NAME
    tables = options.tables or folder / "tables"
    try:
        lines, results = study.run(plan, _draw(make_store(settings), progress), folder)
    except (Cancelled, KeyboardInterrupt):
        progress.close()
        print(f"Stopped; the same command goes on from {folder}.", file=sys.stderr)
        return 130
    finally:
        progress.close()
    for path in study_report.write(tables, plan, lines, results):
        print(path)
    return 0


def _draw(models: ModelStore, progress: Progress) -> Draw:
    from studio.guidance.engine import run

    return lambda request, folder: run(request, models, on_step=progress, folder=folder)


def _plan(options: argparse.Namespace) -> Plan:
    from studio.guidance.study import SHEETS, Plan

    named = ("model", "lora", "seeds", "steps", "extractor")
    sheets = tuple(name.strip() for name in options.sheets.split(",")) if options.sheets else tuple(SHEETS)
    prompts = {"prompts": tuple(options.prompts)} if options.prompts else {}
    given = {name: getattr(options, name) for name in named if getattr(options, name) is not None}
    return Plan(sheets=sheets, **prompts, **given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m studio {NAME}",
        description=f"Run {ABOUT}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--sheets", default="", metavar="NAMES", help="only these, with commas between them (default: all)")
    add("--seeds", type=int, metavar="N", help="pictures of each prompt in a column (default: 16)")
    add("--steps", type=int, metavar="N", help="denoising steps (default: 20)")
    add("--prompts", nargs="+", metavar="TEXT", help="what is drawn (default: a fox, a cat)")
    add("--model", help="default: builtin:emoji")
    add("--lora", help="default: builtin:pixel")
    add("--extractor", help="CLIP model that features are of (default: builtin:clip)")
    add("--out", type=Path, metavar="DIR", help="folder of the cells, to go on from (default: in outputs/)")
    add("--tables", type=Path, metavar="DIR", help="folder of the tables and figures (default: tables/ in --out)")
    add_machine_arguments(parser)
    return parser
