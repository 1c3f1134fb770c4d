"""The Merge tab's form: what it reads, what it shows, and what it says before anything runs."""

import gradio as gr
import pytest

from studio.errors import RequestError
from studio.merging.catalogue import METHODS
from studio.merging.request import MergeRequest
from studio.merging.trials_request import SearchRequest, StripRequest
from studio.requests import parse
from studio.ui import merge_advice, merge_data, merge_fields
from studio.ui.desk import Desk
from studio.ui.examples import Examples
from studio.ui.files import Files
from studio.ui.merge_form import ENGINE, SEARCH, STRIP, MergeForm
from tests.ui.conftest import SECOND, make

PAIR = ("builtin:emoji", SECOND)


@pytest.fixture(scope="module")
def bench(world):
    bench = make(world, "merge-form")
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def form(bench, tmp_path_factory):
    found = Examples(tmp_path_factory.mktemp("none"), {})
    form = MergeForm()
    with gr.Blocks():
        merge_fields.build(form, Desk(bench, found, Files(bench, found)), {"models": PAIR})
        form.preview, form.save = gr.Button("Preview"), gr.Button("Save")
        form.note("restore", "recipe")
    return form


def values(form, **changed):
    full = {name: control.value for name, control in form.controls.items()} | changed
    return {form.controls[name]: value for name, value in full.items()}


def filled(form, data, engine=ENGINE):
    """The form's values after ``data`` was put into it."""
    updates = form.filled(data, engine)
    named = {}
    for name, control in form.controls.items():
        update = updates.get(control, control.value)
        named[name] = update.get("value", control.value) if isinstance(update, dict) else update
    return values(form, **named)


def shown(form, **changed):
    named = {name: control.value for name, control in form.controls.items()} | changed
    updates = form.opened(named)
    return {name for name, column in form.shown.items() if updates.get(column, {}).get("visible")}


REQUESTS = [
    MergeRequest(models=PAIR),
    MergeRequest(models=(*PAIR, "c"), method="add_difference", alpha=1.25, parts={"vae": "b", "unet": "0.4"}),
    MergeRequest(models=("a", "b", "c", "d", "e"), method="ties", options={"density": 0.35}),
    MergeRequest(models=PAIR, method="slerp", options={"parallel": 0.99}, curve="hill", precision="fp16", seed=3),
    MergeRequest(models=PAIR, blocks=(0.1, 1 / 3, 0.5), rules=({"keys": "attn2=x", "alpha": 0.25},), title="m"),
    MergeRequest(task="join", models=(), adapters=("x y.safetensors", "z"), weights=(1, -0.5), parts={}, rank=8),
    MergeRequest(
        task="join", models=("a",), adapters=("x", "z"), join="zip", prompts=("a fox", "ink"), steps=9, parts={}
    ),
    MergeRequest(task="bake", models=("a",), adapters=("x",), parts={}, target="/t/m.safetensors", overwrite=True),
    MergeRequest(task="extract", models=PAIR, rank=32, conv_rank=8, names="diffusers", parts={}),
    MergeRequest(models=PAIR, verify={"0/unet/a b.safetensors": "0" * 64}, accept_nonfinite=True),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: f"{request.task} {request.method}")
def test_a_merge_goes_into_the_form_and_comes_back_the_same(form, request_):
    back = parse(MergeRequest, form.request(filled(form, request_.model_dump(mode="json"))))
    assert back == request_


def test_a_preview_and_a_search_come_back_with_what_they_draw(form):
    merge = MergeRequest(models=PAIR, alpha=0.3)
    drawn = {"prompts": ("a fox", "an owl"), "seed": 9, "steps": 4, "negative_prompt": "fog", "guidance_scale": 2.0}
    strip = StripRequest(merge=merge, alphas=(0.1, 0.3), **drawn)
    assert parse(StripRequest, form.asked(STRIP, filled(form, strip.model_dump(mode="json"), STRIP))) == strip
    search = SearchRequest(merge=merge, over="blocks", strategy="coordinate", trials=5, low=0.2, high=0.9, **drawn)
    assert parse(SearchRequest, form.asked(SEARCH, filled(form, search.model_dump(mode="json"), SEARCH))) == search


def test_the_merge_s_own_alpha_is_always_drawn(form):
    assert form.asked(STRIP, values(form, alpha=0.4, alphas="0.1, 0.9"))["alphas"] == ["0.1", "0.9", 0.4]
    assert form.asked(STRIP, values(form, alpha=0.5, alphas="0.50"))["alphas"] == ["0.50"]
    assert form.asked(STRIP, values(form, method="average"))["alphas"] == []
    assert form.asked(STRIP, values(form, blocks="0.5, 0.5"))["alphas"] == []


def test_a_preview_writes_nowhere_and_checks_no_hashes(form):
    named = {"target": "/t/x", "overwrite": True, "verify": "0/a " + "0" * 64, "check_sources": True}
    merge = form.asked(STRIP, values(form, **named))["merge"]
    assert (merge["target"], merge["overwrite"], merge["verify"]) == ("", False, {})
    assert form.request(values(form, **named))["verify"] == {"0/a": "0" * 64}
    assert form.request(values(form, **named | {"check_sources": False}))["verify"] == {}


def test_every_field_of_a_merge_has_a_control_and_a_place_for_sentences(form):
    known = {name.partition(".")[0] for name in form.controls}
    assert set(MergeRequest.model_fields) <= known | {"models"}
    for name in (*MergeRequest.model_fields, "models.7", "adapters.2", "rules.0.alpha", "options.density", "parts.vae"):
        assert form.place(name) is not None, name


def test_what_is_wrong_with_learning_a_join_stands_beside_its_own_fields(form):
    error = RequestError("prompts: give one for each LoRA. steps: must be at most 2,000, got 9,999.", field="prompts")
    assert set(form.problems(error, ENGINE)) == {"zip_prompts", "zip_steps"}
    assert set(form.problems(RequestError("prompts.1: must not be empty.", field="prompts.1"), STRIP)) == {"prompts.1"}


def test_a_learned_join_asks_for_its_checkpoint_and_prompts(form):
    seen = shown(form, task="join", join="zip")
    assert {"models.0", "zip", "learning", "adapters"} <= seen
    assert not {"models.0", "zip", "learning"} & shown(form, task="join", join="sum")


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_a_method_shows_its_models_its_alpha_and_its_options_only(form, method):
    seen = shown(form, method=method.name)
    assert ("models.2" in seen) == (method.models[1] > 2)
    assert ("further" in seen) == (method.models[1] > 3)
    assert ("alpha" in seen) == (method.alpha is not None)
    assert {name for name in seen if name.startswith("options.")} == {
        f"options.{name}" for name in method.options.model_fields
    }


def test_alpha_has_the_range_of_its_method_and_comes_inside_it(form):
    named = {name: control.value for name, control in form.controls.items()}
    alpha = form.controls["alpha"]
    freely = form.opened(named | {"method": "add_difference", "alpha": 1.5})[alpha]
    assert (freely["minimum"], freely["maximum"], "value" in freely) == (-2.0, 2.0, False)
    between = form.opened(named | {"method": "weighted_sum", "alpha": 1.5})[alpha]
    assert (between["minimum"], between["maximum"], between["value"]) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("task", "there", "gone"),
    [
        ("checkpoints", {"models.0", "models.1", "method", "drawing"}, {"adapters", "rank"}),
        ("join", {"adapters", "rank"}, {"models.0", "method", "drawing"}),
        ("bake", {"models.0", "adapters", "drawing"}, {"models.1", "method", "rank"}),
        ("extract", {"models.0", "models.1", "rank"}, {"adapters", "method", "drawing"}),
    ],
)
def test_a_task_shows_what_it_needs(form, task, there, gone):
    seen = shown(form, task=task)
    assert there <= seen
    assert not gone & seen


def test_sentences_about_the_merge_in_a_preview_stand_by_the_merge_s_own_fields(form):
    error = RequestError("merge.alpha: must be at most 2, got 7. seed: must be at least 0.", field="merge.alpha")
    assert set(form.problems(error, STRIP)) == {"alpha", "picture_seed"}
    assert set(form.problems(RequestError("seed: must be at least 0.", field="seed"), ENGINE)) == {"seed"}
    named = form.problems(RequestError("There is no model there.", field="merge.models.1"), STRIP)
    assert list(named) == ["models.1"]


@pytest.mark.parametrize("text", ["attn2", "attn2 = lots", "= 0.5"])
def test_a_rule_without_a_number_is_refused_beside_its_field(form, text):
    with pytest.raises(RequestError) as refused:
        parse(MergeRequest, form.request(values(form, rules=text)))
    assert form.place(refused.value.field) is form.notes["rules"]


def test_only_fitting_values_come_back_from_the_browser(form):
    stored = {"alpha": True, "further": ["a", 7], "task": "bake", "adapters": ["x"], "overwrite": "yes", "nonsense": 1}
    updates = form.recalled(stored)
    assert updates[form.controls["task"]] == "bake"
    assert updates[form.controls["adapters"]] == ["x"]
    for name in ("further", "overwrite"):
        assert form.controls[name] not in updates
    assert updates[form.shown["models.1"]]["visible"] is False


def test_the_fit_line_says_at_once_what_would_be_merged_and_copied(bench, form):
    found = merge_advice.of(bench, form, values(form))
    assert "It fits" in found.fit
    assert "U-Net 339 tensors merged" in found.fit
    assert "VAE copied" in found.fit
    assert "MB as a diffusers folder" in found.fit
    assert "2 prompts × 5 pictures = 400 evaluations" in found.cost
    assert "unet" in found.parts
    assert found.notes == {}


def test_what_cannot_be_merged_is_said_beside_the_model_at_fault(bench, form):
    found = merge_advice.of(bench, form, values(form, **{"models.1": "/nowhere/b.safetensors"}))
    assert list(found.notes) == ["models.1"]
    assert "There is no model at" in found.notes["models.1"]
    same = merge_advice.of(bench, form, values(form, **{"models.1": "builtin:emoji"}))
    assert "This is A once more" in same.notes["models.1"]


def test_an_empty_field_is_asked_for_and_is_an_error_only_once_it_was_refused(bench, form):
    empty = values(form, **{"models.1": None})
    assert merge_advice.of(bench, form, empty).notes == {}
    assert "Choose the checkpoints" in merge_advice.of(bench, form, empty).fit
    assert list(merge_advice.of(bench, form, empty, refused=True).notes) == ["models.1"]


def test_the_mixer_has_a_bar_for_every_block_as_high_as_its_alpha(bench, form):
    found = merge_advice.of(bench, form, values(form, curve="outputs", alpha=0.5)).mixer
    assert 'data-block="BASE"' in found
    assert 'aria-label="Alpha of IN00"' in found
    assert 'title="IN00 0.00"' in found
    assert merge_data.searched()["over"] == "alpha"
