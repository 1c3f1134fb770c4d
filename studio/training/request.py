"""What a training is asked to be: one frozen record for the page, the command line, presets and the file's header."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studio.training.captions import TEMPLATE
from studio.training.kinds import Layers

Method = Literal["text_to_image", "dreambooth"]
KindName = Literal["lora", "rslora", "dora", "locon", "loha", "lokr", "oft", "boft"]
Schedule = Literal["constant", "linear", "cosine", "cosine_restarts", "polynomial"]
OptimizerName = Literal["adamw", "adafactor", "prodigy", "adamw8bit"]
Prompt = Annotated[str, Field(min_length=1, max_length=400)]
ROWS_PER_PICTURE = 3  # one forward, and going back is worth two


class TrainRequest(BaseModel):
    """An adapter learned from captioned pictures (text_to_image), or from pictures of one subject (dreambooth)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(
        "builtin:emoji", min_length=1, max_length=300, description="The model that learns: as in Illusions."
    )
    data: str = Field(
        "builtin:mascot",
        min_length=1,
        max_length=1000,
        description="A folder or a .zip with pictures and captions, a built-in set, or one put in (upload:id).",
    )
    edits: str = Field(
        "", max_length=1000, description="Edited captions and left-out pictures: an edits.json; the page keeps its own."
    )
    method: Method = Field(
        "text_to_image",
        description="text_to_image (every picture has its caption) or dreambooth (all pictures share one prompt).",
    )
    trigger: str = Field("", max_length=60, description="A word put before every caption that lacks it.")
    template: str = Field(
        TEMPLATE, max_length=200, description="Caption of pictures without one; {trigger}, or {name} of the file."
    )
    instance_prompt: str = Field(
        "", max_length=400, description="dreambooth: the prompt of all pictures, such as 'a photo of sks dog'."
    )
    class_prompt: str = Field(
        "",
        max_length=400,
        description="dreambooth: what it is a kind of, such as 'a photo of a dog'; keeps that known.",
    )
    class_pictures: int = Field(
        0, ge=0, le=1000, description="dreambooth: pictures of the class that the model makes itself; 0 for none."
    )
    prior_weight: float = Field(
        1.0, ge=0.0, le=10.0, description="dreambooth: how much the loss on class pictures counts."
    )

    adapter: KindName = Field("lora", description="The kind of adapter.")
    rank: int = Field(8, ge=1, le=512, description="Rank of each change; more can learn more, and forget more.")
    alpha: float | None = Field(None, gt=0.0, le=1024.0, description="Scale of the change times rank; rank if empty.")
    targets: Layers = Field("attention", description="Which layers learn: attention, cross_attention, linear or all.")
    options: dict[Annotated[str, Field(max_length=40)], float] = Field(
        {}, max_length=8, description="What the kind has beside rank and alpha, such as conv_rank for locon."
    )
    text_encoder: bool = Field(False, description="Train the CLIP text encoders as well.")

    steps: int = Field(500, ge=1, le=1_000_000, description="Steps of the optimiser.")
    epochs: int | None = Field(None, ge=1, le=100_000, description="Passes over the pictures, in place of steps.")
    batch_size: int = Field(1, ge=1, le=256, description="Pictures in one pass of the network.")
    accumulation: int = Field(1, ge=1, le=256, description="Passes whose gradients make one step.")
    learning_rate: float = Field(
        1e-4, gt=0.0, allow_inf_nan=False, description="Size of a step; 1e-4 for adamw, 1 for prodigy."
    )
    text_encoder_learning_rate: float | None = Field(
        None, gt=0.0, allow_inf_nan=False, description="The same for text encoders; as learning_rate if empty."
    )
    schedule: Schedule = Field("constant", description="How the learning rate runs over the steps.")
    warmup_steps: int = Field(0, ge=0, le=100_000, description="Steps over which the learning rate rises from zero.")
    optimizer: OptimizerName = Field("adamw", description="adamw, adafactor, prodigy or adamw8bit, where installed.")
    weight_decay: float = Field(0.01, ge=0.0, le=1.0, description="How strongly the optimiser pulls weights to zero.")
    max_grad_norm: float = Field(1.0, ge=0.0, le=1000.0, description="Longer gradients are cut to this; 0: never.")

    min_snr_gamma: float | None = Field(
        None, gt=0.0, le=100.0, description="Min-SNR weighting of the loss (5 is usual); not for models that flow."
    )
    noise_offset: float = Field(
        0.0, ge=0.0, le=1.0, description="Noise of the mean colour, for dark and light pictures."
    )
    caption_dropout: float = Field(0.0, ge=0.0, le=1.0, description="Share of captions left empty, for guidance.")
    shuffle_tags: bool = Field(
        False, description="Put the parts of captions between commas in another order each time."
    )
    keep_tags: int = Field(1, ge=0, le=100, description="First parts of a caption that stay where they are.")
    crop: Literal["center", "random"] = Field("center", description="What is kept of a picture that is cut to shape.")
    flip: bool = Field(False, description="Mirror pictures at random; not for text or faces with a side.")
    ema: float = Field(0.0, ge=0.0, lt=1.0, description="Decay of averaged weights (0.999, say); 0 for none.")
    gradient_checkpointing: bool = Field(False, description="Less memory, a third slower.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="Numbers of the passes; the adapter itself is always fp32."
    )
    cache: Literal["memory", "disk", "off"] = Field(
        "memory", description="Where pictures' codes and captions' encodings are kept."
    )
    resolution: int | None = Field(None, ge=32, le=2048, description="Side in pixels; the model's own if empty.")
    buckets: bool = Field(True, description="Keep aspect ratios; else, and with class pictures, all are square.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Start of the weights, and order, noise and times of the run.")

    validation_share: float = Field(0.1, ge=0.0, le=0.5, description="Share of pictures held out to measure; 0: none.")
    validate_every: int = Field(50, ge=1, le=100_000, description="Steps between validations.")
    patience: int = Field(
        0, ge=0, le=1000, description="Stop after so many validations without a better one; 0: never."
    )
    sample_prompts: tuple[Prompt, ...] = Field(
        (), max_length=8, description="What is drawn while it learns, from the same noise every time."
    )
    sample_every: int = Field(100, ge=1, le=100_000, description="Steps between samples.")
    sample_steps: int = Field(20, ge=1, le=200, description="Denoising steps of a sample.")
    sample_guidance: float = Field(5.0, ge=0.0, le=30.0, description="Guidance scale of a sample.")
    checkpoint_every: int = Field(
        100, ge=1, le=100_000, description="Steps between checkpoints, from which a run can go on."
    )
    resume: str = Field("", max_length=1000, description="Folder of an earlier run of the same settings to go on from.")
    title: str = Field("", max_length=80, pattern=r"^[\w .()+-]*$", description="Name of the result; made if empty.")

    @model_validator(mode="after")
    def _one_prompt_for_dreambooth(self) -> TrainRequest:
        if self.method == "dreambooth" and not self.instance_prompt.strip():
            raise ValueError("instance_prompt: dreambooth needs one, such as 'a photo of sks dog'")
        if self.class_pictures and not self.class_prompt.strip():
            raise ValueError("class_prompt: class pictures need one, such as 'a photo of a dog'")
        if self.class_pictures and self.method != "dreambooth":
            raise ValueError("class_pictures: only dreambooth has them; set 0 or choose the method dreambooth")
        return self

    @property
    def scale(self) -> float:
        """Alpha, the rank where none is given."""
        return float(self.rank) if self.alpha is None else self.alpha

    @property
    def batch_rows(self) -> int:
        """Pictures that the network sees for one step."""
        return self.batch_size * self.accumulation * (2 if self.has_prior else 1)

    @property
    def evaluations(self) -> int:
        """Rows of the network, one that is trained on counting three; of ``epochs`` one step each is known of."""
        steps = self.steps if self.epochs is None else self.epochs
        drawn = len(self.sample_prompts) * (1 + steps // self.sample_every) + self.class_pictures
        return ROWS_PER_PICTURE * steps * self.batch_rows + 2 * drawn * self.sample_steps

    @property
    def has_prior(self) -> bool:
        """Whether every batch also holds as many pictures of the class."""
        return self.class_pictures > 0 and self.prior_weight > 0.0
