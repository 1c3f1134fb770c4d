"""What one pass of the network is given: codes and conditions, in an order that depends on the pass's number alone.

Nothing here remembers where it stands, so that a run that goes on after a stop sees what an unbroken one would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from studio.devices import derived_seed
from studio.errors import RequestError
from studio.models.networks import Conditions, Network
from studio.progress import OnStep
from studio.sampling import Seen, Upright
from studio.training.buckets import Crop, CropRules, batch_count, batches, crop, nearest_bucket
from studio.training.cache import Cache, LatentCache, PromptCache, Tensors
from studio.training.captions import CaptionRules, drawn
from studio.training.preflight import shapes_for
from studio.training.processes import Processes
from studio.training.records import Example
from studio.training.request import TrainRequest

POSTERIOR = 11  # what the noise of the autoencoder's Gaussian is for: see ``devices.derived_seed``


class Afresh(Cache):
    """No cache: every value is made anew whenever it is asked for."""

    def get(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        return {name: tensor.detach().cpu() for name, tensor in make().items()}


@dataclass(frozen=True)
class Batch:
    """``names`` of the pictures; latents B x C x h x w on the CPU; conditions of B rows on the network's device.

    The last ``prior`` rows are pictures of the class. B is what was asked for of the pass, ``names`` among it.
    """

    names: tuple[str, ...]
    latents: Tensor
    conditions: Conditions
    prior: int = 0


@dataclass(frozen=True)
class Prior:
    """Pictures of the class that the model made itself: latents N x C x h x w."""

    prompt: str
    latents: Tensor


class Feed:
    """Batches of the examples that are learned from, by number; and fixed ones of those that only measure.

    Through an orthogonal ``view`` V the loss is || eps(V x_t, t, y) - V e ||^2, with x_t = a x_0 + b e: latents are
    given out as V x_0, and since V e is white noise again (V V^T = I) it is what the loop draws for them.
    """

    def __init__(
        self,
        request: TrainRequest,
        network: Network,
        examples: Sequence[Example],
        held_out: Sequence[Example] = (),
        view: Seen = Upright(),
    ) -> None:
        self.request, self.network, self.view = request, network, view
        self.examples, self.held_out = tuple(examples), tuple(held_out)
        self.shapes = shapes_for(request, network.size, network.factor)
        self.homes = tuple(nearest_bucket(example.size, self.shapes) for example in self.examples)
        self.repeats = tuple(example.repeats for example in self.examples)
        self.batches = batch_count(self.homes, self.repeats, request.batch_size)
        self.crops = CropRules(request.crop, request.flip)
        self.words = CaptionRules(request.shuffle_tags, request.keep_tags, dropout=request.caption_dropout)
        self.prior: Prior | None = None
        self.processes = Processes(network.device)  # one alone, unless told otherwise
        self.salt = ""  # what conditions depend on beside the network's own weights
        self._order = lru_cache(maxsize=2)(self._epoch)

    def prepare(self, folder: Path | None, on_step: OnStep) -> None:
        """Encode everything that is encoded once; ``folder`` is where the disk's cache lies."""
        cache = self._cache(folder)
        self.latents = LatentCache(self.network, cache)
        self.prompts = None if self.request.encodes_anew else PromptCache(self.network, cache, salt=self.salt)
        if isinstance(cache, Afresh):
            return
        self.latents.fill(list(self._all_crops()), on_step)
        if self.prompts is not None and not self.words.shuffle:
            said = [example.caption for example in (*self.examples, *self.held_out)]
            self.prompts.fill(list(dict.fromkeys([*said, ""] if self.words.dropout else said)), on_step)

    def members(self, index: int) -> tuple[int, ...]:
        """Which examples the ``index``-th pass of the run holds, from 0."""
        epoch, place = divmod(index, self.batches)
        return self._order(epoch)[place]

    def batch(self, index: int, rows: Sequence[int] | None = None) -> Batch:
        """The ``index``-th pass, or some ``rows`` of it, which are then what they are in the whole."""
        epoch, members = index // self.batches, self.members(index)
        rows = range(len(members)) if rows is None else rows
        seed = self.request.seed
        latents, captions = [], []
        for row in rows:
            member = members[row]
            example = self.examples[member]
            cut = crop(example.size, self.homes[member], self.crops, seed=seed, epoch=epoch, index=member)
            found = self.latents.posterior(example, cut)
            draw = torch.Generator().manual_seed(derived_seed(seed, POSTERIOR, index, row))
            latents.append(found.sample(torch.randn(found.mean.shape, generator=draw)))
            captions.append(drawn(example.caption, self.words, seed=seed, epoch=epoch, index=member))
        names, whole = tuple(self.examples[members[row]].name for row in rows), self.view.show(torch.stack(latents))
        if self.prior is None:
            return Batch(names, whole, self.conditions(captions))
        return self._with_prior(names, whole, captions, [index * self.request.batch_size + row for row in rows])

    def fixed(self) -> list[Batch]:
        """The held-out pictures, each alone, cut in the middle and with their whole captions."""
        found = []
        for example in self.held_out:
            cut = crop(example.size, nearest_bucket(example.size, self.shapes))
            latents = self.view.show(self.latents.posterior(example, cut).mean[None])
            found.append(Batch((example.name,), latents, self.conditions([example.caption])))
        return found

    def conditions(self, captions: Sequence[str]) -> Conditions:
        """One row each; with a way back through the text encoders where those learn."""
        if self.prompts is None:
            return self.network.encode_prompts(list(captions))
        found, device = self.prompts.conditions(captions), self.network.device
        return Conditions(found.embeds.to(device), {name: value.to(device) for name, value in found.extra.items()})

    def _with_prior(
        self, names: tuple[str, ...], latents: Tensor, captions: Sequence[str], places: Sequence[int]
    ) -> Batch:
        """As many class pictures behind them, one after the other; where there are any, all pictures are square."""
        picked = [place % len(self.prior.latents) for place in places]
        conditions = self.conditions([*captions, *[self.prior.prompt] * len(names)])
        return Batch(names, torch.cat([latents, self.prior.latents[picked]]), conditions, len(names))

    def _epoch(self, epoch: int) -> tuple[tuple[int, ...], ...]:
        return batches(self.homes, self.repeats, self.request.batch_size, seed=self.request.seed, epoch=epoch)

    def _all_crops(self) -> list[tuple[Example, Crop]]:
        """Every crop that the run will ask for, once each."""
        wanted: dict[tuple[str, Crop], Example] = {}
        epochs = range(self.crops.variants if self.crops.how == "random" else 1)
        for index, (example, home) in enumerate(zip(self.examples, self.homes, strict=True)):
            for epoch in epochs:
                plain = CropRules(self.crops.how, variants=self.crops.variants)
                cut = crop(example.size, home, plain, seed=self.request.seed, epoch=epoch, index=index)
                for flipped in (False, True) if self.crops.flip else (False,):
                    wanted[example.name, Crop(cut.size, cut.scaled, cut.left, cut.top, flipped)] = example
        for example in self.held_out:
            wanted[example.name, crop(example.size, nearest_bucket(example.size, self.shapes))] = example
        return [(example, cut) for (_, cut), example in wanted.items()]

    def _cache(self, folder: Path | None) -> Cache:
        if self.request.cache == "off":
            return Afresh()
        if self.request.cache == "disk" and folder is None:
            raise RequestError(
                "cache: without a folder for the run nothing can be kept on disk; choose memory.", field="cache"
            )
        return Cache(folder if self.request.cache == "disk" else None)
