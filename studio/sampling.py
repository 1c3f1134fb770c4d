"""The one equation and the one loop: weighted terms, evaluated in one batched forward per step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from studio.devices import derived_seed, seeded_noise, with_less
from studio.models.compiling import COMPILING
from studio.models.networks import Conditions, Network, Prediction
from studio.passes import AGAIN, NOWHERE, Travel
from studio.progress import OnStep, Step, ignore

SCHEDULERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "ddim": DDIMScheduler.from_config,
    "euler": EulerDiscreteScheduler.from_config,
    "dpm++2m": lambda config: DPMSolverMultistepScheduler.from_config({**config, "algorithm_type": "dpmsolver++"}),
}
# The same names for models that predict flow. On their straight paths DDIM's step is Euler's.
FLOW_SCHEDULERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "ddim": FlowMatchEulerDiscreteScheduler.from_config,
    "euler": FlowMatchEulerDiscreteScheduler.from_config,
    "dpm++2m": lambda config: DPMSolverMultistepScheduler.from_config(
        {
            "num_train_timesteps": config.get("num_train_timesteps", 1000),
            "algorithm_type": "dpmsolver++",
            "prediction_type": "flow_prediction",
            "use_flow_sigmas": True,
            "flow_shift": config.get("shift", 1.0),
        }
    ),
}


MOST_BATCHES = 64  # kept between steps by a predictor


class Seen(Protocol):
    """A view as the loop needs it: what the network is shown (V) and how its answer comes back (P)."""

    @property
    def shown_as(self) -> str: ...

    def show(self, x: Tensor) -> Tensor: ...

    def bring_back(self, prediction: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Upright:
    """The identity view."""

    shown_as: str = "identity"

    def show(self, x: Tensor) -> Tensor:
        return x

    def bring_back(self, prediction: Tensor) -> Tensor:
        return prediction


@dataclass(frozen=True)
class Term:
    """c * P(eps[theta + adapters](V x, t, prompt)): weight, prompt, view (V and P), adapters with their scales."""

    weight: float
    prompt: str
    view: Seen = field(default_factory=Upright)
    adapters: tuple[tuple[str, float], ...] = ()

    @property
    def row(self) -> Row:
        return (self.view.shown_as, self.prompt, self.adapters)


Adapters = tuple[tuple[str, float], ...]  # names with their scales
Row = tuple[str, str, Adapters]
Predict = Callable[[Tensor, list[Row]], Tensor]


@dataclass(frozen=True)
class Moment:
    """Where in the run a step stands: the noisy x that views are taken of (B x C x h x w) and its noise to signal."""

    x: Tensor
    sigma: float


Join = Callable[[Sequence[Tensor], Moment], Tensor]
"""From the sums of a plan's groups (each B x C x h x w, float32) to the one prediction that the step is taken with."""


def summed(sums: Sequence[Tensor], at: Moment) -> Tensor:
    """The join of every linear method: sum_i c_i P_i."""
    return sum(sums[1:], start=sums[0])


@dataclass(frozen=True)
class Plan:
    """One step of a method that is more than one sum of terms.

    Each group of terms is summed as it stands; ``join`` makes one prediction of the sums. Groups may repeat terms:
    all of them together are evaluated in one batched forward, equal rows once, so that a method which needs a prompt's
    answer beside the guided one (rescaled CFG), each view's own (variance rectification) or the clean estimate (APG,
    from ``Moment``) costs no evaluation more. A guider that remembers something lets its ``join`` write it down.
    """

    groups: Sequence[Sequence[Term]]
    join: Join = summed


Guider = Callable[[int, float], Sequence[Term] | Plan]
"""(step, sigma) -> the terms of this step, to be summed, or its plan. One guider serves one run: it may keep state."""


def guidance(prompt: str, negative: str, scale: float, weight: float, view: Seen) -> list[Term]:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6) as two terms whose weights sum to ``weight``."""
    return [Term(weight * (1 - scale), negative, view), Term(weight * scale, prompt, view)]


def combine(plan: Sequence[Term] | Plan, x: Tensor, predict: Predict, sigma: float = 0.0) -> tuple[Tensor, int]:
    """sum_i c_i P_i(prediction_i) in float32, or what the plan's join makes of such sums; and the rows evaluated.

    x is B x C x h x w. Rows with the same (view, prompt, adapters) are evaluated once; zero weights are not.
    """
    plan = plan if isinstance(plan, Plan) else Plan([plan])
    groups = [[term for term in group if term.weight != 0] for group in plan.groups]
    answers, evaluated = _answers([term for group in groups for term in group], x, predict)
    return plan.join([_weighted_sum(group, x, answers) for group in groups], Moment(x, sigma)), evaluated


def _answers(terms: Sequence[Term], x: Tensor, predict: Predict) -> tuple[dict[Row, Tensor], int]:
    """The network's float32 answer to every distinct row of ``terms``, in one call."""
    shown: dict[Row, Tensor] = {}
    for term in terms:
        if term.row not in shown:
            shown[term.row] = term.view.show(x)
    if not shown:
        return {}, 0
    rows = [row for row, seen in shown.items() for _ in seen]
    answers = predict(torch.cat(list(shown.values())), rows).float().split([len(seen) for seen in shown.values()])
    return dict(zip(shown, answers, strict=True)), len(rows)


def _weighted_sum(terms: Sequence[Term], x: Tensor, answers: Mapping[Row, Tensor]) -> Tensor:
    total = torch.zeros_like(x, dtype=torch.float32)
    for term in terms:
        total = total + term.weight * term.view.bring_back(answers[term.row])
    return total


def build_scheduler(name: str, config: Mapping[str, Any], steps: int, device: torch.device) -> Any:
    """A fresh diffusers scheduler with its timesteps set; of ``FLOW_SCHEDULERS`` if ``config`` is a flow model's."""
    flow = config.get("_class_name", "").startswith("FlowMatch")
    scheduler = (FLOW_SCHEDULERS if flow else SCHEDULERS)[name](dict(config))
    scheduler.set_timesteps(steps, device=device)
    return scheduler


def sigma_at(scheduler: Any, index: int) -> float:
    """Noise to signal at step ``index``: sqrt((1 - abar) / abar), for flow s / (1 - s), which starts at infinity."""
    if isinstance(scheduler, DDIMScheduler):
        alpha = scheduler.alphas_cumprod[int(scheduler.timesteps[index])]
        return float(((1 - alpha) / alpha).sqrt())
    sigma = float(scheduler.sigmas[index])
    if _flows(scheduler):
        return sigma / (1 - sigma) if sigma < 1 else math.inf
    return sigma


def _flows(scheduler: Any) -> bool:
    return isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or scheduler.config.get("use_flow_sigmas", False)


def noise_share(sigma: float) -> float:
    """The s of flow's x = (1 - s) clean + s noise whose noise to signal is ``sigma``."""
    return sigma / (1 + sigma) if math.isfinite(sigma) else 1.0


def clean_estimate(prediction: Tensor, x: Tensor, sigma: float, kind: Prediction) -> Tensor:
    """The clean latents that a prediction at x (at the scale its network reads it) implies."""
    if kind == "flow":
        return x - noise_share(sigma) * prediction
    alpha = 1 / (1 + sigma**2)
    if kind == "epsilon":
        return (x - (1 - alpha) ** 0.5 * prediction) / alpha**0.5
    if kind == "v_prediction":
        return alpha**0.5 * x - (1 - alpha) ** 0.5 * prediction
    return prediction


def from_clean(clean: Tensor, x: Tensor, sigma: float, kind: Prediction) -> Tensor:
    """The inverse of ``clean_estimate``: the prediction of ``kind`` that implies ``clean``."""
    if kind == "flow":
        return (x - clean) / noise_share(sigma)
    alpha = 1 / (1 + sigma**2)
    if kind == "epsilon":
        return (x - alpha**0.5 * clean) / (1 - alpha) ** 0.5
    if kind == "v_prediction":
        return (alpha**0.5 * x - clean) / (1 - alpha) ** 0.5
    return clean


class Predictor:
    """``predict`` of one network, for one run.

    Rows are split to ``max_rows``, and into halves whenever memory runs out, for the rest of the run. A prompt is
    encoded once for each set of adapters that changes its encoding. ``say`` is told what makes a person wait.
    """

    def __init__(
        self, network: Network, max_rows: int | None = None, say: Callable[[str], None] = lambda words: None
    ) -> None:
        self.network, self.max_rows, self.say = network, max_rows, say
        self._encoded: dict[tuple[str, Adapters], Conditions] = {}
        self._batches: dict[tuple[Row, ...], tuple[Conditions, dict[str, Tensor]]] = {}
        self.t = torch.tensor(0)

    @classmethod
    def for_run(cls, network: Network, side: int, rows: int, say: Callable[[str], None]) -> Predictor:
        """The network laid out in memory for pictures of ``side`` pixels, at most ``rows`` of them in a forward."""
        found = network.residence.arrange(side, rows)
        return cls(network, found.rows if found.rows < rows else None, say)

    def notes(self) -> tuple[str, ...]:
        """What memory and compiling made different about this run, in sentences."""
        residence, said = self.network.residence, []
        if residence.offloaded:
            said.append("To save memory, the parts of the model came to the device one after the other.")
        if residence.tiled:
            said.append(f"Memory was short: pictures were decoded in tiles of {residence.tile_side} pixels.")
        if self.max_rows:
            rows = "1 row" if self.max_rows == 1 else f"{self.max_rows} rows"
            said.append(f"Memory was short: the network saw {rows} at a time.")
        compiled = self.network.compiled
        return tuple(said) if compiled is None else (*said, compiled.words())

    def __call__(self, x: Tensor, rows: list[Row]) -> Tensor:
        def fewer() -> bool:
            size = min(self.max_rows or len(rows), len(rows))
            self.max_rows = (size + 1) // 2
            return size > 1

        return with_less(lambda: self._in_parts(x, rows), fewer, x.device)

    def _in_parts(self, x: Tensor, rows: list[Row]) -> Tensor:
        size = self.max_rows or len(rows)
        parts = [self._forward(x[i : i + size], tuple(rows[i : i + size])) for i in range(0, len(rows), size)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _forward(self, x: Tensor, rows: tuple[Row, ...]) -> Tensor:
        if rows not in self._batches:
            if len(self._batches) >= MOST_BATCHES:  # a run of very many columns must not fill the memory
                self._batches.clear()
            self._batches[rows] = self._conditions(rows), _scales(rows, x.device)
        compiled = self.network.compiled
        if compiled is not None and compiled.is_new(x):
            self.say(COMPILING)
        return self.network.predict(x, self.t, *self._batches[rows])

    def _conditions(self, rows: tuple[Row, ...]) -> Conditions:
        wanted = [(prompt, self.network.attached.text_key(adapters)) for _, prompt, adapters in rows]
        for prompt, adapters in dict.fromkeys(wanted):
            if (prompt, adapters) not in self._encoded:
                self._encoded[prompt, adapters] = self.network.encode_adapted([prompt], adapters)
        found = [self._encoded[key] for key in wanted]
        extra = {name: torch.cat([c.extra[name] for c in found]) for name in found[0].extra}
        return Conditions(torch.cat([c.embeds for c in found]), extra)


def _scales(rows: Sequence[Row], device: torch.device) -> dict[str, Tensor]:
    """Each adapter's scale in every row, 0 where a row does not name it."""
    names = dict.fromkeys(name for _, _, adapters in rows for name, _ in adapters)
    return {
        name: torch.tensor([dict(adapters).get(name, 0.0) for _, _, adapters in rows], device=device) for name in names
    }


def gone_back(clean: Tensor, x: Tensor, fresh: Tensor, sigmas: tuple[float, float], kind: Prediction) -> Tensor:
    """x at the first one of ``sigmas`` again, after a step down to the second and new noise in place of what it took.

    With x = a clean + b eps, eps becomes k eps + sqrt(1 - k^2) fresh, k being the second sigma over the first.
    """
    sigma, lower = sigmas
    share, kept = noise_share(sigma), lower / sigma
    a, b = (1 - share, share) if kind == "flow" else ((1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5)
    return a * clean + kept * (x - a * clean) + b * (1 - kept**2) ** 0.5 * fresh


@dataclass(frozen=True)
class Start:
    """Clean latents (B x C x h x w) that a run begins from, and the step it begins with: SDEdit (Meng et al. 2022)."""

    clean: Tensor
    step: int


@dataclass(frozen=True)
class Route:
    """What is out of the ordinary about a run: where it starts, which steps it repeats, a predictor that it shares.

    ``start`` leaves out the steps before its own; ``predict`` serves several pictures of one run.
    """

    start: Start | None = None
    travel: Travel = NOWHERE
    predict: Predictor | None = None


def begun(scheduler: Any, noise: Tensor, start: Start | None = None) -> Tensor:
    """The noisy latents that a run begins with: nothing but noise, or clean latents under the noise of their step."""
    # Flow needs no scaling at all, so its Euler scheduler does not speak of any.
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    if start is None:
        return noise if flow else noise * scheduler.init_noise_sigma
    t = scheduler.timesteps[start.step].expand(len(noise))
    if not isinstance(scheduler, DDIMScheduler):  # the others count their steps themselves
        scheduler.set_begin_index(start.step)
    return scheduler.scale_noise(start.clean, t, noise) if flow else scheduler.add_noise(start.clean, noise, t)


@torch.inference_mode()
def denoise(
    network: Network, scheduler: Any, guider: Guider, noise: Tensor, on_step: OnStep = ignore, route: Route = Route()
) -> Tensor:
    """From standard normal ``noise`` (B x C x h x w) to clean latents, one batched forward per pass.

    ``on_step`` gets the sigma, the clean estimate and the evaluations so far; what it raises ends the run.
    """
    scaled = not isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    noise, travel, predict = noise * network.noise_scale, route.travel, route.predict or Predictor(network)
    latents, first = begun(scheduler, noise, route.start), route.start.step if route.start else 0
    steps, evaluations, done = len(scheduler.timesteps), 0, 0
    for index, t in enumerate(scheduler.timesteps[first:], first):
        sigma, predict.t = sigma_at(scheduler, index), t
        for left in reversed(range(travel.at(index, steps))):
            x = scheduler.scale_model_input(latents, t) if scaled else latents
            prediction, evaluated = combine(guider(index, sigma), x, predict, sigma)
            clean = clean_estimate(prediction, x, sigma, network.prediction)
            if left:
                lower = sigma_at(scheduler, index + 1) if index + 1 < steps else 0.0
                fresh = seeded_noise(tuple(x.shape), derived_seed(travel.seed, AGAIN, done), x.device)
                scale = scheduler.scale_model_input(noise.new_ones(()), t) if scaled else 1.0
                latents = gone_back(clean, x, fresh * network.noise_scale, (sigma, lower), network.prediction) / scale
            else:
                latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
            evaluations, done = evaluations + evaluated, done + 1
            on_step(Step(done, travel.passes(steps, first), sigma=sigma, evaluations=evaluations, clean=clean))
    return latents
