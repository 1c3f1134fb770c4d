"""What a training is asked to be: one frozen record for the page, the command line, presets and the file's header."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from studio.training.captions import TEMPLATE
from studio.training.kinds import Layers
from studio.training.tasks import MOST, Task, problem

Method = Literal["text_to_image", "dreambooth", "textual_inversion", "joint"]
KindName = Literal["lora", "rslora", "dora", "locon", "loha", "lokr", "oft", "boft"]
Schedule = Literal["constant", "linear", "cosine", "cosine_restarts", "polynomial"]
OptimizerName = Literal["adamw", "adafactor", "prodigy", "adamw8bit"]
FilePrecision = Literal["fp32", "fp16", "bf16"]
TrackerName = Literal["tensorboard", "wandb", "trackio"]
Prompt = Annotated[str, Field(min_length=1, max_length=400)]
ROWS_PER_PICTURE = 3  # one forward, and going back is worth two
ROWS_PER_SAMPLE = 2  # for a step of a picture that is drawn: with its prompt and without


class TrainRequest(BaseModel):
    """An adapter learned from captioned pictures (text_to_image) or pictures of one subject (dreambooth), or a word."""

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
        description="text_to_image (every picture has its caption), dreambooth (all pictures share one prompt) or "
        "textual_inversion (the trigger becomes a word that the model knows, which itself stays as it is) or joint "
        "(several adapters, each on its own task and then all together).",
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
    tasks: tuple[Task, ...] = Field(
        (), max_length=MOST, description="joint: what each adapter learns alone, before all of them learn together."
    )
    steps_apart: int = Field(
        200, ge=0, le=1_000_000, description="joint: steps of each adapter on its own task; steps are those together."
    )

    vectors: int = Field(
        1, ge=1, le=75, description="textual_inversion: tokens that the new word is made of; more can hold more."
    )
    initializer: str = Field(
        "",
        max_length=200,
        description="textual_inversion: words that the vectors begin as, such as 'duck'; empty: the mean of all words.",
    )

    adapter: KindName = Field("lora", description="The kind of adapter.")
    rank: int = Field(8, ge=1, le=512, description="Rank of each change; more can learn more, and forget more.")
    alpha: float | None = Field(None, gt=0.0, le=1024.0, description="Scale of the change times rank; rank if empty.")
    targets: Layers = Field("attention", description="Which layers learn: attention, cross_attention, linear or all.")
    options: dict[Annotated[str, Field(max_length=40)], float] = Field(
        {}, max_length=8, description="What the kind has beside rank and alpha, such as conv_rank for locon."
    )
    text_encoder: bool = Field(False, description="Train the CLIP text encoders as well.")

    earlier: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] = Field(
        (), max_length=8, description="LoRAs learned before, on top of which the new one learns; they stay as they are."
    )
    earlier_penalty: float = Field(
        0.0,
        ge=0.0,
        le=1e12,
        allow_inf_nan=False,
        description="How strongly changes are kept small where those of earlier LoRAs are large (C-LoRA); 0: not.",
    )

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
    file_precision: FilePrecision = Field("fp32", description="Numbers in the saved files; fp16 halves their size.")
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
    trackers: tuple[TrackerName, ...] = Field(
        (), max_length=3, description="Who else gets curves and samples: tensorboard, wandb, trackio, where installed."
    )
    title: str = Field("", max_length=80, pattern=r"^[\w .()+-]*$", description="Name of the result; made if empty.")

    @model_validator(mode="after")
    def _one_prompt_for_dreambooth(self) -> TrainRequest:
        if self.method == "dreambooth" and not self.instance_prompt.strip():
            raise ValueError("instance_prompt: dreambooth needs one, such as 'a photo of sks dog'")
        if self.class_pictures and not self.class_prompt.strip():
            raise ValueError("class_prompt: class pictures need one, such as 'a photo of a dog'")
        if self.class_pictures and self.method != "dreambooth":
            raise ValueError("class_pictures: only dreambooth has them; set 0 or choose the method dreambooth")
        if wrong := problem(self.method, self.tasks):
            raise ValueError(wrong)
        return self

    @model_validator(mode="after")
    def _earlier_loras(self) -> TrainRequest:
        if len(set(self.earlier)) < len(self.earlier):
            raise ValueError("earlier: each LoRA is given once; leave the second out")
        if self.earlier_penalty and not self.earlier:
            raise ValueError("earlier_penalty: there is nothing to keep; name LoRAs in earlier, or set 0")
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
        steps += self.all_apart
        return self.cost_of(steps)

    def cost_of(self, steps: int) -> int:
        """Rows of the network for ``steps`` in all, those apart included, and for what is drawn meanwhile."""
        drawn = len(self.sample_prompts) * (1 + math.ceil(steps / self.sample_every)) + self.class_pictures
        return ROWS_PER_PICTURE * self.rows_in(steps) + ROWS_PER_SAMPLE * drawn * self.sample_steps

    @property
    def all_apart(self) -> int:
        """Steps that the tasks of a joint training take one after the other, before those together."""
        return len(self.tasks) * self.steps_apart

    def rows_in(self, steps: int) -> int:
        """Pictures that the network sees in the first ``steps``; one together sees a batch of every task."""
        together = max(0, steps - self.all_apart) if self.tasks else 0
        return (steps + together * max(0, len(self.tasks) - 1)) * self.batch_rows

    @property
    def encodes_anew(self) -> bool:
        """Whether captions are encoded in every pass, since what encodes them learns."""
        return self.text_encoder or self.method == "textual_inversion"

    @property
    def has_prior(self) -> bool:
        """Whether every batch also holds as many pictures of the class."""
        return self.class_pictures > 0 and self.prior_weight > 0.0
