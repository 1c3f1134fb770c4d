"""What can be said of a comparison before a model is loaded: whether it fits together, what it costs, its name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import RequestError, StudioError, shortened
from studio.guidance.grid import columns
from studio.guidance.guiders import GUIDERS
from studio.guidance.request import GuidanceRequest
from studio.models import kinds, wearing

if TYPE_CHECKING:
    from studio.settings import Settings

MOST_CELLS = 10_000


def check(request: GuidanceRequest, settings: Settings | None = None) -> None:
    """Raises a StudioError of one sentence; with ``settings`` the adapters' headers are looked at too."""
    if cells(request) > MOST_CELLS:
        raise RequestError(
            f"sweep: {cells(request):,} pictures are more than the {MOST_CELLS:,} of one run; lower seeds, or leave "
            "values, prompts or guiders out.",
            field="sweep",
        )
    if settings is not None:
        check_files(request, settings.assets, settings.models_dir)


def check_files(request: GuidanceRequest, assets: Path, models_dir: Path | None) -> None:
    """Raises a StudioError, with the field at fault, for a model, extractor or adapter that cannot be used."""
    kinds.check_draws(request.model, assets, models_dir)
    try:
        kinds.check_scores(request.extractor, assets, models_dir)
    except StudioError as error:
        error.field = "extractor"
        raise
    wearing.check(request.adapters, request.model, assets, models_dir)


def cells(request: GuidanceRequest) -> int:
    """Pictures that the run draws."""
    return len(columns(request)) * len(request.prompts) * request.seeds


def evaluations(request: GuidanceRequest) -> int:
    """At most so many rows of the network."""
    each = sum(column.most_evaluations for column in columns(request))
    return each * len(request.prompts) * request.seeds


def headline(request: GuidanceRequest) -> str:
    """What the job is called in lists."""
    names = ", ".join(GUIDERS[name].title for name in request.guiders[:3])
    more = f" and {len(request.guiders) - 3} more" if len(request.guiders) > 3 else ""
    return shortened(f"{request.prompts[0]}: {names}{more}", 120)
