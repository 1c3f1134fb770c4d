"""ZipLoRA (Shah et al. 2023, section 4): LoRAs joined with weights for their columns that are learned on a network.

For each layer and each LoRA i there is a column merger m_i, one number for each input of the layer, and the joined
change is sum_i W_i diag(m_i). With W_i = up_i down_i that is an exact LoRA of rank sum_i r_i, as diag(m_i) goes into
down_i. The mergers begin as ones, the plain sum, and are learned so that the network with the joined change answers
each LoRA's own prompt as it does with that LoRA alone, with a penalty on columns that several LoRAs claim. The paper
takes what a network reads from pictures; here each LoRA draws its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.devices import derived_seed, seeded_noise
from studio.errors import ModelError
from studio.merging.adapters import Adapter, factors_of, layer_of
from studio.merging.joining import Made, Mergers, join
from studio.merging.modules import modules_of, shapes
from studio.merging.request import MergeRequest
from studio.merging.sources import Source, read_source
from studio.models import lora_files
from studio.models.adapters import TEXT, Layer
from studio.models.networks import Conditions, Network
from studio.models.store import ModelStore
from studio.sampling import Start, Term, begun, build_scheduler, denoise

PICTURES, DRAWN_IN = 4, 12  # pictures that each LoRA draws to learn from, and the steps that it takes for one
GUIDANCE = 3.0
LOOKS = 4  # noise levels at which each picture is looked at to say how well the LoRAs are kept
JOINED = -1  # what ``Zipped.worn`` is when all LoRAs are on with their mergers

Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class Look:
    """What a LoRA (its number) is asked, and how the network answers with it alone."""

    adapter: int
    x: Tensor
    t: Tensor
    answer: Tensor


@dataclass
class Zipping:
    """The layers of the joined LoRA, as ``loras`` asks for them; ``summary`` and ``notes`` say how it went."""

    adapters: Sequence[Adapter]
    request: MergeRequest
    models: ModelStore
    summary: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __call__(self, files: object, tick: Tick) -> Iterator[Made]:
        base = self.request.models[0]
        learned = self.models.network(base, lambda network: learn(network, self.adapters, self.request, tick))
        self.summary = {"zip": {name: round(getattr(learned, name), 6) for name in NUMBERS}}
        self.notes = list(words(learned))
        return join(self.adapters, self.request, tick, learned.mergers)


@dataclass(frozen=True)
class Learned:
    """``before`` and ``after``: how far the network is from each LoRA's own answers, with the plain sum and with the

    mergers: squared error over that of the network without any LoRA, on noise that was not learned from.
    ``similarity_before`` and ``similarity``: the mean product of two LoRAs' mergers, over columns and layers.
    """

    mergers: Mergers
    before: float
    after: float
    similarity_before: float
    similarity: float


NUMBERS = ("before", "after", "similarity_before", "similarity")


def check_base(adapters: Sequence[Adapter], request: MergeRequest, models: ModelStore) -> Source:
    """The checkpoint to learn on, from headers; ModelFileError for a LoRA that is for another one."""
    source = read_source(request.models[0], models.assets, models.models_dir, field="models.0")
    layers = shapes(modules_of(source))
    for index, adapter in enumerate(adapters):
        with _named(index):
            lora_files.match(adapter.file, layers, source.name)
    return source


def learn(network: Network, adapters: Sequence[Adapter], request: MergeRequest, tick: Tick) -> Learned:
    """The mergers for the LoRAs with the request's weights; ``tick(step, steps)`` may stop it at every step.

    When it ends, whatever the reason, the network is as it was, bit for bit: its weights are read and never written.
    """
    with worn(network, adapters, request.scales) as zipped:
        total = request.steps + len(adapters)
        scene = _Scene(network, zipped, request)
        for index in range(len(adapters)):
            tick(index, total)
            scene.draw(index)
        looks = [look for index in range(len(adapters)) for look in scene.looks(index)]
        effect = scene.error(looks, None)
        before = scene.error(looks, JOINED) / effect
        similarity_before = float(zipped.similarity().detach())
        parameters = zipped.parameters()
        optimizer = torch.optim.Adam(parameters, lr=request.learning_rate)
        for step in range(request.steps):
            tick(len(adapters) + step, total)
            loss = sum(scene.loss(step, index) for index in range(len(adapters))) / len(adapters) / effect
            loss = loss + request.similarity * zipped.similarity()
            grads = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            optimizer.step()
        after = scene.error(looks, JOINED) / effect
        return Learned(zipped.found(), before, after, similarity_before, float(zipped.similarity().detach()))


def words(learned: Learned) -> Iterator[str]:
    """How it went, also where it did not help."""
    yield (
        f"ZipLoRA: error against each LoRA alone {learned.after:.3f}, the plain sum's {learned.before:.3f} (share of "
        f"what the LoRAs change, on noise that was not learned from); mean similarity of the column mergers "
        f"{learned.similarity:.3f}, before {learned.similarity_before:.3f}."
    )
    if learned.after >= learned.before:
        yield "The learned mergers do not beat the plain sum here: join with the sum, or try more steps."


class _Scene:
    """A network, prompts and pictures to learn on. The seed decides about all that is drawn at random."""

    def __init__(self, network: Network, zipped: Zipped, request: MergeRequest) -> None:
        self.network, self.zipped, self.request = network, zipped, request
        self.scheduler = build_scheduler("ddim", network.scheduler_config, DRAWN_IN, network.device)
        self.cells = network.cells(None)
        network.residence.arrange(network.size, PICTURES * 2)
        count = len(zipped.scales)
        with torch.no_grad():
            self.own = [self._encoded(index, index) for index in range(count)]
            self.joined = [self._encoded(index, JOINED) for index in range(count)]
            self.plain = [self._encoded(index, None) for index in range(count)]
        self.clean: list[Tensor] = []

    def _encoded(self, index: int, worn: int | None) -> Conditions:
        with self.zipped.wearing(worn):
            return self.network.encode_prompts([self.request.prompts[index]])

    def draw(self, index: int) -> None:
        """Clean latents of the LoRA's own, for its own prompt."""
        shape = (PICTURES, self.network.channels, self.cells, self.cells)
        noise = seeded_noise(shape, derived_seed(self.request.seed, index), self.network.device)
        prompt = self.request.prompts[index]
        terms = [Term(1.0 - GUIDANCE, ""), Term(GUIDANCE, prompt)]
        with self.zipped.wearing(index):
            # A tensor of inference mode could not be learned through.
            self.clean.append(denoise(self.network, self.scheduler, lambda step, sigma: terms, noise).clone())

    def looks(self, index: int) -> Iterator[Look]:
        """Every picture at some noise levels that are spread evenly."""
        for place in range(LOOKS):
            step = (2 * place + 1) * DRAWN_IN // (2 * LOOKS)
            yield self._look(index, slice(None), step, derived_seed(self.request.seed, index, 1, place))

    def loss(self, step: int, index: int) -> Tensor:
        """The squared error of one picture at a noise level of this step's own."""
        draw = torch.Generator().manual_seed(derived_seed(self.request.seed, index, 2, step))
        picture, level = (int(torch.randint(most, (1,), generator=draw)) for most in (PICTURES, DRAWN_IN))
        seed = derived_seed(self.request.seed, index, 3, step)
        return self._squared(self._look(index, slice(picture, picture + 1), level, seed), JOINED)

    @torch.no_grad()
    def error(self, looks: Sequence[Look], worn: int | None) -> float:
        """The mean squared error; never quite zero, for others are divided by it."""
        return max(sum(float(self._squared(look, worn)) for look in looks) / len(looks), 1e-12)

    @torch.no_grad()
    def _look(self, index: int, pictures: slice, level: int, seed: int) -> Look:
        clean = self.clean[index][pictures]
        noise = seeded_noise(tuple(clean.shape), seed, self.network.device) * self.network.noise_scale
        x, t = begun(self.scheduler, noise, Start(clean, level)), self.scheduler.timesteps[level]
        return Look(index, x, t, self._answer(index, x, t, index))

    def _squared(self, look: Look, worn: int | None) -> Tensor:
        return F.mse_loss(self._answer(look.adapter, look.x, look.t, worn), look.answer)

    def _answer(self, index: int, x: Tensor, t: Tensor, worn: int | None) -> Tensor:
        held = self.plain if worn is None else self.joined if worn == JOINED else self.own
        conditions = held[index].rows([0] * len(x))
        with self.zipped.wearing(worn):
            return self.network.predict(x, t, conditions, {})


class Zipped:
    """The LoRAs on a network's layers, by hooks: none, one of them alone, or all with their mergers (``worn``)."""

    def __init__(self, scales: Sequence[float]) -> None:
        self.scales, self.worn = tuple(scales), None
        self.mergers: dict[tuple[str, str], dict[int, Tensor]] = {}
        self.learned: set[tuple[str, str]] = set()

    @contextmanager
    def wearing(self, worn: int | None) -> Iterator[None]:
        before, self.worn = self.worn, worn
        try:
            yield
        finally:
            self.worn = before

    def parameters(self) -> list[Tensor]:
        """The mergers of the denoiser; what reads prompts is summed."""
        return [merger for key in sorted(self.learned) for merger in self.mergers[key].values()]

    def similarity(self) -> Tensor:
        """The mean of |m_i m_j| over columns, pairs and layers that several LoRAs change; the paper sums."""
        shared = [held for key, held in sorted(self.mergers.items()) if key in self.learned and len(held) > 1]
        found = [(a * b).abs().mean() for held in shared for a, b in combinations(held.values(), 2)]
        return torch.stack(found).mean() if found else torch.zeros(())

    def found(self) -> Mergers:
        return {key: {i: m.detach().float().cpu() for i, m in held.items()} for key, held in self.mergers.items()}


@dataclass(frozen=True)
class _Hook:
    """What LoRA ``index`` adds to one layer; ``down`` and ``up`` have the layer's dtype, weight and alpha in ``up``."""

    zipped: Zipped
    index: int
    down: Tensor
    up: Tensor
    merger: Tensor

    def __call__(self, layer: Layer, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if self.zipped.worn not in (self.index, JOINED):
            return out
        (x,) = args
        if isinstance(layer, nn.Linear):
            x = x * self.merger.to(x.dtype) if self.zipped.worn == JOINED else x
            return out + F.linear(F.linear(x, self.down), self.up)
        x = x * self.merger.to(x.dtype)[:, None, None] if self.zipped.worn == JOINED else x
        return out + F.conv2d(F.conv2d(x, self.down, None, layer.stride, layer.padding, layer.dilation), self.up)


@dataclass(frozen=True)
class _Change:
    """What LoRA ``index`` with its weight does to one layer."""

    index: int
    scale: float
    adapter: Adapter
    target: lora_files.Target
    tensors: Mapping[str, Tensor]


@contextmanager
def worn(network: Network, adapters: Sequence[Adapter], scales: Sequence[float]) -> Iterator[Zipped]:
    """The LoRAs on the network's layers until the block ends. ModelFileError for one that is for another network."""
    zipped, hooks, layers = Zipped(scales), [], lora_files.shapes_of(network.adaptable)
    try:
        for index, (adapter, scale) in enumerate(zip(adapters, scales, strict=True)):
            with _named(index):
                targets = lora_files.match(adapter.file, layers, network.name)
            for target, tensors in zip(targets, lora_files.load(adapter.file, targets), strict=True):
                layer = network.adaptable[target.part].get_submodule(target.module)
                change = _Change(index, scale, adapter, target, tensors)
                hooks.append(layer.register_forward_hook(_hook(zipped, change, layer.weight, network.device)))
        network.attached.names = tuple(f"{index}" for index in range(len(adapters)))  # compiled code is passed by
        yield zipped
    finally:
        network.attached.names = ()
        for hook in hooks:
            hook.remove()


@contextmanager
def _named(index: int) -> Iterator[None]:
    """Errors inside speak of the LoRA of that number."""
    try:
        yield
    except ModelError as error:
        raise type(error)(str(error), field=f"adapters.{index}") from error


def _hook(zipped: Zipped, change: _Change, weight: Tensor, device: torch.device) -> _Hook:
    found, named = factors_of(change.adapter, change.target.piece, change.tensors), layer_of(change.target.piece)
    if found is None:
        raise ModelError(f"{change.adapter.name} holds {change.target.piece.name!r} in a form without columns.")
    down = found.down.reshape(found.rank, *weight.shape[1:]).to(device, weight.dtype)
    up = (change.scale * found.up).reshape(weight.shape[0], found.rank, *[1] * (weight.dim() - 2))
    key = (named.part, named.flat)
    learned = not change.target.part.startswith(TEXT)
    if learned:
        zipped.learned.add(key)
    held = zipped.mergers.setdefault(key, {})
    if change.index not in held:  # layers that a file keeps stacked share their columns
        held[change.index] = torch.ones(weight.shape[1], device=device, requires_grad=learned)
    return _Hook(zipped, change.index, down, up.to(device, weight.dtype), held[change.index])
