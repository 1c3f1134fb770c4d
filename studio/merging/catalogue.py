"""The methods as a table, without torch: what each is called, takes and leaves alone. ``methods`` has their maths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

BETWEEN, FREELY = (0.0, 1.0), (-2.0, 2.0)


class Options(BaseModel):
    """What a method has beside alpha."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Slerp(Options):
    parallel: float = Field(0.9995, ge=0.5, le=1.0, description="Cosine above which the straight line is taken.")


class Sparse(Options):
    density: float = Field(0.2, gt=0.0, le=1.0, description="Share of each model's change that is kept.")


class Dropped(Options):
    drop: float = Field(0.5, ge=0.0, lt=1.0, description="Share of each model's change that is dropped at random.")


class Ranked(Dropped):
    drop: float = Field(0.5, ge=0.05, le=0.95, description="Share of each model's change that is dropped, on average.")
    window: float = Field(0.1, ge=0.0, le=0.1, description="How far chances differ between the smallest and largest.")


@dataclass(frozen=True)
class Method:
    """One line of the table.

    ``models``: least and most. ``alpha``: its range, None where it has no say. ``ends``: alpha -> the input that the
    result then is, bit for bit. ``piecewise``: each number depends on its own place alone.
    """

    name: str
    title: str
    help: str
    reference: str
    models: tuple[int, int]
    alpha: tuple[float, float] | None = BETWEEN
    ends: Mapping[float, int] = field(default_factory=dict)
    options: type[Options] = Options
    piecewise: bool = False
    random: bool = False


METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            "weighted_sum",
            "Weighted sum",
            "(1 - alpha) A + alpha B: the straight way from A to B.",
            "Model soups, Wortsman et al. 2022; A1111's 'Weighted sum'",
            (2, 2),
            ends={0.0: 0, 1.0: 1},
            piecewise=True,
        ),
        Method(
            "add_difference",
            "Add difference",
            "A + alpha (B - C): adds to A what B learned over its base C.",
            "A1111's 'Add difference'; task vectors, Ilharco et al. 2023",
            (3, 3),
            FREELY,
            ends={0.0: 0},
            piecewise=True,
        ),
        Method(
            "sigmoid",
            "Sigmoid",
            "A weighted sum whose weight eases in and out: 3 alpha^2 - 2 alpha^3.",
            "smoothstep; diffusers' community checkpoint merger",
            (2, 2),
            ends={0.0: 0, 1.0: 1},
            piecewise=True,
        ),
        Method(
            "inverse_sigmoid",
            "Inverse sigmoid",
            "A weighted sum that moves fast near A and B and slowly in between: 1/2 - sin(asin(1 - 2 alpha) / 3).",
            "inverse smoothstep; diffusers' community checkpoint merger",
            (2, 2),
            ends={0.0: 0, 1.0: 1},
            piecewise=True,
        ),
        Method(
            "slerp",
            "Spherical interpolation",
            "Turns each tensor from A's direction to B's at an even pace, so that its length does not sag half way.",
            "Shoemake 1985, section 3.3, on flattened tensors",
            (2, 2),
            ends={0.0: 0, 1.0: 1},
            options=Slerp,
        ),
        Method(
            "average",
            "Average of all",
            "The mean of all models.",
            "Uniform soup, Wortsman et al. 2022",
            (2, 8),
            None,
            piecewise=True,
        ),
        Method(
            "train_difference",
            "Train difference",
            "Add difference, held back where A is as far from B as C is near: as if A had been trained like B.",
            "SuperMerger's trainDifference (its calcmode documentation)",
            (3, 3),
            FREELY,
            ends={0.0: 0},
            piecewise=True,
        ),
        Method(
            "task_arithmetic",
            "Task arithmetic",
            "A + alpha times the sum of what each other model learned over A.",
            "Ilharco et al. 2023, section 2",
            (2, 8),
            FREELY,
            ends={0.0: 0},
            piecewise=True,
        ),
        Method(
            "ties",
            "TIES",
            "Keeps each model's largest changes of A, lets them elect a sign, and adds the mean of those that agree.",
            "Yadav et al. 2023, algorithm 1, per tensor",
            (2, 8),
            FREELY,
            ends={0.0: 0},
            options=Sparse,
        ),
        Method(
            "dare",
            "DARE",
            "Drops changes of A at random, enlarges the rest to make up for them, and adds all.",
            "Yu et al. 2024, section 3.2",
            (2, 8),
            FREELY,
            ends={0.0: 0},
            options=Dropped,
            random=True,
        ),
        Method(
            "della",
            "DELLA",
            "Drops small changes of A more often than large ones, elects a sign, adds the mean of those that agree.",
            "Deep et al. 2024, section 3 (MagPrune, Elect, Fuse)",
            (2, 8),
            FREELY,
            ends={0.0: 0},
            options=Ranked,
            random=True,
        ),
        Method(
            "perpendicular",
            "Perpendicular difference",
            "Add difference with only that part of B - C which A - C does not hold already.",
            "sd-mecha's add_perpendicular; Gram-Schmidt on flattened tensors",
            (3, 3),
            FREELY,
            ends={0.0: 0},
        ),
        Method(
            "model_stock",
            "Model stock",
            "Goes from A towards the others' mean as far as the angle between their changes says it is to be trusted.",
            "Jang et al. 2024, the ratio t for N models, per tensor",
            (3, 8),
            None,
        ),
        Method(
            "cosine_a",
            "Cosine A",
            "Keeps A where the columns of A and B point the same way, takes B where they differ; alpha shifts to B.",
            "SuperMerger's cosineA without its first pass, as sd-mecha's add_cosine_a",
            (2, 2),
            ends={1.0: 1},
        ),
        Method(
            "cosine_b",
            "Cosine B",
            "Cosine A with the likeness of the whole tensors averaged in, which favours the details of B.",
            "SuperMerger's cosineB without its first pass, as sd-mecha's add_cosine_b",
            (2, 2),
            ends={1.0: 1},
        ),
    )
}
