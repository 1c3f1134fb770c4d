"""Between a comparison's data and what its form's controls hold; no components here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from studio.guidance.guiders import GUIDERS
from studio.guidance.request import GuidanceRequest, Swept
from studio.guidance.settings import SIGMA_MOST, Settings
from studio.requests import defaults
from studio.ui.fields import lines, listed, parts
from studio.ui.fields import written as written_number

AXES = (0, 1)
ALWAYS = ("lora_scale", "steps")  # what every guider heeds
BOTH = ("w1", "w2")
SLIDERS = ("gamma", "lora_scale", "every", "agreement", "rescale", "eta", "norm", "momentum", "steps")
TEXTS = ("negative_prompt", "style", "character", "extractor", "resume")
PLAIN = ("model", "seed", "seeds", "scheduler")
SWEPT: tuple[str, ...] = get_args(Swept)
LIMITS = {"low": 0.0, "high": SIGMA_MOST}
"""The ends of the interval as written by nobody: an empty field stands for them."""
_PLACE = re.compile(r".*[/\\:]")
_UNFIT = re.compile(r"[^A-Za-z0-9_-]+")


def heeded(guiders: Sequence[str]) -> set[str]:
    """The settings that at least one of these guiders looks at; those of an unknown name are none."""
    entries = [GUIDERS[guider] for guider in guiders if guider in GUIDERS]
    return {*ALWAYS, *(name for entry in entries for name in (*entry.heeds, *entry.lengthened_by))}


def is_heeded(setting: str, guiders: Sequence[str]) -> bool:
    """``w`` stands for w1 and w2."""
    there = heeded(guiders)
    return bool(there & set(BOTH)) if setting == "w" else setting in there


def swept(named: Mapping[str, Any]) -> set[str]:
    """The settings that the grid gives, whose own controls then have no say."""
    found = {str(named.get(f"axis.{axis}") or "") for axis in AXES}
    return found | (set(BOTH) if "w" in found else set())


def read(named: Mapping[str, Any]) -> dict[str, Any]:
    """The comparison's data as it stands in the form, unchecked; settings that no guider heeds are left out."""
    adapters = _adapters(named)
    data = {name: named[name] for name in PLAIN}
    data |= {name: str(named[name] or "").strip() for name in TEXTS}
    data |= {"extractor": data["extractor"] or GuidanceRequest.model_fields["extractor"].default}
    data |= {"adapters": adapters, "scales": _scales(adapters, named["scales"])}
    data |= {"prompts": lines(named["prompts"]), "guiders": list(named["guiders"] or [])}
    data |= {"size": str(named["size"] or "").strip() or None}
    return data | {"settings": _settings(named), "sweep": _sweep(named)}


def written(request: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison's fields as the controls show them."""
    full = {**defaults(GuidanceRequest), **request}
    settings = {**defaults(Settings), **full["settings"]}
    named = {name: full[name] for name in (*PLAIN, *TEXTS)} | {name: settings[name] for name in (*SLIDERS, *BOTH)}
    named |= {name: _limit(name, settings[name]) for name in LIMITS}
    named |= {"w": settings["w2"], "apart": _are_apart(settings, full["guiders"])}
    adapters = dict(full["adapters"])
    named |= {"lora": next(iter(adapters.values()), ""), "others": list(adapters.values())[1:]}
    named |= {"names": "\n".join(f"{name} = {path}" for name, path in adapters.items())}
    scales = [full["scales"].get(name, 1.0) for name in adapters] if full["scales"] else []
    named |= {"scales": listed(scales), "prompts": "\n".join(full["prompts"]), "guiders": list(full["guiders"])}
    named |= {"size": "" if full["size"] is None else str(full["size"])}
    sweep = [*full["sweep"], *[{"setting": "", "values": ()}] * len(AXES)]
    named |= {f"axis.{axis}": sweep[axis]["setting"] for axis in AXES}
    return named | {f"values.{axis}": listed(sweep[axis]["values"]) for axis in AXES}


def name_of(path: str, taken: Sequence[str]) -> str:
    """A short name for a LoRA: that of its file, with a number behind it where that is taken."""
    stem = _PLACE.sub("", path.rstrip("/\\")).removesuffix(".safetensors")
    name = _UNFIT.sub("-", stem).strip("-")[:28] or "lora"
    return name if name not in taken else f"{name}-{len(taken) + 1}"


def _adapters(named: Mapping[str, Any]) -> dict[str, str]:
    """Name -> file; a file keeps the name that an earlier request gave it, so that its pictures are known again."""
    known = {path.strip(): name.strip() for name, _, path in (line.partition("=") for line in lines(named["names"]))}
    found: dict[str, str] = {}
    for path in (str(each or "").strip() for each in (named["lora"], *(named["others"] or ()))):
        if path:
            name = known.get(path, "")
            found[name if name and name not in found else name_of(path, list(found))] = path
    return found


def _scales(adapters: Mapping[str, str], text: Any) -> dict[str, str]:
    """One a LoRA; those of 1 are left out, and one too many is named, to be refused with a sentence."""
    names = [*adapters, *(f"LoRA {index + 1}" for index in range(len(adapters), 2 * len(adapters) + 2))]
    return {name: scale for name, scale in zip(names, parts(text), strict=False) if scale not in ("1", "1.0")}


def _settings(named: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: named[name] for name in SLIDERS}
    given |= {name: named[name] if named["apart"] else named["w"] for name in BOTH}
    given |= {name: text for name in LIMITS if (text := str(named[name] or "").strip())}
    wanted = heeded(named["guiders"] or [])
    return {name: value for name, value in given.items() if name in wanted}


def _sweep(named: Mapping[str, Any]) -> list[dict[str, Any]]:
    axes = [(named[f"axis.{axis}"], parts(named[f"values.{axis}"])) for axis in AXES]
    return [{"setting": setting, "values": values} for setting, values in axes if setting]


def _are_apart(settings: Mapping[str, Any], guiders: Sequence[str]) -> bool:
    """Whether w1 and w2 differ where both are looked at."""
    return settings["w1"] != settings["w2"] and heeded(guiders).issuperset(BOTH)


def _limit(name: str, value: float) -> str:
    return "" if value == LIMITS[name] else written_number(value)
