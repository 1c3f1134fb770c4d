"""Loaded models: read lazily, kept while memory allows, lent to one job at a time."""

from __future__ import annotations

import gc
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from studio.devices import memory_budget, pick_device, pick_dtype
from studio.errors import ModelError, OutOfMemoryError
from studio.models import loading, single_file
from studio.models.adapters import Attached, attach
from studio.models.clip import ClipScorer
from studio.models.networks import Network
from studio.models.refs import Ref, resolve

Model = Network | ClipScorer
T = TypeVar("T")


class ModelStore:
    """Everything that engines ask models from. ``memory_gb`` None takes half of what the device has."""

    def __init__(
        self,
        assets: Path,
        models_dir: Path | None = None,
        device: str = "auto",
        memory_gb: float | None = None,
        offline: bool = False,
    ) -> None:
        self.assets, self.models_dir, self.offline = assets, models_dir, offline
        self.device = pick_device(device)
        self.dtype = pick_dtype(self.device)
        self.budget = memory_budget(self.device, memory_gb)
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._leased: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def lease(self, name: str) -> Iterator[Model]:
        """The model ``name``, loaded if need be, for this job alone until the block ends."""
        with self._changed:
            self._changed.wait_for(lambda: name not in self._leased)
            self._leased.add(name)
        try:
            yield self._get(name)
        finally:
            with self._changed:
                self._leased.discard(name)
                self._changed.notify_all()

    def with_model(self, name: str, work: Callable[[Model], T]) -> T:
        """``work(model)``; when memory runs out, evict everything else and try once more."""
        with self.lease(name) as model:
            try:
                return work(model)
            except (torch.OutOfMemoryError, MemoryError) as error:
                error.with_traceback(None)  # the frames hold the tensors that filled the memory
            self.evict_idle()
            try:
                return work(model)
            except (torch.OutOfMemoryError, MemoryError):
                pass
        raise OutOfMemoryError(f"{name} ran out of memory on {self.device}: choose a smaller size or fewer views.")

    @contextmanager
    def adapters(self, network: Network, files: Mapping[str, Path]) -> Iterator[Attached]:
        """LoRA files (name -> path) on a leased network; when the block ends it is as it was, bit for bit.

        Terms then name them with their scales. Raises ModelFileError, before any weights are read, for a file that is
        no LoRA or is one for another network.
        """
        with attach(network.attached, network.adaptable, files, network.name) as attached:
            yield attached

    def loaded(self) -> tuple[str, ...]:
        """Names of the models in memory, least recently used first."""
        return tuple(self._loaded)

    def evict_idle(self) -> None:
        """Drop every model that no job holds."""
        self._evict_until(0)

    def bytes_used(self) -> int:
        return sum(_size_of(model) for model in self._loaded.values())

    def _get(self, name: str) -> Model:
        with self._changed:
            if name in self._loaded:
                self._loaded.move_to_end(name)
                return self._loaded[name]
        ref = resolve(name, self.assets, self.models_dir)
        try:
            model = self._load(ref)
        except (torch.OutOfMemoryError, MemoryError):
            self.evict_idle()
            model = self._load(ref)
        with self._changed:
            self._loaded[name] = model
        self._evict_until(self.budget)
        return model

    def _load(self, ref: Ref) -> Model:
        if ref.path is None:
            return loading.from_hub(ref.name, self.device, self.dtype, offline=self.offline)
        if ref.kind == "file":
            return single_file.load(ref.name, ref.path, self.assets / "configs", self.device, self.dtype)
        config = ref.path / "config.json"
        if config.exists() and json.loads(config.read_text(encoding="utf-8")).get("model_type") == "clip":
            return loading.load_clip(ref.name, ref.path, self.device)
        return loading.load_pipeline(ref.name, ref.path, self.device, self.dtype)

    def _evict_until(self, budget: int) -> None:
        with self._changed:
            for name in [name for name in self._loaded if name not in self._leased]:
                if self.bytes_used() <= budget:
                    break
                del self._loaded[name]
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def network(self, name: str, work: Callable[[Network], T]) -> T:
        """``with_model`` for a text-to-image model; refuses anything else by name."""

        def checked(model: Model) -> T:
            if not isinstance(model, Network):
                raise ModelError(f"{name} is a scorer, not a text-to-image model: choose builtin:emoji.", field="model")
            return work(model)

        return self.with_model(name, checked)

    def scorer(self, name: str, work: Callable[[ClipScorer], T]) -> T:
        """``with_model`` for a CLIP model; refuses anything else by name."""

        def checked(model: Model) -> T:
            if not isinstance(model, ClipScorer):
                raise ModelError(f"{name} is no CLIP model, it cannot score: choose builtin:clip.", field="scorer")
            return work(model)

        return self.with_model(name, checked)


def _size_of(model: Model) -> int:
    return sum(p.numel() * p.element_size() for module in model.modules for p in module.parameters())
