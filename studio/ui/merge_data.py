"""Between a merge's data and what its form's controls hold; no components here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.merging.catalogue import METHODS, Method, Options
from studio.merging.request import MergeRequest
from studio.merging.trials_request import SearchRequest
from studio.requests import defaults
from studio.ui.fields import lines, listed, parts
from studio.ui.fields import written as written_number

SLOTS = 3  # checkpoints with a field of their own; others stand together in one
MOST_ALPHAS = 9
PARTS = ("unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae", "other", "ema")
USUAL = {"vae": "a", "other": "a", "ema": "none"}
"""What becomes of a part that a request does not name; the others are merged."""
OPTIONS = tuple(dict.fromkeys(name for method in METHODS.values() for name in method.options.model_fields))
PLAIN = ("method", "alpha", "curve", "precision", "names", "seed", "title", "target", "overwrite", "accept_nonfinite")
DRAWN = ("negative_prompt", "steps", "guidance_scale", "scorer")
SEARCHED = ("over", "strategy", "trials", "seeds", "low", "high")
ZIPPED = {"zip_prompts": "prompts", "zip_steps": "steps", "learning_rate": "learning_rate", "similarity": "similarity"}
"""What ZipLoRA learns with: control -> field of the merge. Previews have prompts and steps of their own."""
UNUSED = ("method", "alpha", "curve")
"""What only a merge of checkpoints has: a LoRA's recipe does not hold what was chosen for another task."""


def method_of(named: Mapping[str, Any]) -> Method:
    """The chosen method; of a stored or raw value that is none, the first."""
    return METHODS.get(str(named.get("method")), next(iter(METHODS.values())))


def slots(named: Mapping[str, Any]) -> int:
    """How many checkpoints the task and the method can take."""
    task = named.get("task") or "checkpoints"
    return {"checkpoints": method_of(named).models[1], "bake": 1, "extract": 2, "join": int(zips(named))}.get(task, 2)


def zips(named: Mapping[str, Any]) -> bool:
    """Whether LoRAs are to be joined by ZipLoRA, which learns on a checkpoint."""
    return named.get("task") == "join" and named.get("join") == "zip"


def limits_of(record: type[Options], name: str) -> tuple[float, float]:
    """The least and the most that a method's option can be, from its record."""
    least, most = 0.0, 1.0
    for bound in record.model_fields[name].metadata:
        least = getattr(bound, "ge", getattr(bound, "gt", least))
        most = getattr(bound, "le", getattr(bound, "lt", most))
    return least, most


def read(named: Mapping[str, Any]) -> dict[str, Any]:
    """The merge's data as it stands in the form, unchecked; what the task does not ask for is left out."""
    task = named["task"] or "checkpoints"
    data: dict[str, Any] = {"task": task} | {name: named[name] for name in PLAIN}
    data |= {name: named[name] or "" for name in ("title", "target")}
    data |= {name: bool(named[name]) for name in ("overwrite", "accept_nonfinite")}
    data |= {"models": _models(named), "adapters": [], "parts": {}}
    if task in ("join", "bake"):
        data |= {"adapters": list(named["adapters"] or []), "weights": parts(named["weights"]) or None}
    if task == "join":
        data |= {"join": named["join"] or "sum"}
    if zips(named):
        data |= {field: named[name] for name, field in ZIPPED.items()} | {"prompts": lines(named["zip_prompts"])}
    if task in ("join", "extract"):
        data |= {"rank": named["rank"] or None, "conv_rank": named["conv_rank"] or None}
    if task == "checkpoints":
        data |= {"parts": _parts(named), "blocks": parts(named["blocks"]) or None, "rules": _rules(named["rules"])}
        data |= {"options": _options(named)}
    else:
        data |= {name: default for name, default in defaults(MergeRequest).items() if name in UNUSED}
    return data | {"verify": _hashes(named["verify"]) if named["check_sources"] else {}}


def strip(named: Mapping[str, Any]) -> dict[str, Any]:
    """A preview's data: the merge's own alpha is always among those that are drawn."""
    merge = _unsaved(named)
    return _drawn(named, merge) | {"alphas": _alphas(named, merge)}


def search(named: Mapping[str, Any]) -> dict[str, Any]:
    """A search's data."""
    found = _drawn(named, _unsaved(named)) | {name: named[name] for name in SEARCHED}
    return found | {"scorer": found["scorer"] or SearchRequest.model_fields["scorer"].default}


def _unsaved(named: Mapping[str, Any]) -> dict[str, Any]:
    """The merge as it is drawn: where it will be saved, and whether its sources are the recorded ones, is left out."""
    return {**read(named), "target": "", "overwrite": False, "verify": {}}


def _drawn(named: Mapping[str, Any], merge: dict[str, Any]) -> dict[str, Any]:
    data = {"merge": merge, "prompts": lines(named["prompts"]), "seed": named["picture_seed"]}
    data |= {name: named[name] for name in DRAWN}
    return data | {name: named[name] or "" for name in ("negative_prompt", "scorer")}


def written(merge: Mapping[str, Any]) -> dict[str, Any]:
    """A merge's fields as the controls show them."""
    full = {**defaults(MergeRequest), **merge}
    named: dict[str, Any] = {name: full[name] for name in ("task", *PLAIN, "adapters", "rank", "conv_rank", "join")}
    named |= {name: full[field] for name, field in ZIPPED.items()} | {"zip_prompts": "\n".join(full["prompts"])}
    models = list(full["models"])
    named |= {f"models.{index}": models[index] if index < len(models) else "" for index in range(SLOTS)}
    named |= {"further": models[SLOTS:], "weights": listed(full["weights"]), "blocks": listed(full["blocks"])}
    named |= {f"parts.{part}": full["parts"].get(part, USUAL.get(part, "merge")) for part in PARTS}
    known = METHODS.get(full["method"], next(iter(METHODS.values()))).options.model_fields
    named |= {f"options.{name}": full["options"].get(name, entry.default) for name, entry in known.items()}
    named["rules"] = "\n".join(f"{rule['keys']} = {written_number(rule['alpha'])}" for rule in full["rules"])
    hashes = "\n".join(f"{place} {sha256}" for place, sha256 in full["verify"].items())
    return named | {"verify": hashes, "check_sources": bool(hashes)}


def _models(named: Mapping[str, Any]) -> list[str]:
    """A and B stand even when they are empty, to be asked for; those behind them only when one is chosen."""
    number = slots(named)
    found = [str(named[f"models.{index}"] or "").strip() for index in range(min(SLOTS, number))]
    needed = min(2, number) if named["task"] != "checkpoints" else method_of(named).models[0]
    found += [str(name).strip() for name in named["further"] or []] if number > SLOTS else []
    return [*found[:needed], *filter(None, found[needed:])]


def _parts(named: Mapping[str, Any]) -> dict[str, str]:
    """The parts with another fate than usual, and the VAE's, which people look for."""
    chosen = {part: str(named[f"parts.{part}"] or "").strip() for part in PARTS}
    return {part: action for part, action in chosen.items() if action and (part == "vae" or is_unusual(part, action))}


def is_unusual(part: str, action: object) -> bool:
    """Whether a part is to have another fate than it has unasked."""
    return bool(action) and action != USUAL.get(part, "merge")


def _options(named: Mapping[str, Any]) -> dict[str, Any]:
    """The method's own settings that differ from its defaults."""
    record = method_of(named).options
    given = {name: named[f"options.{name}"] for name in record.model_fields}
    return {name: value for name, value in given.items() if value not in (None, record.model_fields[name].default)}


def _rules(text: Any) -> list[dict[str, str]]:
    """``pattern = alpha``, one a line; what is no number is refused with a sentence."""
    pairs = [line.rpartition("=") for line in lines(text)]
    return [{"keys": keys.strip() or alpha.strip(), "alpha": alpha.strip() if keys else ""} for keys, _, alpha in pairs]


def _hashes(text: Any) -> dict[str, str]:
    """``source/file SHA-256``, one a line."""
    pairs = [line.rpartition(" ") for line in lines(text)]
    return {place: sha256 for place, _, sha256 in pairs if place}


def _alphas(named: Mapping[str, Any], merge: Mapping[str, Any]) -> list[Any]:
    """The alphas to draw: what is written and the merge's own; none where alpha has no say or blocks have theirs."""
    if merge["task"] == "checkpoints" and (method_of(named).alpha is None or merge["blocks"]):
        return []
    own = merge["alpha"] if merge["task"] == "checkpoints" else 1
    given: Sequence[Any] = parts(named["alphas"])
    same = any(_number(each) == own for each in given)
    return [*given, *([] if same or len(given) >= MOST_ALPHAS else [own])]


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def searched() -> dict[str, Any]:
    """The search's own settings as they are at first."""
    fields = SearchRequest.model_fields
    return {name: fields[name].default for name in SEARCHED}
