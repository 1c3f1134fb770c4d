"""The controls of a merge, and which of them a task or a method asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.merging.catalogue import METHODS
from studio.merging.curves import CURVES
from studio.merging.request import MergeRequest
from studio.merging.trials_request import StripRequest
from studio.ui.fields import check, choice, group, listed, number, slider, text
from studio.ui.markup import tag
from studio.ui.merge_data import OPTIONS, PARTS, SLOTS, limits_of, searched, written
from studio.ui.merge_form import MergeForm
from studio.ui.merge_showing import KNOWN_METHODS, LETTERS, method_help
from studio.ui.place import place

if TYPE_CHECKING:
    from studio.ui.desk import Desk

TASKS = (
    ("Merge checkpoints", "checkpoints"),
    ("Join LoRAs", "join"),
    ("Bake LoRAs in", "bake"),
    ("Extract a LoRA", "extract"),
)
FOR_STRANGERS = ("checkpoints", "extract")  # the others need LoRA files, which they cannot name
PART_TITLES = {
    "unet": "U-Net",
    "transformer": "Transformer",
    "text_encoder": "Text encoder",
    "text_encoder_2": "Second text encoder",
    "text_encoder_3": "Third text encoder",
    "vae": "VAE (autoencoder)",
    "other": "Other tensors",
    "ema": "EMA weights",
}
ACTIONS = (("Merged", "merge"), ("A's", "a"), ("B's", "b"), ("C's", "c"), ("Left out", "none"))
OPTION_TITLES = {
    "parallel": ("Straight from a cosine of", "Above it the straight line is taken."),
    "density": ("Share of changes kept", "Of each model's change, the largest."),
    "drop": ("Share of changes dropped", "Of each model's change, at random."),
    "window": ("Window of the chances", "How far small and large changes differ."),
}
PRECISIONS = (("As A", "as_a"), ("fp16", "fp16"), ("bf16", "bf16"), ("fp32", "fp32"))
JOINS = (("Added up, exactly", "sum"), ("Learned: what to take of each (ZipLoRA)", "zip"))
NAMES = (("kohya (A1111, ComfyUI)", "kohya"), ("diffusers", "diffusers"))
OVER = (("Alpha", "alpha"), ("An alpha per block", "blocks"))
STRATEGIES = (("Bayesian", "bayes"), ("Grid", "grid"), ("Coordinate", "coordinate"))
FIRST_ALPHAS = (0.25, 0.5, 0.75)
FIRST_PROMPTS = ("a fox", "a house")


def build(form: MergeForm, desk: Desk, first: Mapping[str, Any]) -> gr.HTML:
    """Draw the form with a merge's data ``first`` in it; returns the place of the fit line."""
    workbench = desk.workbench
    free = not workbench.limits.listed_models_only
    named = written(first)
    tasks = [(title, task) for title, task in TASKS if free or task in FOR_STRANGERS]
    with gr.Column(elem_classes="field"):
        form.add("task", gr.Radio(tasks, value=named["task"], label="What to do", elem_classes="tasks"))
        form.note("task")
    models = [(model.title, model.name) for model in workbench.models()]
    _models(form, models, named)
    _adapters(form, workbench.loras())
    fit = place(elem_id="fit")
    _method(form, named)
    _prompts(form)
    with gr.Accordion("More", open=False, elem_classes="fold", elem_id="merge-more") as form.more:
        _more(form, named, free)
    with gr.Accordion("Search for the best alpha", open=False, elem_classes="fold", elem_id="searching") as fold:
        form.searching = fold
        _search(form)
    return fit


@contextmanager
def _shown(form: MergeForm, name: str, **more: Any) -> Iterator[None]:
    """A column that is shown where it is asked for."""
    with gr.Column(**more) as column:
        yield
    form.shown[name] = column


def _models(form: MergeForm, models: list[tuple[str, str]], named: Mapping[str, Any]) -> None:
    with gr.Column(elem_classes="model-rows"):
        for index in range(SLOTS):
            name = f"models.{index}"
            with _shown(form, name, elem_classes="field"):
                value = named[name] or ("" if index > 1 else None)
                options = [("None", ""), *models] if index > 1 else models
                picker = gr.Dropdown(
                    options, value=value, label=LETTERS[index], allow_custom_value=True, elem_id=f"merge-{index}"
                )
                form.add(name, picker)
                form.note(name, *(["models"] if index == 1 else []))
        with _shown(form, "further", elem_classes="field"):
            info = "D, E and so on, in this order."
            further = gr.Dropdown(
                models, value=[], label="Further models", info=info, multiselect=True, allow_custom_value=True
            )
            form.add("further", further)
            form.note("further", *(f"models.{index}" for index in range(SLOTS, 8)))


def _adapters(form: MergeForm, loras: list[str]) -> None:
    with _shown(form, "adapters"):
        with gr.Column(elem_classes="field"):
            info = "From the models folder, or paths of .safetensors files; confirm each with Enter."
            picker = gr.Dropdown(
                loras, value=[], label="LoRAs", info=info, multiselect=True, allow_custom_value=True, elem_id="loras"
            )
            form.add("adapters", picker)
            form.note("adapters")
        text(
            form, "weights", "How much each counts", "", "One number per LoRA, such as 1, 0.8; left empty all count 1."
        )
    with _shown(form, "join"):
        choice(form, "join", "How they are joined", JOINS, "sum", "ZipLoRA takes minutes; it says if it was no better.")
    with _shown(form, "zip"):
        info = "What each LoRA was trained to draw, one a line, in their order."
        text(form, "zip_prompts", "Prompts to learn with", "", info, lines=2)


def _method(form: MergeForm, named: Mapping[str, Any]) -> None:
    with _shown(form, "method"):
        choice(form, "method", "Method", KNOWN_METHODS, named["method"], None, elem_id="method")
        form.method_help = place(method_help(named))
    with _shown(form, "alpha"):
        slider(form, "alpha", "Alpha", -2, 2, named["alpha"], "0 is A; 1 is B.", step=0.01, elem_id="alpha")
    form.notes["options"] = form.notes["method"]
    for name in OPTIONS:
        title, info = OPTION_TITLES[name]
        record = next(method.options for method in METHODS.values() if name in method.options.model_fields)
        with _shown(form, f"options.{name}"):
            least, most = limits_of(record, name)
            step = 0.0001 if name == "parallel" else 0.01
            default = record.model_fields[name].default
            slider(form, f"options.{name}", title, least, most, default, info, step=step)


def _prompts(form: MergeForm) -> None:
    with _shown(form, "drawing", elem_classes="drawing"):
        prompts = "\n".join(FIRST_PROMPTS)
        info = "One a line, at most four: each by A, B and the merge."
        text(form, "prompts", "Draw", prompts, info, lines=2, elem_classes="prompt", elem_id="merge-prompts")
        with _shown(form, "alphas"):
            info = "Beside the one above; up to nine in all."
            text(form, "alphas", "At these alphas too", listed(FIRST_ALPHAS), info, elem_id="alphas")


def _more(form: MergeForm, named: Mapping[str, Any], free: bool) -> None:
    with _shown(form, "parts"), group("Parts"):
        for part in PARTS:
            with _shown(form, f"parts.{part}"):
                _part(form, part, named[f"parts.{part}"])
        form.notes["parts"] = form.notes["parts.unet"]
    with _shown(form, "blocks"), group("Blocks"):
        curves = [(curve.title[:1].upper() + curve.title[1:], curve.name) for curve in CURVES.values()]
        choice(form, "curve", "How alpha runs over the blocks", curves, named["curve"], None, elem_id="curve")
        form.mixer = place(elem_id="mixer")
        info = "One alpha per block, from BASE (text encoders) to the last; left empty the curve decides."
        text(form, "blocks", "Alpha of each block", "", info, lines=2, elem_id="block-alphas")
    with _shown(form, "rules", visible=free), group("By name"):
        info = "A regular expression and an alpha a line, such as attn2 = 0.8; of several that fit the last counts."
        text(form, "rules", "Rules", "", info, lines=2)
    with _shown(form, "rank"), group("LoRA"):
        number(form, "rank", "Rank", None, "Empty: exact, ranks add up; extracting needs one, such as 32.")
        number(form, "conv_rank", "Rank of convolutions", None, "Empty: the same.")
        choice(form, "names", "Names of layers", NAMES, "kohya", "Who is to read the file.")
    with _shown(form, "learning"), group("ZipLoRA"):
        usual = {name: entry.default for name, entry in MergeRequest.model_fields.items()}
        slider(form, "zip_steps", "Steps of learning", 1, 2000, usual["steps"])
        slider(form, "learning_rate", "Learning rate", 0.001, 0.1, usual["learning_rate"], step=0.001)
        info = "How much columns that several LoRAs claim are held against them."
        slider(form, "similarity", "Penalty on similar columns", 0, 1, usual["similarity"], info, step=0.01)
    with _shown(form, "drawn"), group("Drawing"):
        _drawing(form)
    with group("Result"):
        _result(form, named, free)


def _part(form: MergeForm, part: str, value: str) -> None:
    info = "Also a file to bake in." if part == "vae" else "Also an alpha of its own." if part == "unet" else None
    choice(form, f"parts.{part}", PART_TITLES[part], ACTIONS, value, info, allow_custom_value=True)


def _drawing(form: MergeForm) -> None:
    usual = {name: entry.default for name, entry in StripRequest.model_fields.items()}
    with gr.Row(elem_classes="sliders"):
        slider(form, "steps", "Steps", 1, 200, usual["steps"])
        slider(form, "guidance_scale", "How strongly prompts count", 0, 30, usual["guidance_scale"], step=0.5)
    with gr.Column(elem_classes="field"):
        with gr.Row(elem_classes="seed-row"):
            seed = gr.Number(7, label="Seed of the pictures", info="The same for all.", precision=0)
            form.add("picture_seed", seed)
            form.dice = gr.Button("Roll", elem_classes="dice")
        form.note("picture_seed")
    text(form, "negative_prompt", "What no picture should show", "", "The negative prompt.")
    text(form, "scorer", "What reads the pictures", usual["scorer"], "A CLIP model; left empty nothing is measured.")


def _result(form: MergeForm, named: Mapping[str, Any], free: bool) -> None:
    usual = {name: entry.default for name, entry in MergeRequest.model_fields.items()}
    text(form, "title", "Title", "", "Made from the sources when empty.")
    choice(form, "precision", "Precision", PRECISIONS, named["precision"], "Numbers of the result.")
    number(form, "seed", "Seed of the merge", usual["seed"], "For methods that drop weights at random, and the SVD.")
    with _shown(form, "place", visible=free):
        info = "A file or folder, absolute or inside the models folder; left empty it is kept with the results."
        text(form, "target", "Write to", "", info, elem_id="target")
        check(form, "overwrite", "Replace what is there", False, "Never a source.")
    info = "Otherwise a result with NaN or infinite weights is refused."
    check(form, "accept_nonfinite", "Save it even when weights are not finite", False, info)
    with _shown(form, "verify"):
        info = "Compare the sources' SHA-256 with those that the recipe recorded."
        check(form, "check_sources", "Check the sources of the recipe", False, info)
        form.add("verify", gr.Textbox("", label="Recorded hashes", visible=False))
        form.notes["verify"] = form.notes["check_sources"]
    with _shown(form, "restore", visible=free, elem_classes="field"):
        info = "The path of a file or folder; its recipe comes into the form."
        form.path = gr.Textbox("", label="Restore from a merged file", info=info, elem_id="restore-path", max_lines=1)
        form.note("path")


def _search(form: MergeForm) -> None:
    first = searched()
    choice(form, "over", "Search over", OVER, first["over"], None)
    choice(form, "strategy", "How", STRATEGIES, first["strategy"], None)
    with gr.Row(elem_classes="sliders"):
        slider(form, "trials", "Trials", 2, 60, first["trials"])
        slider(form, "seeds", "Seeds each", 1, 8, first["seeds"])
    with gr.Row(elem_classes="sliders"):
        slider(form, "low", "Least alpha", -2, 2, first["low"], step=0.05)
        slider(form, "high", "Largest alpha", -2, 2, first["high"], step=0.05)
    place(tag("p", "The prompts above are drawn by every trial and read by the scorer; all are kept.", cls="hint"))
    form.search_button = gr.Button("Search", elem_id="search")
    form.note("search")


def set_first(form: MergeForm, first: Mapping[str, Any]) -> None:
    """Hide what the first recipe does not ask for, as the page would after a change."""
    named = {name: control.value for name, control in form.controls.items()} | written(first)
    for part, update in form.opened(named).items():
        changes = update if isinstance(update, dict) else {"value": update}
        for name, value in changes.items():
            if name != "__type__":
                setattr(part, name, value)
