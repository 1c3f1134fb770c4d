"""What a comparison of guidance is asked to be: one frozen record for the page, the command line, presets and files."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studio.errors import shortened
from studio.guidance.settings import Settings

ADAPTER = re.compile(r"[A-Za-z0-9_-]{1,32}")
Prompt = Annotated[str, Field(min_length=1, max_length=400)]
Scale = Annotated[float, Field(ge=-4.0, le=4.0, allow_inf_nan=False)]
Scheduler = Literal["ddim", "euler", "dpm++2m"]
GuiderName = Literal[
    "none",
    "cfg",
    "autolora_plain",
    "autolora",
    "autolora_interval",
    "autolora_refresh",
    "autolora_skip",
    "lora_scaled",
    "cfg_budget",
    "cfg_interval",
    "cfg_rescaled",
    "apg",
]
Swept = Literal[
    "w", "w1", "w2", "gamma", "lora_scale", "low", "high", "every", "agreement", "rescale", "eta", "norm", "steps"
]  # fmt: skip


class Axis(BaseModel):
    """One setting and the values it takes from column to column; ``w`` is w1 and w2 at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    setting: Swept = Field(description="What changes: w, w1, w2, gamma, lora_scale, low, high, every, steps ...")
    values: tuple[float, ...] = Field(min_length=1, max_length=24, description="The values it takes, in this order.")


class GuidanceRequest(BaseModel):
    """The same prompts and seeds drawn by every guider, at every point of a grid over at most two settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field("builtin:emoji", min_length=1, max_length=300, description="The base model: as in Illusions.")
    adapters: dict[str, Annotated[str, Field(min_length=1, max_length=300)]] = Field(
        {"pixel": "builtin:pixel"},
        min_length=1,
        max_length=4,
        description='The LoRAs of the adapted model by a name for each, such as {"pixel": "builtin:pixel"}.',
    )
    scales: dict[str, Scale] = Field({}, max_length=4, description="Each adapter's own scale; 1 where left out.")
    prompts: tuple[Prompt, ...] = Field(
        ("a fox",), min_length=1, max_length=64, description="What is drawn, each prompt by every guider."
    )
    negative_prompt: str = Field("", max_length=400, description="What stands in the empty prompt's place.")
    guiders: tuple[GuiderName, ...] = Field(
        ("cfg", "autolora", "lora_scaled"), min_length=1, max_length=12, description="The guiders to compare, by name."
    )
    settings: Settings = Field(Settings(), description="The numbers that the guiders heed.")
    sweep: tuple[Axis, ...] = Field((), max_length=2, description="Settings that change from column to column.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="The first seed: same seed, same noise in every column.")
    seeds: int = Field(4, ge=1, le=1024, description="How many seeds are drawn of every prompt.")
    scheduler: Scheduler = Field("ddim", description="The sampler that takes the steps.")
    size: int | None = Field(
        None, ge=64, le=2048, multiple_of=8, description="Side of the pictures in pixels; the model's own if empty."
    )
    style: str = Field(
        "", max_length=200, description="Words for the LoRA's style, such as 'pixel art'; measures SA-clip."
    )
    character: str = Field(
        "", max_length=200, description="Words for the LoRA's character, such as 'a duckrabbit'; measures CP-clip."
    )
    extractor: str = Field(
        "builtin:clip",
        min_length=1,
        max_length=300,
        description="The CLIP model whose features diversity and fidelity are measured by: built-in, or a folder.",
    )
    resume: str = Field("", max_length=1000, description="Folder of an earlier run whose cells are taken over.")

    @model_validator(mode="after")
    def _whole(self) -> GuidanceRequest:
        if odd := next((name for name in self.adapters if not ADAPTER.fullmatch(name)), None):
            raise ValueError(
                f"adapters: {shortened(odd)!r} is no name for an adapter; use up to 32 letters, digits, - and _"
            )
        if unknown := next((name for name in self.scales if name not in self.adapters), None):
            raise ValueError(
                f"scales: no adapter is called {shortened(unknown)!r}; name one of {', '.join(self.adapters)}"
            )
        if self.settings.low > self.settings.high:
            raise ValueError(
                f"settings.low: the interval is upside down ({self.settings.low:g} to {self.settings.high:g}); "
                "swap low and high"
            )
        names = [axis.setting for axis in self.sweep]
        if len(set(names)) < len(names) or ("w" in names and {"w1", "w2"} & set(names)):
            raise ValueError("sweep: both axes change the same setting; choose two different ones")
        if len(set(self.guiders)) < len(self.guiders):
            raise ValueError("guiders: one stands there twice; leave it out once")
        return self

    @property
    def worn(self) -> tuple[tuple[str, float], ...]:
        """Every adapter with its own scale."""
        return tuple((name, self.scales.get(name, 1.0)) for name in self.adapters)

    @property
    def cells(self) -> int:
        """Pictures that it comes to."""
        from studio.guidance import preflight

        return preflight.cells(self)

    @property
    def evaluations(self) -> int:
        """Rows of the network that it comes to, at the most."""
        from studio.guidance import preflight

        return preflight.evaluations(self)

    @property
    def most_steps(self) -> int:
        """Denoising steps of a picture, in the column that has most."""
        from studio.guidance.grid import columns

        return max(column.steps for column in columns(self))
