"""Upscaling that keeps every view: the same terms once more at twice the size, begun from the noised, grown picture.

The grown picture is encoded, noised to a step in the middle of the schedule and denoised from there (SDEdit, Meng et
al. 2022, arXiv 2108.01073), under views that are exactly those of the small picture: a cell becomes k x k cells that
move and turn as it did. So whatever the picture was cut into before it is cut into afterwards.

Models draw something else at a size they were not made for. So the means of those k x k cells are held to the grown
picture's in every clean estimate (ILVR, Choi et al. 2021, arXiv 2108.02938, equation 8): what all views show coarsely
stays, and only what is finer is drawn. These means are rearranged by every view as a whole, so no view is favoured.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from studio.models.networks import Prediction
from studio.sampling import Guider, Moment, Plan, clean_estimate, from_clean
from studio.views.permutations import Rearrangement
from studio.views.view import View, build


def enlarged(view: View, times: int) -> View:
    """The same view of pictures ``times`` as wide, each of its codes as many pixels as before."""
    if times == 1:
        return view
    cells, move = view.cells * times, view.rearrangement
    finer = Rearrangement(
        move.pixel_source(times), _grown(move.turn, times), _grown(move.piece, times), move.channels, move.sign
    )
    # Parts of a picture are measured in shares of its side, so they are built anew.
    part = None if view.part is None else build(view.spec, cells, view.cell).part
    return View(view.spec, cells, view.cell, finer, part)


def larger(pixels: Tensor, times: int) -> Tensor:
    """The picture (3 x H x W in [-1, 1]) made ``times`` as wide: 1 x 3 x ..."""
    wider = F.interpolate(pixels[None], scale_factor=times, mode="bicubic", align_corners=False)
    return wider.clamp(-1, 1)


def anchored(guider: Guider, code: Tensor, times: int, kind: Prediction) -> Guider:
    """The same guider, with the coarse part of every clean estimate replaced by that of ``code`` (1 x C x h x w)."""

    def steps(step: int, sigma: float) -> Plan:
        plan = guider(step, sigma)
        plan = plan if isinstance(plan, Plan) else Plan([plan])

        def join(sums: Sequence[Tensor], at: Moment) -> Tensor:
            clean = clean_estimate(plan.join(sums, at), at.x, at.sigma, kind)
            return from_clean(clean + coarse(code - clean, times), at.x, at.sigma, kind)

        return Plan(plan.groups, join)

    return steps


def coarse(x: Tensor, times: int) -> Tensor:
    """Every cell becomes the mean of its block of ``times`` x ``times`` cells."""
    return F.interpolate(F.avg_pool2d(x, times), scale_factor=times, mode="nearest")


def _grown(values: NDArray, times: int) -> NDArray:
    side = round(values.size**0.5)
    return values.reshape(side, side).repeat(times, 0).repeat(times, 1).reshape(-1)
