"""What each method puts into a network to learn, and how what was learned comes out of it, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from studio.models.networks import Network
from studio.training import export, inversion, joint
from studio.training.injecting import Learner, injected
from studio.training.preflight import kind_of
from studio.training.request import Method, TrainRequest


class Learning(Protocol):
    """What learns, while it is in a network."""

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """By names in an order that never changes; those of text encoders begin with "text_encoder"."""

    def wear(self, scales: Mapping[str, float]) -> None:
        """Of several adapters only these, at these scales, learn from now on; {}: there is one thing, which learns."""

    def wearing(self, scales: Mapping[str, float]) -> AbstractContextManager[None]:
        """The same until a block ends."""


class Learned(Protocol):
    """What was learned, off its network."""

    @property
    def kohya(self) -> Mapping[str, Tensor]:
        """Its tensors by the names that most programs read."""

    def save(self, folder: Path, name: str, notes: Mapping[str, str]) -> dict[str, str]:
        """Write its files; their names, by whose names are inside."""

    def save_kohya(self, path: Path, notes: Mapping[str, str]) -> None:
        """Write the file that most programs read."""


@dataclass(frozen=True)
class Seat:
    """``put``: into a network until a block ends, which leaves it as it was; ``take``: a copy of what is learned.

    ``check`` raises RequestError for captions that what was put in cannot learn from.
    """

    put: Callable[[Network, TrainRequest], AbstractContextManager[Any]]
    take: Callable[[Any, Network, TrainRequest], Learned]
    check: Callable[[Any, Network, Sequence[str]], None] = lambda learning, network, captions: None


def _adapter(learner: Learner, network: Network, request: TrainRequest) -> Learned:
    found = export.taken(learner, kind_of(request), several_encoders="text_encoder_2" in network.parts)
    return found.rounded(request.file_precision)


ADAPTER = Seat(injected, _adapter)
SEATS: Mapping[Method, Seat] = {
    "text_to_image": ADAPTER,
    "dreambooth": ADAPTER,
    "joint": Seat(
        lambda network, request: injected(network, request, joint.names_of(request)),
        lambda learner, network, request: joint.taken_together(
            learner, request, several_encoders="text_encoder_2" in network.parts
        ).rounded(request.file_precision),
    ),
    "textual_inversion": Seat(
        inversion.spelled, lambda words, network, request: inversion.taken(words), inversion.check_room
    ),
}
