"""A learned adapter as files: in kohya's names for A1111, ComfyUI and this studio, and as diffusers or PEFT save it.

Alpha stands beside every layer in kohya's names and in the header in diffusers', so that no reader has to guess it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor

from studio.models.lora_names import kohya_name
from studio.models.streams import Writer, order
from studio.training.injecting import LORA_KINDS, NAME, Learner
from studio.training.kinds import Kind
from studio.training.request import FilePrecision

Tensors = dict[str, Tensor]
FORMATS: Mapping[torch.dtype, str] = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
PRECISIONS: Mapping[FilePrecision, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
KRONECKER = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2")


@dataclass(frozen=True)
class Adapter:
    """A learned adapter, off its network: on the CPU, in float32 until it is ``rounded``.

    ``kohya`` by kohya's keys; ``parts``: part -> tensors by PEFT's keys, with PEFT's settings in ``configs``.
    """

    kind: Kind
    kohya: Tensors
    parts: Mapping[str, Tensors]
    configs: Mapping[str, PeftConfig]

    def rounded(self, precision: FilePrecision) -> Adapter:
        """The adapter as its files hold it. Alphas stay float32: a scale would be off in every layer alike."""
        dtype = PRECISIONS[precision]
        kohya = {key: value if key.endswith(".alpha") else value.to(dtype) for key, value in self.kohya.items()}
        parts = {part: {key: value.to(dtype) for key, value in held.items()} for part, held in self.parts.items()}
        return dataclasses.replace(self, kohya=kohya, parts=parts)

    def save(self, folder: Path, name: str, notes: Mapping[str, str]) -> dict[str, str]:
        """Write its files into ``folder``; their names there, by whose names are inside: kohya, diffusers, peft."""
        kohya = f"{name}.safetensors"
        self.save_kohya(folder / kohya, notes)
        if self.kind.low_rank:
            diffusers = f"{name}-diffusers.safetensors"
            self._save_diffusers(folder / diffusers, notes)
            return {"kohya": kohya, "diffusers": diffusers}
        self._save_peft(folder / f"{name}-peft")
        return {"kohya": kohya, "peft": f"{name}-peft"}

    def save_kohya(self, path: Path, notes: Mapping[str, str]) -> None:
        """What every tool reads."""
        write(path, self.kohya, notes)

    def _save_diffusers(self, path: Path, notes: Mapping[str, str]) -> None:
        """As diffusers' ``save_lora_weights`` does when it is given PEFT's settings, without which alpha is lost."""
        tensors = {_diffusers_key(part, key): value for part, held in self.parts.items() for key, value in held.items()}
        settings = {
            f"{part}.{name}": sorted(value) if isinstance(value, set) else value
            for part, config in self.configs.items()
            for name, value in config.to_dict().items()
        }
        text = json.dumps(settings, indent=2, sort_keys=True)
        write(path, tensors, {**notes, "lora_adapter_metadata": text})

    def _save_peft(self, folder: Path) -> None:
        """A folder for each part, as ``PeftModel.from_pretrained`` reads it."""
        for part, held in self.parts.items():
            (folder / part).mkdir(parents=True)
            self.configs[part].save_pretrained(folder / part)
            named = {f"base_model.model.{key}": value for key, value in held.items()}
            save_file(named, folder / part / "adapter_model.safetensors", metadata={"format": "pt"})


def write(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """One file, complete or not there, the same bytes for the same tensors; ``modelspec.hash_sha256`` is of those."""
    shapes = {key: (FORMATS[value.dtype], tuple(value.shape)) for key, value in tensors.items()}
    noted = {"format": "pt", **notes, "modelspec.hash_sha256": "0x" + "0" * 64}
    with Writer(path, {key: shapes[key] for key in order(shapes)}, noted) as out:
        for key in out.keys:
            out.write(tensors[key].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        out.annotate(noted | {"modelspec.hash_sha256": f"0x{out.data_sha256()}"})


def _diffusers_key(part: str, key: str) -> str:
    """transformers 5, which reads the text encoders' keys, does not find a DoRA's magnitude by the name PEFT saves."""
    longer = part.startswith("text_encoder") and key.endswith(".lora_magnitude_vector")
    return f"{part}.{key}.weight" if longer else f"{part}.{key}"


def taken(learner: Learner, kind: Kind, *, several_encoders: bool, name: str = NAME) -> Adapter:
    """The adapter as it is in the network at this moment, copied. ``several_encoders``: the model has more than one.

    ``name``: which of several LoRAs.
    """
    kohya: Tensors = {}
    with torch.no_grad():
        for part in learner.parts:
            for module, layer in learner.layers(part).items():
                stem = kohya_name(part, module, several_encoders)
                kohya |= {f"{stem}.{role}": _own(value) for role, value in _in_kohya(kind, layer, name).items()}
    parts = {part: {key: _own(value) for key, value in learner.state(part, name).items()} for part in learner.parts}
    return Adapter(kind, kohya, parts, {part: _loadable(config) for part, config in learner.configs.items()})


def _in_kohya(kind: Kind, layer: BaseTunerLayer, name: str) -> Tensors:
    """A layer's tensors by their roles in kohya's and LyCORIS's files."""
    if kind.name in LORA_KINDS:
        return _lora(layer, name)
    if kind.name == "loha":
        return dict(_held(layer, HADAMARD)) | {"alpha": _alpha(layer)}
    if kind.name == "lokr":
        return _lokr(layer)
    return {"diff": _difference(layer)}


def _lora(layer: BaseTunerLayer, name: str) -> Tensors:
    tensors = {
        "lora_down.weight": layer.lora_A[name].weight,
        "lora_up.weight": layer.lora_B[name].weight,
        "alpha": _alpha(layer, name),
    }
    if name in layer.lora_magnitude_vector:
        magnitude = layer.lora_magnitude_vector[name].weight
        weight = layer.get_base_layer().weight
        tensors["dora_scale"] = magnitude.reshape(-1, *[1] * (weight.dim() - 1))
    return tensors


def _lokr(layer: BaseTunerLayer) -> Tensors:
    """LyCORIS scales only what has a rank, PEFT everything: the scale of two whole factors goes into the first."""
    tensors = dict(_held(layer, KRONECKER))
    if {"lokr_w1", "lokr_w2"} <= tensors.keys():
        return tensors | {"lokr_w1": tensors["lokr_w1"] * layer.scaling[NAME]}
    return tensors | {"alpha": _alpha(layer)}


def _held(layer: BaseTunerLayer, names: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    """Those of PEFT's tables that hold something for the adapter."""
    tables = dict(layer.named_parameters())
    yield from ((name, tables[f"{name}.{NAME}"]) for name in names if f"{name}.{NAME}" in tables)


def _alpha(layer: BaseTunerLayer, name: str = NAME) -> Tensor:
    """What readers divide by the rank: with rank-stabilised LoRAs that is not the alpha that was asked for."""
    return torch.tensor(float(layer.scaling[name] * layer.r[name]))


def _difference(layer: BaseTunerLayer) -> Tensor:
    """What the adapter changes in the layer's weight, in float32, by PEFT's own merging of a copy."""
    twin = copy.deepcopy(layer).float()
    before = twin.get_base_layer().weight.detach().clone()
    twin.merge(safe_merge=True, adapter_names=[NAME])
    return twin.get_base_layer().weight - before


def _loadable(config: PeftConfig) -> PeftConfig:
    """For use, not for training on."""
    found = copy.deepcopy(config)
    found.inference_mode = True
    return found


def _own(value: Tensor) -> Tensor:
    return value.detach().float().cpu().contiguous().clone()
