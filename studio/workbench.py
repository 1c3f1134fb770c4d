"""The composition root: settings, policy, models, presets and jobs, as one thing that a page can ask.

Light to import and to make: what needs torch is imported in the job's thread.
"""

from __future__ import annotations

import gc
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from studio import policy, presets, requests
from studio.engines import ENGINES, TRAIN, Engine, engine_named, imported, last_words, outlived
from studio.errors import RequestError
from studio.imaging import read_recipe
from studio.jobs import Outside, Runner
from studio.models import refs
from studio.progress import OnStep
from studio.runs import Saveable
from studio.settings import Settings
from studio.snapshots import Snapshot
from studio.training.shelf import Shelf

if TYPE_CHECKING:
    from studio.merging.outlook import Outlook
    from studio.models.store import ModelStore
    from studio.training.outlook import Outlook as Training
    from studio.training.sets import Library, OwnSets

OWNER = re.compile(r"[A-Za-z0-9_-]{16,64}")
LOCAL_OWNER = "local"
RATES_SEEN = 5  # finished jobs that a time is estimated from
ALIKE = ("space", "views", "size", "upscale", "candidates")  # what makes one evaluation dearer than another
ALIKE += ("adapter", "targets", "text_encoder", "resolution", "batch_size", "gradient_checkpointing")


@dataclass(frozen=True)
class Estimate:
    """What a request will cost: evaluations of the network, and seconds where there is something to go by."""

    evaluations: int
    seconds: float | None


# Seconds per evaluation before anything was measured here: two CPU cores.
FIRST_RATES = {"builtin:emoji": 0.016, "builtin:ink": 0.016}


def make_store(settings: Settings) -> ModelStore:
    """The models these settings allow. Imports torch."""
    from studio.models.store import ModelStore, Options

    hashes = settings.outputs / ".cache" / "hashes.json"
    options = Options(settings.dtype, settings.offload, settings.compiled, hashes)
    return ModelStore(
        settings.assets,
        settings.models_dir,
        settings.device,
        settings.memory_gb,
        settings.offline,
        options,
        settings.datasets,
    )


class Workbench:
    """Everything a page can ask for. An ``owner`` is a browser's token; at home all browsers are one."""

    def __init__(self, settings: Settings) -> None:
        policy.check_launch(settings)
        self.settings = settings
        self.limits = policy.limits_for(settings)
        self.jobs = Runner(
            settings.outputs,
            self.limits.max_queue,
            max_queue_per_owner=self.limits.max_queue_per_owner,
            keep=self.limits.max_runs_kept,
            outside=Outside(outlived, last_words),
        )
        self._store: ModelStore | None = None
        self._shelf = Shelf()
        self._library: Library | None = None
        self._importing = False  # by the warm-up: two threads that import diffusers at once find it half made

    def request(self, engine: str, data: dict[str, Any]) -> BaseModel:
        """``data`` as a request this studio would run; raises RequestError or PolicyError with every problem."""
        entry = engine_named(engine)
        request = requests.parse(entry.request_class(), data)
        entry.allow(request, self.limits, [choice.name for choice in self.models()], self.loras())
        entry.check(request, None if self._importing else self.settings)  # the job checks adapters once more
        return request

    def submit(self, engine: str, data: dict[str, Any], owner: str) -> str:
        """Check ``data``, queue it, and return the job's id."""
        entry, request, owner = engine_named(engine), self.request(engine, data), self._known(owner)
        if entry.name == TRAIN:
            self._check_sets(request, owner)
        return self.jobs.submit(
            lambda on_step, *folder: self._run(entry, request, on_step, *folder),
            engine=entry.name,
            title=entry.headline(request),
            owner=owner,
            request=request.model_dump(mode="json"),
            lane=entry.lane,
            in_folder=entry.in_folder,
        )

    def snapshot(self, job_id: str, owner: str) -> Snapshot | None:
        return self.jobs.snapshot(job_id, self._known(owner))

    def history(self, owner: str) -> tuple[Snapshot, ...]:
        return self.jobs.history(self._known(owner))

    def cancel(self, job_id: str, owner: str) -> bool:
        return self.jobs.cancel(job_id, self._known(owner))

    def delete(self, job_id: str, owner: str) -> bool:
        return self.jobs.delete(job_id, self._known(owner))

    def undelete(self, job_id: str, owner: str) -> bool:
        return self.jobs.undelete(job_id, self._known(owner))

    def models(self) -> list[refs.ModelChoice]:
        """What a model picker offers."""
        return list(refs.list_models(self.settings.assets, self.settings.models_dir))

    def loras(self) -> list[str]:
        """What an adapter picker offers."""
        return list(refs.list_loras(self.settings.assets, self.settings.models_dir))

    def drawable(self, model: str) -> tuple[str, ...]:
        """The things a built-in model can draw; empty for models that keep no list."""
        offered = any(choice.name == model for choice in self.models())
        return refs.drawable(model, self.settings.assets) if offered else ()

    def sets(self, owner: str) -> OwnSets:
        """The pictures that an owner may train on, and what this owner changed about them."""
        from studio.training.sets import Library

        if self._library is None:
            self._library = Library(self.settings, self.limits)
        return self._library.of(self._known(owner))

    def presets(self, engine: str) -> tuple[presets.Preset, ...]:
        return presets.list_presets(self.settings.presets, engine_named(engine).name)

    def estimate(self, request: BaseModel, engine: str = "illusion") -> Estimate:
        """What ``request`` will cost, from what such requests cost here lately."""
        evaluations = engine_named(engine).evaluations(request)
        rate = self._seconds_per_evaluation(engine, request)
        return Estimate(evaluations, None if rate is None else evaluations * rate)

    def outlook(self, data: dict[str, Any]) -> Outlook:
        """What a merge would be, from headers alone. Raises what its job would, with the field at fault."""
        request = self.request("merge", data)
        return imported("studio.merging.outlook:outlook")(request, self.settings.assets, self.settings.models_dir)

    def training(self, data: dict[str, Any], owner: str) -> tuple[Training, Estimate]:
        """What a training would be and cost, without its model. Raises what its job would, with the field at fault.

        Of a request that names no edits, those count that this owner's page shows.
        """
        from studio.training import outlook, preflight

        request, settings = self.request(TRAIN, data), self.settings
        self._check_sets(request, owner)
        edits = None if request.edits else self.sets(owner).edits(request.data)
        place = outlook.Place(settings.assets, settings.models_dir, settings.datasets, edits)
        seen = outlook.outlook(request, place, self._shelf)
        asked = seen.to_run(request)
        cost = self.estimate(asked, "train")
        if cost.seconds is not None:
            preflight.seconds(asked, asked.steps, cost.seconds / cost.evaluations)
        return seen, cost

    def restore(self, path: Path) -> dict[str, Any]:
        """The recipe of a PNG as {"engine", "request", "seed"}; the request has the seed of just this picture."""
        policy.check_upload(path, self.limits)
        recipe = read_recipe(path)
        entry = engine_named(recipe["engine"])
        seed = recipe.get("seed", recipe["request"].get("seed"))
        data = recipe["request"] if seed is None else {**recipe["request"], "seed": seed}
        request = requests.parse(entry.request_class(), data).model_dump(mode="json")
        return {"engine": entry.name, "request": request, "seed": request.get("seed")}

    def restore_merge(self, path: Path, *, uploaded: bool = False) -> dict[str, Any]:
        """The recipe of a merged file or folder as {"engine", "request"}; its request asks to verify the sources.

        Of an ``uploaded`` file only the header is looked at, and only that need be there.
        """
        from studio.merging import recipe

        found = recipe.read_upload(path) if uploaded else recipe.read(path)
        request = requests.parse(engine_named("merge").request_class(), found["request"])
        return {"engine": "merge", "request": request.model_dump(mode="json")}

    def restore_training(self, path: Path) -> dict[str, Any]:
        """The recipe of a LoRA that was trained here as {"engine", "request"}; only its header need be there."""
        from studio.training import recipe

        request = requests.parse(engine_named("train").request_class(), recipe.read_upload(path)["request"])
        return {"engine": "train", "request": request.model_dump(mode="json")}

    def memory(self) -> str:
        """What loaded models fill, such as "1.2 GB of 8.0 GB"; nothing before the first model was loaded."""
        if self._store is None:
            return ""
        from studio.models.memory import gigabytes

        usage = self._store.usage()
        return f"{gigabytes(sum(usage.models.values()))} of {gigabytes(usage.total)}"

    def warm_up(self) -> None:
        """Import the engines and load the first model in the job thread, so that the first click need not wait."""
        self._importing = True
        self.jobs.warm_up(self._warm_up)

    def close(self) -> bool:
        """End all jobs; False if a thread is still at work."""
        return self.jobs.close()

    def _check_sets(self, request: Any, owner: str) -> None:
        """Raises RequestError for pictures that another owner has put in."""
        for data in (request.data, *(task.data for task in request.tasks)):
            self.sets(owner).check(data)

    def _known(self, owner: str) -> str:
        """The owner that a browser's token stands for."""
        if self.settings.profile == "local":
            return LOCAL_OWNER
        if not isinstance(owner, str) or not OWNER.fullmatch(owner):
            raise RequestError("owner: this browser has no valid token; reload the page.", field="owner")
        return owner

    def _run(self, engine: Engine, request: BaseModel, on_step: OnStep, *folder: Path) -> Saveable:
        launched = engine.launched(self.settings)
        if launched is None:
            return engine.start(request, self._models(), on_step, *folder)
        if self._store is not None:
            self._store.evict_idle()  # it needs the memory that models fill here
        return launched(request, self.settings, on_step=on_step, folder=folder[0])

    def _models(self) -> ModelStore:
        """Called in the gpu lane's one thread only."""
        if self._store is None:
            self._store = make_store(self.settings)
        return self._store

    def _warm_up(self) -> None:
        try:
            for engine in ENGINES:
                engine.run_function()
            imported("studio.models.fitting:Fitting")
        finally:
            self._importing = False
        # What was imported stays for good. Collecting garbage holds every thread up, and looking through all of that
        # takes 0.3 s; left out, it takes 2 ms. No model may be among it: one that is evicted has to be collected.
        gc.collect()
        gc.freeze()
        for choice in self.models()[:1]:
            with self._models().lease(choice.name):
                pass

    def _seconds_per_evaluation(self, engine: str, request: BaseModel) -> float | None:
        """What the jobs of the same model took that were most like ``request``; a first guess before there was one."""
        model, asked = getattr(request, "model", ""), request.model_dump(mode="json", include=set(ALIKE))
        rates: dict[int, list[float]] = {}
        for snapshot in self.jobs.finished(engine):
            summary = snapshot.summary or {}
            if summary.get("model") == model and summary.get("evaluations") and summary.get("seconds"):
                alike = sum(snapshot.request.get(name) == value for name, value in asked.items())
                rates.setdefault(alike, []).append(summary["seconds"] / summary["evaluations"])
        return median(rates[max(rates)][:RATES_SEEN]) if rates else FIRST_RATES.get(model)


def new_owner() -> str:
    """A token for a browser that has none."""
    return secrets.token_urlsafe(24)
