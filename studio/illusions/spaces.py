"""Where views act: on a model's codes, which costs nothing, or on decoded pictures, which any view survives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studio.illusions.admission import carried, check_headroom
from studio.illusions.carrying import measured_headroom
from studio.illusions.permutations import Rearrangement
from studio.illusions.views import View, build
from studio.models.networks import Network
from studio.passes import Space

FINEST = 256  # cells along a side; finer ones make no better picture, and puzzles and animations of them are slow


@dataclass(frozen=True)
class Chosen:
    """``in_pictures``: clean estimates are decoded, joined as pictures and encoded again. ``notes`` say why."""

    in_pictures: bool
    notes: tuple[str, ...]


def choose(space: Space, views: Sequence[View], network: Network) -> Chosen:
    """Codes where they carry every view, else pictures; ViewError for space=latent with a view that they cannot carry.

    ``views`` are built for the codes.
    """
    if network.in_pixels:
        return Chosen(False, ("This model has no autoencoder: its views act on the picture itself, and are exact.",))
    if space == "picture":
        return Chosen(True, ("The views act on decoded pictures, as space=picture asks.",))
    measured = [(view, measured_headroom(view, network)) for view in views if str(view.spec) != "identity"]
    said = tuple(f"{view.title}: {found}." for view, found in measured)
    if space == "latent":
        for view, found in measured:
            check_headroom(view, found)
        return Chosen(False, said)
    lost = [view.title for view, found in measured if not carried(found)]
    if lost:
        why = f"The views act on decoded pictures, since this model's codes cannot carry {' and '.join(lost)}."
        return Chosen(True, (why, *said))
    return Chosen(False, (*said, "The views act on codes, which carry them; space=picture has them act on pictures."))


def of_pictures(view: View, side: int) -> View:
    """The same view for pictures ``side`` pixels wide, whose cells are as small as they can be (``FINEST``)."""
    cell = next(cell for cell in range(1, side + 1) if side % cell == 0 and side // cell <= FINEST)
    return build(view.spec, side // cell, cell)


def pixel_by_pixel(view: View) -> View:
    """A view of pictures as one that takes pixels for codes: its ``show`` is what ``picture`` does to the whole."""
    if view.cell == 1:
        return view
    side, move, first = view.cells * view.cell, view.rearrangement, view.spec.steps[0]
    part = None if view.part is None else first.entry.build(first.parameters, side)
    unturned = np.zeros(side**2, np.uint8)  # a pixel looks the same however it is turned
    moved = Rearrangement(move.pixel_source(view.cell), unturned, unturned.astype(np.int32), move.channels, move.sign)
    return View(view.spec, side, 1, moved, part)
