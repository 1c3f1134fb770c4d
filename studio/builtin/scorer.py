"""Training of the built-in scorer: a small CLIP on the same world, with its own seeds and a rougher augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, PreTrainedTokenizerFast

from studio.builtin.autoencoder import to_signed
from studio.builtin.loop import Schedule, Trainer
from studio.builtin.words import build_tokenizer, text_config
from studio.builtin.world import COLOURS, SIZE, Thing, Wobble, caption, load_things, render, vocabulary

ROUGH = Wobble(shift=0.045, scale=(0.75, 0.98), tilt=7.0)

REDRAWN_AFTER = 200  # steps


def build(words: int) -> CLIPModel:
    """A CLIPModel over 128 px pictures in patches of 16, 128 shared dimensions."""
    vision = CLIPVisionConfig(
        image_size=SIZE, patch_size=16, hidden_size=192, intermediate_size=576, num_hidden_layers=5,
        num_attention_heads=4, projection_dim=128,
    )  # fmt: skip
    text = text_config(words, width=128, layers=2)
    return CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=128))


class Loss:
    """Symmetric contrastive loss (CLIP, Radford et al. 2021) over a batch of different things."""

    def __init__(
        self, net: CLIPModel, tokenizer: PreTrainedTokenizerFast, per_thing: int, batch: int, seed: int
    ) -> None:
        self.net, self.tokenizer, self.batch, self.seed = net, tokenizer, batch, seed
        self.per_thing, self.things, self.colours = per_thing, load_things(), list(COLOURS)
        self.pool, self.colour = torch.empty(0), np.empty(0)

    def __call__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, step))
        if not len(self.pool) or step % REDRAWN_AFTER == 0:
            self._redraw(step // REDRAWN_AFTER)
        things = rng.permutation(len(self.things))[: self.batch]
        takes = rng.integers(len(self.pool), size=self.batch)
        pictures = roughened(to_signed(self.pool[takes, things]), torch.Generator().manual_seed(step))
        pictures = pictures.roll(tuple(rng.integers(-6, 7, 2).tolist()), (2, 3))
        texts = [
            caption(self.things[t], self.colours[self.colour[k, t]] if rng.random() < 0.4 else None, rng)
            for k, t in zip(takes, things, strict=True)
        ]
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        device = self.net.device
        logits = self.net(
            input_ids=tokens.input_ids.to(device),
            attention_mask=tokens.attention_mask.to(device),
            pixel_values=pictures.to(device),
        ).logits_per_image
        target = torch.arange(self.batch, device=device)
        return {"image": F.cross_entropy(logits, target) / 2, "text": F.cross_entropy(logits.T, target) / 2}

    def _redraw(self, generation: int) -> None:
        """Draw every thing ``per_thing`` times anew: a small network soon knows a pool by heart."""
        rng = np.random.default_rng((self.seed, generation, 1))
        self.colour = rng.integers(len(self.colours), size=(self.per_thing, len(self.things)))
        drawn = [[self._draw(t, c, rng) for t, c in zip(self.things, row, strict=True)] for row in self.colour]
        self.pool = torch.from_numpy(np.array(drawn)).permute(0, 1, 4, 2, 3)

    def _draw(self, thing: Thing, colour: int, rng: np.random.Generator) -> np.ndarray:
        return np.asarray(render(thing, rng, self.colours[colour], ROUGH))


def roughened(x: Tensor, rng: torch.Generator) -> Tensor:
    """Half of the pictures softened (as a decoder softens), all with a little noise and a change of contrast."""
    softened = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False)
    x = torch.where(torch.rand(len(x), 1, 1, 1, generator=rng) < 0.5, softened, x)
    contrast = 0.8 + 0.4 * torch.rand(len(x), 1, 1, 1, generator=rng)
    strength = 0.1 * torch.rand(len(x), 1, 1, 1, generator=rng)
    return (x * contrast + strength * torch.randn(x.shape, generator=rng)).clamp(-1, 1)


def train(
    schedule: Schedule, folder: Path, *, batch: int, per_thing: int, seed: int = 77, start: Path | None = None
) -> tuple[CLIPModel, PreTrainedTokenizerFast]:
    """Train (or go on training) the scorer; returns it with averaged weights, and its tokenizer."""
    torch.manual_seed(seed)
    words = vocabulary(load_things())
    net, tokenizer = build(len(words)), build_tokenizer(words)
    if start is not None:
        net.load_state_dict(CLIPModel.from_pretrained(start, dtype=torch.float32).state_dict())
    net.to("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(net.train(), schedule, folder)
    trainer.run(Loss(net, tokenizer, per_thing, batch, seed))
    return trainer.averaged().eval(), tokenizer


def ranked_right(similarities: Tensor, labels: Tensor) -> tuple[float, float]:
    """Shares of the rows (N x M) whose right column ranks first, and among the first five."""
    rank = (similarities > similarities.gather(1, labels[:, None])).sum(1)
    return (rank == 0).float().mean().item(), (rank < 5).float().mean().item()
