"""Training as diffusers' example scripts for text-to-image LoRAs do it, on the same libraries, to be measured against.

The shape of that loop (diffusers 0.42, ``examples/text_to_image/train_text_to_image_lora.py``), written anew: a
DataLoader that opens, cuts and flips every picture each time it is asked for; the autoencoder and the text encoder at
work in every step; accelerate's ``prepare``, ``accumulate`` and ``gather``; AdamW; a progress bar that reads the loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from peft import LoraConfig
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from studio.models.networks import Network
from studio.training.records import Example

TARGETS = ["to_k", "to_q", "to_v", "to_out.0"]


class Pictures(Dataset):
    """Pixels 3 x side x side from -1 to 1 and token ids, made when they are asked for."""

    def __init__(self, examples: Sequence[Example], network: Network) -> None:
        self.examples, self.side = examples, network.size
        self.ids = [ids_of(network, example.caption) for example in examples]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        with Image.open(self.examples[index].path) as file:
            picture = ImageOps.fit(file.convert("RGB"), (self.side, self.side), Image.Resampling.BILINEAR)
        if torch.rand(1) < 0.5:
            picture = ImageOps.mirror(picture)
        pixels = torch.from_numpy(np.asarray(picture, np.float32) / 127.5 - 1.0).permute(2, 0, 1)
        return {"pixels": pixels, "ids": self.ids[index]}


def ids_of(network: Network, caption: str) -> Tensor:
    """Padded to the encoder's length, as the script's ``tokenize_captions`` does."""
    tokenizer = network.parts["tokenizer"]
    found = tokenizer(
        caption, max_length=tokenizer.model_max_length, padding="max_length", truncation=True, return_tensors="pt"
    )
    return found.input_ids[0]


class ExampleLoop:
    """``advance`` takes one step of the optimiser on ``network``, which is changed for good."""

    def __init__(self, network: Network, examples: Sequence[Example], batch: int, rank: int) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        self.accelerator = Accelerator(cpu=network.device.type == "cpu")
        self.vae, self.text = network.vae, network.parts["text_encoder"]
        self.noise = DDPMScheduler.from_config(network.scheduler_config)
        network.denoiser.requires_grad_(False)
        network.denoiser.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS)
        )
        self.parameters = [parameter for parameter in network.denoiser.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)
        loader = DataLoader(Pictures(examples, network), shuffle=True, batch_size=batch, drop_last=True)
        schedule = get_scheduler("constant", optimizer)
        prepared = self.accelerator.prepare(network.denoiser, optimizer, loader, schedule)
        self.unet, self.optimizer, self.loader, self.schedule = prepared
        self.batches, self.bar = self._endlessly(), tqdm(disable=True)

    def _endlessly(self) -> Iterator[dict[str, Tensor]]:
        yield from itertools.chain.from_iterable(itertools.repeat(self.loader))

    def advance(self) -> None:
        with self.accelerator.accumulate(self.unet):
            loss = self._loss(next(self.batches))
            self.accelerator.gather(loss.repeat(1)).mean().item()
            self.accelerator.backward(loss)
            if self.accelerator.sync_gradients:
                self.accelerator.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        self.bar.update(1)
        self.bar.set_postfix(step_loss=loss.detach().item(), lr=self.schedule.get_last_lr()[0])

    def _loss(self, batch: dict[str, Any]) -> Tensor:
        codes = self.vae.encode(batch["pixels"]).latent_dist.sample() * self.vae.config.scaling_factor
        noise = torch.randn_like(codes)
        times = torch.randint(0, self.noise.config.num_train_timesteps, (len(codes),), device=codes.device)
        noisy = self.noise.add_noise(codes, noise, times.long())
        states = self.text(batch["ids"], return_dict=False)[0]
        answer = self.unet(noisy, times, states, return_dict=False)[0]
        return F.mse_loss(answer.float(), noise.float(), reduction="mean")


def stepping(loop: ExampleLoop, count: int) -> Callable[[], None]:
    def steps() -> None:
        for _ in range(count):
            loop.advance()

    return steps
