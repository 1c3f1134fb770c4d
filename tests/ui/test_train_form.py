"""The Train tab's form: what it reads, what it shows, and what it says before anything runs."""

from types import SimpleNamespace

import gradio as gr
import pytest

from studio.errors import RequestError
from studio.policy import SHARED, check_train
from studio.presets import list_presets
from studio.requests import parse
from studio.settings import Settings
from studio.training import preflight
from studio.training.kinds import KINDS
from studio.training.outlook import Place, outlook
from studio.training.preflight import OPTIMIZERS
from studio.training.request import TrainRequest
from studio.training.shelf import Shelf
from studio.ui import train_advice, train_fields, words
from studio.ui.desk import Desk
from studio.ui.examples import Examples
from studio.ui.files import Files
from studio.ui.tabs.train import TrainTab
from studio.ui.train_data import kind_of
from studio.ui.train_events import Trainings
from studio.ui.train_form import AT_HAND, TrainForm
from tests.ui.conftest import make

SETTINGS = Settings()
SHIPPED = list_presets(SETTINGS.presets, "train")


@pytest.fixture(scope="module")
def bench(world):
    bench = make(world, "train-form")
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def form(bench, tmp_path_factory):
    found = Examples(tmp_path_factory.mktemp("none"), {})
    form = TrainForm()
    with gr.Blocks():
        train_fields.build(form, Desk(bench, found, Files(bench, found)), {})
        form.note("restore", "recipe")
        train_fields.set_first(form, {})
    return form


@pytest.fixture
def handlers(form):
    """The tab's handlers, as far as they need no page."""
    it = Trainings.__new__(Trainings)
    it.form = form
    it.tab = _tab(form)
    return it


def _tab(form):
    parts = dict.fromkeys(("presets", "upload", "train", "stop", "stage", "pane", "refused"))
    return TrainTab(form=form, cost=gr.HTML(), **parts)


def values(form, **changed):
    full = {name: control.value for name, control in form.controls.items()} | changed
    return {form.controls[name]: value for name, value in full.items()}


def filled(form, data):
    """The form's values after ``data`` was put into it."""
    updates = form.filled(data)
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
    TrainRequest(),
    TrainRequest(model="a/b", data="/some/where", trigger="sks", template="{name}", seed=7, title="t", resume="/run"),
    TrainRequest(
        method="dreambooth", instance_prompt="a sks dog", class_prompt="a dog", class_pictures=9, prior_weight=0.5
    ),
    TrainRequest(rank=3, alpha=1.5, targets="linear", text_encoder=True, text_encoder_learning_rate=1e-5),
    TrainRequest(
        steps=9, epochs=4, batch_size=2, accumulation=3, learning_rate=3e-5, schedule="cosine", warmup_steps=2
    ),
    TrainRequest(optimizer="adafactor", weight_decay=0.0, max_grad_norm=0.5, min_snr_gamma=5.0, noise_offset=0.05),
    TrainRequest(caption_dropout=0.1, shuffle_tags=True, keep_tags=2, crop="random", flip=True, ema=0.999),
    TrainRequest(gradient_checkpointing=True, precision="bf16", cache="disk", resolution=512, buckets=False),
    TrainRequest(validation_share=0.2, validate_every=7, patience=3, sample_prompts=("a fox", "an owl")),
    TrainRequest(sample_every=5, sample_steps=4, sample_guidance=2.5, checkpoint_every=11),
    TrainRequest(adapter="locon", targets="all", options={"conv_rank": 2, "conv_alpha": 1.5}),
    TrainRequest(adapter="boft", options={"factors": 2}),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: ", ".join(sorted(request.model_fields_set)) or "all")
def test_a_training_goes_into_the_form_and_comes_back_the_same(form, request_):
    back = parse(TrainRequest, form.request(filled(form, request_.model_dump(mode="json"))))
    assert back == request_


@pytest.mark.parametrize("preset", SHIPPED, ids=lambda preset: preset.slug)
def test_every_preset_can_run_also_by_strangers_and_comes_back_the_same_from_the_form(form, preset):
    request = parse(TrainRequest, preset.request)
    check_train(request, SHARED, ["builtin:emoji"])
    preflight.check(request)
    seen = outlook(request, Place(SETTINGS.assets), Shelf())
    assert seen.plan.steps == request.steps
    assert not [problem for problem in seen.problems if problem.kind == "uncaptioned"]
    assert preset.description
    assert preset.expect
    assert preset.picture is not None
    assert parse(TrainRequest, form.request(filled(form, preset.request))) == request


def test_there_are_presets_to_start_from_and_all_of_them_are_listed():
    assert {"learn-the-duckrabbit", "pixel-art-style", "dreambooth-a-subject", "dora-gentle"} <= {
        preset.slug for preset in SHIPPED
    }
    assert len(list((SETTINGS.presets / "train").glob("*.json"))) == len(SHIPPED)


def test_every_field_of_a_training_has_a_control_and_a_place_for_sentences(form):
    known = {name.partition(".")[0] for name in form.controls}
    # the pane of the pictures holds the edits, and joint training is written in a file
    fields = TrainRequest.model_fields.keys() - {"edits", "tasks", "steps_apart"}
    assert fields <= known
    for name in (*fields, "edits", "options.conv_rank", "options.nonsense", "sample_prompts.3"):
        assert form.place(name) is not None, name


def test_at_most_five_things_stand_outside_of_more(form):
    assert {name for name in AT_HAND if name not in form.shown} - {"trigger", "template"} == {
        "model", "data", "method", "adapter", "steps",
    }  # fmt: skip


def test_every_control_has_a_name_of_its_own_and_words_that_say_what_it_does(form):
    labels = [control.label for control in form.controls.values()]
    assert len(labels) == len(set(labels))
    spoken = {"model", "adapter", "targets"}  # the choices themselves say it, or a line below
    assert [name for name, control in form.controls.items() if not control.info and name not in spoken] == []


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_kind_shows_its_own_options_and_layers_only(form, kind):
    seen = shown(form, adapter=kind.name)
    assert {name for name in seen if name.startswith("options.")} == {
        f"options.{name}" for name in kind.options.model_fields
    }
    assert ({"rank", "alpha"} <= seen) == kind.ranked
    named = {name: control.value for name, control in form.controls.items()} | {"adapter": kind.name}
    choices = form.opened(named)[form.controls["targets"]]["choices"]
    assert [name for _, name in choices] == list(kind.layers)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_a_kind_that_a_person_chooses_passes_its_check_as_it_stands(form, handlers, kind):
    before = values(form, adapter=kind.name, alpha="4", **{"options.block_size": 64, "options.conv_rank": 9})
    after = before | handlers.choose_kind(before)
    request = parse(TrainRequest, form.request(after))
    preflight.check(request)
    assert request.options == {}
    assert kind_of({"adapter": kind.name}) is kind


def test_a_method_shows_the_prompts_that_it_needs(form):
    assert {"instance_prompt", "class"} <= shown(form, method="dreambooth")
    assert not {"instance_prompt", "class"} & shown(form, method="text_to_image")
    named = {"instance_prompt": "a sks dog", "class_prompt": "a dog", "class_pictures": 5}
    assert form.request(values(form, method="text_to_image", **named)).get("class_pictures") is None
    assert form.request(values(form, method="dreambooth", **named))["class_pictures"] == 5


def test_only_what_is_installed_is_offered_to_optimise_with_and_another_one_is_refused_in_words(bench, form):
    offered = [name for _, name in form.controls["optimizer"].choices]
    assert offered == [name for name, entry in OPTIMIZERS.items() if entry.here]
    missing = [name for name in OPTIMIZERS if name not in offered]
    for name in missing:
        found = train_advice.of(bench, form, values(form, optimizer=name, learning_rate="1e-4"), "")
        assert "is not installed" in found.notes["optimizer"]


@pytest.mark.parametrize(
    ("chosen", "rate", "after"),
    [
        ("prodigy", "0.0001", "1"),
        ("adamw", "1", "0.0001"),
        ("adamw", "0.002", None),
        ("adamw", "10", None),
        ("nonsense", "1", None),
        ("prodigy", "quick", None),
    ],
)
def test_the_learning_rate_follows_an_optimiser_but_what_a_person_wrote_stays(handlers, chosen, rate, after):
    assert handlers.choose_optimizer(rate, SimpleNamespace(value=chosen)) == (gr.skip() if after is None else after)


def test_the_plan_says_pictures_steps_epochs_and_time(bench, form):
    found = train_advice.of(bench, form, values(form, steps=140, batch_size=4), "")
    assert "24 pictures, 2 held out, 140 steps = 23.3 epochs, about" in found.plan
    assert found.notes == {}


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"rank": 0}, "rank", "Must be at least 1, got 0"),
        ({"learning_rate": "10"}, "learning_rate", "10 would make AdamW diverge"),
        ({"learning_rate": "quick"}, "learning_rate", "Must be a number"),
        ({"steps": None}, "steps", "Must be a whole number"),
        ({"epochs": "many"}, "epochs", "Must be a whole number"),
        ({"steps": 1_000_000, "batch_size": 256}, "steps", "would take about"),
        ({"resolution": "100"}, "resolution", "choose 96"),
        ({"data": "/nowhere"}, "data", "There is no such folder or file"),
        ({"data": "builtin:mascto"}, "data", "did you mean"),
        ({"model": "nowhere/at/all"}, "model", "There is no model at"),
        ({"resume": "/nowhere"}, "resume", "holds no checkpoint"),
        ({"adapter": "locon"}, "targets", "changes all, got attention"),
        ({"trigger": "{x}"}, "trigger", ""),
        ({"sample_prompts": "\n".join("abcdefghi")}, "sample_prompts", "at most 8 entries"),
        ({"adapter": "boft", "options.factors": 9}, "options.factors", "less than or equal to 4"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_before_anything_runs(bench, form, changed, field, said):
    found = train_advice.of(bench, form, values(form, **changed), "")
    assert said in found.notes[field]
    assert form.place(field) is not None


def test_an_empty_field_is_asked_for_and_is_an_error_only_once_it_was_refused(bench, form):
    empty = values(form, method="dreambooth")
    assert train_advice.of(bench, form, empty, "").notes == {}
    assert "Fill in what is missing" in train_advice.of(bench, form, empty, "").plan
    assert list(train_advice.of(bench, form, empty, "", refused=True).notes) == ["instance_prompt"]


def test_a_first_visit_leaves_the_form_as_it_was_drawn_and_only_fitting_values_come_back(form):
    assert form.recalled({}) == gr.skip()
    updates = form.recalled({"rank": "many", "steps": 77, "flip": "yes", "adapter": "boft", "nonsense": 1})
    assert updates[form.controls["steps"]] == 77
    for name in ("rank", "flip"):
        assert form.controls[name] not in updates
    assert updates[form.shown["options.factors"]]["visible"] is True


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(42, "about 42 s"), (170, "about 2 min 50 s"), (177, "about 3 min"), (700, "about 12 min"), (9000, "about 2 h")],
)
def test_minutes_are_told_by_tens_of_seconds(seconds, said):
    assert train_advice.about(seconds) == said
    assert words.about(42) == "about 42 s"


def test_an_error_about_no_field_is_said_by_the_button(form):
    assert form.problems(RequestError("The queue is full.")) == {}


def test_a_tracker_that_is_not_here_is_left_out_of_the_form(form):
    """Gradio refuses every event of a page whose check boxes hold what they do not offer."""
    offered = {value for _, value in form.controls["trackers"].choices}
    known = ["tensorboard", "wandb", "trackio"]
    assert form.filled({"trackers": known})[form.controls["trackers"]] == [name for name in known if name in offered]
