"""What the page shows is what is trained: edits reach the engine, stand in its recipe, and are noticed on resuming."""

import json

import pytest
from safetensors import safe_open

from studio import training
from studio.__main__ import main
from studio.errors import PolicyError, RequestError
from studio.models.store import ModelStore
from studio.policy import LOCAL, SHARED, check_train
from studio.settings import Settings
from studio.training.edits import Edits, keep_edits, write_edits
from studio.training.engine import Training
from studio.training.preflight import check
from studio.training.request import TrainRequest
from studio.training.sets import Library
from studio.training.uploads import Given
from studio.workbench import Workbench
from tests.training.asked import asked

ANN, EVE = "ann-" + "0" * 20, "eve-" + "0" * 20
EDITS = Edits({"picture-0.png": "a purple cow"}, frozenset({"picture-2.png"}))


@pytest.fixture
def trained(monkeypatch):
    """The captions by name that each run was given."""
    seen = []
    real = Training.__init__

    def noting(self, request, network, datasets, *rest):
        seen.append({example.name: example.caption for dataset in datasets for example in dataset.examples})
        real(self, request, network, datasets, *rest)

    monkeypatch.setattr(Training, "__init__", noting)
    return seen


@pytest.fixture
def store(assets, tiny_store, tmp_path):
    return ModelStore(assets, tiny_store.models_dir, device="cpu", datasets=tmp_path / "datasets")


def tags(path):
    with safe_open(path, "pt") as file:
        return json.loads(json.loads(json.dumps(file.metadata()["ss_tag_frequency"])))["pictures"]


def test_edited_captions_are_trained_and_left_out_pictures_are_not(pictures, store, tmp_path, trained):
    name = keep_edits(store.datasets, EDITS)
    result = training.run(asked(pictures, edits=name, trigger="sks"), store)
    assert trained == [
        {"picture-0.png": "sks, a purple cow", "picture-1.png": "sks, a red fox", "picture-3.png": "sks, a red fox"}
    ]
    result.save(tmp_path)
    (file,) = (path for path in tmp_path.glob("*.safetensors") if "diffusers" not in path.name)
    assert tags(file) == {"sks": 3, "a red fox": 2, "a purple cow": 1}
    with safe_open(file, "pt") as header:
        assert json.loads(header.metadata()["duckrabbit"])["request"]["edits"] == name


def test_edits_stand_for_what_they_were_though_the_page_goes_on_changing_them(pictures, store, trained):
    settings = Settings(outputs=store.datasets.parent)
    sets = Library(settings, LOCAL).of("local")
    sets.change(str(pictures), lambda edits: edits.with_caption("picture-0.png", "before"))
    request = asked(pictures, edits=sets.kept_edits(str(pictures)), steps=1)
    sets.change(str(pictures), lambda edits: edits.with_caption("picture-0.png", "after"))
    training.run(request, store)
    assert trained[0]["picture-0.png"] == "before"


def test_a_set_that_was_put_in_is_trained_by_its_name(pictures, store, tmp_path, trained):
    sets = Library(Settings(outputs=store.datasets.parent), LOCAL).of("local")
    name, _ = sets.add([Given(path, path.name) for path in sorted(pictures.iterdir())])
    training.run(asked(name, steps=1), store)
    assert len(trained[0]) == 4


def test_going_on_with_other_captions_is_refused_and_with_the_same_ones_not(pictures, store, tmp_path):
    first = keep_edits(store.datasets, EDITS)
    training.run(asked(pictures, edits=first), store, folder=tmp_path / "one")
    again = {"steps": 3, "resume": str(tmp_path / "one")}
    for edits in ("", keep_edits(store.datasets, EDITS.with_caption("picture-1.png", "x"))):
        with pytest.raises(RequestError, match="pictures or captions changed since the checkpoint"):
            training.run(asked(pictures, edits=edits, **again), store)
    write_edits(tmp_path, EDITS)
    result = training.run(asked(pictures, edits=str(tmp_path / "edits.json"), **again), store)
    assert result.points[-1].step == 3


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"edits": "0" * 64}, "edits", "these edited captions are not here any more"),
        ({"edits": "/nowhere/edits.json"}, "edits", "there is no file"),
        ({"data": "upload:" + "0" * 32}, "data", "these pictures are not here any more"),
        ({"data": "upload:../../etc"}, "data", "these pictures are not here any more"),
    ],
)
def test_what_is_gone_is_one_sentence_before_the_model_is_loaded(pictures, store, changes, field, words):
    with pytest.raises(RequestError, match=words) as refused:
        training.run(asked(**{"data": pictures} | changes), store)
    assert refused.value.field == field
    assert store.loaded() == ()


def test_the_command_line_takes_an_edits_file(pictures, tiny_store, tmp_path, trained):
    write_edits(tmp_path, EDITS)
    options = ["--device", "cpu", "--models", str(tiny_store.models_dir), "--out", str(tmp_path / "out")]
    settings = ["model=tiny", f"data={pictures}", "steps=1", "validation_share=0", f"edits={tmp_path / 'edits.json'}"]
    assert main(["train", *(part for each in settings for part in ("--set", each)), *options]) == 0
    assert sorted(trained[0]) == ["picture-0.png", "picture-1.png", "picture-3.png"]
    assert trained[0]["picture-0.png"] == "a purple cow"


@pytest.mark.parametrize(("field", "value"), [("trigger", "a, b"), ("template", "a {subject}")])
def test_words_that_cannot_be_used_are_refused_before_a_job_waits(field, value):
    with pytest.raises(RequestError) as refused:
        check(TrainRequest(**{field: value}))
    assert refused.value.field == field


def test_strangers_train_on_sets_of_their_own_and_name_no_file():
    offered = ("builtin:emoji",)
    own = {"model": "builtin:emoji", "data": "upload:" + "a" * 32, "edits": "b" * 64}
    check_train(TrainRequest(**own), SHARED, offered)
    for field, values in (
        ("data", ("/etc", "upload:x", "upload:" + "a" * 33, "upload:" + "a" * 31 + "/", "x.zip")),
        ("edits", ("/etc/passwd", "edits.json", "b" * 63, "../" + "b" * 64)),
    ):
        for value in values:
            with pytest.raises(PolicyError) as refused:
                check_train(TrainRequest(**own | {field: value}), SHARED, offered)
            assert refused.value.field == field
            check_train(TrainRequest(**own | {field: value}), LOCAL, offered)


def test_a_job_on_another_s_set_is_refused_before_it_is_queued(assets, pictures, tmp_path):
    bench = Workbench(Settings(outputs=tmp_path, assets=assets, device="cpu", profile="shared"))
    name, _ = bench.sets(ANN).add([Given(path, path.name) for path in sorted(pictures.iterdir())])
    asked_for = {"model": "builtin:emoji", "data": name, "steps": 1, "checkpoint_every": 100}
    for owner, data in ((EVE, name), (ANN, "upload:" + "0" * 32)):
        with pytest.raises(RequestError, match="not here any more") as refused:
            bench.submit("train", asked_for | {"data": data}, owner)
        assert refused.value.field == "data"
    assert bench.history(EVE) == bench.history(ANN) == ()
    assert bench.request("train", asked_for).data == name
    with pytest.raises(RequestError, match="no valid token"):
        bench.sets("")
    bench.close()
