"""The engines as a table: what each is called, what it is asked with, and where its parts are imported from."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from studio import policy
from studio.errors import UnknownNameError
from studio.progress import OnStep
from studio.runs import Saveable
from studio.settings import Settings
from studio.snapshots import Lane

if TYPE_CHECKING:
    from studio.models.store import ModelStore

TRAIN = "train"


@dataclass(frozen=True)
class Engine:
    """One line of the table of engines. Texts like "module:name" are imported when they are needed.

    ``allow`` holds a request against the limits; the module ``preflight`` has ``check(request, settings)``,
    ``evaluations(request)`` and ``headline(request)``; none imports torch, but for a check of adapters. With
    ``in_folder`` ``run`` is told the run's folder, where it keeps what it goes on from after a stop. The module
    ``launch`` runs it in processes of its own, where the settings say so.
    """

    name: str
    title: str
    about: str
    request: str
    run: str
    preflight: str
    allow: Callable[[Any, policy.Limits, Collection[str], Collection[str]], None]
    in_folder: bool = False
    lane: Lane = "gpu"
    launch: str = ""

    def request_class(self) -> type[BaseModel]:
        return imported(self.request)

    def run_function(self) -> Callable[..., Saveable]:
        return imported(self.run)

    def start(self, request: BaseModel, models: ModelStore, on_step: OnStep, folder: Path | None = None) -> Saveable:
        """Run it; ``folder``, the run's, is for those that keep something there meanwhile."""
        place = {"folder": folder} if self.in_folder else {}
        return self.run_function()(request, models, on_step=on_step, **place)

    def launched(self, settings: Settings) -> Callable[..., Saveable] | None:
        """What runs it outside this process: called with the request, the settings, on_step and folder."""
        return imported(f"{self.launch}:run") if self.launch and settings.launch is not None else None

    def check(self, request: BaseModel, settings: Settings | None = None) -> None:
        imported(f"{self.preflight}:check")(request, settings)

    def evaluations(self, request: BaseModel) -> int:
        return imported(f"{self.preflight}:evaluations")(request)

    def headline(self, request: BaseModel) -> str:
        return imported(f"{self.preflight}:headline")(request)


ENGINES: tuple[Engine, ...] = (
    Engine(
        name="illusion",
        title="Illusions",
        about="pictures that read as one thing upright and another when turned, shuffled or seen from afar",
        request="studio.illusions.request:IllusionRequest",
        run="studio.illusions.engine:run",
        preflight="studio.illusions.preflight",
        allow=policy.check_illusion,
    ),
    Engine(
        name="merge",
        title="Merge",
        about="checkpoints and LoRAs made into one: weighted, with parts and blocks apart, exact and replayable",
        request="studio.merging.request:MergeRequest",
        run="studio.merging.engine:run",
        preflight="studio.merging.preflight",
        allow=policy.check_merge,
    ),
    Engine(
        name="merge-strip",
        title="Preview",
        about="a merge drawn beside its checkpoints, at one alpha or more, before anything is saved",
        request="studio.merging.trials_request:StripRequest",
        run="studio.merging.strip:run",
        preflight="studio.merging.trials_preflight",
        allow=policy.check_strip,
    ),
    Engine(
        name="merge-search",
        title="Search",
        about="the alpha, or the alphas of all blocks, whose merge draws what a scorer reads best",
        request="studio.merging.trials_request:SearchRequest",
        run="studio.merging.search:run",
        preflight="studio.merging.trials_preflight",
        allow=policy.check_search,
    ),
    Engine(
        name=TRAIN,
        title="Train",
        about="a LoRA or its kin learned from pictures; stopped at any step it is usable, and goes on later",
        request="studio.training.request:TrainRequest",
        run="studio.training.engine:run",
        preflight="studio.training.preflight",
        allow=policy.check_train,
        in_folder=True,
        launch="studio.training.launching",
    ),
    Engine(
        name="guidance",
        title="Guidance",
        about="AutoLoRA beside LoRA + CFG and ten others: the same noise, measured, with what each costs",
        request="studio.guidance.request:GuidanceRequest",
        run="studio.guidance.engine:run",
        preflight="studio.guidance.preflight",
        allow=policy.check_guidance,
        in_folder=True,
    ),
)


def engine_named(name: str) -> Engine:
    """The engine's line of the table; an unknown name suggests the nearest."""
    table = {engine.name: engine for engine in ENGINES}
    if name not in table:
        raise UnknownNameError("engine", name, table, field="engine")
    return table[name]


def outlived(folder: Path) -> Callable[[OnStep], Saveable] | None:
    """How to follow what an earlier studio launched for a run; None where nothing of it is at work."""
    launch = _launch_of(folder)
    return imported(f"{launch}:outlived")(folder) if launch else None


def last_words(folder: Path) -> str:
    launch = _launch_of(folder)
    return imported(f"{launch}:last_words")(folder) if launch else ""


def _launch_of(folder: Path) -> str:
    return next((engine.launch for engine in ENGINES if engine.name == folder.parent.name), "")


def imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
