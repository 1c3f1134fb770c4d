"""The recipe of an illusion as a form: a row for every view, then the settings, most of them under More."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.illusions.reductions import REDUCTIONS
from studio.illusions.request import IllusionRequest
from studio.requests import defaults
from studio.ui import adapter_fields
from studio.ui.fields import check, choice, group, lines, listed, parts, slider, text
from studio.ui.form import Form, Updates, Values
from studio.views.specs import VIEWS

if TYPE_CHECKING:
    from studio.policy import Limits

MOST_VIEWS = 4
FEWEST_VIEWS = 2
SIDES = (64, 128, 256, 512, 768, 1024, 2048)
NEXT_VIEWS = ("identity", "rotate_180", "rotate_90", "rotate_270")
SCHEDULERS = (("DDIM", "ddim"), ("Euler", "euler"), ("DPM++ 2M", "dpm++2m"))
REDUCTION_CHOICES = (("Let the views decide", "auto"), *((entry.title, entry.name) for entry in REDUCTIONS))
SPACES = (("Let the model decide", "auto"), ("Codes, which is fast", "latent"), ("Decoded pictures", "picture"))
PLAIN = ("seed", "candidates", "steps", "guidance_scale", "negative_prompt", "scheduler", "reduction", "space", "size")
PLAIN_MORE = ("upscale", "upscale_strength", "scorer")


@dataclass
class IllusionForm(Form):
    """The form's components by field name, and what only the page knows: how many rows are open."""

    rows: tuple[gr.Column, ...] = ()
    removers: tuple[gr.Button, ...] = ()
    adder: gr.Button | None = None
    dice: gr.Button | None = None
    more: gr.Accordion | None = None

    def request(self, values: Values) -> dict[str, Any]:
        """The request's data as it stands in the form, unchecked."""
        named = self.named(values)
        views = opened(named)
        data = {part: _texts(named, part, views) for part in ("prompts", "views")} | {"model": named["model"]}
        data |= {name: named[name] for name in (*PLAIN, *PLAIN_MORE)}
        data |= {"weights": parts(named["weights"]) or None, "partners": lines(named["partners"])}
        data |= {"puzzle": bool(named["puzzle"]), "stop_early": bool(named["stop_early"])}
        data |= adapter_fields.read(named)
        return data | {"negative_prompt": named["negative_prompt"] or "", "size": _pixels(named["size"])}

    def filled(self, data: Mapping[str, Any]) -> Updates:
        """The form with a request's data in it; what the request leaves out gets its default."""
        full = {**defaults(IllusionRequest), **data}
        prompts, views = list(full["prompts"]), list(full["views"])
        number = min(MOST_VIEWS, max(1, len(prompts), len(views)))
        named = {name: full[name] for name in (*PLAIN, *PLAIN_MORE, "model", "puzzle", "stop_early")}
        named |= {"count": number, "size": _side(full["size"]), "weights": listed(full["weights"])}
        named |= {"partners": "\n".join(full["partners"])}
        named |= adapter_fields.written(full)
        for index in range(number):
            named[f"prompts.{index}"] = prompts[index] if index < len(prompts) else ""
            named[f"views.{index}"] = views[index] if index < len(views) else NEXT_VIEWS[index]
        return self.updates(named) | self.opening(number)

    def opening(self, number: int) -> Updates:
        """Show the first ``number`` rows; a row can be taken away while more than two are there."""
        shown = {row: gr.update(visible=index < number) for index, row in enumerate(self.rows)}
        shown |= {button: gr.update(visible=number > FEWEST_VIEWS) for button in self.removers}
        return {**shown, self.adder: gr.update(visible=number < MOST_VIEWS), self.controls["count"]: number}

    def without(self, index: int, values: Values) -> Updates:
        """The form after row ``index`` was taken away: the rows below move up."""
        named = self.named(values)
        number = opened(named)
        kept = [row for row in range(number) if row != index]
        moved = {f"{part}.{to}": named[f"{part}.{row}"] for to, row in enumerate(kept) for part in ("prompts", "views")}
        emptied = {f"prompts.{number - 1}": "", f"views.{number - 1}": NEXT_VIEWS[number - 1]}
        return self.updates(emptied | moved) | self.opening(number - 1)

    @property
    def openable(self) -> list[Any]:
        """What is shown and hidden with the rows, or opened to show a field."""
        return [*self.rows, *self.removers, self.adder, self.more]

    def opened(self, named: Mapping[str, Any]) -> Updates:
        return self.opening(opened(named))


def opened(named: Mapping[str, Any]) -> int:
    """How many rows are open, whatever a stored or raw value says."""
    number = named.get("count")
    return min(MOST_VIEWS, max(1, int(number))) if isinstance(number, int | float) else FEWEST_VIEWS


def build(form: IllusionForm, request: IllusionRequest, limits: Limits) -> None:
    """Draw the form, filled with ``request``. The model's picker stands in the top bar and is added there."""
    _views(form, request)
    with gr.Column(elem_classes="field"):
        with gr.Row(elem_classes="seed-row"):
            seed = gr.Number(request.seed, label="Seed", info="Same seed, same picture.", precision=0, elem_id="seed")
            form.add("seed", seed)
            form.dice = gr.Button("Roll", elem_classes="dice", elem_id="dice")
        form.note("seed")
    with gr.Row(elem_classes="sliders"):
        slider(form, "candidates", "Candidates", 1, limits.max_candidates, request.candidates)
        slider(form, "steps", "Steps", 1, limits.max_steps, request.steps)
    with gr.Accordion("More", open=False, elem_classes="fold", elem_id="more") as form.more:
        _more(form, request, limits)


def _views(form: IllusionForm, request: IllusionRequest) -> None:
    number = len(request.views)
    form.add("count", gr.Number(number, visible=False, precision=0))
    with gr.Column(elem_classes="view-rows"):
        rows = [_view(form, index, request, number) for index in range(MOST_VIEWS)]
        form.rows, form.removers = tuple(row for row, _ in rows), tuple(button for _, button in rows)
        form.adder = gr.Button("+ Add a view", size="sm", elem_classes="add-view", visible=number < MOST_VIEWS)


def _view(form: IllusionForm, index: int, request: IllusionRequest, number: int) -> tuple[gr.Column, gr.Button]:
    there = index < number
    with gr.Column(elem_classes="view-row", visible=there) as row:
        with gr.Row(elem_classes="pair"):
            prompt = gr.Textbox(
                request.prompts[index] if there else "",
                label=f"View {index + 1} shows",
                placeholder="a rabbit",
                lines=1,
                max_lines=4,
                elem_classes="prompt",
                elem_id=f"prompt-{index}",
            )
            view = gr.Dropdown(
                [(entry.title, entry.name) for entry in VIEWS],
                value=request.views[index] if there else NEXT_VIEWS[index],
                label=f"View {index + 1} is seen",
                allow_custom_value=True,
                elem_classes="view",
            )
            remove = gr.Button("✕", size="sm", elem_classes="remove", visible=number > FEWEST_VIEWS)
        form.note(f"prompts.{index}", f"views.{index}")
    form.add(f"prompts.{index}", prompt)
    form.add(f"views.{index}", view)
    return row, remove


def _more(form: IllusionForm, request: IllusionRequest, limits: Limits) -> None:
    with group("Prompts"):
        text(form, "negative_prompt", "What no view should show", request.negative_prompt, "The negative prompt.")
        help_text = "The CFG scale; 1 leaves the model to itself, too much burns the colours."
        slider(
            form,
            "guidance_scale",
            "How strongly the prompts are followed",
            0,
            30,
            request.guidance_scale,
            help_text,
            step=0.5,
        )
    with group("Joining the views"):
        help_text = "The mean suits turned views."
        choice(form, "reduction", "How views are joined", REDUCTION_CHOICES, request.reduction, help_text)
        help_text = "One number per view, such as 1, 2; left empty they are measured, or equal."
        text(form, "weights", "How much each view counts", listed(request.weights), help_text)
        help_text = "Codes where the model's carry the views, else pictures, which is slower."
        choice(form, "space", "Where views act", SPACES, request.space, help_text)
    with group("Search"):
        help_text = "One prompt a line, each tried for the last view with every seed: what goes well with the others?"
        text(form, "partners", "Partners to try", "\n".join(request.partners), help_text, lines=2)
        help_text = "Candidates that read far worse than the best, three quarters of the way, are left unfinished."
        check(form, "stop_early", "Stop hopeless candidates early", request.stop_early, help_text)
        help_text = "A built-in CLIP model, or a folder of one; its numbers compare only with its own."
        text(form, "scorer", "What reads the pictures", request.scorer, help_text)
    with group("Adapters"):
        adapter_fields.build(form, request)
    with group("Sampling"):
        choice(form, "scheduler", "Sampler", SCHEDULERS, request.scheduler, "What takes the steps.")
        _size(form, request, limits)
    with group("Output"):
        help_text = "2 draws the picture over at twice the size."
        slider(form, "upscale", "Times as large", 1, 2, request.upscale, help_text)
        strength, help_text = request.upscale_strength, "A share of the steps."
        slider(form, "upscale_strength", "Drawn anew when larger", 0.1, 0.9, strength, help_text, step=0.1)
        help_text = "Sheets of the best candidate to print and cut, for jigsaws and other views that move pieces."
        check(form, "puzzle", "Also make a puzzle", request.puzzle, help_text)


def _size(form: IllusionForm, request: IllusionRequest, limits: Limits) -> None:
    with gr.Column(elem_classes="field"):
        form.add(
            "size",
            gr.Dropdown(
                [("The model's own", ""), *(str(side) for side in SIDES if side <= limits.max_size)],
                value=_side(request.size),
                label="Size in pixels",
                info=f"A multiple of 8, up to {limits.max_size}.",
                allow_custom_value=True,
            ),
        )
        form.note("size")


def _texts(named: Mapping[str, Any], part: str, number: int) -> list[str]:
    return [named[f"{part}.{index}"] or "" for index in range(number)]


def _side(size: int | None) -> str:
    return "" if size is None else str(size)


def _pixels(side: Any) -> Any:
    """The size that a person wrote; what is no number is left as it is, to be refused with a sentence."""
    text = str(side or "").strip()
    return int(text) if text.isdecimal() and len(text) < 10 else text or None
