"""The Guidance tab's form: what it reads, what it shows, and what it says before anything runs."""

import gradio as gr
import pytest

from studio.errors import PolicyError, RequestError
from studio.guidance.guiders import GUIDERS
from studio.guidance.request import GuidanceRequest
from studio.guidance.settings import Settings
from studio.requests import parse
from studio.ui import guidance_advice, guidance_data, guidance_fields, guidance_showing
from studio.ui.desk import Desk
from studio.ui.examples import Examples
from studio.ui.files import Files
from studio.ui.guidance_form import ENGINE, GuidanceForm
from tests.ui.conftest import STYLE, make

FIRST = {"model": "builtin:emoji", "adapters": {"style": STYLE}, "prompts": ["a fox"]}
ALL = tuple(GUIDERS)
TEN = "1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9"


@pytest.fixture(scope="module")
def bench(world):
    bench = make(world, "guidance-form")
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def form(bench, tmp_path_factory):
    found = Examples(tmp_path_factory.mktemp("none"), {})
    form = GuidanceForm()
    with gr.Blocks():
        guidance_fields.build(form, Desk(bench, found, Files(bench, found)), FIRST)
        form.note("restore", "recipe")
    return form


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
    return {name for name, column in form.shown.items() if form.opened(named).get(column, {}).get("visible")}


REQUESTS = [
    GuidanceRequest(),
    GuidanceRequest(guiders=ALL, settings=Settings(w1=3, w2=7, gamma=-0.5, lora_scale=0.8, low=0.5, high=9.5)),
    GuidanceRequest(guiders=ALL, settings=Settings(every=4, agreement=0.9, rescale=0.3, eta=0.2, norm=2.5)),
    GuidanceRequest(guiders=("apg", "autolora"), settings=Settings(momentum=-0.25, steps=33, w1=6, w2=6)),
    GuidanceRequest(sweep=({"setting": "gamma", "values": (1.5, 1 / 3)},), seeds=200, seed=9, scheduler="euler"),
    GuidanceRequest(
        sweep=({"setting": "w", "values": (3, 5)}, {"setting": "lora_scale", "values": (0.6, 1.3)}), guiders=ALL
    ),
    GuidanceRequest(adapters={"a": "x.safetensors", "b": "/y/z z"}, scales={"b": -0.5}, prompts=("a fox", "ink, red")),
    GuidanceRequest(style="pixel art", character="a duck", negative_prompt="fog", size=128, resume="/runs/one"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=range(len(REQUESTS)))
def test_a_comparison_goes_into_the_form_and_comes_back_the_same(form, request_):
    back = parse(GuidanceRequest, form.request(filled(form, request_.model_dump(mode="json"))))
    assert back == request_


@pytest.mark.parametrize("guider", ALL)
def test_a_setting_is_asked_for_when_and_only_when_the_guider_heeds_it(form, guider):
    there = shown(form, guiders=[guider])
    wanted = {*GUIDERS[guider].heeds, *GUIDERS[guider].lengthened_by}
    for column, settings in guidance_showing.UNDER_MORE.items():
        assert (column in there) == bool(wanted & set(settings)), column
    hints = guidance_showing.hints({"guiders": [guider]})
    assert ("gamma" in hints) == ("gamma" not in wanted)
    assert ("w" in hints) == (not wanted & {"w1", "w2"})
    data = form.request(values(form, guiders=[guider]))
    assert set(data["settings"]) <= wanted | {"lora_scale", "steps"}
    assert parse(GuidanceRequest, data).guiders == (guider,)


def test_every_setting_of_a_guider_and_of_the_grid_has_its_control_and_its_words(form):
    for entry in GUIDERS.values():
        assert {*entry.heeds, *entry.lengthened_by} <= set(form.controls), entry.name
    assert set(guidance_showing.TITLES) == set(guidance_data.SWEPT)
    assert set(form.controls["guiders"].choices) == {(entry.title, name) for name, entry in GUIDERS.items()}


def test_every_field_of_a_request_can_be_said_to_be_wrong_somewhere(form):
    fields = (set(GuidanceRequest.model_fields) - {"settings"}) | set(Settings.model_fields)
    assert [name for name in fields if form.place(name) is None] == []


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"gamma": "1,5"}, "gamma", "Must be a number, got &#x27;1,5&#x27;."),
        ({"gamma": 7}, "gamma", "Must be at most 6, got 7."),
        ({"w": float("nan")}, "w", "Must be a finite number"),
        ({"guiders": ["autolora_interval"], "low": "5", "high": "1"}, "low", "The interval is upside down (5 to 1)"),
        ({"axis.0": "gamma", "values.0": "1.5, x"}, "sweep", "Must be a number, got &#x27;x&#x27;."),
        ({"axis.0": "gamma", "values.0": ""}, "sweep", "Must have at least one entry."),
        ({"axis.0": "w", "values.0": "1", "axis.1": "w1", "values.1": "2"}, "sweep", "change the same setting"),
        ({"seeds": 20_000}, "seeds", "Must be at most 1,024"),
        ({"axis.0": "gamma", "values.0": TEN, "seeds": 1024}, "sweep", "10,000 are allowed here"),
        ({"extractor": "builtin:nothing"}, "extractor", "builtin:nothing"),
        ({"lora": "builtin:nothing"}, "adapters", "nothing"),
        ({"scales": "1, 2"}, "scales", "No adapter is called"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence_beside_its_field(bench, form, changes, field, says):
    with pytest.raises(RequestError) as caught:
        bench.request(ENGINE, form.request(values(form, **changes)))
    found = form.problems(caught.value)
    beside = [name for name in found if name == field or name.startswith(f"{field}.")]
    assert beside, found
    assert says in found[beside[0]]
    assert form.place(beside[0]) is not None


def test_both_guidance_scales_move_together_until_they_are_set_apart(form):
    together = form.request(values(form, w=6.5, w1=1, w2=2, guiders=["autolora"]))["settings"]
    apart = form.request(values(form, w=6.5, w1=1, w2=2, apart=True, guiders=["autolora"]))["settings"]
    assert (together["w1"], together["w2"]) == (6.5, 6.5)
    assert (apart["w1"], apart["w2"]) == (1, 2)
    assert "own-w" in shown(form, apart=True)
    assert "own-w" not in shown(form, apart=False)


def test_what_the_grid_sets_is_said_and_a_setting_that_nobody_heeds_is_named():
    named = {"guiders": ["cfg"], "axis.0": "w", "axis.1": "every"}
    hints = guidance_showing.hints(named)
    assert "grid below sets this" in hints["w"]
    assert "No effect" in hints["gamma"]
    assert "none of the chosen guiders uses every" in hints["sweep"]


def test_the_cost_is_told_before_the_start(bench, form):
    changes = {"prompts": "a fox\nan owl", "seeds": 3, "guiders": ["cfg", "autolora"], "steps": 10}
    grid = {"axis.0": "gamma", "values.0": "1.5; 2"}
    found = guidance_advice.of(bench, form, values(form, **changes, **grid))
    # cfg once and AutoLoRA twice; a step of them takes 2, 4 and 4 rows
    assert "3 columns × 2 prompts × 3 seeds = 18 pictures, at most 600 evaluations, about" in found.cost


def test_an_empty_field_is_no_mistake_until_it_was_refused(bench, form):
    empty = values(form, prompts="", lora=None)
    assert not [note for note in guidance_advice.of(bench, form, empty).notes.values() if "is-error" in note]
    refused = guidance_advice.of(bench, form, empty, refused=True)
    assert "is-error" in refused.notes["prompts"]
    assert "is-error" in refused.notes["adapters"]


@pytest.mark.parametrize(("seeds", "large"), [(133, False), (134, True)])
def test_more_than_four_hundred_pictures_are_asked_about(bench, form, seeds, large):
    request = bench.request(ENGINE, form.request(values(form, seeds=seeds, guiders=["cfg", "autolora", "none"])))
    assert guidance_advice.is_large(request) is large
    asked = guidance_advice.confirmation(request, bench.estimate(request, ENGINE))
    assert f"{3 * seeds} pictures and take about" in asked
    assert 'data-act="run-anyway"' in asked


def test_loras_get_short_names_that_no_two_share(form):
    named = {"lora": "a b/style.safetensors", "others": ["c/style.safetensors", "builtin:pixel", " "]}
    data = form.request(values(form, **named, names=""))
    assert data["adapters"] == {
        "style": "a b/style.safetensors",
        "style-2": "c/style.safetensors",
        "pixel": "builtin:pixel",
    }
    long = guidance_data.name_of(f"{'é' * 300}.safetensors", [])
    assert long == "lora"


def test_a_prompt_that_the_built_in_model_never_saw_gets_a_hint(bench, form):
    assert "never seen" in guidance_advice.of(bench, form, values(form, prompts="a quasar")).notes["prompts"]
    assert "prompts" not in guidance_advice.of(bench, form, values(form, prompts="a fox")).notes


def test_a_stored_form_takes_guiders_back_and_nothing_of_another_kind(form):
    back = form.recalled({"guiders": ["cfg"], "gamma": "much", "seeds": 3})
    assert back[form.controls["guiders"]] == ["cfg"]
    assert back[form.controls["seeds"]] == 3
    assert form.controls["gamma"] not in back
    assert form.controls["guiders"] not in form.recalled({"guiders": [1, 2], "seeds": 3})


def test_strangers_name_neither_files_nor_folders(world, form):
    bench = make(world, "guidance-strangers", "shared")
    ours = form.request(values(form))
    bench.request(ENGINE, ours)
    for changes in ({"lora": "/etc/x.safetensors"}, {"resume": "/runs/one"}, {"extractor": "/etc"}):
        with pytest.raises(PolicyError):
            bench.request(ENGINE, form.request(values(form, **changes)))
    bench.close()
