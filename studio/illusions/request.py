"""What an illusion is asked to be: one frozen record for the page, the command line, presets and PNG recipes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from studio.illusions import adapters
from studio.passes import Space

Prompt = Annotated[str, Field(min_length=1, max_length=400)]
Weight = Annotated[float, Field(gt=0.0, le=100.0, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=-4.0, le=4.0, allow_inf_nan=False)]
Scheduler = Literal["ddim", "euler", "dpm++2m"]
Reduction = Literal["auto", "mean", "sum", "alternate", "weighted", "rectified", "weighted_rectified"]


class IllusionRequest(BaseModel):
    """Two to four views of one picture, each with its own prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = Field(
        "builtin:emoji",
        min_length=1,
        max_length=300,
        description="A built-in model, a .safetensors file, a diffusers folder or a hub id.",
    )
    prompts: tuple[Prompt, ...] = Field(
        ("a fox", "a penguin"), min_length=1, max_length=4, description="What each view shows, one prompt per view."
    )
    views: tuple[Annotated[str, Field(min_length=1, max_length=120)], ...] = Field(
        ("identity", "rotate_180"),
        min_length=1,
        max_length=4,
        description="How the picture is rearranged for each prompt, such as rotate_180 or jigsaw(seed=3)+negate.",
    )
    negative_prompt: str = Field("", max_length=400, description="What no view should show.")
    steps: int = Field(30, ge=1, le=200, description="Denoising steps; more is slower and a little cleaner.")
    guidance_scale: float = Field(
        7.0, ge=0.0, le=30.0, description="How strongly the prompts are followed (CFG scale)."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Same seed, same picture.")
    candidates: int = Field(1, ge=1, le=16, description="Pictures to try, from this seed upwards, shown ranked.")
    partners: tuple[Prompt, ...] = Field(
        (),
        max_length=15,
        description="Further prompts to try for the last view, each with every seed: what goes well with the others?",
    )
    stop_early: bool = Field(
        False,
        description="Leave candidates unfinished that read far worse, part of the way, than the best of those before.",
    )
    scheduler: Scheduler = Field("ddim", description="The sampler that takes the steps.")
    reduction: Reduction = Field(
        "auto",
        description="How the views' predictions become one: mean, sum (factorised views), alternate, weighted (the "
        "weaker view gets more), rectified (the variance that averaging takes away restored) or weighted_rectified.",
    )
    weights: tuple[Weight, ...] | None = Field(
        None,
        max_length=4,
        description="How much each view counts, for weighted and rectified; measured or equal when left out.",
    )
    space: Space = Field(
        "auto",
        description="Where the views act: latent (on the model's codes), picture (on decoded pictures: slower, and any "
        "view works), or auto, which measures whether the codes carry the views.",
    )
    size: int | None = Field(
        None, ge=64, le=2048, multiple_of=8, description="Side of the picture in pixels; the model's own when left out."
    )
    adapters: dict[str, Annotated[str, Field(min_length=1, max_length=300)]] = Field(
        {},
        max_length=4,
        description='LoRA files by a name for each, such as {"ink": "loras/ink.safetensors"}: in the models folder, '
        "or a path.",
    )
    view_adapters: tuple[dict[str, Scale], ...] = Field(
        (),
        max_length=4,
        description='The scale of every adapter in each view, such as [{"ink": 1}, {"wash": 0.8}], or one entry for '
        "all views; when left out, every view wears all adapters at 1.",
    )
    adapter_study: bool = Field(
        False,
        description="Also draw the bare model, each adapter alone and all together from the same seeds, as one grid.",
    )
    upscale: int = Field(
        1, ge=1, le=2, description="2 draws every finished candidate over at twice the size, with all of its views."
    )
    upscale_strength: float = Field(
        0.4, ge=0.1, le=0.9, description="How much of the run is drawn anew at twice the size; more changes more."
    )
    puzzle: bool = Field(
        False, description="Also make print-ready sheets of the best candidate, for views whose pieces can be cut out."
    )
    scorer: str = Field(
        "builtin:clip",
        min_length=1,
        max_length=300,
        description="The CLIP model that reads the pictures: built-in, or a folder of transformers. Its numbers "
        "compare only with its own.",
    )

    @field_validator("prompts", "views", "partners", mode="before")
    @classmethod
    def _stripped(cls, values: object) -> object:
        if isinstance(values, list | tuple):
            return tuple(value.strip() if isinstance(value, str) else value for value in values)
        return values

    @model_validator(mode="after")
    def _one_of_each_per_view(self) -> IllusionRequest:
        if len(self.prompts) != len(self.views):
            raise ValueError(
                f"prompts: {len(self.prompts)} prompts for {len(self.views)} views; give each view exactly one prompt"
            )
        if self.weights is not None and len(self.weights) != len(self.views):
            raise ValueError(
                f"weights: {len(self.weights)} weights for {len(self.views)} views; give each view exactly one weight"
            )
        if self.adapter_study and (self.partners or self.stop_early):
            raise ValueError(
                "adapter_study: a study compares the same prompts and seeds in every setting; leave partners and "
                "stop_early out"
            )
        if problem := adapters.problem(self):
            raise ValueError(problem)
        return self
