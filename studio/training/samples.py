"""Pictures of the same prompts from the same noise, drawn with what was learned so far."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import repeat

import torch
from PIL import Image
from torch import Tensor

from studio.devices import derived_seed, seeded_noise
from studio.imaging import to_picture
from studio.models.networks import Network
from studio.progress import OnStep, Step, ignore
from studio.sampling import Seen, Term, Upright, build_scheduler, denoise, guidance
from studio.training.request import TrainRequest

SAMPLE, CLASS = 14, 15  # what a seed is for: see ``devices.derived_seed``
SCHEDULER = "ddim"


def draw(
    network: Network,
    request: TrainRequest,
    say: Callable[[int], None],
    views: Sequence[Seen] = (),
    worn: Callable[[int], AbstractContextManager] = lambda index: nullcontext(),
) -> tuple[Image.Image, ...]:
    """One picture for each of the request's sample prompts; ``say`` is called at each step and may stop it.

    With ``views`` each is drawn and shown through its own; ``worn`` puts on the adapters that it is drawn with.
    """
    found = []
    for index, (prompt, view) in enumerate(zip(request.sample_prompts, views or repeat(Upright()), strict=False)):
        seed = derived_seed(request.seed, SAMPLE, index)
        terms = guidance(prompt, "", request.sample_guidance, 1.0, view)
        with worn(index), torch.inference_mode():
            latents = latents_of(network, request, terms, seed, lambda step, index=index: say(index))
            found.append(to_picture(network.decode(view.show(latents))[0]))
    return tuple(found)


def class_latents(network: Network, request: TrainRequest, on_step: OnStep) -> Tensor:
    """The request's class pictures as the model draws them (N x C x h x w, on the CPU), never decoded."""
    found, count = [], request.class_pictures
    for index in range(count):
        on_step(Step(index, count, note="Drawing pictures of the class"))
        terms = guidance(request.class_prompt, "", request.sample_guidance, 1.0, Upright())
        found.append(latents_of(network, request, terms, derived_seed(request.seed, CLASS, index), ignore).cpu())
    return torch.cat(found).clone()


def class_room(network: Network, request: TrainRequest) -> Tensor:
    """Zeros of the shape of ``class_latents``."""
    cells = network.cells(request.resolution)
    return torch.zeros(request.class_pictures, network.channels, cells, cells)


def latents_of(network: Network, request: TrainRequest, terms: Sequence[Term], seed: int, on_step: OnStep) -> Tensor:
    """Clean codes of one picture (1 x C x h x w) of the size that is trained at."""
    cells = network.cells(request.resolution)
    noise = seeded_noise((1, network.channels, cells, cells), seed, network.device)
    scheduler = build_scheduler(SCHEDULER, network.scheduler_config, request.sample_steps, network.device)
    return denoise(network, scheduler, lambda index, sigma: terms, noise, on_step)
