"""What a merge is asked to be: one frozen record for the page, the command line, presets and the file's own header."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Task = Literal["checkpoints", "join", "bake", "extract"]
Part = Literal["unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3", "vae", "other", "ema"]
Name = Annotated[str, Field(min_length=1, max_length=300)]
Alpha = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=-10.0, le=10.0, allow_inf_nan=False)]
Prompt = Annotated[str, Field(min_length=1, max_length=400)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Rule(BaseModel):
    """Another alpha for the tensors whose names ``keys`` finds; of several that do, the last counts."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    keys: str = Field(min_length=1, max_length=200, description="A regular expression, searched in a tensor's name.")
    alpha: Alpha


class MergeRequest(BaseModel):
    """One of four tasks: merge checkpoints, join LoRAs into one, bake LoRAs into a checkpoint, extract a LoRA."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    task: Task = Field(
        "checkpoints",
        description="checkpoints (merge them), join (LoRAs into one), bake (LoRAs into the checkpoint A) or extract "
        "(what B has over A, as a LoRA).",
    )
    models: tuple[Name, ...] = Field(
        ("builtin:emoji", "builtin:ink"),
        max_length=8,
        description="The checkpoints A, B, C ...: built-ins, .safetensors files or diffusers folders, all of one kind.",
    )
    adapters: tuple[Name, ...] = Field((), max_length=8, description="The LoRA files that are joined or baked.")
    weights: tuple[Weight, ...] | None = Field(
        None, max_length=8, description="How much each LoRA counts; 1 each when left out."
    )
    join: Literal["sum", "zip"] = Field(
        "sum",
        description="How LoRAs are joined: sum, exactly, or zip (ZipLoRA): with weights for their columns that are "
        "learned on the checkpoint A, so that each LoRA keeps doing what it does alone.",
    )
    prompts: tuple[Prompt, ...] = Field(
        (), max_length=8, description="For zip: what each LoRA was trained to draw, a prompt for each, in their order."
    )
    steps: int = Field(100, ge=1, le=2000, description="For zip: steps of learning.")
    learning_rate: float = Field(
        0.01, gt=0.0, le=1.0, description="For zip: how far the column weights move in a step."
    )
    similarity: float = Field(
        0.01, ge=0.0, le=10.0, description="For zip: how much columns that several LoRAs claim are held against them."
    )
    method: str = Field(
        "weighted_sum", max_length=40, description="How tensors become one, such as weighted_sum or add_difference."
    )
    alpha: Alpha = Field(0.5, description="How much of the others is taken; 0 is A, and 1 is B for most methods.")
    options: dict[Annotated[str, Field(max_length=40)], float] = Field(
        {}, max_length=8, description="What the method has beside alpha, such as density for ties."
    )
    parts: dict[Part, Annotated[str, Field(min_length=1, max_length=300)]] = Field(
        {"vae": "a"},
        description="What becomes of a part: merge, an alpha of its own, a letter (taken from that model), none (left "
        "out) or, for vae, a file to bake in. Parts that are not named are merged; vae, other and ema are A's.",
    )
    blocks: tuple[Alpha, ...] | None = Field(
        None, max_length=80, description="An alpha for each block: BASE (text encoders), IN00 ..., M00, OUT00 ..."
    )
    curve: str = Field("flat", max_length=20, description="How alpha runs over the blocks where they are not given.")
    rules: tuple[Rule, ...] = Field((), max_length=20, description="Alphas for tensors by name: [{keys, alpha}].")
    precision: Literal["as_a", "fp16", "bf16", "fp32"] = Field("as_a", description="Numbers of the result.")
    rank: int | None = Field(
        None, ge=1, le=1024, description="Rank of a joined or extracted LoRA; joining is exact when left out."
    )
    conv_rank: int | None = Field(
        None, ge=1, le=1024, description="Rank for convolutions of more than one pixel; as rank when left out."
    )
    names: Literal["kohya", "diffusers"] = Field("kohya", description="How a LoRA names its layers.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="For methods that drop weights at random, and for the SVD.")
    title: str = Field(
        "", max_length=80, pattern=r"^[\w .()+-]*$", description="Name of the result; made from the sources if empty."
    )
    target: str = Field(
        "", max_length=300, description="File or folder to write, absolute or inside the models folder; else --out."
    )
    overwrite: bool = Field(False, description="Replace what lies at the target already.")
    accept_nonfinite: bool = Field(False, description="Save even when the result holds NaN or infinite weights.")
    verify: dict[Annotated[str, Field(max_length=300)], Sha256] = Field(
        {}, max_length=64, description="SHA-256 that source files must have, as a recipe recorded them."
    )

    @model_validator(mode="after")
    def _one_weight_per_adapter(self) -> MergeRequest:
        if self.weights is not None and len(self.weights) != len(self.adapters):
            raise ValueError(
                f"weights: {len(self.weights)} weights for {len(self.adapters)} LoRAs; give each exactly one weight"
            )
        return self

    @property
    def scales(self) -> tuple[float, ...]:
        """One weight per LoRA."""
        return self.weights or (1.0,) * len(self.adapters)
