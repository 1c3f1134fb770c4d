"""CLIP models as scorers: how like a picture and a text are, and features of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

# The mean and spread CLIP's pictures are normalised with (Radford et al. 2021); scorers of other makers name their own.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipScorer:
    """A transformers CLIPModel with its tokenizer; ``name`` is shown beside every number it gives."""

    def __init__(
        self, name: str, model: nn.Module, tokenizer: Any, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.name, self.model, self.tokenizer = name, model, tokenizer
        self._mean, self._std = tuple(mean), tuple(std)

    @property
    def modules(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    @property
    def temperature(self) -> float:
        """CLIP's softmax temperature tau = 1 / logit_scale."""
        return 1 / self.model.logit_scale.exp().item()

    def features(self, pictures: Tensor) -> Tensor:
        """Pictures in [-1, 1], N x 3 x H x W -> unit vectors, N x D."""
        side = self.model.config.vision_config.image_size
        x = F.interpolate(pictures.float(), (side, side), mode="bicubic", align_corners=False, antialias=True)
        mean, std = x.new_tensor(self._mean).view(3, 1, 1), x.new_tensor(self._std).view(3, 1, 1)
        pixels = ((x.clamp(-1, 1) + 1) / 2 - mean) / std
        found = self.model.get_image_features(pixel_values=pixels.to(self.model.device, self.model.dtype)).pooler_output
        return F.normalize(found.float(), dim=-1).cpu()

    def knows(self, text: str) -> bool:
        """Whether its tokenizer has a token of its own for every word."""
        tokens = self.tokenizer(text, add_special_tokens=False).input_ids
        return self.tokenizer.unk_token_id not in tokens

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """M prompts -> unit vectors, M x D."""
        tokens = self.tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        found = self.model.get_text_features(
            input_ids=tokens.input_ids.to(self.model.device), attention_mask=tokens.attention_mask.to(self.model.device)
        ).pooler_output
        return F.normalize(found.float(), dim=-1).cpu()

    def similarities(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """Cosine of every picture with every prompt, N x M."""
        return self.features(pictures) @ self.text_features(prompts).T
