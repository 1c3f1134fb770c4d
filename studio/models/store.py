"""Loaded models: read lazily, kept while memory allows, lent to one job at a time."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from studio.devices import free_memory, is_out_of_memory, memory_budget, pick_device, pick_dtype, release, total_memory
from studio.errors import ModelError, OutOfMemoryError
from studio.models import files, kinds, loading, memory, single_file
from studio.models.adapters import Attached, attach
from studio.models.clip import ClipScorer
from studio.models.compiling import CompiledForward
from studio.models.given import Given
from studio.models.known_hashes import KnownHashes
from studio.models.networks import Network
from studio.models.refs import Ref, resolve
from studio.models.residence import Residence

Model = Network | ClipScorer
CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """How models are loaded and run: a name of ``devices.DTYPES`` or auto, moved in parts or not, compiled or not."""

    dtype: str = "auto"
    offload: memory.Offload = "auto"
    compiled: bool = False
    hashes: Path | None = None  # a file that remembers the SHA-256 of others


@dataclass(frozen=True)
class Usage:
    """Bytes of the loaded models, least recently used first, and of the device as a whole."""

    models: Mapping[str, int]
    free: int
    total: int


class ModelStore:
    """Everything that engines ask models from. ``memory_gb`` None takes half of what the device has.

    ``datasets`` is where pictures and edited captions lie that people have put in through the page.
    """

    def __init__(
        self,
        assets: Path,
        models_dir: Path | None = None,
        device: str = "auto",
        memory_gb: float | None = None,
        offline: bool = False,
        options: Options = Options(),
        datasets: Path | None = None,
    ) -> None:
        self.assets, self.models_dir, self.offline, self.datasets = assets, models_dir, offline, datasets
        self.device = pick_device(device)
        self.dtype = pick_dtype(self.device, options.dtype)
        self.options, self.hashes = options, KnownHashes(options.hashes)
        self.budget = memory_budget(self.device, memory_gb)
        self.most = sys.maxsize if memory_gb is None else self.budget
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._states: dict[str, files.State] = {}  # what the files of a loaded model were then
        self._leased: dict[str, int] = {}  # model -> the thread that holds it
        self._changed = threading.Condition()

    @contextmanager
    def lease(self, name: str) -> Iterator[Model]:
        """The model ``name``, loaded if need be, for this job alone until the block ends.

        Raises ModelError for a thread that holds it already, which would otherwise wait for itself.
        """
        with self._changed:
            if self._leased.get(name) == threading.get_ident():
                raise ModelError(f"{name} is at work in this very job: it cannot do two things at once.", field="model")
            self._changed.wait_for(lambda: name not in self._leased)
            self._leased[name] = threading.get_ident()
        try:
            yield self._get(name)
        finally:
            with self._changed:
                del self._leased[name]
                self._changed.notify_all()

    def with_model(self, name: str, work: Callable[[Model], T]) -> T:
        """``work(model)``; when memory runs out, evict everything else and try once more."""
        with self.lease(name) as model:
            try:
                return work(model)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                error.with_traceback(None)  # the frames hold the tensors that filled the memory
            self.evict_idle()
            try:
                return work(model)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
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

    def usage(self) -> Usage:
        """What models fill at the moment; any thread may ask."""
        with self._changed:
            models = {name: _size_of(model) for name, model in self._loaded.items()}
        return Usage(models, free_memory(self.device), total_memory(self.device))

    def free_memory(self, held: int = 0) -> int:
        """Bytes that a model could fill which holds ``held`` of them already."""
        return min(free_memory(self.device) + held, self.most)

    def _get(self, name: str) -> Model:
        ref = resolve(name, self.assets, self.models_dir)
        state = () if ref.path is None else files.state_of(ref.path)
        with self._changed:
            if name in self._loaded and self._states[name] == state:
                self._loaded.move_to_end(name)
                return self._loaded[name]
            self._loaded.pop(name, None)  # its files were replaced
        model = self._fitted(lambda: self._load(ref))
        with self._changed:
            self._loaded[name], self._states[name] = model, state
        self._evict_until(self.budget)
        return model

    def _fitted(self, load: Callable[[], T]) -> T:
        """``load()``; where memory runs out, once more with every idle model gone."""
        try:
            return load()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            error.with_traceback(None)
        self.evict_idle()
        return load()

    def _load(self, ref: Ref) -> Model:
        path = loading.hub_folder(ref.name, offline=self.offline) if ref.path is None else ref.path
        if kinds.is_clip(path):
            return loading.load_clip(ref.name, path, self.device)
        configs = self.assets / "configs"
        if ref.kind == "file":
            parts = single_file.part_bytes(path.name, files.read_header(path), configs, self.dtype)
            place = self._place(path.name, parts)
            return self._settled(single_file.load(ref.name, path, configs, place, self.dtype))
        place = self._place(ref.name, loading.part_bytes(path, self.dtype))
        return self._settled(loading.load_pipeline(ref.name, path, place, self.dtype))

    def _place(self, name: str, parts: Mapping[str, int]) -> torch.device:
        """Where a model of this size is loaded to: the device, or the CPU's memory, to be brought over in parts.

        Raises OutOfMemoryError when it fits in neither, even with every idle model gone.
        """
        if sum(parts.values()) > self.free_memory():
            self.evict_idle()
        free = self.free_memory()
        movable = self.device.type == "cuda" or self._offload != "never"
        refused = memory.refusal(name, parts, free, free_memory(CPU) if movable else 0, self._offload)
        if refused is not None:
            raise OutOfMemoryError(refused, field="model")
        return self.device if sum(parts.values()) <= free and self._offload != "always" else CPU

    @property
    def _offload(self) -> memory.Offload:
        """Nothing is gained by moving parts where the processor and the device share one memory."""
        if self.device.type == "cuda" or (self.device.type == "mps" and self.options.offload == "always"):
            return self.options.offload
        return "never"

    def _settled(self, network: Network) -> Network:
        """A network fresh from its files, with its place on the device."""
        offloaded = network.device != self.device and network.device == CPU
        network.residence = Residence(network.parts, self.device, self._offload, self)
        if offloaded:
            network.residence.settle(True)
        if self.options.compiled:
            network.compiled = CompiledForward(network.denoiser, network.attached, network.residence)
        return network

    def _evict_until(self, budget: int) -> None:
        with self._changed:
            for name in [name for name in self._loaded if name not in self._leased]:
                if self.bytes_used() <= budget:
                    break
                del self._loaded[name]
        release(self.device)

    def network(self, name: str, work: Callable[[Network], T]) -> T:
        """``with_model`` for a text-to-image model; refuses anything else by name, before it waits or loads."""
        kinds.check_draws(name, self.assets, self.models_dir)

        def checked(model: Model) -> T:
            if not isinstance(model, Network):
                raise ModelError(f"{name} is a scorer, not a text-to-image model: choose {kinds.DRAWS}.", field="model")
            return work(model)

        return self.with_model(name, checked)

    def given_bytes(self, given: Given) -> dict[str, int]:
        """Bytes of each part once it is loaded, no tensor asked for; ModelFileError where they make no model."""
        if given.is_folder:
            return loading.part_bytes(given.path, self.dtype, given)
        configs = self.assets / "configs"
        single_file.check(given, configs)
        return single_file.part_bytes(given.path.name, given.header, configs, self.dtype)

    def given(self, given: Given, work: Callable[[Network], T]) -> T:
        """``work`` with a network of tensors that need not lie in a file; it is kept no longer than that."""
        parts = self.given_bytes(given)
        room = self.budget - sum(parts.values())
        if self.bytes_used() > room:
            self._evict_until(room)

        def build() -> Network:
            place = self._place(given.name, parts)
            if given.is_folder:
                return self._settled(loading.load_pipeline(given.name, given.path, place, self.dtype, given))
            return self._settled(single_file.build(given, self.assets / "configs", place, self.dtype))

        try:
            return work(self._fitted(build))
        finally:
            release(self.device)

    def scorer(self, name: str, work: Callable[[ClipScorer], T]) -> T:
        """``with_model`` for a CLIP model; refuses anything else by name, before it waits or loads."""
        kinds.check_scores(name, self.assets, self.models_dir)

        def checked(model: Model) -> T:
            if not isinstance(model, ClipScorer):
                raise ModelError(f"{name} is no CLIP model, it cannot score: {kinds.NEEDED}.", field="scorer")
            return work(model)

        return self.with_model(name, checked)


def _size_of(model: Model) -> int:
    return sum(p.numel() * p.element_size() for module in model.modules for p in module.parameters())
