"""LoRAs as results: joined or extracted, written in kohya's names or diffusers', with how much each layer kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.errors import StudioError
from studio.merging import recipe
from studio.merging.adapters import read_adapter
from studio.merging.extracting import check_extract, extract
from studio.merging.joining import Made, check_join, join
from studio.merging.place import output_in, target_of
from studio.merging.request import MergeRequest
from studio.merging.sources import Source, check_hashes, read_source
from studio.merging.weights import DTYPES, Readers, as_bytes, readers
from studio.merging.ziplora import Zipping, check_base
from studio.models.lora_names import kohya_name
from studio.models.store import ModelStore
from studio.models.streams import Writer, check_room, order
from studio.progress import OnStep, Step

SHOWN = 12  # layers that lose most, in a summary
NAMES = {dtype: name for name, dtype in DTYPES.items()}

Layers = Callable[[Readers, Callable[[int, int], None]], Iterator[Made]]


@dataclass(frozen=True)
class LoraResult:
    """What ``run`` returns; ``layers`` are made while ``save`` runs."""

    request: MergeRequest
    sources: tuple[Source, ...]
    layers: Layers | Zipping
    target: Path | None
    on_step: OnStep

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the LoRA to its target, or into ``folder``; returns the summary that goes to result.json."""
        start = time.perf_counter()
        path = self.target or output_in(folder, self.request, _paths(self.sources), as_folder=False)
        with readers(lambda: self._say("Taking the sources' hashes", 1, 1)) as files:
            made = list(self.layers(files, lambda done, total: self._say("Working out the layers", done, total)))
            if not made:
                raise StudioError("A and B are the same in every layer that a LoRA changes: there is nothing to save.")
            hashes = {path: files.sha256(path) for path in _paths(self.sources)}
        tensors = self._tensors(made)
        data_sha256 = self._write(path, tensors, made, hashes)
        return {
            "output": str(self.target) if self.target else path.name,
            "data_sha256": data_sha256,
            "bytes": sum(tensor.nbytes for tensor in tensors.values()),
            "seconds": round(time.perf_counter() - start, 3),
            "layers": len(made),
            "ranks": sorted({found.factors.rank for found in made}),
            "energy": {name: round(value, 6) for name, value in energies(made).items()},
            "sources": recipe.recipe(self.request, self.sources, hashes)["sources"],
            **(self.layers.summary if isinstance(self.layers, Zipping) else {}),
            "notes": [*words(made), *self._learned(), f"SHA-256 of the tensors: {data_sha256}"],
            "evaluations": 0,
        }

    def _learned(self) -> list[str]:
        return self.layers.notes if isinstance(self.layers, Zipping) else []

    def _say(self, note: str, done: int, total: int) -> None:
        self.on_step(Step(done, total, note=note))

    def _tensors(self, made: Sequence[Made]) -> dict[str, Tensor]:
        dtype = DTYPES[{"fp16": "F16", "bf16": "BF16"}.get(self.request.precision, "F32")]
        if self.request.precision == "as_a":
            dtype = _widest(self.sources[: len(self.request.adapters) or None])  # not of what zip learns on
        several = any(found.layer.part == "text_encoder_2" for found in made)
        tensors: dict[str, Tensor] = {}
        for found in made:
            tensors |= named(found, self.request.names, several, dtype)
        bad = next((key for key, value in tensors.items() if not torch.isfinite(value).all()), None)
        if bad and not self.request.accept_nonfinite:
            raise StudioError(
                f"{bad} holds weights that are not finite or too large for the result's precision: choose fp32, or "
                "set accept_nonfinite.",
                field="precision",
            )
        return tensors

    def _write(
        self, path: Path, tensors: Mapping[str, Tensor], made: Sequence[Made], hashes: Mapping[Path, str]
    ) -> str:
        shapes = {key: (NAMES[tensor.dtype], tuple(tensor.shape)) for key, tensor in tensors.items()}
        check_room(path.parent, sum(tensor.nbytes for tensor in tensors.values()))
        notes = recipe.notes(self.request, self.sources, hashes, "0" * 64) | _training_notes(made)
        with Writer(path, {key: shapes[key] for key in order(shapes)}, notes) as out:
            for key in out.keys:
                out.write(as_bytes(tensors[key]))
            out.annotate(notes | {"modelspec.hash_sha256": f"0x{out.data_sha256()}"})
            return out.data_sha256()


def run(request: MergeRequest, models: ModelStore, on_step: OnStep) -> LoraResult:
    """Join or extract: everything that can be refused is refused here, from headers."""
    if request.task == "join":
        adapters = [read_adapter(name, models.assets, models.models_dir, i) for i, name in enumerate(request.adapters)]
        check_join(adapters, request)
        sources = tuple(adapter.source for adapter in adapters)

        def layers(files: Readers, tick: Callable[[int, int], None]) -> Iterator[Made]:
            return join(adapters, request, tick)

        if request.join == "zip":
            sources += (check_base(adapters, request, models),)
            layers = Zipping(adapters, request, models)
    else:
        sources = tuple(
            read_source(name, models.assets, models.models_dir, field=f"models.{i}")
            for i, name in enumerate(request.models)
        )
        check_extract(sources)

        def layers(files: Readers, tick: Callable[[int, int], None]) -> Iterator[Made]:
            return extract(sources, request, files, tick)

    target = target_of(request, models.models_dir, _paths(sources), folder=False)
    check_hashes(request.verify, sources, on_step, models.hashes)
    return LoraResult(request, sources, layers, target, on_step)


def named(found: Made, names: str, several_encoders: bool, dtype: torch.dtype) -> dict[str, Tensor]:
    """A layer's tensors by their keys in the file; alpha is the rank, so that up times down is the change itself."""
    rank, layer = found.factors.rank, found.layer
    spread = (1, 1) if len(found.inside) == 3 else ()
    down = found.factors.down.reshape(rank, *found.inside).to(dtype).contiguous()
    up = found.factors.up.reshape(-1, rank, *spread).to(dtype).contiguous()
    if names == "diffusers":
        stem = f"{layer.part}.{layer.dotted}"
        return {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    stem = kohya_name(layer.part, layer.flat, several_encoders)
    alpha = torch.tensor(float(rank), dtype=dtype)
    return {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": alpha}


def energies(made: Sequence[Made]) -> dict[str, float]:
    """The layers that keep least of their squared norm, least first."""
    least = sorted(made, key=lambda found: found.factors.energy)[:SHOWN]
    return {f"{found.layer.part}.{found.layer.flat}": found.factors.energy for found in least}


def words(made: Sequence[Made]) -> Iterator[str]:
    kept = [found.factors.energy for found in made]
    if min(kept) < 1.0:
        yield f"Energy kept: {sum(kept) / len(kept):.1%} on average over {len(kept)} layers, {min(kept):.1%} at worst."
    else:
        yield f"All {len(kept)} layers are exact; the ranks add up to at most {max(f.factors.rank for f in made)}."


def _training_notes(made: Sequence[Made]) -> dict[str, str]:
    """What kohya's readers look for."""
    rank = str(max(found.factors.rank for found in made))
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": rank,
        "ss_network_alpha": rank,
        "energy": json.dumps({name: round(value, 4) for name, value in energies(made).items()}),
    }


def _widest(sources: Sequence[Source]) -> torch.dtype:
    kinds = {entry.dtype for source in sources for entry in source.tensors.values() if len(entry.shape) > 1}
    if len(kinds & set(DTYPES)) == 1:
        return DTYPES[next(iter(kinds & set(DTYPES)))]
    return torch.float32


def _paths(sources: Sequence[Source]) -> list[Path]:
    return list(dict.fromkeys(path for source in sources for path in source.files))
