"""What is drawn before a merge is saved: a strip of pictures over alpha, and a search for the alphas that read best."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.merging.preflight import method_of
from studio.merging.request import Alpha, MergeRequest

Prompt = Annotated[str, Field(min_length=1, max_length=400)]
SCORER = "builtin:clip"


class Trials(BaseModel):
    """What a strip and a search have in common: the merge, and what is drawn with it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    merge: MergeRequest = Field(
        default_factory=MergeRequest,
        description="The merge (task checkpoints or bake) as an object with the settings of the engine merge.",
    )
    prompts: tuple[Prompt, ...] = Field(
        ("a fox",), min_length=1, max_length=4, description="What is drawn, each alone."
    )
    negative_prompt: str = Field("", max_length=400, description="What no picture should show.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="The noise that every picture begins from.")
    steps: int = Field(20, ge=1, le=200, description="Denoising steps; more is slower and a little cleaner.")
    guidance_scale: float = Field(
        7.0, ge=0.0, le=30.0, description="How strongly the prompts are followed (CFG scale)."
    )

    @property
    def model(self) -> str:
        """The first checkpoint, by whose speed times are estimated."""
        return self.merge.models[0] if self.merge.models else ""

    def rows(self, prompt: str) -> int:
        """How many rows of the network a step takes: guidance weighs the prompt with its scale, the negative prompt

        with one minus it, and what weighs nothing or stands twice is not evaluated again.
        """
        prompted = {prompt} if self.guidance_scale != 0.0 else set()
        return len(prompted | ({self.negative_prompt} if self.guidance_scale != 1.0 else set()))


class StripRequest(Trials):
    """The same prompts and seed drawn by every checkpoint of a merge and by the merge itself, at one alpha or more."""

    alphas: tuple[Alpha, ...] = Field(
        (),
        max_length=9,
        description="The merge's alphas to draw; the merge's own when empty. For bake: what all LoRA weights are "
        "multiplied by.",
    )
    scorer: str = Field(SCORER, max_length=300, description="What tells how well a picture reads; empty for nothing.")

    @property
    def points(self) -> tuple[float | None, ...]:
        """The alphas that are drawn, in order; None: the merge as it is, whose method or task knows no alpha."""
        if self.alphas:
            return tuple(sorted(set(self.alphas)))
        return (self.merge.alpha if has_alpha(self.merge) else None,)


class SearchRequest(Trials):
    """Alpha, or an alpha for each block, searched for the merge whose pictures the scorer reads best."""

    seeds: int = Field(1, ge=1, le=16, description="How many seeds, from this one upwards; every trial has the same.")
    over: Literal["alpha", "blocks"] = Field("alpha", description="What is searched: alpha, or an alpha per block.")
    strategy: Literal["grid", "coordinate", "bayes"] = Field(
        "bayes",
        description="grid (even steps, alpha only), coordinate (a step to either side of the best, then half of it) or "
        "bayes (a Gaussian process says where a better score is to be expected).",
    )
    trials: int = Field(10, ge=2, le=200, description="Merges that are drawn and scored at the most.")
    low: Alpha = Field(0.0, description="The least alpha that is tried.")
    high: Alpha = Field(1.0, description="The largest alpha that is tried.")
    scorer: str = Field(SCORER, min_length=1, max_length=300, description="What the score is measured by.")


def has_alpha(merge: MergeRequest) -> bool:
    """Whether alpha changes what this merge makes."""
    return merge.task == "checkpoints" and method_of(merge).alpha is not None


def at_alpha(merge: MergeRequest, alpha: float | None) -> MergeRequest:
    """The same merge with another alpha; baking multiplies the LoRAs' weights by it. None: as it is."""
    if alpha is None:
        return merge
    if merge.task == "bake":
        return merge.model_copy(update={"weights": tuple(alpha * weight for weight in merge.scales)})
    return merge.model_copy(update={"alpha": alpha})
