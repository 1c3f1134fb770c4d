"""Where views act: on a model's codes, which costs nothing, or on decoded pictures, which any view survives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.models.networks import Network
from studio.passes import Space
from studio.views.admission import carried, check_headroom
from studio.views.carrying import measured_headroom
from studio.views.permutations import Rearrangement
from studio.views.view import View, build

FINEST = 256  # cells along a side; finer ones make no better picture, and puzzles and animations of them are slow


@dataclass(frozen=True)
class Chosen:
    """The views as pictures are seen through them, where they act, and why.

    ``in_pictures``: clean estimates are decoded, joined as pictures and encoded again.
    """

    views: tuple[View, ...]
    in_pictures: bool
    notes: tuple[str, ...]


def choose(space: Space, specs: Sequence[str], network: Network, cells: int) -> Chosen:
    """Codes (``cells`` wide) where they carry every view, else pictures.

    ViewError for space=latent with a view that the codes cannot carry.
    """
    side = cells * network.factor
    if network.in_pixels:
        why = "This model has no autoencoder: its views act on the picture itself, and are exact."
        return Chosen(_of_pictures(specs, side), False, (why,))
    if space == "picture":
        why = "The views act on decoded pictures, as space=picture asks."
        return Chosen(_of_pictures(specs, side), True, (why,))
    views = tuple(build(spec, cells, network.factor) for spec in specs)
    measured = [(view, measured_headroom(view, network)) for view in views if str(view.spec) != "identity"]
    said = tuple(f"{view.title}: {found}." for view, found in measured)
    lost = [view.title for view, found in measured if not carried(found)]
    if space == "latent":
        for view, found in measured:
            check_headroom(view, found)
    elif lost:
        why = f"The views act on decoded pictures, since this model's codes cannot carry {' and '.join(lost)}."
        return Chosen(_of_pictures(specs, side), True, (why, *said))
    return Chosen(views, False, ("The views act on this model's codes, which carry them.", *said))


def _of_pictures(specs: Sequence[str], side: int) -> tuple[View, ...]:
    """Views of pictures ``side`` pixels wide, their cells as small as is of use."""
    cell = next(cell for cell in range(1, side + 1) if side % cell == 0 and side // cell <= FINEST)
    return tuple(build(spec, side // cell, cell) for spec in specs)


def pixel_by_pixel(view: View) -> View:
    """A view of pictures as one that takes pixels for codes: its ``show`` is what ``picture`` does to the whole."""
    if view.cell == 1:
        return view
    side, move, first = view.cells * view.cell, view.rearrangement, view.spec.steps[0]
    part = None if view.part is None else first.entry.build(first.parameters, side)
    unturned = np.zeros(side**2, np.uint8)  # a pixel looks the same however it is turned
    moved = Rearrangement(move.pixel_source(view.cell), unturned, unturned.astype(np.int32), move.channels, move.sign)
    return View(view.spec, side, 1, moved, part)
