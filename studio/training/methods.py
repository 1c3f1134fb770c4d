"""The ways to train as a table, without torch: what each is called, what it learns, and which settings it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """One line of the table.

    ``form``: what Stability's modelspec calls its result. ``own``: settings that no other way has. ``without``:
    settings that mean nothing to it and so have to stay as they are.
    """

    name: str
    title: str
    help: str
    reference: str
    form: str = "lora"
    own: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


METHODS: Mapping[str, Way] = {
    way.name: way
    for way in (
        Way(
            "text_to_image",
            "Pictures with captions",
            "An adapter learned from pictures that each have a caption.",
            "Rombach et al. 2022, arXiv 2112.10752",
        ),
        Way(
            "dreambooth",
            "DreamBooth",
            "An adapter learned from pictures of one subject with one prompt; class pictures keep its kind known.",
            "Ruiz et al. 2022, arXiv 2208.12242",
        ),
        Way(
            "joint",
            "Several together",
            "Several adapters, each on a task of its own, such as a view of an illusion, and then all together.",
            "Kheiri, Liu & Lin, Multi-Adapter joint fine-tuning of Diffusion Models with LoRA for Visual Illusions",
            own=("tasks", "steps_apart"),
            without=("earlier",),
        ),
        Way(
            "textual_inversion",
            "Textual inversion",
            "A new word: its vectors learn and the model stays as it is. A few KB, for SD 1.x, 2.x and SDXL.",
            "Gal et al. 2022, arXiv 2208.01618",
            form="textual-inversion",
            own=("vectors", "initializer"),
            without=(
                "adapter",
                "rank",
                "alpha",
                "targets",
                "options",
                "text_encoder",
                "text_encoder_learning_rate",
                "earlier",
                "file_precision",  # a few numbers
                "caption_dropout",  # a caption without the word teaches the word nothing
            ),
        ),
    )
}
