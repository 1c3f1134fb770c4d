"""What a visitor may ask for: which models, how large, how many. Pure rules; the page and a raw call meet the same."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from studio import passes
from studio.errors import PolicyError, nearest, shortened
from studio.judged import Caption, Guidance, Illusion, Merge, Search, Strip, Train, Trials
from studio.settings import Settings

SCORER = "builtin:clip"
BUILTIN = "builtin:"  # small models, whose own size may always be doubled
LEAST_BETWEEN_CHECKPOINTS = 50  # each leaves a file
UPLOAD_FORMATS = ("PNG", "JPEG", "WEBP")
UPLOADED_SET = re.compile(r"upload:[0-9a-f]{32}")  # pictures that a person has put in, under a name nobody can guess
KEPT_EDITS = re.compile(r"[0-9a-f]{64}")  # edited captions as they were when a run began, named by their SHA-256
PART_ACTION = re.compile(r"merge|none|[a-h]|-?[0-9.]{1,8}")  # what may become of a part of a merge, but for files


@dataclass(frozen=True)
class Limits:
    """Sizes in pixels of a side, prompts in characters, evaluations of the network per job."""

    max_steps: int = 200
    max_size: int = 2048
    max_candidates: int = 16
    max_adapters: int = 4
    max_tries: int = 64  # candidates with every partner
    max_prompt: int = 400
    max_evaluations: int = 50_000
    max_cells: int = 10_000  # pictures that one comparison of guidance draws
    max_compared: int = 1_000_000  # evaluations of one comparison of guidance
    max_trials: int = 200  # merges that one search draws
    max_training: int = 10**10  # evaluations, a picture that is trained on counting three
    max_queue: int = 64
    max_queue_per_owner: int = 32
    max_upload_bytes: int = 50 * 1024**2
    max_upload_pixels: int = 64_000_000
    max_file_bytes: int = 20 * 1024**3  # of one file that is sent at all, be it a zip of a whole set
    max_set_files: int = 50_000  # pictures and captions of one set to train on
    max_set_bytes: int = 20 * 1024**3
    max_set_pixels: int = 120_000_000  # of one of its pictures
    max_sets: int | None = None  # of one owner
    max_sets_bytes: int | None = None  # of everybody's sets together
    sets_kept_for: float | None = None  # seconds after a set was last looked at; None keeps it until it is deleted
    max_runs_kept: int | None = None  # None keeps every result until a person deletes it
    listed_models_only: bool = False


LOCAL = Limits()
SHARED = Limits(
    max_steps=100,
    max_size=1024,
    max_candidates=4,
    max_adapters=2,
    max_tries=8,
    max_evaluations=2_000,
    max_cells=120,
    max_compared=2_000,
    max_trials=12,
    max_training=3_000,
    max_queue=32,
    max_queue_per_owner=4,
    max_upload_bytes=20 * 1024**2,
    max_upload_pixels=16_000_000,
    max_file_bytes=20 * 1024**2,
    max_set_files=120,
    max_set_bytes=60 * 1024**2,
    max_set_pixels=16_000_000,
    max_sets=3,
    max_sets_bytes=6 * 1024**3,
    sets_kept_for=24 * 3600.0,
    max_runs_kept=500,
    listed_models_only=True,
)


def limits_for(settings: Settings) -> Limits:
    return SHARED if settings.profile == "shared" else LOCAL


def check_launch(settings: Settings) -> None:
    """Raises PolicyError for a studio that strangers visit and that would start programs for them."""
    if settings.profile == "shared" and settings.launch is not None:
        raise PolicyError(
            "processes: a studio that strangers visit starts no programs; leave it out.", field="processes"
        )


def check_illusion(
    request: Illusion, limits: Limits, allowed_models: Collection[str], allowed_loras: Collection[str] = ()
) -> None:
    """Raises one PolicyError that lists everything this studio does not allow; its field is the first one's."""
    _refuse([*_illusion_problems(request, limits, allowed_models), *_adapter_problems(request, limits, allowed_loras)])


def check_merge(
    request: Merge, limits: Limits, allowed_models: Collection[str], allowed_loras: Collection[str] = ()
) -> None:
    """Raises one PolicyError. Strangers merge the small built-in models only: results stay on this disk."""
    _refuse(_merge_problems(request, allowed_models) if limits.listed_models_only else ())


def check_strip(
    request: Strip, limits: Limits, allowed_models: Collection[str], allowed_loras: Collection[str] = ()
) -> None:
    """Raises one PolicyError for a preview: ``check_merge``'s rules, and limits on what is drawn."""
    pictures = len(set(request.merge.models)) + len(request.points)
    _refuse(_trial_problems(request, limits, allowed_models, pictures, "alphas"))


def check_search(
    request: Search, limits: Limits, allowed_models: Collection[str], allowed_loras: Collection[str] = ()
) -> None:
    """Raises one PolicyError for a search: ``check_merge``'s rules, and limits on what is drawn."""
    problems = [*_above("trials", request.trials, limits.max_trials)]
    problems += _trial_problems(request, limits, allowed_models, request.trials * request.seeds, "trials")
    _refuse(problems)


def check_train(
    request: Train, limits: Limits, allowed_models: Collection[str], allowed_loras: Collection[str] = ()
) -> None:
    """Raises one PolicyError. Strangers train the small built-in models on built-in or own sets, and not for long."""
    loras = _lora_problems("earlier", request.earlier, limits, allowed_loras)
    _refuse([*_train_problems(request, limits, allowed_models), *loras])


def check_caption(request: Caption, limits: Limits) -> None:
    """Raises one PolicyError. Strangers name neither a folder nor a model, and write beside nobody's pictures."""
    free = {"data": request.data.startswith(BUILTIN), "model": request.model == "template"}
    free["write"] = request.write == "edits"
    _refuse(
        (field, "cannot be chosen so in a studio that strangers visit; take a built-in set, template and edits")
        for field, allowed in free.items()
        if limits.listed_models_only and not allowed
    )


def check_data(data: str, limits: Limits, edits: str = "") -> None:
    """Raises PolicyError for pictures or edits that may not be looked at. Whose set it is has to be asked beside."""
    _refuse(_data_problems(data, edits, limits))


def check_guidance(
    request: Guidance, limits: Limits, allowed_models: Collection[str], allowed_loras: Collection[str] = ()
) -> None:
    """Raises one PolicyError. Strangers name listed models and LoRAs, and no folder to go on from."""
    own = _guidance_problems(request, limits, allowed_models)
    _refuse([*own, *_adapter_problems(request, limits, allowed_loras)])


def _refuse(problems: Iterable[tuple[str, str]]) -> None:
    """One PolicyError with every problem, if there is any; its field is the first one's."""
    found = list(problems)
    if found:
        raise PolicyError(" ".join(f"{field}: {words}." for field, words in found), field=found[0][0])


def check_upload(path: Path, limits: Limits, *, field: str = "picture") -> tuple[int, int]:
    """Width and height of an uploaded picture, read from its header alone; what is too large is never decoded."""
    size = path.stat().st_size if path.is_file() else 0
    if size == 0:
        raise PolicyError(f"{field}: the file is empty; choose a picture.", field=field)
    if size > limits.max_upload_bytes:
        most = limits.max_upload_bytes // 1024**2
        raise PolicyError(f"{field}: at most {most} MB are allowed, this has {size / 1024**2:.0f} MB.", field=field)
    width, height = _picture_size(path, limits, field)
    if width * height > limits.max_upload_pixels:
        raise _too_many_pixels(f"{width:,} x {height:,} pixels", limits, field)
    return width, height


def _illusion_problems(request: Illusion, limits: Limits, allowed_models: Collection[str]) -> Iterator[tuple[str, str]]:
    if limits.listed_models_only and request.model not in allowed_models:
        yield "model", _unlisted(request.model, allowed_models)
    if limits.listed_models_only and request.scorer != SCORER:
        yield "scorer", _unlisted(request.scorer, [SCORER])
    yield from _above("steps", request.steps, limits.max_steps)
    yield from _above("size", request.size or 0, limits.max_size)
    side = (request.size or 0) * request.upscale
    if request.upscale > 1 and side > limits.max_size:
        yield "upscale", f"pictures of at most {limits.max_size:,} pixels are allowed here, these would have {side:,}"
    if limits.listed_models_only and request.upscale > 1 and not side and not request.model.startswith(BUILTIN):
        yield "upscale", "what it comes to is known only with a size of your own; choose one under More"
    yield from _above("candidates", request.candidates, limits.max_candidates)
    for name, prompt in _prompts(request):
        yield from _too_long(name, prompt, limits)
    yield from _search_problems(request, limits)


def _search_problems(request: Illusion, limits: Limits) -> Iterator[tuple[str, str]]:
    """What all tries of a request come to; a step at twice the size counts four times."""
    lasts = len({request.prompts[-1], *request.partners})
    tries = request.candidates * lasts
    if tries > limits.max_tries:
        yield (
            "partners",
            f"{request.candidates} candidates for each of {lasts} prompts are {tries} pictures, and at most "
            f"{limits.max_tries} are allowed here; lower candidates or leave prompts out",
        )
    each, settings = passes.expected(request.space, request.views).passes(request.steps), _most_settings(request)
    share = request.upscale**2 * request.upscale_strength if request.upscale > 1 else 0.0
    cost = math.ceil(2 * len(request.views) * each * (1 + share) * tries * settings)
    if cost > limits.max_evaluations:
        named = f"{tries} candidates" + (" drawn at two sizes" if request.upscale > 1 else "")
        yield (
            "candidates",
            f"{len(request.views)} views x {each} steps x {named}"
            f"{f' x {settings} settings' if settings > 1 else ''} are up to {cost:,} evaluations, "
            f"and at most {limits.max_evaluations:,} are allowed here; lower steps or candidates",
        )


def _guidance_problems(request: Guidance, limits: Limits, allowed_models: Collection[str]) -> Iterator[tuple[str, str]]:
    if limits.listed_models_only:
        if request.model not in allowed_models:
            yield "model", _unlisted(request.model, allowed_models)
        if request.extractor != SCORER:
            yield "extractor", _unlisted(request.extractor, [SCORER])
        if request.resume:
            yield "resume", "no folder can be named in a studio that strangers visit; leave it out"
    yield from _above("settings.steps", request.most_steps, limits.max_steps)
    yield from _above("size", request.size or 0, limits.max_size)
    for name, prompt in (*((f"prompts.{i}", text) for i, text in enumerate(request.prompts)), _negative(request)):
        yield from _too_long(name, prompt, limits)
    yield from _above("sweep", request.cells, limits.max_cells)
    if request.evaluations > limits.max_compared:
        most = f"at most {limits.max_compared:,} are allowed here; lower seeds or steps, or leave something out"
        yield "seeds", f"this comparison is up to {request.evaluations:,} evaluations, and {most}"


def _adapter_problems(
    request: Illusion | Guidance, limits: Limits, allowed: Collection[str]
) -> Iterator[tuple[str, str]]:
    yield from _lora_problems("adapters", request.adapters.values(), limits, allowed)


def _lora_problems(
    field: str, named: Collection[str], limits: Limits, allowed: Collection[str]
) -> Iterator[tuple[str, str]]:
    yield from _above(field, len(named), limits.max_adapters)
    for text in named:
        if limits.listed_models_only and text not in allowed:
            yield field, _unlisted(text, allowed)


def _most_settings(request: Illusion) -> int:
    """A study draws the bare model, each adapter alone, all together, and each view with its own; else there is one."""
    return len(request.adapters) + 3 if request.adapter_study else 1


def _merge_problems(request: Merge, allowed_models: Collection[str]) -> Iterator[tuple[str, str]]:
    builtin = [name for name in allowed_models if name.startswith("builtin:")]
    for index, name in enumerate(request.models):
        if name not in builtin:
            yield f"models.{index}", _unlisted(name, builtin)
    for field in ("adapters", "rules", "target"):
        if getattr(request, field):
            yield field, "cannot be set in a studio that strangers visit; leave it out"
    for part, action in request.parts.items():
        if not PART_ACTION.fullmatch(action):
            yield f"parts.{part}", "no file can be named in a studio that strangers visit"


def _train_problems(request: Train, limits: Limits, allowed_models: Collection[str]) -> Iterator[tuple[str, str]]:
    if limits.listed_models_only:
        builtin = [name for name in allowed_models if name.startswith(BUILTIN)]
        if request.model not in builtin:
            yield "model", _unlisted(request.model, builtin)
        yield from _data_problems(request.data, request.edits, limits)
        for index, task in enumerate(request.tasks):
            for _, problem in _data_problems(task.data or request.data, "", limits):
                yield f"tasks.{index}.data", problem
        for field, free in (("epochs", None), ("resume", ""), ("cache", "memory"), ("trackers", ())):
            if getattr(request, field) != free:
                yield field, "cannot be set in a studio that strangers visit; leave it out"
        if request.checkpoint_every < LEAST_BETWEEN_CHECKPOINTS:
            yield "checkpoint_every", f"at least {LEAST_BETWEEN_CHECKPOINTS} steps are needed here; give more"
    yield from _above("resolution", request.resolution or 0, limits.max_size)
    yield from _above("sample_steps", request.sample_steps, limits.max_steps)
    if request.evaluations > limits.max_training:
        yield (
            "steps",
            f"this run is worth {request.evaluations:,} evaluations, and at most {limits.max_training:,} are allowed "
            "here; lower steps, batch_size or samples",
        )


def _data_problems(data: str, edits: str, limits: Limits) -> Iterator[tuple[str, str]]:
    if limits.listed_models_only and not data.startswith(BUILTIN) and not UPLOADED_SET.fullmatch(data):
        yield "data", "no folder can be named in a studio that strangers visit; choose a built-in set or drop pictures"
    if limits.listed_models_only and edits and not KEPT_EDITS.fullmatch(edits):
        yield "edits", "no file can be named in a studio that strangers visit; edit the captions in the page"


def _trial_problems(
    request: Trials, limits: Limits, allowed_models: Collection[str], times: int, field: str
) -> Iterator[tuple[str, str]]:
    """``times``: how often each prompt is drawn, which ``field`` decides."""
    if limits.listed_models_only:
        yield from ((f"merge.{name}", words) for name, words in _merge_problems(request.merge, allowed_models))
        if request.scorer not in (SCORER, ""):
            yield "scorer", _unlisted(request.scorer, [SCORER])
    yield from _above("steps", request.steps, limits.max_steps)
    for name, prompt in (*((f"prompts.{i}", text) for i, text in enumerate(request.prompts)), _negative(request)):
        yield from _too_long(name, prompt, limits)
    cost = times * request.steps * sum(map(request.rows, request.prompts))
    if cost > limits.max_evaluations:
        yield (
            field,
            f"{times} pictures of {len(request.prompts)} prompts in {request.steps} steps are {cost:,} evaluations, "
            f"and at most {limits.max_evaluations:,} are allowed here; lower steps or {field}",
        )


def _prompts(request: Illusion) -> Iterator[tuple[str, str]]:
    yield from ((f"prompts.{index}", prompt) for index, prompt in enumerate(request.prompts))
    yield from ((f"partners.{index}", prompt) for index, prompt in enumerate(request.partners))
    yield _negative(request)


def _negative(request: Illusion | Trials | Guidance) -> tuple[str, str]:
    return "negative_prompt", request.negative_prompt


def _too_long(field: str, prompt: str, limits: Limits) -> Iterator[tuple[str, str]]:
    if len(prompt) > limits.max_prompt:
        yield field, f"at most {limits.max_prompt} characters are allowed here, got {len(prompt):,}; shorten it"


def _above(field: str, value: int, most: int) -> Iterator[tuple[str, str]]:
    if value > most:
        yield field, f"at most {most:,} are allowed here, got {value:,}"


def _unlisted(name: str, allowed: Collection[str]) -> str:
    near = nearest(name, allowed)
    fix = f"did you mean {near!r}" if near else f"choose one of {', '.join(allowed)}" if allowed else "none is offered"
    return f"this studio does not offer {shortened(name)!r}; {fix}"


def _picture_size(path: Path, limits: Limits, field: str) -> tuple[int, int]:
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is the lower one
            with Image.open(path, formats=UPLOAD_FORMATS) as picture:
                return picture.size
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise _too_many_pixels(f"more than {most / 1e6:,.0f} million", limits, field) from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        listed = ", ".join(UPLOAD_FORMATS)
        raise PolicyError(f"{field}: this is no picture that can be read; use {listed}.", field=field) from None


def _too_many_pixels(found: str, limits: Limits, field: str) -> PolicyError:
    most = limits.max_upload_pixels / 1e6
    return PolicyError(
        f"{field}: at most {most:.0f} million pixels are allowed, this has {found}; shrink it.", field=field
    )
