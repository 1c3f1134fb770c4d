"""What the Merge tab says while a recipe is being written: whether sources fit, what would be made, what it costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.ui import words
from studio.ui.advice import cost_line
from studio.ui.form import Values, hint
from studio.ui.markup import NOTHING, Markup, joined, tag
from studio.ui.merge_data import method_of
from studio.ui.merge_form import ENGINE, STRIP, MergeForm
from studio.ui.merge_showing import DRAWABLE

if TYPE_CHECKING:
    from studio.merging.outlook import Outlook
    from studio.workbench import Workbench

PART_NAMES = {
    "unet": "U-Net",
    "transformer": "transformer",
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
    "text_encoder_3": "third text encoder",
    "vae": "VAE",
    "other": "other tensors",
    "ema": "EMA weights",
}
NOT_YET = ("models.0", "models.1", "models.2", "adapters", "rank")
"""Fields that are no mistake while nothing stands in them yet: the fit line asks for them."""


@dataclass(frozen=True)
class Advice:
    """``notes`` by field; what the fit line, the cost line and the mixer show; ``parts``: those that A has."""

    fit: Markup
    cost: Markup
    mixer: Markup = NOTHING
    notes: Mapping[str, Markup] = field(default_factory=dict)
    parts: tuple[str, ...] = ()


def of(workbench: Workbench, form: MergeForm, values: Values, *, refused: bool = False) -> Advice:
    """All that can be said of the form as it stands. An empty field is no mistake unless it was just ``refused``."""
    named, data = form.named(values), form.request(values)
    missing = lacking(data)
    if missing and not refused:
        return Advice(tag("p", missing, cls="fit-line"), cost_line(""))
    try:
        seen = workbench.outlook(data)
    except StudioError as error:
        return Advice(fit_wrong(), cost_line(""), notes=form.problems(error, ENGINE))
    notes = dict(_same(data))
    cost, wrong = _cost(workbench, form, values, refused=refused)
    mixed = mixer(seen.blocks, method_of(named).alpha or (0.0, 1.0), own=bool(data.get("blocks")))
    return Advice(fit_line(data["task"], seen), cost, mixed, notes | wrong, seen.parts)


def lacking(data: Mapping[str, Any]) -> str:
    """What is asked for before anything can be said; empty when all is there."""
    if any(not name for name in data["models"]):
        return "Choose the checkpoints; whether they fit is said here at once."
    if data["task"] in ("join", "bake") and not data["adapters"]:
        return "Choose at least one LoRA."
    return "Set a rank under More, such as 32." if data["task"] == "extract" and not data["rank"] else ""


def fit_wrong() -> Markup:
    return tag("p", "This cannot be merged as it is; the sentence in red says why.", cls="fit-line is-wrong")


def fit_line(task: str, seen: Outlook) -> Markup:
    """Whether it fits and what would become of what; warnings below."""
    first = tag("p", tag("b", "It fits: "), _kinds(seen.kinds), cls="fit-line")
    second = tag("p", " · ".join(filter(None, _doings(task, seen))), cls="fit-parts")
    return joined(first, second, *[hint(note) for note in seen.notes])


def _kinds(kinds: Mapping[str, str]) -> str:
    """``A and B are Stable Diffusion 1``, or each by itself where they differ."""
    families = set(kinds.values())
    names = list(kinds)
    if len(families) == 1:
        listed = {1: f"{names[0]} is", 2: f"{names[0]} and {names[-1]} are both"}.get(len(names), "all are")
        return f"{listed} {families.pop()}."
    return ", ".join(f"{name} is {family}" for name, family in kinds.items()) + "."


def _doings(task: str, seen: Outlook) -> list[str]:
    """``U-Net 686 merged``, ``VAE copied``, ``2.1 GB as one file``."""
    if task in ("join", "extract"):
        layers = words.count(seen.counts["layers"][0], "layer")
        return [f"{layers} {'joined' if task == 'join' else 'compared'}", "saved as one LoRA file"]
    verb = "changed" if task == "bake" else "merged"
    found = []
    for part, (merged, copied) in seen.counts.items():
        name = PART_NAMES[part][:1].upper() + PART_NAMES[part][1:]
        number = f"{words.count(merged, 'tensor')} {verb}" if merged else "copied"
        found.append(f"{name} {number}" + (f", {copied} copied" if merged and copied and task != "bake" else ""))
    size = f"{words.size(seen.size)} " if seen.size is not None else ""
    return [*found, f"{size}as {'a diffusers folder' if seen.is_folder else 'one file'}"]


def _same(data: Mapping[str, Any]) -> dict[str, Markup]:
    """A word where B is A: nothing would change."""
    models = data["models"]
    if len(models) < 2 or data["task"] not in ("checkpoints", "extract") or models[0] != models[1]:
        return {}
    return {"models.1": hint("This is A once more; choose another checkpoint to see a difference.")}


def _cost(workbench: Workbench, form: MergeForm, values: Values, *, refused: bool) -> tuple[Markup, dict[str, Markup]]:
    """What a preview will cost, or what stands in its way."""
    data = form.asked(STRIP, values)
    if data["merge"]["task"] not in DRAWABLE:
        return cost_line("A LoRA draws nothing by itself; save it, or bake it into a checkpoint."), {}
    if not data["prompts"] and not refused:
        return cost_line("Write a prompt to see a preview."), {}
    try:
        request = workbench.request(STRIP, data)
        estimate = workbench.estimate(request, STRIP)
    except StudioError as error:
        return cost_line("The preview needs another setting."), form.problems(error, STRIP)
    pictures = len(set(request.merge.models)) + len(request.points)
    factors = [words.count(len(request.prompts), "prompt"), words.count(pictures, "picture")]
    text = f"Preview: {' × '.join(factors)} = {words.count(estimate.evaluations, 'evaluation')}"
    return cost_line(text if estimate.seconds is None else f"{text}, {words.about(estimate.seconds)}"), {}


def mixer(blocks: Mapping[str, float], limits: tuple[float, float], *, own: bool) -> Markup:
    """A slider for every block, as high as its alpha; what is moved the page's script writes into the list below."""
    if not blocks:
        return NOTHING
    low, high = limits
    sliders = [_fader(name, value, low, high) for name, value in blocks.items()]
    back = tag("button", "Back to the curve", type="button", cls="btn is-quiet", data_clear_mixer=True)
    head = tag("p", tag("output", "Move a bar to set its block", cls="mixer-said"), back if own else NOTHING)
    ends = tag("p", tag("span", "BASE"), tag("span", list(blocks)[-1]), cls="mixer-ends")
    faders = tag("div", *sliders, cls="faders")
    return tag("div", head, faders, ends, cls="mixer", role="group", aria_label="Alpha of each block")


def _fader(name: str, value: float, low: float, high: float) -> Markup:
    return tag(
        "input",
        type="range",
        min=f"{low:g}",
        max=f"{high:g}",
        step="0.01",
        value=f"{value:.4g}",
        data_block=name,
        aria_label=f"Alpha of {name}",
        aria_orientation="vertical",
        title=f"{name} {value:.2f}",
    )
