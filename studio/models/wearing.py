"""Which file each adapter of a request is, and whether the request's model can carry it, from headers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from studio.errors import ModelError
from studio.models import refs

PLAIN = "LoRA"


def files(adapters: Mapping[str, str], assets: Path, models_dir: Path | None) -> dict[str, Path]:
    """The file or folder of every adapter by its name; UnknownNameError for one that is not there."""
    return {
        name: refs.resolve_lora(text, assets, models_dir, field=f"adapters.{name}") for name, text in adapters.items()
    }


def slower(files: Mapping[str, Path]) -> tuple[str, ...]:
    """A sentence for each adapter that is no plain LoRA: its change is written out at every step. Imports torch."""
    from studio.models.lora_files import read_lora

    found = {name: [kind for kind in read_lora(path).kinds if kind != PLAIN] for name, path in files.items()}
    return tuple(
        f"{name} is {' and '.join(kinds)}: exact as well, but slower than a plain LoRA."
        for name, kinds in found.items()
        if kinds
    )


def check(adapters: Mapping[str, str], model: str, assets: Path, models_dir: Path | None) -> None:
    """Refuse adapters that the model cannot carry. Imports torch when there are any.

    Raises a StudioError of one sentence that names the file, what it is and what is needed.
    """
    if not adapters:
        return
    from studio.models import fitting

    found = files(adapters, assets, models_dir)
    network = fitting.Fitting.of(model, assets, models_dir)
    for name, path in found.items():
        try:
            network.check(path)
        except ModelError as error:
            error.field = f"adapters.{name}"
            raise
