"""How well a loaded model's codes carry a view: measured once per model, view and size."""

from __future__ import annotations

import torch

from studio.models.networks import Network
from studio.views.admission import Headroom, dead_leaves, headroom
from studio.views.view import View

PROBES = 2


def measured_headroom(view: View, network: Network) -> Headroom:
    """``headroom`` of a view on this network's autoencoder, remembered with the network."""
    key = f"{view.spec} {view.cells}"
    if key not in network.headrooms:
        with torch.inference_mode():
            pictures = dead_leaves(PROBES, view.cells * view.cell).to(network.device)
            network.headrooms[key] = headroom(view, network.encode, network.decode, pictures)
    return network.headrooms[key]
