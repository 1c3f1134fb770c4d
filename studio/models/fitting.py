"""Whether a LoRA fits a model that is not loaded: the shapes of its layers, from headers and configs alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studio.models import files, lora_files, single_file
from studio.models.lora_names import Shapes
from studio.models.refs import Ref, resolve


@dataclass(frozen=True)
class Fitting:
    """A model by its name and the shapes of its layers; ``shapes`` is None for a model that is not on this machine."""

    name: str
    shapes: Shapes | None

    @classmethod
    def of(cls, name: str, assets: Path, models_dir: Path | None = None) -> Fitting:
        """The model ``name``; raises the error that loading it would, as far as its headers show it."""
        ref = resolve(name, assets, models_dir)
        return cls(name, _shapes(ref, assets / "configs"))

    def check(self, path: Path) -> None:
        """ModelFileError for a file that is no LoRA, is not whole, or was made for another network."""
        file = lora_files.read_lora(path)
        if self.shapes is not None:
            lora_files.match(file, self.shapes, self.name)


def _shapes(ref: Ref, configs: Path) -> Shapes | None:
    if ref.kind == "file":
        return single_file.shapes(ref.path, configs)
    folder = ref.path or _cached(ref.name)
    if folder is None:
        return None
    files.check_pipeline(folder)
    return lora_files.shapes_in(folder)


def _cached(name: str) -> Path | None:
    """The folder of a hub model that was downloaded before."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None
