"""Picture space: views act on pictures, not on codes, so that a model can draw what its codes cannot carry.

Every view has noisy codes of its own. At each pass their clean estimates are decoded, brought back upright, joined to
one picture, seen through every view again and encoded; what the autoencoder loses of an estimate, z0 - E(D(z0)), is
carried along (LookingGlass, Chang et al. 2025, arXiv 2504.08902; there with warps and pyramids, here with views that
are exact pixel for pixel). Only pictures pass between views, so any autoencoder and any sampler will do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from studio.devices import derived_seed, seeded_noise
from studio.illusions.failures import Noise, neighbour_correlation
from studio.illusions.joining import WEIGH_EVERY, Weigh, from_noise, noise_estimate, power
from studio.illusions.reductions import Entry
from studio.illusions.spaces import pixel_by_pixel
from studio.models.networks import Network
from studio.passes import TRACK
from studio.sampling import Moment, Plan, Term, clean_estimate, from_clean
from studio.views.view import View


@dataclass(frozen=True)
class Track:
    """The view of a run's ``count`` noisy codes (count x C x h x w) that is one of them: V takes it, P puts it back.

    Views that show the network the same, as all parts of one picture do, share a track.
    """

    shown_as: str
    index: int
    count: int

    def show(self, x: Tensor) -> Tensor:
        """Its own of all tracks' codes: 1 x C x h x w."""
        return x[self.index : self.index + 1]

    def bring_back(self, prediction: Tensor) -> Tensor:
        back = prediction.new_zeros((self.count, *prediction.shape[1:]))
        back[self.index] = prediction[0]
        return back


def tracks(views: Sequence[View]) -> tuple[Track, ...]:
    """The track of every view."""
    names = list(dict.fromkeys(view.shown_as for view in views))
    return tuple(Track(view.shown_as, names.index(view.shown_as), len(names)) for view in views)


class InPictures:
    """A guider that joins the views' clean estimates as pictures. One serves one run.

    ``views`` are built for pictures, ``by_view`` are each view's guidance terms on its track, of weight 1 together.
    ``weigh`` measures weights in the joined picture (1 x 3 x H x W), which ``picture`` keeps for previews.
    """

    def __init__(
        self,
        network: Network,
        views: Sequence[View],
        by_view: Sequence[Sequence[Term]],
        entry: Entry,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.network, self.by_view, self.entry = network, by_view, entry
        self.views = tuple(pixel_by_pixel(view) for view in views)
        self.tracks = tracks(self.views)
        given = weights or [1.0] * len(views)
        self.weights = tuple(1.0 if entry.kind == "component" else weight / sum(given) for weight in given)
        self.weigh: Weigh | None = None
        self.picture: Tensor | None = None
        self.passes = self.decoded = self.encoded = 0
        self._lost: dict[int, Tensor] = {}
        self._noise: list[Tensor] = []

    def __call__(self, step: int, sigma: float) -> Plan:
        count, turns = len(self.by_view), self.entry.weights == "turns"
        asked = [self.passes % count] if turns else list(range(count))

        def join(sums: Sequence[Tensor], at: Moment) -> Tensor:
            return self._join(dict(zip(asked, sums, strict=True)), at, step)

        return Plan([self.by_view[index] for index in asked], join)

    def noise_of(self, seed: int, cells: int) -> Tensor:
        """What every track starts from, count x C x cells x cells; the first one as a run on codes does."""
        shape, device = (1, self.network.channels, cells, cells), self.network.device
        others = [derived_seed(seed, TRACK, index) for index in range(1, self.tracks[0].count)]
        return torch.cat([seeded_noise(shape, each, device) for each in (seed, *others)])

    def cost(self, steps: int) -> str:
        """What this run took, in words; called when it is finished."""
        return (
            f"{steps} steps took {self.passes} passes of the network, {self.decoded} decodings and "
            f"{self.encoded} encodings of pictures"
        )

    def finished(self, latents: Tensor) -> Tensor:
        """The picture (3 x H x W) that clean codes of all tracks make together."""
        shown = {track: self._decode(track.show(latents)) for track in dict.fromkeys(self.tracks)}
        return self._joined({index: shown[track] for index, track in enumerate(self.tracks)})[0]

    def noise(self) -> Noise:
        """What was predicted as noise over the run. Views have noise of their own, so that none is compared."""
        seen = torch.stack(self._noise).double().cpu()
        variance, neighbours, kept = seen.mean(0).tolist()
        several = len(self.by_view) > 1 and self.entry.weights != "turns" and self.entry.kind == "orthogonal"
        return Noise(variance, neighbours, kept, seen[:, 2].min().item()) if several else Noise(variance, neighbours)

    def _join(self, sums: Mapping[int, Tensor], at: Moment, step: int) -> Tensor:
        """From the guided predictions of views, by their index, to that of all tracks."""
        own = {index: self.tracks[index].show(each) for index, each in sums.items()}
        seen: dict[int, Tensor] = {}
        lost: dict[int, list[Tensor]] = {}
        for index, prediction in own.items():
            track = self.tracks[index]
            clean = clean_estimate(prediction, track.show(at.x), at.sigma, self.network.prediction)
            seen[index] = self._decode(clean)
            lost.setdefault(track.index, []).append(clean - self._encode(seen[index]))
        self._lost |= {index: sum(each) / len(each) for index, each in lost.items()}
        self.picture = self._joined(seen)
        joined = self._measured(self.codes_of(self.picture), own, at)
        self.passes += 1
        if self.weigh is not None and self.passes % WEIGH_EVERY == 0:
            self.weights = tuple(self.weigh(self.picture, step))
        return joined

    def _joined(self, seen: Mapping[int, Tensor]) -> Tensor:
        """One picture of what the views show, each by its weight; by all of it where one view has its turn."""
        share = 1.0 if self.entry.kind == "component" else sum(self.weights[index] for index in seen)
        parts = (self.weights[index] / share * self.views[index].bring_back(each) for index, each in seen.items())
        return sum(parts).clamp(-1, 1)

    def codes_of(self, picture: Tensor) -> Tensor:
        """The picture as every track sees it, encoded, with what the autoencoder lost there the last time."""
        first = {track.index: view for track, view in zip(self.tracks[::-1], self.views[::-1], strict=True)}
        codes = [self._encode(first[index].show(picture)) + self._lost.get(index, 0.0) for index in sorted(first)]
        return torch.cat(codes)

    def _measured(self, clean: Tensor, own: Mapping[int, Tensor], at: Moment) -> Tensor:
        """The prediction that implies ``clean``, with the variance of the views' own where that is to be restored."""
        kind = self.network.prediction
        joined = from_clean(clean, at.x, at.sigma, kind)
        noise = noise_estimate(joined, at, kind)
        kept = noise.new_ones(len(noise), 1, 1, 1)
        for track in dict.fromkeys(self.tracks[index] for index in own):
            here = Moment(track.show(at.x), at.sigma)
            powers = [power(noise_estimate(own[i], here, kind)) for i in own if self.tracks[i] == track]
            kept[track.index] = (power(track.show(noise)) / (sum(powers) / len(powers)).clamp_min(1e-12))[0]
        # Flow begins at nothing but noise, which no estimate of the picture changes.
        if self.entry.rectified and math.isfinite(at.sigma):
            noise, kept = noise / kept.clamp_min(1e-12).sqrt(), torch.ones_like(kept)
            joined = from_noise(noise, at, kind)
        self._noise.append(torch.stack([power(noise).mean(), neighbour_correlation(noise), kept.mean()]))
        return joined

    def _decode(self, codes: Tensor) -> Tensor:
        self.decoded += 1
        return self.network.decode(codes)

    def _encode(self, pictures: Tensor) -> Tensor:
        self.encoded += 1
        return self.network.encode(pictures)
