"""What a column's pictures are worth: how different they are, how well they fit the words, and what they cost.

Fidelity is read by a CLIP model and named so: PC-clip, SA-clip and CP-clip are no substitutes for the paper's prompt
correspondence, style adherence and character presence, which a vision-language model judges from 0 to 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.errors import shortened
from studio.guidance.cells import Cells, Spot
from studio.imaging import to_tensor
from studio.intervals import Estimate, diversity_estimate, estimate
from studio.models.clip import ClipScorer

CLIP_WEIGHT = 2.5  # Hessel et al. 2021, arXiv 2104.08718: brings the cosine to about 0 to 1
BATCH = 64
FIDELITIES: Mapping[str, str] = {
    "pc_clip": "PC-clip: 2.5 times the cosine of picture and prompt, at least 0 (CLIPScore, Hessel et al. 2021).",
    "sa_clip": "SA-clip: how much nearer the picture is to the prompt with the style's words than without (cosines).",
    "cp_clip": "CP-clip: 2.5 times the cosine of picture and the character's words, at least 0.",
}


@dataclass(frozen=True)
class Measured:
    """One column. ``diversity`` is None for a single seed; ``fidelity`` by the names of ``FIDELITIES``.

    ``products`` are diversity times each fidelity; evaluations and seconds are of one picture, on average.
    """

    pictures: int
    diversity: Estimate | None
    fidelity: Mapping[str, Estimate]
    evaluations: float
    seconds: float

    @property
    def products(self) -> dict[str, float]:
        """Div-PC-clip and so on, as the paper multiplies them; never instead of the two themselves."""
        spread = self.diversity
        return {} if spread is None else {name: spread.value * found.value for name, found in self.fidelity.items()}


class Reader:
    """One extractor and one comparison's words."""

    def __init__(self, scorer: ClipScorer, prompts: Sequence[str], style: str = "", character: str = "") -> None:
        self.scorer = scorer
        with torch.inference_mode():
            self.prompts = scorer.text_features(prompts)
            self.style = scorer.text_features([f"{prompt}, {style}" for prompt in prompts]) if style else None
            self.character = scorer.text_features([character])[0] if character else None

    def features(self, pictures: Sequence[Image.Image]) -> Tensor:
        """N x D unit vectors, from the pictures as they are kept (8 bits), so that a resumed run measures the same."""
        with torch.inference_mode():
            parts = [torch.stack([to_tensor(picture) for picture in part]) for part in _parts(pictures)]
            return torch.cat([self.scorer.features(part) for part in parts])

    def fidelity(self, features: Tensor, prompt: int) -> dict[str, list[float]]:
        """Of each picture (N x D) of one prompt, by name."""
        own = features @ self.prompts[prompt]
        found = {"pc_clip": CLIP_WEIGHT * own.clamp(min=0)}
        if self.style is not None:
            found["sa_clip"] = features @ self.style[prompt] - own
        if self.character is not None:
            found["cp_clip"] = CLIP_WEIGHT * (features @ self.character).clamp(min=0)
        return {name: values.tolist() for name, values in found.items()}


def strange(scorer: ClipScorer, words: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each of ``words`` (style, character) that the extractor cannot read and so cannot measure."""
    return tuple(
        f"{scorer.name} does not know all words of the {name} {shortened(text)!r}: {title} says nothing of it."
        for (name, text), title in zip(words.items(), ("SA-clip", "CP-clip"), strict=True)
        if text and not scorer.knows(text)
    )


def measured(cells: Cells, reader: Reader, column: int) -> Measured | None:
    """One column's figures over what is drawn of it; None where nothing is."""
    spots = sorted((spot for spot in cells if spot.column == column), key=_order)
    if not spots:
        return None
    by_prompt: dict[int, list[Spot]] = {}
    for spot in spots:
        by_prompt.setdefault(spot.prompt, []).append(spot)
    groups, fidelity = [], dict[str, list[float]]()
    for prompt, own in by_prompt.items():
        features = reader.features([cells[spot].picture for spot in own])
        groups.append(features.double().numpy())
        for name, values in reader.fidelity(features, prompt).items():
            fidelity.setdefault(name, []).extend(values)
    wide = [group for group in groups if len(group) > 1]
    return Measured(
        pictures=len(spots),
        diversity=diversity_estimate(wide) if wide else None,
        fidelity={name: estimate(values) for name, values in fidelity.items()},
        evaluations=float(np.mean([cells[spot].evaluations for spot in spots])),
        seconds=float(np.mean([cells[spot].seconds for spot in spots])),
    )


def _order(spot: Spot) -> tuple[int, int]:
    return spot.prompt, spot.seed


def _parts(pictures: Sequence[Image.Image]) -> list[Sequence[Image.Image]]:
    return [pictures[first : first + BATCH] for first in range(0, len(pictures), BATCH)]
