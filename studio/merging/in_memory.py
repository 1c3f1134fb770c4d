"""A merge that is drawn with before it is saved: a network of the very tensors that the file would hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from studio.merging import recipe
from studio.merging.baking import plan_baking
from studio.merging.fit import Item, Plan, fit
from studio.merging.layout import part_of
from studio.merging.preflight import headline
from studio.merging.request import MergeRequest
from studio.merging.result import said
from studio.merging.weights import Weights, readers
from studio.models.given import Given

NEVER_BORROWED = ("ema", "other")  # what a network is not made of, or what markers say about it


def plan_of(request: MergeRequest, assets: Path, models_dir: Path | None) -> Plan:
    """What the merge would do, with the parts that its file leaves out borrowed from the first model that has them."""
    plan = (plan_baking if request.task == "bake" else fit)(request, assets, models_dir)
    borrowed = tuple(_borrowed(plan))
    notes = tuple(f"The result has no {part}: it is drawn with that of {name}." for part, name in _lenders(plan))
    return replace(plan, items=(*plan.items, *borrowed), notes=(*plan.notes, *notes))


@contextmanager
def given(plan: Plan, tick: Callable[[], None] = lambda: None) -> Iterator[tuple[Given, Callable[[], list[str]]]]:
    """The merge as a model that can be loaded, made by the calls that make its file, part by part as it is read.

    ``tick`` is called before every tensor. Also what there is to say about weights that are not finite, once they
    were made.
    """
    items = {item.key: item for item in plan.items}
    header = {key: {"dtype": item.dtype, "shape": list(item.shape)} for key, item in items.items()}
    with readers(tick, hashed=False) as files:
        weights = Weights(plan, files)

        def read(keys: Sequence[str]) -> dict[str, Tensor]:
            found = {}
            for key in keys:
                tick()
                found[key] = weights.tensor(items[key])
            return found

        made = Given(headline(plan.request), plan.sources[0].path, header, _notes(plan), read)
        yield made, lambda: [said(weights.faults)] if weights.faults else []


def _notes(plan: Plan) -> dict[str, str]:
    """What the file's header would say; hashes of sources change nothing about how it is drawn."""
    return recipe.notes(plan.request, plan.everything, recipe.placeholders(plan.files), "0" * 64)


def _lenders(plan: Plan) -> Iterator[tuple[str, str]]:
    """Parts that the result does not have, and the model that lends them."""
    seen = {item.part for item in plan.items}
    for source in plan.sources:
        for part in sorted({part_of(key) for key in source.tensors} - seen - set(NEVER_BORROWED)):
            seen.add(part)
            yield part, source.name


def _borrowed(plan: Plan) -> Iterator[Item]:
    lenders = dict(_lenders(plan))
    for part, name in lenders.items():
        source = next(source for source in plan.sources if source.name == name)
        for key, entry in source.tensors.items():
            if part_of(key) == part:
                yield Item(key, entry.dtype, entry.shape, part, (entry,))
