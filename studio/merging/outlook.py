"""What would come of a merge, for a person who is still choosing: from headers alone, in a fraction of a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import ModelError
from studio.merging import curves
from studio.merging.fit import fit
from studio.merging.layout import block_names, blocks_of, part_of
from studio.merging.place import target_of
from studio.merging.request import MergeRequest
from studio.merging.sources import LETTERS, Source, read_source

if TYPE_CHECKING:
    from studio.models.lora_files import LoraFile


@dataclass(frozen=True)
class Outlook:
    """``kinds``: what each source is, by letter or name. ``counts``: part -> tensors merged, tensors copied.

    ``blocks``: block -> its alpha, in the order of ``MergeRequest.blocks``. ``parts``: those that A has. ``size``:
    bytes of the result, None where they are known only when it is made.
    """

    kinds: Mapping[str, str]
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    parts: tuple[str, ...] = ()
    blocks: Mapping[str, float] = field(default_factory=dict)
    size: int | None = None
    is_folder: bool = False
    notes: tuple[str, ...] = ()


def outlook(request: MergeRequest, assets: Path, models_dir: Path | None = None) -> Outlook:
    """Raises what the merge itself would raise before its work: RequestError, ModelError, with the field at fault."""
    found, places = _OF_TASK[request.task](request, assets, models_dir)
    target_of(request, models_dir, places, folder=found.is_folder)
    return found


def _of_checkpoints(request: MergeRequest, assets: Path, models_dir: Path | None) -> tuple[Outlook, list[Path]]:
    plan = fit(request, assets, models_dir)
    first = plan.sources[0]
    seen = Outlook(
        kinds=_kinds(plan.sources),
        counts=plan.counts,
        parts=_parts(first),
        blocks=_blocks(first, request),
        size=plan.size,
        is_folder=plan.is_folder,
        notes=plan.notes,
    )
    return seen, [*plan.files, *(source.path for source in plan.everything)]


def _of_baking(request: MergeRequest, assets: Path, models_dir: Path | None) -> tuple[Outlook, list[Path]]:
    from studio.merging.adapters import read_adapter
    from studio.merging.modules import modules_of, shapes
    from studio.models import lora_files

    source = read_source(request.models[0], assets, models_dir, field="models.0")
    known = shapes(modules_of(source))
    adapters = [read_adapter(name, assets, models_dir, index) for index, name in enumerate(request.adapters)]
    changed: dict[str, set[str]] = {}
    for index, adapter in enumerate(adapters):
        try:
            targets = lora_files.match(adapter.file, known, source.name)
        except ModelError as error:
            raise type(error)(str(error), field=f"adapters.{index}") from error
        for target in targets:
            changed.setdefault(target.part, set()).add(target.module)
    layers = {part: len(modules) for part, modules in changed.items()}
    held = {part: sum(part_of(key) == part for key in source.tensors) for part in _parts(source)}
    counts = {part: (layers.get(part, 0), max(0, number - layers.get(part, 0))) for part, number in held.items()}
    size = sum(entry.size for entry in source.tensors.values()) if request.precision == "as_a" else None
    kinds = _kinds((source,)) | {_short(adapter.name): _lora_kind(adapter.file) for adapter in adapters}
    places = [*source.files, source.path, *(adapter.file.path for adapter in adapters)]
    return Outlook(kinds, counts, _parts(source), {}, size, source.is_folder), places


def _of_joining(request: MergeRequest, assets: Path, models_dir: Path | None) -> tuple[Outlook, list[Path]]:
    from studio.merging.adapters import read_adapter
    from studio.merging.joining import check_join

    adapters = [read_adapter(name, assets, models_dir, index) for index, name in enumerate(request.adapters)]
    check_join(adapters, request)
    pieces = {piece.name for adapter in adapters for piece in adapter.file.pieces}
    kinds = {_short(adapter.name): _lora_kind(adapter.file) for adapter in adapters}
    return Outlook(kinds, {"layers": (len(pieces), 0)}), [adapter.file.path for adapter in adapters]


def _of_extracting(request: MergeRequest, assets: Path, models_dir: Path | None) -> tuple[Outlook, list[Path]]:
    from studio.merging.extracting import check_extract
    from studio.merging.modules import modules_of

    sources = tuple(
        read_source(name, assets, models_dir, field=f"models.{index}") for index, name in enumerate(request.models)
    )
    check_extract(sources)
    layers = sum(map(len, modules_of(sources[0]).values()))
    seen = Outlook(_kinds(sources), {"layers": (layers, 0)})
    return seen, [path for source in sources for path in (*source.files, source.path)]


_OF_TASK = {
    "checkpoints": _of_checkpoints,
    "bake": _of_baking,
    "join": _of_joining,
    "extract": _of_extracting,
}


def _kinds(sources: Sequence[Source]) -> dict[str, str]:
    return {letter.upper(): source.family for letter, source in zip(LETTERS, sources, strict=False)}


def _lora_kind(file: LoraFile) -> str:
    return f"{' and '.join(file.kinds)} for {file.family}"


def _short(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].removesuffix(".safetensors")


def _parts(source: Source) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part_of(key) for key in source.tensors))


def _blocks(source: Source, request: MergeRequest) -> dict[str, float]:
    names = block_names(found) if (found := blocks_of(source.tensors)) else []
    if not names:
        return {}
    if request.blocks is not None:
        return curves.given(names, request.blocks)
    return curves.alphas(names, request.curve, request.alpha)
