"""Where a network's parts are while it works: all on the device, or brought there one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from studio.models.memory import TILE, Arrangement, Offload, Work, arrange

CPU = torch.device("cpu")


class Host(Protocol):
    """Who knows about memory and can make room: the store that the network is kept in."""

    def free_memory(self, held: int = 0) -> int:
        """Bytes that a model could fill which holds ``held`` of them already."""

    def evict_idle(self) -> None: ...


class Residence:
    """The parts of one network on ``device``.

    Offloaded parts wait in the CPU's memory. One comes to the device when it is used, and the one before it leaves,
    which costs nothing: the weights that wait are never given up, and nobody writes to those on the device.
    """

    def __init__(
        self,
        parts: Mapping[str, Any],
        device: torch.device,
        offload: Offload = "auto",
        host: Host | None = None,
    ) -> None:
        self.parts = {name: part for name, part in parts.items() if isinstance(part, nn.Module)}
        self.device, self.offload, self.host = device, offload, host
        self.tile_side = TILE
        self.tiled = False
        self._hooks: list[Any] = []
        self._here = ""  # the offloaded part that is on the device
        # Its weights in the CPU's memory: the tables of its modules that they belong in, their names there, themselves.
        self._waiting: list[tuple[dict[str, Tensor | None], str, Tensor]] = []

    @property
    def offloaded(self) -> bool:
        return bool(self._hooks)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of every part's weights."""
        return {name: sum(_bytes(tensor) for tensor in _tensors(part)) for name, part in self.parts.items()}

    def bytes_on_device(self) -> int:
        held = chain.from_iterable(_tensors(part) for part in self.parts.values())
        return sum(_bytes(tensor) for tensor in held if tensor.device.type == self.device.type)

    def arrange(self, side: int, rows: int) -> Arrangement:
        """Lay the parts out for pictures of ``side`` pixels, ``rows`` of them in a forward at the most.

        Other models leave before anything slower than having all on the device is chosen.
        """
        itemsize = max((part.dtype.itemsize for name, part in self.parts.items() if name != "vae"), default=4)
        work = Work(side, rows, itemsize)
        if self.host is None:
            return Arrangement(self.offloaded, self.tiled, rows, 0, True)
        found = self._planned(work)
        if found.offload or found.tiled or found.rows < rows:
            self.host.evict_idle()
            found = self._planned(work)
        self.settle(found.offload)
        self.tile(self.tile_side if found.tiled else None)
        return found

    def _planned(self, work: Work) -> Arrangement:
        return arrange(self.host.free_memory(self.bytes_on_device()), self.sizes, work, self.offload)

    def settle(self, offloaded: bool) -> None:
        """Put all parts on the device, or let them wait in the CPU's memory until they are used."""
        self.leave()
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        with torch.inference_mode(False):
            for part in self.parts.values():
                part.to(CPU if offloaded else self.device)
        if offloaded:
            # The autoencoder is not called but asked to encode or decode: the network brings it itself.
            self._hooks = [
                part.register_forward_pre_hook(self._arriving(name), with_kwargs=True)
                for name, part in self.parts.items()
            ]

    def bring(self, name: str) -> None:
        """Have the part on the device; nothing to do unless parts are offloaded."""
        if not self.offloaded or self._here == name:
            return
        self.leave()
        self._here = name
        copies: dict[Tensor, Tensor] = {}  # weights that several modules share stay shared
        with torch.inference_mode(False):
            for table, key, tensor in _held(self.parts[name]):
                self._waiting.append((table, key, tensor))
                if tensor not in copies:
                    copy = tensor.detach().to(self.device)
                    copies[tensor] = nn.Parameter(copy, False) if isinstance(tensor, nn.Parameter) else copy
                table[key] = copies[tensor]

    def leave(self) -> None:
        """Send the offloaded part that is on the device away."""
        for table, key, tensor in self._waiting:
            table[key] = tensor
        self._waiting, self._here = [], ""

    def tile(self, side: int | None) -> bool:
        """Decode and encode pictures in overlapping tiles of ``side`` pixels (None: whole); whether that is new."""
        vae, before = self.parts.get("vae"), self.tiled
        if vae is None:
            return False
        self.tiled = side is not None
        vae.use_tiling, vae.use_slicing = self.tiled, self.tiled
        if side is not None:
            factor = 2 ** (len(vae.config.block_out_channels) - 1)
            vae.tile_sample_min_size, vae.tile_latent_min_size = side, max(1, side // factor)
        return self.tiled and not before

    def _arriving(self, name: str) -> Any:
        """A forward pre-hook: the part comes, and so do its inputs."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
            self.bring(name)
            return tuple(self._moved(arg) for arg in args), {key: self._moved(arg) for key, arg in kwargs.items()}

        return hook

    def _moved(self, value: Any) -> Any:
        return value.to(self.device) if isinstance(value, Tensor) else value


def _held(part: nn.Module) -> list[tuple[dict[str, Tensor | None], str, Tensor]]:
    """Every weight of a part with the table it is kept in and its name there."""
    tables = [table for module in part.modules() for table in (module._parameters, module._buffers)]
    return [(table, key, tensor) for table in tables for key, tensor in table.items() if tensor is not None]


def _tensors(part: nn.Module) -> list[Tensor]:
    return [*part.parameters(), *part.buffers()]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
