"""Alignment and concealment of an illusion, as in Visual Anagrams (Geng, Park & Owens 2024, section 4.3)."""

from __future__ import annotations

from torch import Tensor


def alignment(similarities: Tensor) -> float:
    """A = min_i S_ii: the weakest view's CLIP similarity with its own prompt. S is N views x N prompts."""
    return similarities.diagonal().min().item()


def concealment(similarities: Tensor, temperature: float) -> float:
    """C = tr(softmax(S / tau)) / N, both directions averaged: 1 when each view reads as its own prompt alone."""
    scaled = similarities / temperature
    both = (scaled.softmax(0) + scaled.softmax(1)) / 2
    return both.diagonal().mean().item()


def score(similarities: Tensor, temperature: float) -> float:
    """What candidates are ranked by: alignment times concealment."""
    return max(alignment(similarities), 0.0) * concealment(similarities, temperature)
