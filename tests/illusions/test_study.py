"""The study of adapters: its settings, its cells, its figures and its picture."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFont

from studio import illusions
from studio.__main__ import main
from studio.illusions import preflight
from studio.illusions.request import IllusionRequest
from studio.illusions.study import estimate, settings, title
from studio.illusions.study_sheet import Panel, _lines, sheet
from studio.imaging import read_recipe
from studio.models.store import ModelStore
from studio.views.admission import Headroom
from tests.models.loras import save_random

FILES = {"ink": "ink.safetensors", "wash": "wash.safetensors"}


@pytest.fixture(scope="module")
def folder(tiny_pipeline, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_pipeline, root / "tiny")
    save_random(root / "ink.safetensors", root / "tiny", "diffusers", seed=1)
    save_random(root / "wash.safetensors", root / "tiny", "kohya", seed=2)
    return root


@pytest.fixture(scope="module")
def store(assets, folder):
    store = ModelStore(assets, folder, device="cpu")
    with store.lease("tiny") as network:
        network.headrooms["rotate_180 16"] = Headroom(0.0, 0.0, 1.0, 1.0)  # random codes carry no view
    return store


def request(**changes) -> IllusionRequest:
    asked = {"model": "tiny", "steps": 2, "seed": 3, "adapters": FILES, "adapter_study": True}
    return IllusionRequest(**asked | changes)


@pytest.fixture(scope="module")
def steps():
    return []


@pytest.fixture(scope="module")
def result(store, steps):
    asked = request(candidates=2, view_adapters=({"ink": 1}, {"wash": 0.8}))
    return illusions.run(asked, store, on_step=steps.append)


def test_a_study_has_the_bare_model_each_alone_all_together_and_what_was_asked():
    asked = request(view_adapters=({"ink": 1}, {"ink": -0.5, "wash": 0.8}))
    found = {setting.title: setting.request for setting in settings(asked)}
    assert list(found) == ["base", "ink", "0.8 wash", "ink + 0.8 wash", "each view its own"]
    assert (found["base"].adapters, found["base"].view_adapters) == ({}, ())
    assert (found["ink"].adapters, found["ink"].view_adapters) == ({"ink": FILES["ink"]}, ({"ink": 1.0},))
    assert found["ink + 0.8 wash"].view_adapters == ({"ink": 1.0, "wash": 0.8},)
    assert found["each view its own"].view_adapters == asked.view_adapters
    assert not any(setting.request.adapter_study for setting in settings(asked))
    assert all(IllusionRequest(**own.model_dump()) == own for own in found.values())


@pytest.mark.parametrize(
    ("asked", "titles"),
    [
        ({}, ["base", "ink", "wash", "ink + wash"]),
        ({"adapters": {"ink": "x"}}, ["base", "ink"]),
        ({"adapters": {"ink": "x"}, "view_adapters": ({"ink": 0.5}, {})}, ["base", "0.5 ink", "each view its own"]),
        ({"adapters": {"ink": "x"}, "view_adapters": ({"ink": 0},)}, ["base"]),
        ({"adapter_study": False}, ["each view its own"]),
    ],
)
def test_settings_that_are_the_same_are_drawn_once(asked, titles):
    assert [setting.title for setting in settings(request(**asked))] == titles


def test_a_setting_is_written_as_a_sum():
    assert title({}) == title({"ink": 0}) == "base"
    assert title({"wash": -0.5, "ink": 1}) == "ink - 0.5 wash"
    assert title({"ink": -1}) == "-ink"


def test_a_few_values_have_a_mean_and_students_interval():
    found = estimate([0.0, 1.0])
    assert found.mean == 0.5
    assert found.high - found.mean == found.mean - found.low == pytest.approx(12.706 * math.sqrt(0.5) / math.sqrt(2))
    assert estimate([2.0]).summary() == {"mean": 2.0, "low": None, "high": None}
    assert estimate([1.0, 2.0, 3.0]).high == pytest.approx(2 + 4.303 / math.sqrt(3))


def test_each_cell_is_the_picture_of_its_setting_and_seed_alone(result, store):
    assert [column.setting.title for column in result.study.columns][-1] == "each view its own"
    for column in result.study.columns:
        assert [cell.seed for cell in column.cells] == [3, 4]
        for cell in column.cells:
            alone = column.setting.request.model_copy(update={"seed": cell.seed, "candidates": 1})
            found = illusions.run(alone, store).candidates[0]
            assert np.array_equal(np.asarray(found.image), np.asarray(cell.image))
            assert (found.alignment, found.concealment) == (cell.alignment, cell.concealment)


def test_the_candidates_are_those_of_the_setting_that_was_asked_for(result):
    own = result.study.columns[-1].cells
    assert sorted(found.seed for found in result.candidates) == [cell.seed for cell in own]
    assert all(any(found.image is cell.image for cell in own) for found in result.candidates)


def test_steps_and_evaluations_count_all_settings(result, steps):
    counted = [step.index for step in steps]
    assert counted == sorted(counted)
    assert {step.total for step in steps} == {5 * 2 * 2}
    assert steps[-1].index == 5 * 2 * 2
    assert result.evaluations == steps[-1].evaluations == 5 * 2 * 2 * 4 == preflight.evaluations(result.request)
    assert any(step.note.startswith("0.8 wash: ") for step in steps)


def test_figures_and_pictures_of_every_cell_are_saved_with_their_recipes(result, tmp_path):
    summary = result.save(tmp_path)
    study = summary["study"]
    assert [column["setting"] for column in study["columns"]] == [c.setting.title for c in result.study.columns]
    base, ink = study["columns"][:2]
    assert base["over_base"]["alignment"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    difference = np.mean([row["cells"][1]["alignment"] - row["cells"][0]["alignment"] for row in study["rows"]])
    assert ink["over_base"]["alignment"]["mean"] == pytest.approx(difference, abs=2e-4)
    assert ink["view_adapters"] == [{"ink": 1.0}] * 2
    assert all(column["evaluations"] == 2 * 2 * 4 and column["seconds"] > 0 for column in study["columns"])
    for row in study["rows"]:
        for cell, column in zip(row["cells"], result.study.columns, strict=True):
            recipe = IllusionRequest(**read_recipe(tmp_path / cell["image"])["request"])
            assert (recipe.seed, recipe.candidates, recipe.adapter_study) == (row["seed"], 1, False)
            assert recipe.view_adapters == column.setting.request.view_adapters
    whole = read_recipe(tmp_path / study["grid"])["request"]
    assert IllusionRequest(**whole) == result.request
    assert not read_recipe(tmp_path / summary["candidates"][0]["image"])["request"]["adapter_study"]
    assert sum(note.startswith("ink: A ") for note in summary["notes"]) == 1


def test_a_run_without_a_study_has_none(store, tmp_path):
    summary = illusions.run(request(adapter_study=False), store).save(tmp_path)
    assert summary["study"] is None
    assert summary["view_adapters"] == [{"ink": 1.0, "wash": 1.0}] * 2
    assert not (tmp_path / "study.png").exists()


def test_the_sheet_has_a_place_for_every_picture_and_wraps_its_headings():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    rows = [
        (f"seed {i}", [Panel([Image.new("RGB", (128, 128), c)] * 2, "A 0.300   C 0.900") for c in colours])
        for i in (1, 2)
    ]
    page = sheet(
        ["base", "ink", " + ".join(["0.25 a-rather-long-name"] * 4)], rows, ["A 0.3, C 0.9"] * 3, "A: alignment"
    )
    counts = page.getcolors(1 << 24)
    assert all(count == 4 * 128 * 128 for colour in colours for count, found in counts if found == colour)
    assert page.width >= 3 * 260
    font = ImageFont.load_default(18)
    lines = _lines(" + ".join(["0.25 a-rather-long-name"] * 4), font, 260)
    assert len(lines) > 1
    assert all(font.getlength(line) <= 260 for line in lines)
    assert _lines("x" * 80, font, 200)[0].endswith("…")


def test_the_command_line_draws_a_study(folder, tmp_path, capsys):
    wanted = [
        "model=tiny",
        "steps=1",
        "adapters.ink=ink.safetensors",
        'view_adapters.0={"ink": 0.5}',
        "adapter_study=true",
    ]
    wanted += ['views=["identity"]', 'prompts=["a fox"]']
    options = [part for text in wanted for part in ("--set", text)]
    assert main(["illusion", *options, "--models", str(folder), "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert str(tmp_path / "out" / "study.png") in said
    assert "0.5 ink: A " in said
    assert main(["illusion", *options, "--set", "adapters.ink=inc.safetensors", "--models", str(folder)]) == 2
    assert "did you mean 'ink.safetensors'" in capsys.readouterr().err
