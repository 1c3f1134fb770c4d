"""Which LoRA adapters a view's prompt is drawn with, and whether the model can carry them.

A view that wears several adapters is drawn with their sum, the joint model of the poster "Multi-Adapter joint
fine-tuning of Diffusion Models with LoRA for Visual Illusions" (Kheiri, Liu & Lin):

    W_final = alpha * W_adapter1 + beta * W_adapter2

where each W_adapter is the change B A that a LoRA makes to a layer's own weight W_0, and alpha and beta are the scales:
the layer computes with W_0 + alpha B_1 A_1 + beta B_2 A_2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Protocol

from studio.errors import nearest, shortened

NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")

Worn = tuple[tuple[str, float], ...]
"""The adapters of one view with their scales, in the order of their names, none of them zero."""


class Adapted(Protocol):
    """What is looked at here of a request."""

    model: str
    views: tuple[str, ...]
    adapters: dict[str, str]
    view_adapters: tuple[dict[str, float], ...]
    adapter_study: bool


def worn(request: Adapted) -> tuple[Worn, ...]:
    """What each view wears: as asked, one entry for all views, or every adapter at 1 where nothing is said."""
    asked = request.view_adapters or (dict.fromkeys(request.adapters, 1.0),)
    asked = asked * len(request.views) if len(asked) == 1 else asked
    return tuple(in_order(scales) for scales in asked)


def in_order(scales: Mapping[str, float]) -> Worn:
    """Scales as ``Worn``: what is equal is written equally, so that equal rows are evaluated once."""
    return tuple(sorted((name, scale) for name, scale in scales.items() if scale))


def problem(request: Adapted) -> str:
    """What is wrong with the names and the number of entries, with its field and the fix, or ""."""
    named, asked, views = request.adapters, request.view_adapters, len(request.views)
    odd = next((name for name in named if not NAME.fullmatch(name)), None)
    if odd is not None:
        return f"adapters: {shortened(odd)!r} is no name for an adapter; use up to 32 letters, digits, - and _"
    if len(asked) not in (0, 1, views):
        return (
            f"view_adapters: {len(asked)} entries for {views} views; give each view exactly one, or one for all of them"
        )
    for index, scales in enumerate(asked):
        for name in scales:
            if name not in named:
                return f"view_adapters.{index}: {_unnamed(name, named)}"
    idle = [name for name in named if asked and not any(name in scales for scales in asked)]
    if idle:
        return f"adapters: no view wears {idle[0]!r}; give it a scale in view_adapters or leave it out"
    if request.adapter_study and not named:
        return "adapter_study: there is no adapter to study; name one in adapters"
    return ""


def _unnamed(name: str, named: Sequence[str] | Mapping[str, str]) -> str:
    if not named:
        return f"there is no adapter {shortened(name)!r}; name its file in adapters"
    near = nearest(name, named)
    return f"there is no adapter {shortened(name)!r}; " + (
        f"did you mean {near!r}?" if near else f"choose one of {', '.join(named)}"
    )
