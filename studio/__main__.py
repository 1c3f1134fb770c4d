"""Headless: ``python -m studio illusion request.json --set steps=30 --out DIR`` makes the same files as the page."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel

from studio import __version__, requests, runs
from studio.engines import ENGINES, Engine, engine_named
from studio.errors import Cancelled, RequestError, StudioError
from studio.guidance import study_command
from studio.illusions import bench_command
from studio.imaging import read_recipe
from studio.progress import OnStep, Step, ignore
from studio.runs import Saveable
from studio.settings import (
    Settings,
    add_machine_arguments,
    environment,
    machine_values,
    place_among_processes,
    prepare_environment,
)
from studio.training import commands as training_commands
from studio.workbench import make_store

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
BAR = 24  # characters
COMMANDS = (bench_command, study_command)  # what has options of its own


class ProgressLine:
    """One line that is rewritten on a terminal; elsewhere a line for every tenth of the way."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.last = stream, Step(0, 0)
        self._live, self._tenth = stream.isatty(), -1

    def __call__(self, step: Step) -> None:
        self.last = step
        share = step.index / step.total if step.total else 0.0
        text = f"step {step.index} of {step.total}  {step.note}".rstrip()
        if self._live:
            bar = "#" * round(share * BAR)
            print(f"\r[{bar:<{BAR}}] {text:<50.50}", end="", file=self.stream, flush=True)
        elif int(share * 10) > self._tenth:
            self._tenth = int(share * 10)
            print(text, file=self.stream, flush=True)

    @property
    def place(self) -> str:
        return f"after step {self.last.index} of {self.last.total}" if self.last.index else "before the first step"

    def close(self) -> None:
        if self._live and self.last.total:
            print(file=self.stream)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 2 something to mend in what was asked, 130 stopped with Ctrl+C."""
    parser, argv = _parser(), sys.argv[1:] if argv is None else argv
    try:
        for command in COMMANDS:
            if argv[:1] == [command.NAME]:
                return command.main(argv[1:], make_store, ProgressLine(sys.stderr))
        if argv and argv[0] in training_commands.COMMANDS:
            return training_commands.main(argv[0], argv[1:], make_store, ProgressLine(sys.stderr))
        options = parser.parse_args(argv)
        if options.engine is None:
            parser.print_help()
            return 0
        return _engine(options)
    except StudioError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def read_request_file(path: Path, engine: str) -> dict[str, Any]:
    """The request in a preset, in a recipe (a PNG's, a merged or trained model's, or as JSON), or bare."""
    if path.suffix == ".safetensors" or os.path.isdir(path):
        return _model_recipe(path, engine)
    try:
        with path.open("rb") as file:
            is_png = file.read(len(PNG_SIGNATURE)) == PNG_SIGNATURE
        data = read_recipe(path) if is_png else json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path}: this file cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise RequestError(f"{path}: this is neither JSON nor a PNG of ours ({error}).") from None
    except RecursionError:
        raise RequestError(f"{path}: this JSON is nested too deeply for a request; name another file.") from None
    if isinstance(data, dict) and data.get("engine", engine) != engine:
        raise RequestError(f"{path}: this recipe is for the engine {data['engine']!r}, not {engine!r}.", field="engine")
    return data["request"] if isinstance(data, dict) and isinstance(data.get("request"), dict) else data


def _model_recipe(path: Path, engine: str) -> dict[str, Any]:
    """The request in a merged or a trained model, which is a recipe for the engine that made it alone."""
    if engine == "train" and not os.path.isdir(path):
        from studio.training import recipe as trained

        return trained.read(path)["request"]
    if engine != "merge":
        what, fix = "a model", f"to use the model, set {'model' if engine == 'illusion' else 'merge.models'} to it"
        if os.path.isdir(path):
            what, fix = "a folder", "name a file in it"
        raise RequestError(f"{path}: this is {what}, and {engine} needs a request, as JSON or a PNG of ours; {fix}.")
    from studio.merging import recipe

    return recipe.read(path)["request"]


def _engine(options: argparse.Namespace) -> int:
    engine = engine_named(options.engine)
    if options.file is None and not options.set:
        print(_describe(engine))
        return 0
    data = {} if options.file is None else read_request_file(options.file, engine.name)
    if isinstance(data, dict):
        data = requests.with_settings({**requests.defaults(engine.request_class()), **data}, options.set)
    request = requests.parse(engine.request_class(), data)
    settings = Settings(**machine_values(options))
    prepare_environment(settings)
    engine.check(request, settings)
    folder = options.out or runs.run_folder(settings.outputs, engine.name, secrets.token_hex(8), time.time())
    if engine.in_folder and place_among_processes(environment()).index:
        return _take_part(engine, request, settings, folder)
    return _run(engine, request, settings, folder, options.events)


def _start(engine: Engine, request: BaseModel, settings: Settings, on_step: OnStep, folder: Path) -> Saveable:
    launched = engine.launched(settings)
    if launched is None:
        return engine.start(request, make_store(settings), on_step, folder)
    return launched(request, settings, on_step=on_step, folder=folder)


def _take_part(engine: Engine, request: BaseModel, settings: Settings, folder: Path) -> int:
    """As one of the processes that `accelerate launch` started: the first writes and reports, none of the others."""
    with _told(engine, None, ignore) as on_step, contextlib.suppress(Cancelled):
        engine.start(request, make_store(settings), on_step, folder)
    return 0


def _told(engine: Engine, events: Path | None, show: OnStep) -> contextlib.AbstractContextManager[OnStep]:
    """``on_step`` of an engine; of one that keeps what it goes on from, a signal is a stop, and a file can follow."""
    if not engine.in_folder:
        return contextlib.nullcontext(show)
    from studio.training.events import told

    return told(events, show, several=place_among_processes(environment()).count > 1)


def _run(engine: Engine, request: BaseModel, settings: Settings, folder: Path, events: Path | None) -> int:
    progress, code = ProgressLine(sys.stderr), 0
    made, earlier = _make(folder), _files(folder)
    try:
        try:
            with _told(engine, events, progress) as on_step:
                result = _start(engine, request, settings, on_step, folder)
        except Cancelled as stop:  # Ctrl+C, and the engine keeps what it had finished
            result, code = stop.kept, 130
        if result is None:
            raise KeyboardInterrupt  # before there was anything to keep
        summary = runs.keep(folder, result)
    except KeyboardInterrupt:
        progress.close()
        print(f"Stopped {progress.place}; no result was saved.", file=sys.stderr)
        _unmake(made)
        return 130
    except BaseException:
        progress.close()
        _unmake(made)
        raise
    progress.close()
    runs.write_json(folder / "request.json", request.model_dump(mode="json"))
    for line in _saved(folder, summary, earlier):
        print(line)
    return code


def _make(folder: Path) -> list[Path]:
    """Make the folder before the work, so that nobody waits for a result that cannot be kept; returns what is new."""
    made = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out: the folder {folder} cannot be made ({error.strerror}); name another.") from None
    return made


def _unmake(made: list[Path]) -> None:
    """Take away the folders that were made for nothing, inner ones first."""
    with contextlib.suppress(OSError):  # what holds something by now stays, and so does what it lies in
        for folder in made:
            folder.rmdir()


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """The outputs in a folder, each with what a new file of its name would have otherwise."""
    states = {path: path.stat() for path in sorted(folder.iterdir()) if path.suffix != ".json"}
    return {path: (state.st_ino, state.st_mtime_ns) for path, state in states.items()}


def _saved(folder: Path, summary: dict[str, Any], earlier: dict[Path, tuple[int, int]]) -> list[str]:
    """What lies where: every file that is new in the folder, then the figures, best candidate first."""
    lines = [str(path) for path, state in _files(folder).items() if earlier.get(path) != state]
    for candidate in summary.get("candidates", ()):
        figures = {name: candidate[name] for name in ("seed", "alignment", "concealment") if name in candidate}
        lines.append(", ".join(f"{name} {value}" for name, value in figures.items()))
    return lines + list(summary.get("notes", ())) + [str(folder / "result.json")]


def _describe(engine: Engine) -> str:
    """The settings of an engine with their defaults, for a person who knows none of them."""
    values = requests.defaults(engine.request_class())
    lines = [f"{engine.name}: {engine.about}", "", "Settings, for a request file or --set name=value:"]
    for name, field in engine.request_class().model_fields.items():
        default = json.dumps(values[name], ensure_ascii=False) if name in values else "needed"
        lines.append(f"  {name:<16} {field.description or ''} [{default}]")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    listed = [(engine.name, engine.about) for engine in ENGINES]
    listed += [(command.NAME, command.ABOUT) for command in COMMANDS]
    listed += [(name, command.about) for name, command in training_commands.COMMANDS.items()]
    table = "\n".join(f"  {name:<14} {about}" for name, about in listed)
    parser = argparse.ArgumentParser(
        prog="python -m studio",
        description="Run one of the studio's engines without the page.",
        epilog=f"engines (name one alone to see its settings):\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("engine", nargs="?", help="what to run")
    parser.add_argument("file", nargs="?", type=Path, help="a preset, a request as JSON, or a PNG or model of ours")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="seed=7, views.1=rotate_180")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the files (default: a new one in outputs/)")
    parser.add_argument("--version", action="version", version=f"Duckrabbit {__version__}")
    parser.add_argument("--events", type=Path, metavar="FILE", help="train: tell a file what happens, to be followed")
    add_machine_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
