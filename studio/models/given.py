"""A model by its tensors, wherever they come from: read from a file, or computed as they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from studio.models.files import Header

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Given:
    """What a file's header or a folder's headers say, and who makes the tensors.

    ``path`` is the file, whose name errors use, or the diffusers folder that configs and tokenizers are read from; the
    keys of a folder's tensors begin with their part ("unet/..."). ``read`` gives the tensors of some keys, on the CPU.
    """

    name: str
    path: Path
    header: Header
    notes: Mapping[str, str]
    read: Callable[[Sequence[str]], Tensors]

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    def part(self, name: str) -> Tensors:
        """The tensors of a folder's part, by the names that they have in its files."""
        prefix = f"{name}/"
        found = self.read([key for key in self.header if key.startswith(prefix)])
        return {key.removeprefix(prefix): value for key, value in found.items()}
