"""LoRA files: what lies in one and whether a network can carry it, both from headers alone; then its tensors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from studio.errors import ModelFileError, ModelNotFoundError
from studio.models.deltas import KINDS, kind_of
from studio.models.files import read_header, read_header_and_notes
from studio.models.lora_names import Shapes, find, flattened, index

FOLDER_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")

# How the key of a tensor may end, and what the tensor then is to its module.
ROLES: tuple[tuple[str, str], ...] = (
    (r"(\.lora_A(\.default)?|\.lora_down|[._]lora\.down|\.lora_linear_layer\.down)\.weight", "down"),
    (r"(\.lora_B(\.default)?|\.lora_up|[._]lora\.up|\.lora_linear_layer\.up)\.weight", "up"),
    (r"\.lora_mid\.weight", "mid"),
    (r"\.lora_magnitude_vector(\.default)?(\.weight)?", "magnitude"),
    (r"\.dora_scale", "dora_scale"),
    (r"\.alpha", "alpha"),
    (r"\.diff", "diff"),
    (r"\.diff_b", "diff_b"),
    *((rf"\.{name}(\.default)?", name) for name in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")),
    *((rf"\.{name}(\.default)?", name) for name in ("hada_t1", "hada_t2", "lokr_w1", "lokr_w2", "lokr_t2")),
    *((rf"\.{name}(\.default)?", name) for name in ("lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b")),
)
SETTINGS = ("lora_alpha", "alpha", "alpha_pattern", "use_rslora", "peft_type", "r", "rank_pattern")  # PEFT's names
NOT_CARRIED = (
    (r"oft_", "an OFT or BOFT adapter"),
    (r"\.on_input$|\.ia3_", "an (IA)^3 adapter"),
    (r"\.a1\.weight$|\.b1\.weight$", "a GLoRA adapter"),
    (r"\.w_norm$|\.b_norm$", "an adapter of normalisation layers"),
    (r"\.lora_[AB](\.default)?\.bias$", "a LoRA with biases"),
    (r"vera_lambda|\.hra_u", "an adapter"),
)
OTHER_FILES = (
    (r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.", "a whole checkpoint"),
    (r"^control_model\.|^controlnet_|^control_", "a ControlNet"),
    (r"^(down_blocks|mid_block|up_blocks)\.|^joint_blocks\.|^transformer_blocks\.", "a whole denoising network"),
    (r"^(encoder|decoder)\.(conv_in|mid)", "an autoencoder"),
    (r"text_model\.|^encoder\.layers?\.", "a text encoder"),
    (r"^(emb_params|clip_[lg]|string_to_param|<.*>)", "a textual inversion embedding"),
)
NEEDED = "a LoRA (also LoCon, DoRA, LoHa, LoKr) in a .safetensors file is needed"

# The width of the texts that a denoiser attends to tells its family.
FAMILIES: Mapping[int, str] = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}


@dataclass(frozen=True)
class Piece:
    """One module's change as a file holds it: its tensors' keys and shapes by role."""

    name: str
    kind: str
    keys: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LoraFile:
    """A LoRA known from its header alone."""

    path: Path
    pieces: tuple[Piece, ...]
    settings: Mapping[str, Any]  # what PEFT wrote beside the tensors: alpha, patterns, use_rslora

    @property
    def kinds(self) -> tuple[str, ...]:
        """Titles of the kinds in the file, "LoRA" or "DoRA (LoRA)" and so on, each once."""
        titles = {KINDS[piece.kind].title: _has_magnitude(piece) for piece in self.pieces}
        return tuple(f"DoRA ({title})" if dora else title for title, dora in titles.items())

    @property
    def family(self) -> str:
        reads = ("down", "hada_w1_b")
        return family_of(
            {
                flattened(piece.name): next((piece.shapes[role] for role in reads if role in piece.shapes), ())
                for piece in self.pieces
            }
        )


@dataclass(frozen=True)
class Target:
    """A piece and the module it changes; ``share`` (i, n): the i-th of n modules that the file holds stacked."""

    piece: Piece
    part: str
    module: str
    share: tuple[int, int] = (0, 1)


def read_lora(path: Path) -> LoraFile:
    """What the file at ``path`` (or in a folder that diffusers or PEFT saved) holds; nothing but its header is read.

    Raises ModelNotFoundError, or ModelFileError that says what the file is instead.
    """
    path = _file_at(path)
    try:
        header, notes = read_header_and_notes(path)
    except ModelFileError as error:
        raise ModelFileError(str(error), field="adapters") from error
    grouped: dict[str, dict[str, str]] = {}
    foreign = []
    for key in header:
        if split := _split(key):
            grouped.setdefault(split[0], {})[split[1]] = key
        else:
            foreign.append(key)
    if foreign and grouped and not any(re.search(pattern, key) for pattern, _ in NOT_CARRIED for key in foreign):
        raise ModelFileError(
            f"{path.name} is a LoRA that also holds {foreign[0]!r}, which cannot be attached: {NEEDED}.",
            field="adapters",
        )
    if foreign or not grouped:
        raise ModelFileError(f"{path.name} is {_what(foreign)}, not a LoRA: {NEEDED}.", field="adapters")
    pieces = tuple(_piece(path, name, keys, header) for name, keys in grouped.items())
    return LoraFile(path, pieces, _settings(path, notes))


def shapes_of(parts: Mapping[str, nn.Module]) -> Shapes:
    """The weights that adapters can change in loaded modules."""
    return {
        part: {
            name: tuple(module.weight.shape)
            for name, module in whole.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d)
        }
        for part, whole in parts.items()
    }


def shapes_in(folder: Path) -> Shapes:
    """The same of a diffusers folder, from its headers alone."""
    parts = [*folder.glob("unet"), *folder.glob("transformer"), *folder.glob("text_encoder*")]
    return {
        part.name: {
            key.removesuffix(".weight"): tuple(entry["shape"])
            for path in sorted(part.glob("*.safetensors"))
            for key, entry in read_header(path).items()
            if key.endswith(".weight") and len(entry["shape"]) in (2, 4)
        }
        for part in parts
    }


def match(file: LoraFile, shapes: Shapes, model: str) -> tuple[Target, ...]:
    """Where each piece goes in a network; raises ModelFileError when one has no place or another shape there."""
    names = index(shapes)
    targets: list[Target] = []
    for piece in file.pieces:
        found = find(piece.name, names)
        if found is None:
            raise _misfit(file, shapes, model, f"{model} has no {piece.name!r}")
        part, modules = found
        wholes = [shapes[part][module] for module in modules]
        if problem := _wrong_shape(piece, wholes):
            raise _misfit(file, shapes, model, problem)
        targets += [Target(piece, part, module, (i, len(modules))) for i, module in enumerate(modules)]
    return tuple(targets)


def load(file: LoraFile, targets: Sequence[Target]) -> list[dict[str, Tensor]]:
    """Each target's tensors by role, float32 on the CPU, with ``alpha`` a float tensor wherever one is known."""
    with safe_open(file.path, framework="pt") as opened:
        read = {
            piece.name: {role: _finite(file, key, opened.get_tensor(key)) for role, key in piece.keys.items()}
            for piece in file.pieces
        }
    return [_of_target(file, target, read[target.piece.name]) for target in targets]


def scaling(kind: str, tensors: Mapping[str, Tensor]) -> float:
    """alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRAs (Kalajdzievski 2023); 1 without alpha."""
    rank = KINDS[kind].rank(tensors)
    if rank is None or "alpha" not in tensors:
        return 1.0
    return float(tensors["alpha"]) / (math.sqrt(rank) if "rslora" in tensors else rank)


def family_of(widths: Mapping[str, Sequence[int]]) -> str:
    """The family that flattened module names and the shapes of what reads their input belong to."""
    if any("single_" in name or "double_blocks" in name for name in widths):
        return "FLUX"
    if any("joint_blocks" in name or re.search(r"^(\w*?_)?transformer_blocks_\d+_attn_", name) for name in widths):
        return "SD 3"
    across = {shape[1] for name, shape in widths.items() if "attn2_to_k" in name and len(shape) > 1}
    if any(name.startswith(("lora_te2_", "text_encoder_2_")) for name in widths):
        return "SDXL"
    if len(across) == 1:
        width = across.pop()
        return FAMILIES.get(width, f"a network that reads texts {width} wide")
    return "a network of unknown family"


def _file_at(path: Path) -> Path:
    if path.is_dir():
        path = next((path / name for name in FOLDER_FILES if (path / name).is_file()), path)
    if not path.is_file():
        what = "holds no " + " or ".join(FOLDER_FILES) if path.is_dir() else "does not exist"
        raise ModelNotFoundError(f"{path} {what}: {NEEDED}.", field="adapters")
    return path


def _split(key: str) -> tuple[str, str] | None:
    """(module as the file names it, role), None for a key that no carried kind has."""
    for pattern, role in ROLES:
        if found := re.fullmatch(f"(.+?){pattern}", key):
            return found[1], role
    return None


def _what(keys: Sequence[str]) -> str:
    for pattern, title in (*NOT_CARRIED, *OTHER_FILES):
        if any(re.search(pattern, key) for key in keys):
            return title
    return f"something else (it holds {keys[0]!r})" if keys else "empty"


def _piece(path: Path, name: str, keys: Mapping[str, str], header: Mapping[str, Any]) -> Piece:
    kind = kind_of(list(keys)) or ("full" if "diff_b" in keys else None)
    if kind is None:
        held = ", ".join(sorted(keys.values()))
        raise ModelFileError(
            f"{path.name} is an incomplete LoRA: of {name!r} it holds only {held}; download or export it again.",
            field="adapters",
        )
    return Piece(name, kind, keys, {role: tuple(header[key]["shape"]) for role, key in keys.items()})


def _settings(path: Path, notes: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's configuration: in the header as diffusers writes it, or beside the file as PEFT does."""
    text = notes.get("lora_adapter_metadata", "")
    beside = path.with_name("adapter_config.json")
    if not text and path.name == FOLDER_FILES[1] and beside.is_file():
        text = beside.read_text(encoding="utf-8")
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            f"The settings of {path.name} are not readable JSON ({error}): export it again.", field="adapters"
        ) from error
    return found if isinstance(found, dict) else {}


def _has_magnitude(piece: Piece) -> bool:
    return "magnitude" in piece.keys or "dora_scale" in piece.keys


def _wrong_shape(piece: Piece, wholes: Sequence[tuple[int, ...]]) -> str:
    """What does not fit when the piece's tensors are put together, or "". No number is read for this."""
    outputs, inner = sum(shape[0] for shape in wholes), wholes[0][1:]
    if len(wholes) > 1 and (piece.kind != "lora" or _has_magnitude(piece) or len({*wholes}) > 1):
        return f"{piece.name!r} stacks {len(wholes)} layers, which only a plain LoRA can"
    if "diff_b" in piece.shapes and piece.shapes["diff_b"] != (outputs,):
        return f"{piece.keys['diff_b']!r} is {_by(piece.shapes['diff_b'])} where {outputs} are needed"
    if piece.keys.keys() <= {"diff_b", "alpha"}:
        return ""
    held = {role: torch.empty(shape, device="meta") for role, shape in piece.shapes.items()}
    try:
        made = tuple(KINDS[piece.kind].change(held).shape)
    except (RuntimeError, ValueError, IndexError):
        return f"the tensors of {piece.name!r} do not fit one another"
    if made[0] == outputs and math.prod(made) == outputs * math.prod(inner):
        return "" if _magnitude_fits(piece, outputs, inner) else f"the magnitude of {piece.name!r} has another length"
    return f"{piece.name!r} changes a weight of {_by(made)} where {model_weight(outputs, inner)}"


def _magnitude_fits(piece: Piece, outputs: int, inner: Sequence[int]) -> bool:
    """PEFT's magnitude has one number per output; LyCORIS's per output (first dimension) or per input (second)."""
    scale = piece.shapes.get("dora_scale", (outputs,))
    whole = math.prod(scale)
    good = whole == outputs == scale[0] or (whole == inner[0] and scale[:2] == (1, inner[0]))
    return good and math.prod(piece.shapes.get("magnitude", (outputs,))) == outputs


def model_weight(outputs: int, inner: Sequence[int]) -> str:
    return f"the model's is {_by((outputs, *inner))}"


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _misfit(file: LoraFile, shapes: Shapes, model: str, problem: str) -> ModelFileError:
    theirs = family_of({flattened(name): shape for part in shapes.values() for name, shape in part.items()})
    return ModelFileError(
        f"{file.path.name} is a LoRA for {file.family}, but {model} is {theirs} ({problem}): "
        f"choose a LoRA that was made for {theirs if theirs in (*FAMILIES.values(), 'SD 3') else 'this network'}.",
        field="adapters",
    )


def _finite(file: LoraFile, key: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise ModelFileError(
            f"{file.path.name} is damaged: {key!r} holds values that are not finite; download or train it again.",
            field="adapters",
        )
    return tensor.float()


def _of_target(file: LoraFile, target: Target, read: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = dict(read)
    i, parts = target.share
    if parts > 1:
        tensors["up"] = tensors["up"].chunk(parts)[i]
    said = {name: file.settings.get(f"{target.part}.{name}", file.settings.get(name)) for name in SETTINGS}
    alpha = said["lora_alpha"] if said["lora_alpha"] is not None else said["alpha"]
    alpha = _by_pattern(said["alpha_pattern"], target.module, alpha)
    if alpha is not None and "alpha" not in tensors:
        tensors["alpha"] = torch.tensor(float(alpha))
    if said["peft_type"] == "LOKR":  # PEFT divides by the rank it was given even where no factor has it
        tensors["rank"] = torch.tensor(_by_pattern(said["rank_pattern"], target.module, said["r"]))
    if said["use_rslora"]:
        tensors["rslora"] = torch.tensor(True)
    return tensors


def _by_pattern(patterns: Mapping[str, Any] | None, module: str, otherwise: Any) -> Any:
    """What PEFT's patterns say of a module, matched as PEFT does."""
    found = (value for pattern, value in (patterns or {}).items() if re.fullmatch(rf"(.*\.)?({pattern})", module))
    return next(found, otherwise)
