"""Upscaling that keeps every view: the same terms once more at twice the size, begun from the noised, grown picture.

The grown picture is encoded, noised to a step in the middle of the schedule and denoised from there (SDEdit, Meng et
al. 2022, arXiv 2108.01073), under views that are exactly those of the small picture: a cell becomes k x k cells that
move and turn as it did. So whatever the picture was cut into before it is cut into afterwards.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from studio.illusions.permutations import Rearrangement
from studio.illusions.views import View, build
from studio.models.networks import Network


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


@torch.inference_mode()
def grown(network: Network, pixels: Tensor, times: int) -> Tensor:
    """The code of a picture ``times`` as wide: of pixels (3 x H x W in [-1, 1]), 1 x C x h x w."""
    larger = F.interpolate(pixels[None], scale_factor=times, mode="bicubic", align_corners=False)
    return network.encode(larger.clamp(-1, 1))


def _grown(values: NDArray, times: int) -> NDArray:
    side = round(values.size**0.5)
    return values.reshape(side, side).repeat(times, 0).repeat(times, 1).reshape(-1)
