"""What a training would be, before its model is loaded: it has to be what the run then does."""

from __future__ import annotations

import shutil

import pytest

from studio import training
from studio.errors import Cancelled, RequestError, StudioError
from studio.models.geometry import geometry
from studio.models.store import ModelStore
from studio.training import preflight
from studio.training.outlook import Place, outlook
from studio.training.shelf import Shelf, TooMany
from tests.training.asked import asked, save_set


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """Seven pictures, three of them wide and one counted twice, so that batches of one shape do not fill."""
    from PIL import Image

    root = save_set(tmp_path_factory.mktemp("sets") / "uneven", 4)
    for index in range(3):
        Image.new("RGB", (64, 32), (20 * index, 90, 40 + 60 * index)).save(root / f"wide-{index}.png")
    (root / "2_twice").mkdir()
    shutil.move(root / "picture-3.png", root / "2_twice" / "picture-3.png")
    return root


def seen(request, store, shelf=None):
    return outlook(request, Place(store.assets, store.models_dir), shelf or Shelf())


ASKED = [
    {"steps": 3},
    {"steps": 4, "batch_size": 3},
    {"epochs": 2, "batch_size": 2},
    {"epochs": 1, "batch_size": 2, "accumulation": 3},
    {"steps": 3, "batch_size": 2, "validation_share": 0.3, "validate_every": 1},
    {"epochs": 1, "batch_size": 4, "buckets": False, "seed": 5, "validation_share": 0.3},
    {"steps": 5, "sample_prompts": ("a red fox",), "sample_every": 2, "sample_steps": 2},
    {"steps": 2, "method": "dreambooth", "instance_prompt": "a fox", "class_prompt": "a fox", "class_pictures": 2,
     "sample_steps": 2},
]  # fmt: skip


@pytest.mark.parametrize("changes", ASKED, ids=str)
def test_predicted_steps_and_epochs_are_those_that_run(uneven, tiny_store, tmp_path, changes):
    request = asked(uneven, **changes)
    predicted = seen(request, tiny_store)
    result = training.run(request, tiny_store)
    summary = result.save(tmp_path)
    assert predicted.plan == result.plan
    assert predicted.plan.steps == summary["steps"]
    assert round(float(predicted.plan.epochs), 3) == summary["epochs"]
    if request.batch_size == 1:  # batches that do not fill hold fewer rows than a full one
        assert preflight.evaluations(predicted.to_run(request)) == summary["evaluations"]


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "prx"])
def test_a_model_s_size_is_known_from_its_configs(family, assets, tmp_path):
    from tests import tiny

    folder = tmp_path / family
    make = {
        "sd": lambda: tiny.save_tiny_pipeline(folder, "epsilon"),
        "sdxl": lambda: tiny.save_tiny_sdxl(folder),
        "sd3": lambda: tiny.save_tiny_sd3(folder, with_t5=False),
        "prx": lambda: tiny.save_tiny_prx(folder),
    }
    make[family]()
    found = geometry(str(folder), assets)
    with ModelStore(assets, tmp_path, device="cpu").lease(family) as network:
        assert found.factor == network.factor
        assert found.size == network.size or network.in_pixels


def test_the_built_in_models_are_known_and_one_of_the_hub_is_not(assets):
    assert (geometry("builtin:emoji", assets).size, geometry("builtin:emoji", assets).factor) == (128, 8)
    assert geometry("nobody/nothing-of-this-name", assets) is None


@pytest.mark.parametrize(("family", "notes", "size"), [
    ("sd1", {}, None), ("sdxl", {}, None), ("sd2", {}, 1.0), ("sd2", {"modelspec.prediction_type": "epsilon"}, 2 / 3),
])  # fmt: skip
def test_a_single_file_is_as_large_as_its_family(assets, tmp_path, family, notes, size):
    import json

    from tests import single_files

    (tmp_path / "assets").mkdir()
    small = single_files.small_assets(assets, tmp_path / "assets")
    modules = single_files.build(family, small)
    path = single_files.save(tmp_path / "m.safetensors", single_files.renamed(family, modules), **notes)
    cells = json.loads((small / "configs" / family / "unet.json").read_text())["sample_size"]
    found = geometry(str(path), small)
    assert found.size == int(cells * found.factor * (size or 1.0))


def test_what_stands_in_a_run_s_way_is_said_before_it(uneven, tiny_store, tmp_path):
    (tmp_path / "empty").mkdir()
    for changes, field, words in (
        ({"data": tmp_path / "empty"}, "data", "There is no picture here"),
        ({"data": tmp_path / "nothing"}, "data", "no such folder"),
        ({"model": "nowhere/at/all"}, "model", "There is no model at"),
        ({"resolution": 36}, "resolution", "must be a multiple of 8"),
        ({"resume": str(tmp_path)}, "resume", "holds no checkpoint"),
    ):
        request = asked(**{"data": uneven, **changes})
        with pytest.raises(StudioError, match=words) as refused:
            seen(request, tiny_store)
        assert refused.value.field == field


def test_a_model_that_draws_in_pixels_is_refused_before_it_is_loaded(uneven, tiny_prx, assets):
    with pytest.raises(RequestError, match="draws in pixels") as refused:
        outlook(asked(uneven, model=str(tiny_prx)), Place(assets), Shelf())
    assert refused.value.field == "model"


@pytest.fixture(scope="module")
def stopped(uneven, tiny_store, tmp_path_factory):
    """The folder of a run that was stopped after two of five steps."""
    folder = tmp_path_factory.mktemp("stopped")

    def on_step(step):
        if step.index >= 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        training.run(asked(uneven, steps=5), tiny_store, on_step=on_step, folder=folder)
    return folder


def test_a_run_that_goes_on_says_how_much_is_left(uneven, tiny_store, stopped):
    request = asked(uneven, steps=5, resume=str(stopped))
    found = seen(request, tiny_store)
    assert (found.done, found.plan.steps, found.to_run(request).steps) == (2, 5, 3)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"rank": 4}, "rank", "was 8 in the run to go on from, here it is 4"),
        ({"steps": 2}, "steps", "2 are done already"),
        ({"trigger": "sks"}, "trigger", "was ''"),
    ],
)
def test_what_cannot_go_on_is_refused_beside_the_setting_that_differs(
    uneven, tiny_store, stopped, changes, field, words
):
    with pytest.raises(RequestError, match=words) as refused:
        seen(asked(uneven, **{"steps": 5, "resume": str(stopped), **changes}), tiny_store)
    assert refused.value.field == field


def test_other_pictures_than_those_of_the_checkpoint_are_refused(pictures, tiny_store, stopped):
    with pytest.raises(RequestError, match="pictures or captions changed") as refused:
        seen(asked(pictures, steps=5, resume=str(stopped)), tiny_store)
    assert refused.value.field == "data"


def test_a_set_is_looked_at_once_and_again_when_a_file_of_it_changes(tmp_path, monkeypatch):
    from studio.training import shelf as module

    place = save_set(tmp_path / "set", 3)
    reads = []
    real = module.read_dataset
    monkeypatch.setattr(module, "read_dataset", lambda *a, **k: reads.append(1) or real(*a, **k))
    shelf = Shelf()
    assert shelf.dataset(place, "", "x").examples[0].caption == "a blue penguin"
    assert shelf.dataset(place, "sks", "x").examples[0].caption == "sks, a blue penguin"
    assert len(reads) == 1
    (place / "picture-0.txt").write_text("another caption")
    assert shelf.dataset(place, "", "x").examples[0].caption == "another caption"
    assert len(reads) == 2


def test_a_set_that_takes_too_long_is_counted_and_not_tried_again(tmp_path, tiny_store):
    place = save_set(tmp_path / "set", 3)
    shelf = Shelf(patience=-1.0)
    for _ in range(2):
        with pytest.raises(TooMany):
            shelf.dataset(place, "", "x")
    found = outlook(asked(place, epochs=3), Place(tiny_store.assets, tiny_store.models_dir), shelf)
    assert found.plan is None
    assert found.pictures == 6  # with their captions


def test_steps_that_need_weeks_are_refused_with_what_to_lower():
    request = asked("x", steps=1_000_000, batch_size=8)
    with pytest.raises(RequestError, match="would take about 14[0-9] days here") as refused:
        preflight.seconds(request, request.steps, 0.5151)
    assert refused.value.field == "steps"
