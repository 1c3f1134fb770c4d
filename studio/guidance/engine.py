"""From a request to a table: every guider's pictures from the same noise, measured, with their price."""

from __future__ import annotations

import time
from pathlib import Path

from studio.devices import PeakMemory
from studio.errors import Cancelled
from studio.guidance.cells import Cells
from studio.guidance.drawing import Drawing
from studio.guidance.grid import Column, columns
from studio.guidance.metrics import Measured, Reader, measured, strange
from studio.guidance.preflight import check, check_files
from studio.guidance.request import GuidanceRequest
from studio.guidance.result import GuidanceResult
from studio.models import wearing
from studio.models.clip import ClipScorer
from studio.models.lora_files import read_lora
from studio.models.networks import Network
from studio.models.store import ModelStore
from studio.models.streams import sha256_of
from studio.progress import OnStep, Step, ignore


def run(
    request: GuidanceRequest, models: ModelStore, *, on_step: OnStep = ignore, folder: Path | None = None
) -> GuidanceResult:
    """Draw and measure what ``request`` compares. ``folder``: the run's, where every finished cell is kept at once.

    Raises StudioError for adapters, models or grids that cannot be used. What ``on_step`` raises stops the run;
    ``Cancelled.kept`` then holds what was drawn, measured, and ``resume`` goes on from the folder.
    """
    begun = time.perf_counter()
    check(request)
    check_files(request, models.assets, models.models_dir)
    on_step(Step(0, 1, note="Loading the model"))
    words = {"style": request.style, "character": request.character}
    # What cannot be loaded is refused before the work.
    notes = models.scorer(request.extractor, lambda scorer: strange(scorer, words))
    peak, found = PeakMemory(models.device), columns(request)
    files = wearing.files(request.adapters, models.assets, models.models_dir)
    hashes = {name: sha256_of(read_lora(path).path) for name, path in files.items()}
    cells = Cells(request, found, hashes, folder)
    drawing = Drawing(cells, on_step)
    try:
        models.network(request.model, lambda network: _draw(models, network, files, drawing))
        stopped = False
    except (Cancelled, KeyboardInterrupt):
        if not cells:
            raise
        stopped = True
    result = GuidanceResult(
        request=request,
        columns=found,
        cells=cells,
        measured=_measure(request, models, cells, found),
        seconds=time.perf_counter() - begun,
        evaluations=drawing.evaluations,
        notes=(*notes, *wearing.slower(files), *drawing.notes),
        stopped=stopped,
        peak_memory=peak.bytes,
    )
    if stopped:
        raise Cancelled(kept=result)
    return result


def _draw(models: ModelStore, network: Network, files: dict[str, Path], drawing: Drawing) -> None:
    with models.adapters(network, files):
        drawing.draw(network)


def _measure(
    request: GuidanceRequest, models: ModelStore, cells: Cells, found: tuple[Column, ...]
) -> tuple[Measured | None, ...]:
    def read(scorer: ClipScorer) -> tuple[Measured | None, ...]:
        reader = Reader(scorer, request.prompts, request.style, request.character)
        return tuple(measured(cells, reader, index) for index in range(len(found)))

    return models.scorer(request.extractor, read)
