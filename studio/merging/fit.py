"""Whether checkpoints fit together, and what would become of each tensor: from headers alone, in under a second."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from studio.errors import ModelFileError, RequestError
from studio.merging import curves
from studio.merging.catalogue import Method, Options
from studio.merging.layout import VAE_PREFIXES, block_names, blocks_of, part_of
from studio.merging.preflight import check, method_of, options_of, part_alpha
from studio.merging.request import MergeRequest
from studio.merging.sources import LETTERS, Source, read_source
from studio.models.streams import ITEM_BYTES, Entry

TAKEN_FROM_A = {"vae": "a", "other": "a", "ema": "none"}
PRECISIONS = {"fp16": "F16", "bf16": "BF16", "fp32": "F32"}
WIDER = {9: "an inpainting model", 8: "an instruct-pix2pix model"}
CODES = 4  # channels that inpainting models read first, as all others do


@dataclass(frozen=True)
class Item:
    """One tensor of the result. One input: it is copied.

    ``channels``: only these of A's first layer are merged. ``changes``: what LoRAs make of it (float32 to float32).
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    part: str
    inputs: tuple[Entry, ...]
    alpha: float = 0.0
    channels: int | None = None
    changes: tuple[Callable[[Any], Any], ...] = ()

    @property
    def merged(self) -> bool:
        return len(self.inputs) > 1 or bool(self.changes)


@dataclass(frozen=True)
class Plan:
    """A merge that fits: every tensor of the result in the order of A's file, and what a person should know."""

    request: MergeRequest
    method: Method
    options: Options
    sources: tuple[Source, ...]
    items: tuple[Item, ...]
    notes: tuple[str, ...]
    extra: tuple[Source, ...] = ()

    @property
    def is_folder(self) -> bool:
        return self.sources[0].is_folder

    @property
    def everything(self) -> tuple[Source, ...]:
        """All that the result is made from: the models, then a VAE or LoRAs that are baked in."""
        return (*self.sources, *self.extra)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of ``everything``, each once."""
        return tuple(dict.fromkeys(path for source in self.everything for path in source.files))

    @cached_property
    def size(self) -> int:
        """Bytes of the result's tensors."""
        return sum(bytes_of(item) for item in self.items)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Part -> tensors merged, tensors copied."""
        found: dict[str, tuple[int, int]] = {}
        for item in self.items:
            merged, copied = found.get(item.part, (0, 0))
            found[item.part] = (merged + item.merged, copied + (not item.merged))
        return found


def fit(request: MergeRequest, assets: Path, models_dir: Path | None = None) -> Plan:
    """What merging would do. Raises RequestError or ModelFileError that names the architecture, the tensor and both

    shapes where the checkpoints do not fit.
    """
    check(request)
    sources = tuple(
        read_source(name, assets, models_dir, field=f"models.{index}") for index, name in enumerate(request.models)
    )
    actions = _actions(request, sources)
    baked = _baked(actions, sources[0], assets, models_dir)
    check_alike(sources)
    planner = _Planner(request, sources, actions, baked)
    items = tuple(planner.items())
    if not planner.merges:
        raise RequestError(
            "parts: nothing would be merged, for every part is taken from one model; set a part to merge.",
            field="parts",
        )
    notes = (*planner.notes(), *_predictions(sources))
    return Plan(request, method_of(request), options_of(request), sources, items, notes, (baked,) if baked else ())


def check_alike(sources: tuple[Source, ...]) -> None:
    """Refuse different layouts and families, naming both and the first tensor that differs."""
    first = sources[0]
    for letter, other in zip(LETTERS[1:], sources[1:], strict=False):
        if first.is_folder != other.is_folder:
            kinds = {True: "a diffusers folder", False: "one file"}
            raise ModelFileError(
                f"A ({first.name}) is {kinds[first.is_folder]} and {letter.upper()} ({other.name}) is "
                f"{kinds[other.is_folder]}: choose checkpoints of one layout.",
                field=f"models.{LETTERS.index(letter)}",
            )
        if (first.context_width, first.pipeline) != (other.context_width, other.pipeline):
            raise ModelFileError(
                f"A ({first.name}) is {first.family} and {letter.upper()} ({other.name}) is {other.family}: choose "
                f"checkpoints of one family ({_first_difference(first, other, letter)}).",
                field=f"models.{LETTERS.index(letter)}",
            )


def bytes_of(item: Item) -> int:
    size = ITEM_BYTES[item.dtype]
    for side in item.shape:
        size *= side
    return size


class _Planner:
    """Walks over A's tensors and decides for each."""

    def __init__(
        self, request: MergeRequest, sources: tuple[Source, ...], actions: Mapping[str, str], baked: Source | None
    ) -> None:
        self.request, self.sources, self.actions, self.baked = request, sources, actions, baked
        self.copied: dict[str, list[str]] = {}
        self.blocks = self._block_alphas()
        self.rules = [(re.compile(rule.keys), rule.alpha) for rule in request.rules]
        self.hits = [0] * len(self.rules)
        self.wider: int | None = None
        self.merges = False

    def items(self) -> Iterator[Item]:
        first = self.sources[0]
        taken = {part: self._taken(part) for part in {part_of(key) for key in self._all_keys()}}
        done: set[str] = set()
        for key, entry in first.tensors.items():
            part = part_of(key)
            if taken[part] is None:
                if self.actions[part] != "none":
                    yield self._cast(self._item(key, part, entry))
            elif part not in done:
                yield from map(self._cast, taken[part])
                done.add(part)
        for part in sorted(taken.keys() - done - {part_of(key) for key in first.tensors}):
            yield from map(self._cast, taken[part] or ())

    def notes(self) -> Iterator[str]:
        for why, keys in self.copied.items():
            yield f"{len(keys)} tensors are A's, for {why} ({keys[0]} and so on)."
        for rule, hits in zip(self.request.rules, self.hits, strict=True):
            if not hits:
                yield f"The rule {rule.keys!r} finds no tensor that is merged."
        if self.wider:
            yield f"A is {WIDER[self.wider]}: of the {self.wider} channels that it reads, the first {CODES} are merged."

    def _all_keys(self) -> Iterator[str]:
        for source in self.sources:
            yield from source.tensors

    def _taken(self, part: str) -> list[Item] | None:
        """The tensors of a part that comes from another model or file as it is; None where A's are gone through."""
        action = self.actions.get(part, "merge")
        if part == "vae" and self.baked is not None:
            return self._of_baked()
        if action not in LETTERS or action == "a":
            return None
        source = self.sources[LETTERS.index(action)]
        found = [
            Item(key, entry.dtype, entry.shape, part, (entry,))
            for key, entry in source.tensors.items()
            if part_of(key) == part
        ]
        self._check_replaces(part, found, source)
        return found

    def _of_baked(self) -> list[Item]:
        prefix = "vae/" if self.sources[0].is_folder else "first_stage_model."
        found = []
        for key, entry in self.baked.tensors.items():
            name = next((key.removeprefix(p) for p in VAE_PREFIXES if key.startswith(p)), key)
            if part_of(key) == "vae":
                found.append(Item(prefix + name, entry.dtype, entry.shape, "vae", (entry,)))
        self._check_replaces("vae", found, self.baked)
        return found

    def _check_replaces(self, part: str, found: list[Item], source: Source) -> None:
        """A part that is swapped whole must have the tensors that A has there."""
        have = {item.key: item.shape for item in found}
        for key, entry in self.sources[0].tensors.items():
            if part_of(key) == part and entry.is_float and have.get(key) != entry.shape:
                has = f"is {list(have[key])}" if key in have else "is missing"
                raise ModelFileError(
                    f"The {part} of {source.name} does not fit A: {key} is {list(entry.shape)} in A and {has} there.",
                    field=f"parts.{part}",
                )

    def _item(self, key: str, part: str, entry: Entry) -> Item:
        alone = Item(key, entry.dtype, entry.shape, part, (entry,))
        action = self.actions.get(part, "merge")
        if action == "a" or not entry.is_float:
            return alone
        others = [source.tensors.get(key) for source in self.sources[1:]]
        if None in others:
            return self._without(key, part, alone, others.index(None) + 1)
        channels = self._channels(key, entry, others)
        alpha, self.merges = self._alpha(key, action), True
        method = method_of(self.request)
        end = method.ends.get(alpha) if method.alpha is not None and channels is None else None
        inputs = (entry, *others) if end is None else ((entry, *others)[end],)
        return replace(alone, inputs=inputs, alpha=alpha, channels=channels)

    def _without(self, key: str, part: str, alone: Item, index: int) -> Item:
        """A pruned model may lack a whole part; one that lacks single tensors is of another kind."""
        source, first = self.sources[index], self.sources[0]
        if any(part_of(other) == part for other in source.tensors):
            raise ModelFileError(
                f"{LETTERS[index].upper()} ({source.name}, {source.family}) lacks a tensor that A ({first.name}, "
                f"{first.family}) has: {key}, {list(alone.shape)}. Choose checkpoints of one kind.",
                field=f"models.{index}",
            )
        self.copied.setdefault(f"{LETTERS[index].upper()} has no {part}", []).append(key)
        return alone

    def _channels(self, key: str, entry: Entry, others: list[Entry]) -> int | None:
        """None where all shapes agree; 4 for A's wider first layer; ModelFileError otherwise."""
        for index, other in enumerate(others, start=1):
            if other.shape == entry.shape:
                continue
            is_first = key == self.sources[0].first_layer
            if is_first and entry.shape[1] in WIDER and other.shape == (entry.shape[0], CODES, *entry.shape[2:]):
                continue
            raise self._misfit(key, entry, other, index, is_first)
        if all(other.shape == entry.shape for other in others):
            return None
        self.wider = entry.shape[1]
        return CODES

    def _misfit(self, key: str, entry: Entry, other: Entry, index: int, is_first: bool) -> ModelFileError:
        letter, source = LETTERS[index].upper(), self.sources[index]
        fix = "choose checkpoints of one kind"
        if is_first and other.shape[1] in WIDER and entry.shape[1] == CODES:
            fix = f"{letter} is {WIDER[other.shape[1]]}, which can only be merged as A"
        return ModelFileError(
            f"A ({self.sources[0].name}, {self.sources[0].family}) and {letter} ({source.name}, {source.family}) do "
            f"not fit: {key} is {list(entry.shape)} in A and {list(other.shape)} in {letter}; {fix}.",
            field=f"models.{index}",
        )

    def _alpha(self, key: str, action: str) -> float:
        alpha = self.blocks.get(key, self.request.alpha)
        own = part_alpha(action)
        alpha = alpha if own is None else own
        for index, (pattern, value) in enumerate(self.rules):
            if pattern.search(key):
                alpha = value
                self.hits[index] += 1
        return alpha

    def _block_alphas(self) -> dict[str, float]:
        """Tensor -> the alpha of its block, where blocks or a curve are asked for."""
        if self.request.blocks is None and self.request.curve == "flat":
            return {}
        blocks = blocks_of(self.sources[0].tensors)
        if not blocks:
            name = "blocks" if self.request.blocks is not None else "curve"
            raise RequestError(
                f"{name}: {self.sources[0].name} has no U-Net whose blocks could have alphas; leave it out.", field=name
            )
        names = block_names(blocks)
        if self.request.blocks is not None:
            values = curves.given(names, self.request.blocks)
        else:
            values = curves.alphas(names, self.request.curve, self.request.alpha)
        return {key: values[block] for key, block in blocks.items()}

    def _cast(self, item: Item) -> Item:
        wanted = PRECISIONS.get(self.request.precision)
        return replace(item, dtype=wanted) if wanted and item.inputs[0].is_float else item


def _actions(request: MergeRequest, sources: tuple[Source, ...]) -> dict[str, str]:
    """Part -> what becomes of it, for all the parts of A."""
    there = {part_of(key) for source in sources for key in source.tensors}
    unknown = [part for part in request.parts if part not in there and part != "vae"]
    if unknown:
        raise RequestError(
            f"parts.{unknown[0]}: {sources[0].name} has no such part; it has {', '.join(sorted(there))}.",
            field=f"parts.{unknown[0]}",
        )
    actions = {part: request.parts.get(part, TAKEN_FROM_A.get(part, "merge")) for part in there}
    if sources[0].is_folder and "none" in actions.values():
        part = next(part for part, action in actions.items() if action == "none")
        raise RequestError(
            f"parts.{part}: a diffusers folder needs all its parts; take it from a model instead.",
            field=f"parts.{part}",
        )
    return actions


def _baked(actions: Mapping[str, str], first: Source, assets: Path, models_dir: Path | None) -> Source | None:
    """The model whose VAE is to be put in, where a file is named for it."""
    action = actions.get("vae", "a")
    if action in ("merge", "none", *LETTERS) or part_alpha(action) is not None:
        return None
    source = read_source(action, assets, models_dir, field="parts.vae")
    if not any(part_of(key) == "vae" for key in source.tensors):
        raise ModelFileError(f"{source.name} holds no autoencoder: name a file that does.", field="parts.vae")
    if source.is_folder != first.is_folder:
        raise ModelFileError(
            f"{source.name} has its autoencoder in another layout than A: name a "
            f"{'diffusers folder' if first.is_folder else 'single file'}.",
            field="parts.vae",
        )
    return source


def _first_difference(first: Source, other: Source, letter: str) -> str:
    for key, entry in first.tensors.items():
        there = other.tensors.get(key)
        if entry.is_float and (there is None or there.shape != entry.shape):
            has = "missing" if there is None else str(list(there.shape))
            return f"{key} is {list(entry.shape)} in A and {has} in {letter.upper()}"
    return f"all of A's tensors are in {letter.upper()}"


def _predictions(sources: tuple[Source, ...]) -> Iterator[str]:
    said = {source.prediction: source.name for source in sources if source.prediction}
    if len(said) > 1:
        words = " and ".join(f"{name} predicts {prediction}" for prediction, name in said.items())
        yield f"Warning: {words}; a merge of the two draws noise. Only differences should be taken from such a model."
