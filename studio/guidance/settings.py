"""What a guider heeds: one frozen record, of which a sweep changes one or two numbers from column to column."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

SIGMA_MOST = 1000.0  # noise to signal; SD's begins at 14.6


class Settings(BaseModel):
    """The numbers of one column."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    w1: float = Field(5.0, ge=0.0, le=30.0, description="Guidance scale of the base model (CFG scale w1).")
    w2: float = Field(5.0, ge=0.0, le=30.0, description="Guidance scale of the adapted model (CFG scale w2).")
    gamma: float = Field(
        1.5, ge=-2.0, le=6.0, description="How far from the base model to the adapted one (1) and beyond it."
    )
    lora_scale: float = Field(1.0, ge=-4.0, le=4.0, description="What every adapter's own scale is multiplied by.")
    low: float = Field(
        0.0, ge=0.0, le=SIGMA_MOST, description="Noise to signal below which an interval's guider rests."
    )
    high: float = Field(
        SIGMA_MOST, ge=0.0, le=SIGMA_MOST, description="Noise to signal above which an interval's guider rests."
    )
    every: int = Field(2, ge=1, le=100, description="Steps for which the two models' difference is used again.")
    agreement: float = Field(
        0.99, ge=-1.0, le=1.0, description="Cosine of the two clean estimates from which on they count as agreed."
    )
    rescale: float = Field(0.7, ge=0.0, le=1.0, description="Share of the rescaled answer (phi).")
    eta: float = Field(0.0, ge=0.0, le=1.0, description="Share of the part along the clean estimate that is kept.")
    norm: float = Field(0.0, ge=0.0, le=1000.0, description="Longest guidance, in standard deviations; 0: any.")
    momentum: float = Field(-0.5, ge=-1.0, le=1.0, description="Share of earlier guidance in the next.")
    steps: int = Field(20, ge=1, le=200, description="Denoising steps.")
