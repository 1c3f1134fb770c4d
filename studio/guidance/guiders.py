"""The guiders as a table, without torch: what each is called, what it computes, which settings it heeds, its price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from studio.guidance.settings import Settings


@dataclass(frozen=True)
class GuiderEntry:
    """One line of the table.

    ``heeds`` names the settings that change its prediction, beside lora_scale, which all heed; ``rows`` is the most
    that the network evaluates for one picture in a step; ``longer`` is how many times its steps it takes, and
    ``lengthened_by`` names the settings that decide it.
    """

    name: str
    title: str
    help: str
    reference: str
    heeds: tuple[str, ...]
    rows: Callable[[Settings], int]
    longer: Callable[[Settings], int] = lambda settings: 1
    lengthened_by: tuple[str, ...] = ()


def cfg_rows(w: float) -> int:
    """Rows of classifier-free guidance: the prompt's, and the empty prompt's where both weights count."""
    return 1 if w in (0.0, 1.0) else 2


def autolora_rows(settings: Settings) -> int:
    """Four, less those whose coefficient in equation 7 is zero."""
    base = cfg_rows(settings.w1) if settings.gamma != 1.0 else 0
    return base + (cfg_rows(settings.w2) if settings.gamma != 0.0 else 0)


AUTOLORA = "AutoLoRA, Kasymov et al. 2024, arXiv 2410.03941"

GUIDERS: Mapping[str, GuiderEntry] = {
    entry.name: entry
    for entry in (
        GuiderEntry(
            "none",
            "LoRA alone",
            "The adapted model's own answer to the prompt, unguided.",
            "Ho et al. 2020, arXiv 2006.11239",
            (),
            lambda settings: 1,
        ),
        GuiderEntry(
            "cfg",
            "LoRA + CFG",
            "Away from the empty prompt, by w2: what everybody uses.",
            "Ho & Salimans 2022, arXiv 2207.12598, eq. 6",
            ("w2",),
            lambda settings: cfg_rows(settings.w2),
        ),
        GuiderEntry(
            "autolora_plain",
            "AutoLoRA without CFG",
            "From the base model through the adapted one and beyond, by gamma; the prompt alone.",
            f"{AUTOLORA}, eq. 6",
            ("gamma",),
            lambda settings: 1 if settings.gamma in (0.0, 1.0) else 2,
        ),
        GuiderEntry(
            "autolora",
            "AutoLoRA",
            "Equation 6 between two guided models: the base by w1, the adapted one by w2.",
            f"{AUTOLORA}, eq. 7 and algorithm 2 (whose clean estimate divides by the root of alpha bar, not of alpha)",
            ("gamma", "w1", "w2"),
            autolora_rows,
        ),
        GuiderEntry(
            "autolora_interval",
            "AutoLoRA in an interval",
            "AutoLoRA where the noise is between low and high, LoRA + CFG elsewhere: half the extra price for half.",
            f"{AUTOLORA}, eq. 7; Kynkäänniemi et al. 2024, arXiv 2404.07724",
            ("gamma", "w1", "w2", "low", "high"),
            lambda settings: max(autolora_rows(settings), cfg_rows(settings.w2)),
        ),
        GuiderEntry(
            "autolora_refresh",
            "AutoLoRA, refreshed",
            "The difference between the two models is looked at every few steps and used until then; every 1 is exact.",
            f"{AUTOLORA}, eq. 7; the reuse is ours",
            ("gamma", "w1", "w2", "every"),
            autolora_rows,
        ),
        GuiderEntry(
            "autolora_skip",
            "AutoLoRA until they agree",
            "The base model is asked until its clean estimate agrees with the adapted one's; from then on LoRA + CFG.",
            f"{AUTOLORA}, eq. 7; Castillo et al. 2023, arXiv 2312.12487",
            ("gamma", "w1", "w2", "agreement"),
            autolora_rows,
        ),
        GuiderEntry(
            "lora_scaled",
            "LoRA times gamma",
            "LoRA + CFG with the adapters gamma times as strong: AutoLoRA to first order, at half its price.",
            "first order of AutoLoRA's eq. 7 in the adapter, for w1 = w2",
            ("gamma", "w2"),
            lambda settings: cfg_rows(settings.w2),
        ),
        GuiderEntry(
            "cfg_budget",
            "LoRA + CFG, as dear as AutoLoRA",
            "LoRA + CFG with AutoLoRA's evaluations spent on more steps.",
            "Ho & Salimans 2022, arXiv 2207.12598, eq. 6",
            ("w2",),
            lambda settings: cfg_rows(settings.w2),
            lambda settings: max(1, round(autolora_rows(settings) / cfg_rows(settings.w2))),
            ("gamma", "w1", "w2"),
        ),
        GuiderEntry(
            "cfg_interval",
            "CFG in an interval",
            "LoRA + CFG where the noise is between low and high, the prompt alone elsewhere.",
            "Kynkäänniemi et al. 2024, arXiv 2404.07724",
            ("w2", "low", "high"),
            lambda settings: cfg_rows(settings.w2),
        ),
        GuiderEntry(
            "cfg_rescaled",
            "CFG, rescaled",
            "LoRA + CFG brought back, by the share rescale, to the spread of the prompt's own answer.",
            "Lin et al. 2023, arXiv 2305.08891, eq. 14 to 16",
            ("w2", "rescale"),
            lambda settings: 2 if settings.w2 != 1.0 else 1,
        ),
        GuiderEntry(
            "apg",
            "Adaptive projected guidance",
            "CFG without the part along the clean estimate, which oversaturates; eta keeps some of it.",
            "Sadat et al. 2024, arXiv 2410.02416, algorithm 1",
            ("w2", "eta", "norm", "momentum"),
            lambda settings: 2 if settings.w2 != 1.0 else 1,
        ),
    )
}
