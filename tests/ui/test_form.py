import gradio as gr
import pytest

from studio.errors import RequestError
from studio.illusions.request import IllusionRequest
from studio.policy import LOCAL
from studio.requests import parse
from studio.ui import illusion_form
from studio.ui.form import problems
from studio.ui.illusion_form import IllusionForm


@pytest.fixture(scope="module")
def form():
    form = IllusionForm()
    with gr.Blocks():
        form.add("model", gr.Dropdown(["builtin:emoji"], value="builtin:emoji"))
        form.note("model")
        illusion_form.build(form, IllusionRequest(), LOCAL)
    return form


def values(form, **changed):
    full = {name: control.value for name, control in form.controls.items()} | changed
    return {form.controls[name]: value for name, value in full.items()}


def test_the_form_as_drawn_is_the_default_request(form):
    assert IllusionRequest(**form.request(values(form))) == IllusionRequest()


@pytest.mark.parametrize(
    "request_",
    [
        IllusionRequest(),
        IllusionRequest(prompts=("a", "b", "c", "d"), views=("identity", "negate", "skew", "jigsaw(seed=3)"), size=256),
        IllusionRequest(
            adapters={"ink": "a = b/ink.safetensors"}, view_adapters=({"ink": -0.5}, {}), adapter_study=True
        ),
        IllusionRequest(adapters={"a": "x", "b": "y"}, view_adapters=({"a": 1, "b": 0.25},)),
        IllusionRequest(reduction="rectified", weights=(1, 0.1), puzzle=True),
        IllusionRequest(
            partners=("an owl", "a bear"), stop_early=True, upscale=2, upscale_strength=0.6, scorer="/clip"
        ),
        IllusionRequest(seed=2**32 - 1, candidates=4, scheduler="euler", negative_prompt="fog", guidance_scale=3.5),
    ],
)
def test_a_request_goes_into_the_form_and_comes_back_the_same(form, request_):
    updates = form.filled(request_.model_dump(mode="json"))
    named = {name: updates.get(control, control.value) for name, control in form.controls.items()}
    assert IllusionRequest(**form.request(values(form, **named))) == request_


def test_what_cannot_be_a_size_is_handed_on_to_be_refused(form):
    assert form.request(values(form, size="abc"))["size"] == "abc"
    assert form.request(values(form, size=" 256 "))["size"] == 256
    assert form.request(values(form, size=None))["size"] is None


def test_what_are_no_weights_is_refused_beside_their_field(form):
    with pytest.raises(RequestError, match="weights") as refused:
        parse(IllusionRequest, form.request(values(form, weights="1, lots")))
    assert form.place(refused.value.field) is form.notes["weights"]
    assert form.request(values(form, weights=None))["weights"] is None


def test_what_is_no_scale_is_refused_beside_its_field_and_a_name_alone_counts_one(form):
    wanted = {"adapters": "ink = x", "view_adapters": "ink\n-"}
    assert form.request(values(form, **wanted))["view_adapters"] == [{"ink": "1"}, {}]
    with pytest.raises(RequestError, match="view_adapters") as refused:
        parse(IllusionRequest, form.request(values(form, **wanted | {"view_adapters": "ink lots"})))
    assert form.place(refused.value.field) is form.notes["view_adapters"]


def test_taking_a_view_away_moves_the_next_one_up(form):
    full = form.filled({"prompts": ["a", "b", "c"], "views": ["identity", "negate", "skew"]})
    named = {name: full.get(control, control.value) for name, control in form.controls.items()}
    updates = form.without(1, values(form, **named))
    after = {name: updates.get(control, named[name]) for name, control in form.controls.items()}
    data = form.request(values(form, **after))
    assert (data["prompts"], data["views"]) == (["a", "c"], ["identity", "skew"])


def test_every_field_of_a_request_has_a_control_and_a_place_for_sentences(form):
    known = {name.partition(".")[0] for name in form.controls}
    assert set(IllusionRequest.model_fields) <= known
    assert all(form.place(name) is not None for name in form.controls if name != "count")


def test_every_problem_stands_by_its_own_field():
    message = "prompts.1: must not be empty. steps: must be at least 1, got 0."
    found = problems(RequestError(message, field="prompts.1"), ("prompts.1", "steps"))
    assert {name: str(note) for name, note in found.items()} == {
        "prompts.1": '<p class="is-error" data-field="prompts.1">Must not be empty.</p>',
        "steps": '<p class="is-error" data-field="steps">Must be at least 1, got 0.</p>',
    }


def test_a_sentence_that_names_no_field_goes_to_the_error_s_field():
    found = problems(RequestError("There is no view 'rotate_18': did you mean 'rotate_180'?", field="views.1"), ())
    assert list(found) == ["views.1"]
    assert problems(RequestError("The queue is full."), ("steps",)) == {}


def test_notes_are_written_beside_the_row_and_emptied_elsewhere(form):
    written = form.written(problems(RequestError("views.1: is wrong.", field="views.1"), form.notes))
    filled = [place for place, text in written.items() if text]
    assert filled == [form.notes["prompts.1"]]
    assert set(written) == set(form.places())


@pytest.mark.parametrize("stored", [None, "text", [], 7])
def test_a_damaged_memory_of_the_browser_is_ignored(form, stored):
    assert form.recalled(stored) == gr.skip()


def test_only_fitting_values_come_back_from_the_browser(form):
    stored = {"seed": "<script>", "steps": 12, "prompts.0": "a cat", "nonsense": 1, "count": 99, "views.0": 5}
    updates = form.recalled(stored)
    assert updates[form.controls["steps"]] == 12
    assert updates[form.controls["prompts.0"]] == "a cat"
    assert form.controls["seed"] not in updates
    assert form.controls["views.0"] not in updates
    assert updates[form.controls["count"]] == 4


def test_a_slider_leaves_the_refusal_to_the_policy(form):
    assert form.controls["steps"].preprocess(0) == 0
