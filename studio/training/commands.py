"""What stands around a training on the command line: captions before it, a card and an upload after it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from studio import requests
from studio.errors import Cancelled
from studio.progress import Step
from studio.settings import Settings, add_machine_arguments, machine_values, prepare_environment

if TYPE_CHECKING:
    from studio.models.store import ModelStore
    from studio.training.card import Choices

MakeStore = Callable[[Settings], "ModelStore"]


class Progress(Protocol):
    """What shows the steps, and ends its line."""

    def __call__(self, step: Step) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Command:
    """One line of the table: its arguments, and what it does with them and returns as its exit code."""

    about: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, MakeStore, Progress], int]


def main(name: str, argv: Sequence[str], make_store: MakeStore, progress: Progress) -> int:
    """Exit codes: 0 done, 130 stopped with Ctrl+C."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(prog=f"python -m studio {name}", description=f"{command.about.capitalize()}.")
    command.arguments(parser)
    return command.run(parser.parse_args(argv), make_store, progress)


def _card_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a training that is done")
    parser.add_argument("--licence", "--license", default="", metavar="ID", help="as the Hub writes it: cc-by-4.0, say")
    parser.add_argument("--base-model", default="", metavar="OWNER/NAME", help="the model's name on the Hub")
    parser.add_argument("--again", action="store_true", help="write it anew where one is there already")


def _card(options: argparse.Namespace, make_store: MakeStore, progress: Progress) -> int:
    from studio.training import card

    print(card.write(card.Trained.read(options.run), _choices(options), again=options.again))
    return 0


def _push_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a training that is done")
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="where to; made where it is not there")
    parser.add_argument("--private", action="store_true", help="a repository that is made can be seen by you alone")
    parser.add_argument("--licence", "--license", default="", metavar="ID", help="for a card that is not written yet")
    parser.add_argument("--base-model", default="", metavar="OWNER/NAME", help="for a card that is not written yet")
    parser.add_argument("--offline", action="store_true", help="never ask the Hugging Face hub")


def _push(options: argparse.Namespace, make_store: MakeStore, progress: Progress) -> int:
    prepare_environment(Settings(offline=options.offline))
    from studio.training import card, publishing

    run = card.Trained.read(options.run)
    found = publishing.push(
        run, options.repo, private=options.private, offline=options.offline, choices=_choices(options)
    )
    print(*found.files, found.url, sep="\n")
    print("The adapter's header and the samples hold the training's settings, with the name of its data folder.")
    return 0


def _choices(options: argparse.Namespace) -> Choices:
    from studio.training.card import Choices

    return Choices(options.licence, options.base_model)


def _caption_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a folder, a zip or a built-in set of pictures")
    parser.add_argument("--model", default="template", help="blip, florence-2, a folder of one, or template (default)")
    parser.add_argument("--again", action="store_true", help="also pictures that have a caption")
    parser.add_argument("--detail", choices=("short", "long", "longest"), help="how much Florence-2 says")
    parser.add_argument("--write", default="edits", choices=("edits", "text"), help="edits.json, or .txt beside them")
    parser.add_argument("--trigger", default="", metavar="WORD", help="a word put before every caption that lacks it")
    parser.add_argument("--template", metavar="TEXT", help="for template: may hold {trigger} and {name}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of edits.json (default: in outputs/)")
    add_machine_arguments(parser)


def _caption(options: argparse.Namespace, make_store: MakeStore, progress: Progress) -> int:
    settings = Settings(**machine_values(options))
    prepare_environment(settings)
    from studio.training import captioning
    from studio.training.edits import EDITS_FILE, read_edits

    names = ("data", "model", "again", "detail", "write", "trigger", "template")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    request = requests.parse(captioning.CaptionRequest, given)
    place = options.out or settings.outputs / "captions" / (Path(options.data.replace(":", "-")).stem or "set")
    try:
        result, code = captioning.run(request, make_store(settings), on_step=progress, edits=read_edits(place)), 0
    except Cancelled as stop:  # Ctrl+C
        result, code = stop.kept, 130
    finally:
        progress.close()
    if result is None:
        print("Stopped before the first caption.", file=sys.stderr)
        return code
    if request.write == "text":
        for path in result.write_beside():
            print(path)
    elif result.captions:
        place.mkdir(parents=True, exist_ok=True)
        result.save(place)
        print(place / EDITS_FILE)
    print(*result.said, sep="\n")
    return code


COMMANDS: Mapping[str, Command] = {
    "caption": Command("captions for pictures that have none, before a training", _caption_arguments, _caption),
    "card": Command("a model card beside what a training made", _card_arguments, _card),
    "push": Command("what a training made, its card and samples to the Hugging Face Hub", _push_arguments, _push),
}
