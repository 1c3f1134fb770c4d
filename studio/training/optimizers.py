"""Optimisers by name, and their state as tensors and plain numbers, so that it is saved without pickles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from studio.training.request import TrainRequest

Groups = list[dict[str, Any]]


def make(request: TrainRequest, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    """The request's optimiser; text encoders learn in a group of their own. ``rate`` keeps each group's full rate."""
    text = {name: parameter for name, parameter in parameters.items() if name.startswith("text_encoder")}
    rest = [parameter for name, parameter in parameters.items() if name not in text]
    rates = (request.learning_rate, request.text_encoder_learning_rate or request.learning_rate)
    groups = [
        {"params": list(held), "lr": rate, "rate": rate}
        for held, rate in zip((rest, text.values()), rates, strict=True)
        if held
    ]
    return FACTORIES[request.optimizer](groups, request)


def state_of(optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by "<index>.<name>", and everything else as JSON values."""
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, held in state["state"].items():
        for name, value in held.items():
            (tensors if isinstance(value, Tensor) else numbers)[f"{index}.{name}"] = value
    return tensors, {"numbers": numbers, "groups": state["param_groups"]}


def restore(optimizer: Optimizer, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """The inverse of ``state_of``; the learning rates stay those of ``optimizer``."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *facts["numbers"].items()):
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    groups = [
        {**group, "rate": own["rate"]} for group, own in zip(facts["groups"], optimizer.param_groups, strict=True)
    ]
    for group in groups:  # JSON knows no tuples
        group.update({name: tuple(value) for name, value in group.items() if name != "params" and type(value) is list})
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _adamw(groups: Groups, request: TrainRequest) -> Optimizer:
    fused = all(parameter.device.type in ("cpu", "cuda") for group in groups for parameter in group["params"])
    return torch.optim.AdamW(groups, weight_decay=request.weight_decay, fused=fused)


def _adafactor(groups: Groups, request: TrainRequest) -> Optimizer:
    from transformers.optimization import Adafactor

    # With the learning rate that it is given: its own would grow with the weights, and half of an adapter's are zero.
    return Adafactor(
        groups, weight_decay=request.weight_decay, scale_parameter=False, relative_step=False, warmup_init=False
    )


def _prodigy(groups: Groups, request: TrainRequest) -> Optimizer:
    from prodigyopt import Prodigy

    return Prodigy(groups, weight_decay=request.weight_decay, use_bias_correction=True, safeguard_warmup=True)


def _adamw8bit(groups: Groups, request: TrainRequest) -> Optimizer:
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups, weight_decay=request.weight_decay)


FACTORIES: Mapping[str, Callable[[Groups, TrainRequest], Optimizer]] = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "prodigy": _prodigy,
    "adamw8bit": _adamw8bit,
}
