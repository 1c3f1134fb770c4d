"""Adapters put into a network to learn, by PEFT, and taken out again so that the network is as it was, bit for bit."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import (
    BOFTConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from studio.errors import RequestError
from studio.models.networks import Network
from studio.training.kinds import Layers
from studio.training.preflight import kind_of, options_of
from studio.training.request import TrainRequest

NAME = "default"  # what PEFT calls the adapter; diffusers writes the settings of this one only
TEXT_PARTS = ("text_encoder", "text_encoder_2")  # CLIP's; T5 is never trained

# Layers -> what their names look like inside a denoiser's blocks.
IN_UNET: Mapping[Layers, str] = {
    "attention": r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)",
    "cross_attention": r".*\.attn2\.(to_k|to_v)",
    "linear": r"(down_blocks|mid_block|up_blocks)\..*",
    "all": r"(down_blocks|mid_block|up_blocks)\..*",
}
IN_TRANSFORMER: Mapping[Layers, str] = {
    "attention": r".*\.attn2?\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)",
    "cross_attention": r".*\.attn\.(add_k_proj|add_v_proj)",
    "linear": r"transformer_blocks\..*",
    "all": r"transformer_blocks\..*",
}
IN_TEXT: Mapping[Layers, str] = {
    "attention": r".*\.self_attn\.(q_proj|k_proj|v_proj|out_proj)",
    "cross_attention": r".*\.self_attn\.(q_proj|k_proj|v_proj|out_proj)",
    "linear": r"(text_model\.)?encoder\.layers\..*",
    "all": r"(text_model\.)?encoder\.layers\..*",
}


@dataclass
class Learner:
    """The parts of a network that carry the adapter, or several of one kind, and PEFT's settings for each part.

    ``scales``: which of several adapters are in the network at the moment; {} where there is one.
    """

    parts: Mapping[str, nn.Module]
    configs: Mapping[str, PeftConfig]
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What learns, by "<part>.<name>", in an order that never changes."""
        return {
            f"{part}.{name}": parameter
            for part, module in self.parts.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        }

    def layers(self, part: str) -> dict[str, BaseTunerLayer]:
        """The adapted layers of a part, by the name that the layer itself has."""
        return adapted(self.parts[part])

    def state(self, part: str, name: str = NAME) -> dict[str, Tensor]:
        """The adapter's tensors by PEFT's names."""
        return get_peft_model_state_dict(self.parts[part], adapter_name=name)

    def load(self, part: str, state: Mapping[str, Tensor]) -> None:
        """Put an adapter of the same settings in the place of what was learned so far."""
        set_peft_model_state_dict(self.parts[part], dict(state), adapter_name=NAME)

    def wear(self, scales: Mapping[str, float]) -> None:
        """Of several adapters only these, at these scales, are in the network from now on, and only they learn."""
        if not scales or scales == self.scales:
            return
        for part in self.parts:
            for layer in self.layers(part).values():
                layer.set_adapter(list(scales))
                for name, scale in scales.items():
                    layer.set_scale(name, scale)
        self.scales = dict(scales)

    @contextmanager
    def wearing(self, scales: Mapping[str, float]) -> Iterator[None]:
        """The same until the block ends."""
        before = self.scales
        self.wear(scales)
        try:
            yield
        finally:
            self.wear(before)


def adapted(module: nn.Module) -> dict[str, BaseTunerLayer]:
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, BaseTunerLayer)}


@contextmanager
def injected(network: Network, request: TrainRequest, names: Sequence[str] = (NAME,)) -> Iterator[Learner]:
    """A fresh adapter in the network, drawn from the request's seed; its numbers are float32 whatever the network's.

    Of several ``names`` each has the next seed, and all are in the network at a scale of 1. Raises RequestError where
    the network has no such layers. What is injected changes no output yet.
    """
    parts = learning_parts(network, request)
    targets = {part: target_names(part, module, request) for part, module in parts.items()}
    configs: dict[str, PeftConfig] = {}
    with uncompiled(network), _removing(parts):
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT tells of block sizes that it cuts to a divisor
            plain = {part: config_for(request, targets[part], module) for part, module in parts.items()}
            for index, name in enumerate(names):
                torch.manual_seed((request.seed + index) % 2**32)
                for part, module in parts.items():
                    config = copy.deepcopy(plain[part])  # PEFT changes what it is given
                    configs.setdefault(part, config)
                    inject_adapter_in_model(config, module, adapter_name=name)
        learner = Learner(parts, configs)
        if len(names) > 1:
            learner.wear(dict.fromkeys(names, 1.0))
        for parameter in learner.parameters.values():
            parameter.data = parameter.data.float()
        yield learner


@contextmanager
def _removing(parts: Mapping[str, nn.Module]) -> Iterator[None]:
    try:
        yield
    finally:
        for module in parts.values():
            removed(module)


@contextmanager
def uncompiled(network: Network) -> Iterator[None]:
    """The denoiser as it is: compiled, it would pass by what is put into it."""
    compiled, network.compiled = network.compiled, None
    if compiled is not None:
        network.denoiser.forward = compiled.plain
    try:
        yield
    finally:
        network.compiled = compiled
        if compiled is not None:
            network.denoiser.forward = compiled


def learning_parts(network: Network, request: TrainRequest) -> dict[str, nn.Module]:
    """The denoiser, and the CLIP text encoders where they are trained too."""
    names = [name for name, part in network.parts.items() if part is network.denoiser]
    if request.text_encoder:
        names += [name for name in TEXT_PARTS if name in network.parts]
    return {name: network.parts[name] for name in names}


def target_names(part: str, module: nn.Module, request: TrainRequest) -> list[str]:
    """The layers of a part that learn, by name."""
    table = IN_TEXT if part in TEXT_PARTS else IN_UNET if part == "unet" else IN_TRANSFORMER
    kinds: tuple[type, ...] = (nn.Linear, nn.Conv2d) if request.targets == "all" else (nn.Linear,)
    found = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, kinds) and re.fullmatch(table[request.targets], name)
    ]
    if not found:
        raise RequestError(
            f"targets: {part} has no such layers ({request.targets}); choose attention.", field="targets"
        )
    return found


def removed(module: nn.Module) -> None:
    """Every adapted layer's own layer in its place again."""
    for name, layer in adapted(module).items():
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, layer.get_base_layer())
    vars(module).pop("peft_config", None)


def config_for(request: TrainRequest, targets: list[str], module: nn.Module) -> PeftConfig:
    """PEFT's settings for the request's kind."""
    options = options_of(request)
    settings: dict[str, Any] = {"target_modules": targets}
    if kind_of(request).ranked:
        settings |= {"r": request.rank, "lora_alpha" if request.adapter in LORA_KINDS else "alpha": request.scale}
    if request.adapter == "locon":
        spatial = [name for name in targets if _is_spatial(module.get_submodule(name))]
        settings |= {
            "rank_pattern": {f"^{re.escape(name)}$": options.conv_rank for name in spatial},
            "alpha_pattern": {f"^{re.escape(name)}$": options.conv_alpha for name in spatial},
        }
    return CONFIGS[request.adapter](settings, options)


LORA_KINDS = ("lora", "rslora", "dora", "locon")
CONFIGS: Mapping[str, Callable[[dict[str, Any], Any], PeftConfig]] = {
    "lora": lambda settings, options: LoraConfig(**settings),
    "rslora": lambda settings, options: LoraConfig(**settings, use_rslora=True),
    "dora": lambda settings, options: LoraConfig(**settings, use_dora=True),
    "locon": lambda settings, options: LoraConfig(**settings),
    "loha": lambda settings, options: LoHaConfig(**settings, use_effective_conv2d=True),
    "lokr": lambda settings, options: LoKrConfig(
        **settings, use_effective_conv2d=True, decompose_factor=options.factor
    ),
    # Exactly orthogonal: PEFT's quicker series for the Cayley transform drifts by a per cent as it learns.
    "oft": lambda settings, options: OFTConfig(
        **settings, r=0, oft_block_size=options.block_size, use_cayley_neumann=False
    ),
    "boft": lambda settings, options: BOFTConfig(
        **settings, boft_block_size=options.block_size, boft_n_butterfly_factor=options.factors
    ),
}


def _is_spatial(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
