"""The kinds of adapters as a table, without torch: what each is called, what it changes, and what it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Layers = Literal["attention", "cross_attention", "linear", "all"]


class Options(BaseModel):
    """What a kind has beside rank and alpha."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Convolutions(Options):
    conv_rank: int = Field(4, ge=1, le=512, description="Rank of the convolutions of more than one pixel.")
    conv_alpha: float = Field(4.0, gt=0.0, le=1024.0, description="Alpha of those convolutions.")


class Kronecker(Options):
    factor: int = Field(-1, ge=-1, le=64, description="Size of the first Kronecker factor; -1 makes both about equal.")


class Blocks(Options):
    block_size: int = Field(8, ge=2, le=256, description="Inputs that each block turns; cut to a divisor of a layer's.")


class Butterfly(Options):
    block_size: int = Field(4, ge=2, le=64, description="Inputs that each block turns; must divide every layer's.")
    factors: int = Field(1, ge=1, le=4, description="Butterfly factors, each a turn of other blocks; 1 is plain OFT.")


@dataclass(frozen=True)
class Kind:
    """One line of the table.

    ``ranked``: rank and alpha count. ``low_rank``: its file is a LoRA that every tool reads; the others are written
    for LyCORIS's readers, or, if not ``factored``, as each layer's whole difference. ``layers``: what it may change.
    """

    name: str
    title: str
    help: str
    reference: str
    ranked: bool = True
    low_rank: bool = True
    factored: bool = True
    layers: tuple[Layers, ...] = ("attention", "cross_attention", "linear", "all")
    options: type[Options] = Options

    @property
    def short(self) -> str:
        """The title without what it says in brackets."""
        return self.title.partition(" (")[0]


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "lora",
            "LoRA",
            "W + alpha / r B A: two thin matrices beside each layer. Small, quick, read everywhere.",
            "Hu et al. 2021, arXiv 2106.09685",
        ),
        Kind(
            "rslora",
            "rsLoRA",
            "LoRA scaled by alpha / sqrt(r), so that high ranks learn as fast as low ones.",
            "Kalajdzievski 2023, arXiv 2312.03732",
        ),
        Kind(
            "dora",
            "DoRA",
            "LoRA for the direction of each output's weights, and a learned length. Closer to full training, slower.",
            "Liu et al. 2024, arXiv 2402.09353",
        ),
        Kind(
            "locon",
            "LoCon (LoRA of convolutions too)",
            "LoRA on linear layers and, with a rank of their own, on convolutions: for styles and textures.",
            "LyCORIS, Yeh et al. 2023, arXiv 2309.14859",
            layers=("all",),
            options=Convolutions,
        ),
        Kind(
            "loha",
            "LoHa",
            "The elementwise product of two LoRAs: rank r^2 from the numbers of 2 r.",
            "LyCORIS, section 3.2; FedPara, Hyeon-Woo et al. 2021, arXiv 2108.06098",
            low_rank=False,
        ),
        Kind(
            "lokr",
            "LoKr",
            "A Kronecker product of two small matrices: the smallest files.",
            "LyCORIS, section 3.3",
            low_rank=False,
            options=Kronecker,
        ),
        Kind(
            "oft",
            "OFT",
            "W R with R orthogonal in blocks: turns what a layer reads and keeps angles, so that little is forgotten.",
            "Qiu et al. 2023, arXiv 2306.07280; OFTv2, Qiu et al. 2025, arXiv 2506.19847",
            ranked=False,
            low_rank=False,
            factored=False,
            layers=(
                "attention",
                "cross_attention",
                "linear",
            ),  # of a 3 x 3 convolution PEFT's begins as no identity
            options=Blocks,
        ),
        Kind(
            "boft",
            "BOFT",
            "OFT whose turn is a product of butterfly factors, with a learned length for each output.",
            "Liu et al. 2023, arXiv 2311.06243",
            ranked=False,
            low_rank=False,
            factored=False,
            options=Butterfly,
        ),
    )
}

LAYERS: Mapping[Layers, str] = {
    "attention": "Query, key, value and output of all attention: the usual choice.",
    "cross_attention": "Keys and values of what attends to the prompt only (Custom Diffusion, Kumari et al. 2022).",
    "linear": "Every linear layer inside the blocks, feed-forward and time projections too.",
    "all": "Linear layers and convolutions inside the blocks.",
}
