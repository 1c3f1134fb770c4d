"""What can be said of a training before a model is loaded: whether its settings fit together, its cost, its name."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import RequestError, UnknownNameError, shortened
from studio.models.refs import BUILTIN
from studio.requests import own_options
from studio.training import tasks, trackers
from studio.training.buckets import Size, batch_count, bucket_sizes, nearest_bucket, step_for
from studio.training.captions import check_words
from studio.training.kinds import KINDS, Kind, Options
from studio.training.methods import METHODS
from studio.training.plan import Plan, split
from studio.training.records import Example
from studio.training.request import TrainRequest
from studio.training.uploads import UPLOAD, files_of

if TYPE_CHECKING:
    from studio.settings import Settings

EMPTY = (None, "", (), {})
PENALISED = ("lora", "rslora", "locon")  # kinds whose change is a scale times B A
LONGEST = 14 * 24 * 3600.0  # seconds that a run may be expected to take


@dataclass(frozen=True)
class Optimizer:
    """One line of the table; ``needs`` is the package that it comes from, beside torch and transformers."""

    title: str
    help: str
    reference: str
    usual: float
    most: float
    needs: str = ""

    @property
    def here(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None


OPTIMIZERS: Mapping[str, Optimizer] = {
    "adamw": Optimizer("AdamW", "The usual choice.", "Loshchilov & Hutter 2017, arXiv 1711.05101", 1e-4, 0.05),
    "adafactor": Optimizer(
        "Adafactor", "Less memory than AdamW.", "Shazeer & Stern 2018, arXiv 1804.04235", 1e-4, 0.05
    ),
    "prodigy": Optimizer(
        "Prodigy", "Finds the learning rate itself; give it 1.", "Mishchenko & Defazio 2023", 1.0, 4.0, "prodigyopt"
    ),
    "adamw8bit": Optimizer(
        "AdamW, 8 bit", "AdamW in a quarter of the memory.", "Dettmers et al. 2021", 1e-4, 0.05, "bitsandbytes"
    ),
}


def check(request: TrainRequest, settings: Settings | None = None) -> None:
    """Raises RequestError for settings that do not fit together; of files only earlier LoRAs are looked at."""
    _check_method(request)
    check_words(request.trigger, request.template)
    _check_kind(request)
    _check_earlier(request, settings)
    _check_optimizer(request)
    trackers.check(request.trackers)
    tasks.check(request)
    if request.epochs is None and request.warmup_steps >= request.steps:
        raise RequestError(
            f"warmup_steps: must be less than the {request.steps} steps, got {request.warmup_steps}.",
            field="warmup_steps",
        )
    if request.patience and not request.validation_share:
        raise RequestError(
            "patience: stopping early needs pictures to validate on; set validation_share.", field="patience"
        )


def evaluations(request: TrainRequest) -> int:
    """What the job counts as, in rows of the network."""
    return request.evaluations


def headline(request: TrainRequest) -> str:
    """What the job is called in lists."""
    way = METHODS[request.method]
    made = KINDS[request.adapter].short if way.form == "lora" else way.title
    return shortened(request.title or f"{made} of {_made_name(request)}", 120)


def file_name(request: TrainRequest) -> str:
    """The result's name without a suffix, safe for any disk."""
    return re.sub(r"[^\w.()+-]+", "-", request.title or _made_name(request)).strip("-.")[:80] or "lora"


def planned(request: TrainRequest, pictures: int, batches: int, kept: int = 0) -> Plan:
    """Steps and epochs of ``request`` where an epoch has so many pictures in so many batches; ``kept`` are held out."""
    steps = request.steps
    if request.epochs is not None:
        steps = math.ceil(request.epochs * batches / request.accumulation)
    return Plan(steps, pictures, batches, request.accumulation, kept)


def planned_for(request: TrainRequest, examples: Sequence[Example], size: int, factor: int) -> Plan:
    """The plan for a dataset and a model of ``size`` pixels with ``factor`` pixels per latent cell: what will run."""
    shapes, (learn, kept) = shapes_for(request, size, factor), split(examples, request.validation_share, request.seed)
    homes = [nearest_bucket(example.size, shapes) for example in learn]
    repeats = [example.repeats for example in learn]
    return planned(request, sum(repeats), batch_count(homes, repeats, request.batch_size), len(kept))


def planned_together(request: TrainRequest, plans: Sequence[Plan]) -> Plan:
    """The plan of a joint training whose tasks have ``plans`` by themselves."""
    return Plan(
        request.all_apart + request.steps,
        sum(plan.pictures for plan in plans),
        sum(plan.batches for plan in plans),
        request.accumulation,
        sum(plan.held_out for plan in plans),
        len(plans),
        request.steps_apart,
    )


def planned_for_tasks(request: TrainRequest, sets: Sequence[Sequence[Example]], size: int, factor: int) -> Plan:
    """``planned_for`` with one dataset for each task."""
    alone = (tasks.alone(request, index) for index in range(len(request.tasks)))
    plans = [planned_for(own, examples, size, factor) for own, examples in zip(alone, sets, strict=True)]
    return planned_together(request, plans)


def shapes_for(request: TrainRequest, size: int, factor: int) -> tuple[Size, ...]:
    """The sizes that pictures are cut to. Raises RequestError for a resolution that has none."""
    side = request.resolution or size
    step = step_for(side, factor)
    try:
        return bucket_sizes(side, step, square=not request.buckets or request.has_prior)
    except ValueError:
        fix = max(step, side // step * step)
        raise RequestError(
            f"resolution: must be a multiple of {step} pixels, got {side}; choose {fix}.", field="resolution"
        ) from None


def seconds(request: TrainRequest, steps: int, rate: float) -> float:
    """What ``steps`` take with all samples at ``rate`` seconds per row; RequestError for what nobody will wait for."""
    found = request.cost_of(steps) * rate
    if found > LONGEST:
        raise RequestError(
            f"steps: {steps:,} steps would take about {found / 86400:.0f} days here; lower steps, batch_size, "
            "accumulation or how often samples are drawn.",
            field="steps",
        )
    return found


def data_place(name: str, assets: Path, datasets: Path | None = None) -> Path:
    """Where a request's pictures lie: ``builtin:x`` among the assets, ``upload:id`` in ``datasets``, else as it is."""
    if name.startswith(UPLOAD):
        place = files_of(name, datasets)
        if place is None:
            raise RequestError("data: these pictures are not here any more; drop them again.", field="data")
        return place
    if not name.startswith(BUILTIN):
        return Path(name).expanduser()
    known = sorted(BUILTIN + folder.name for folder in (assets / "datasets").glob("*") if folder.is_dir())
    if name not in known:
        raise UnknownNameError("built-in set", name, known or ["none is here"], field="data")
    return assets / "datasets" / name.removeprefix(BUILTIN)


def kind_of(request: TrainRequest) -> Kind:
    return KINDS[request.adapter]


def options_of(request: TrainRequest) -> Options:
    """The kind's own settings; RequestError that names the one at fault."""
    return own_options(kind_of(request).options, request.options, request.adapter)


def _check_method(request: TrainRequest) -> None:
    """Settings of other methods are not quietly passed by."""
    way, fields = METHODS[request.method], TrainRequest.model_fields
    foreign = {field: other.title for other in METHODS.values() if other is not way for field in other.own}
    for field in (*way.without, *foreign):
        default = fields[field].default
        if getattr(request, field) != default:
            fix = "leave it empty" if default in EMPTY else f"leave it at {default!r}"
            whose = f"only {foreign[field]} has this" if field in foreign else f"{way.title} has no use for this"
            raise RequestError(f"{field}: {whose}; {fix}.", field=field)
    if way.form != "lora" and len(request.trigger.split()) != 1:
        raise RequestError(
            f"trigger: {way.title} needs one new word, such as <sks>, got {request.trigger!r}.", field="trigger"
        )


def _check_kind(request: TrainRequest) -> None:
    kind = kind_of(request)
    options_of(request)
    if request.targets not in kind.layers:
        raise RequestError(
            f"targets: {kind.title} changes {' or '.join(kind.layers)}, got {request.targets}; choose that, or lora.",
            field="targets",
        )
    if not kind.ranked and request.alpha is not None:
        raise RequestError(f"alpha: {kind.title} has none; leave it empty.", field="alpha")


def _check_earlier(request: TrainRequest, settings: Settings | None) -> None:
    """With ``settings``, which say where models lie, also that the earlier LoRAs are there and fit the model."""
    if request.earlier_penalty and request.adapter not in PENALISED:
        raise RequestError(
            f"earlier_penalty: {kind_of(request).title} is no plain product of two matrices; choose "
            f"{', '.join(PENALISED)}, or set 0.",
            field="earlier_penalty",
        )
    if request.earlier and settings is not None:
        from studio.training import continual

        continual.files_of(request, settings.assets, settings.models_dir)


def _check_optimizer(request: TrainRequest) -> None:
    entry = OPTIMIZERS[request.optimizer]
    if not entry.here:
        there = ", ".join(name for name, other in OPTIMIZERS.items() if other.here)
        raise RequestError(
            f"optimizer: {entry.title} needs the package {entry.needs}, which is not installed; choose {there}.",
            field="optimizer",
        )
    for field in ("learning_rate", "text_encoder_learning_rate"):
        rate = getattr(request, field)
        if rate is not None and rate > entry.most:
            raise RequestError(
                f"{field}: {rate:g} would make {entry.title} diverge; {entry.usual:g} is usual, and at most "
                f"{entry.most:g} is possible.",
                field=field,
            )


def _made_name(request: TrainRequest) -> str:
    if request.tasks:
        return "+".join(task.name for task in request.tasks)
    if request.data.startswith(UPLOAD):
        return request.trigger or "pictures"
    stem = re.split(r"[/\\:]", request.data.rstrip("/\\"))[-1].removesuffix(".zip")
    return request.trigger or stem or "pictures"
