"""Whether a loaded model's codes carry the views that are asked for: measured once per model, view and size."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from studio.illusions.admission import Headroom, check_headroom, dead_leaves, headroom
from studio.illusions.views import View
from studio.models.networks import Network

PROBES = 2


def check_carried(views: Sequence[View], network: Network) -> tuple[str, ...]:
    """One sentence per rearranging view with what was measured; ViewError for a view that the codes cannot carry."""
    notes = []
    for view in views:
        if str(view.spec) == "identity":
            continue
        measured = measured_headroom(view, network)
        check_headroom(view, measured)
        notes.append(f"{view.title}: {measured}.")
    return tuple(notes)


def measured_headroom(view: View, network: Network) -> Headroom:
    """``headroom`` of a view on this network's autoencoder, remembered with the network."""
    key = f"{view.spec} {view.cells}"
    if key not in network.headrooms:
        with torch.inference_mode():
            pictures = dead_leaves(PROBES, view.cells * view.cell).to(network.device)
            network.headrooms[key] = headroom(view, network.encode, network.decode, pictures)
    return network.headrooms[key]
