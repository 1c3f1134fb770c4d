"""Whole comparisons on the tiny model: drawn, kept, gone on with, stopped and refused."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from studio.errors import Cancelled, ModelFileError, ModelNotFoundError, StudioError
from studio.guidance import preflight
from studio.guidance.cells import LOG, PLACE, Spot
from studio.guidance.engine import run
from studio.guidance.guiders import GUIDERS
from studio.guidance.request import GuidanceRequest
from studio.imaging import read_recipe
from studio.models.store import ModelStore
from studio.models.wearing import slower
from studio.settings import Settings
from tests.models.loras import save_random


@pytest.fixture(scope="module")
def folder(tiny_pipeline, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_pipeline, root / "tiny")
    for seed, name in enumerate(("ink", "wash")):
        save_random(root / f"{name}.safetensors", root / "tiny", "diffusers", seed=seed)
    return root


@pytest.fixture(scope="module")
def store(assets, folder):
    return ModelStore(assets, folder, device="cpu")


def asked(**changes) -> GuidanceRequest:
    own = {"model": "tiny", "adapters": {"ink": "ink.safetensors"}, "prompts": ("a fox",), "seeds": 2}
    return GuidanceRequest(**own | {"settings": {"steps": 2}, "guiders": ("cfg", "autolora")} | changes)


def pixels(result, **spot) -> np.ndarray:
    return np.asarray(result.cells[Spot(**{"prompt": 0, "seed": 0, "column": 0} | spot)].picture).astype(int)


def lines(folder):
    return (folder / PLACE / LOG).read_text().splitlines()


# -- drawn and saved


def test_every_guider_draws_its_own_picture_from_the_same_noise_at_its_price(store, tmp_path):
    settings = {"steps": 3, "every": 3, "agreement": -1, "low": 2, "high": 20, "norm": 0.5}
    found = run(asked(guiders=tuple(GUIDERS), settings=settings, seeds=1, style="ink", character="a fox"), store)
    costs = {column.guider: found.cells[Spot(0, 0, index)].evaluations for index, column in enumerate(found.columns)}
    # none 1 a step; CFG, scaled, rescaled, APG 2; AutoLoRA 4; refreshed 4 + 2 + 2; skipping 4 + 4 + 2; equal budget as
    # dear as AutoLoRA; in the interval only the first of three steps.
    assert costs == {
        "none": 3, "cfg": 6, "autolora_plain": 6, "autolora": 12, "autolora_interval": 8, "autolora_refresh": 8,
        "autolora_skip": 10, "lora_scaled": 6, "cfg_budget": 12, "cfg_interval": 4, "cfg_rescaled": 6, "apg": 6,
    }  # fmt: skip
    assert found.evaluations == sum(costs.values())
    drawn = [pixels(found, column=index) for index in range(len(found.columns))]
    assert all(abs(a - b).max() > 0 for i, a in enumerate(drawn) for b in drawn[:i])
    assert set(found.measured[0].fidelity) == {"pc_clip", "sa_clip", "cp_clip"}


def test_a_result_keeps_every_cell_the_grid_and_both_tables(store, tmp_path):
    sweep = ({"setting": "gamma", "values": (1.5, 2)},)
    result = run(asked(prompts=("a fox", "a penguin"), sweep=sweep), store)
    summary = result.save(tmp_path)
    assert [line["title"] for line in summary["columns"]] == ["LoRA + CFG", "AutoLoRA · γ 1.5", "AutoLoRA · γ 2"]
    assert [(row["prompt"], row["seed"]) for row in summary["rows"]] == [
        ("a fox", 0), ("a fox", 1), ("a penguin", 0), ("a penguin", 1),
    ]  # fmt: skip
    names = [cell["image"] for row in summary["rows"] for cell in row["cells"]]
    assert len(names) == 12
    assert {*names, "grid.png", "table.csv", "table.json"} == {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "table.json").read_text()) == summary["columns"]
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["settings.gamma"] for row in rows] == ["1.5", "1.5", "2.0"]
    assert all(float(row["diversity.low"]) <= float(row["diversity.value"]) for row in rows)
    assert float(rows[1]["evaluations"]) == 8.0
    div_pc = float(rows[0]["diversity.value"]) * float(rows[0]["pc_clip.value"])
    assert float(rows[0]["products.div_pc_clip"]) == pytest.approx(div_pc, abs=2e-4)
    assert any("12 pictures, 2 seeds from 0" in note and "builtin:clip" in note for note in summary["notes"])


def test_a_cell_carries_the_request_that_draws_it_alone(store, tmp_path):
    sweep = ({"setting": "w", "values": (2, 4)},)
    result = run(asked(guiders=("cfg_budget",), sweep=sweep, seed=5), store)
    result.save(tmp_path)
    recipe = read_recipe(tmp_path / "cell-0-6-1.png")
    again = run(GuidanceRequest(**recipe["request"]), store)
    assert (recipe["engine"], recipe["seed"], len(again.cells)) == ("guidance", 6, 1)
    assert np.array_equal(pixels(again, seed=6), pixels(result, seed=6, column=1))


def test_the_page_sees_the_whole_row_form(store):
    steps, rows = [], []

    def on_step(step):
        if step.pictures:
            steps.append(step)
            rows.append(step.pictures())

    run(asked(seeds=1, guiders=("cfg", "autolora", "none")), store, on_step=on_step)
    assert [step.index for step in steps] == [1, 2, 3, 4, 5, 6]
    assert {step.total for step in steps} == {6}
    assert steps[2].labels == ("LoRA + CFG", "AutoLoRA", "LoRA alone")
    finished, forming, coming = rows[2]
    assert finished.size == (32, 32)
    assert forming.size == (16, 16)
    assert coming.size == (8, 8)
    assert [step.evaluations for step in steps] == [2, 4, 8, 12, 13, 14]


# -- kept and gone on with


def test_a_resumed_run_takes_the_same_pictures_over_with_their_cost(store, tmp_path):
    first = run(asked(), store, folder=tmp_path / "first")
    again = run(asked(resume=str(tmp_path / "first")), store, folder=tmp_path / "second")
    assert again.evaluations == 0
    for spot, cell in first.cells.items():
        assert np.array_equal(np.asarray(cell.picture), np.asarray(again.cells[spot].picture))
        assert (cell.evaluations, cell.seconds) == (again.cells[spot].evaluations, again.cells[spot].seconds)
    assert again.measured == first.measured
    assert sorted(lines(tmp_path / "second")) == sorted(lines(tmp_path / "first"))


def test_what_a_guider_does_not_heed_draws_nothing_anew_and_what_it_heeds_does(store, tmp_path):
    run(asked(), store, folder=tmp_path)
    more = asked(resume=str(tmp_path), guiders=("autolora", "cfg"), settings={"steps": 2, "gamma": 2, "eta": 0.5})
    assert run(more, store).evaluations == 2 * 8  # AutoLoRA's two; the columns' order does not matter
    more = asked(resume=str(tmp_path), seeds=3)
    assert run(more, store).evaluations == 4 + 8


def test_a_run_goes_on_in_its_own_folder_with_its_columns_in_another_order(store, tmp_path):
    first = run(asked(), store, folder=tmp_path)
    again = run(asked(resume=str(tmp_path), guiders=("autolora", "cfg")), store, folder=tmp_path)
    assert again.evaluations == 0
    assert np.array_equal(pixels(again, column=0), pixels(first, column=1))
    assert np.array_equal(pixels(again, column=1), pixels(first, column=0))


def test_lines_and_pictures_that_were_not_finished_are_drawn_again(store, tmp_path):
    first = run(asked(), store, folder=tmp_path)
    (whole, cut, strange, gone) = lines(tmp_path)
    broken = json.loads(gone)["key"]
    (tmp_path / PLACE / f"{broken}.png").write_bytes(b"\x89PNG half")
    listed = [whole, cut[:40], strange.replace('"seconds":', '"second":'), '{"key": 3}', "[]", gone]
    (tmp_path / PLACE / LOG).write_text("\n".join(listed))
    again = run(asked(resume=str(tmp_path)), store, folder=tmp_path / "on")
    assert again.evaluations == first.evaluations - first.cells[Spot(0, 0, 0)].evaluations
    assert np.array_equal(pixels(again, seed=1, column=1), pixels(first, seed=1, column=1))


def test_no_line_of_the_log_names_a_file_outside_of_its_folder(store, tmp_path):
    run(asked(), store, folder=tmp_path)
    listed = [json.loads(line) | {"key": "../../secret"} for line in lines(tmp_path)]
    (tmp_path / PLACE / LOG).write_text("\n".join(map(json.dumps, listed)))
    assert run(asked(resume=str(tmp_path)), store).evaluations == 24


def test_a_lora_whose_bytes_have_changed_is_drawn_anew(store, folder, tmp_path):
    shutil.copy(folder / "ink.safetensors", tmp_path / "mine.safetensors")
    own = {"adapters": {"ink": str(tmp_path / "mine.safetensors")}, "seeds": 1}
    run(asked(**own), store, folder=tmp_path / "run")
    tensors = load_file(tmp_path / "mine.safetensors")
    save_file({key: 0.5 * each for key, each in tensors.items()}, tmp_path / "mine.safetensors")
    assert run(asked(**own, resume=str(tmp_path / "run")), store).evaluations == 12


def test_there_is_nothing_to_go_on_from_in_an_empty_folder(store, tmp_path):
    with pytest.raises(StudioError, match="There are no cells to go on from in .*; leave resume empty") as refused:
        run(asked(resume=str(tmp_path)), store)
    assert refused.value.field == "resume"


@pytest.mark.parametrize("stop", [Cancelled, KeyboardInterrupt])
def test_a_stop_keeps_what_was_drawn_and_the_run_goes_on_from_there(store, tmp_path, stop):
    def on_step(step):
        if step.index == 7:  # in the last of four pictures
            raise stop

    with pytest.raises(Cancelled) as stopped:
        run(asked(), store, on_step=on_step, folder=tmp_path)
    kept = stopped.value.kept
    assert (len(kept.cells), [each.pictures for each in kept.measured]) == (3, [2, 1])
    (tmp_path / "saved").mkdir()
    summary = kept.save(tmp_path / "saved")
    assert summary["stopped"] is True
    assert summary["rows"][1]["cells"][1] is None
    assert any("can be gone on from" in note for note in summary["notes"])
    on = run(asked(resume=str(tmp_path)), store)
    assert on.evaluations == 8
    with store.lease("tiny") as network:
        assert network.attached.names == ()


def test_a_stop_before_the_first_picture_keeps_nothing(store):
    def on_step(step):
        if step.index == 1:
            raise Cancelled

    with pytest.raises(Cancelled) as stopped:
        run(asked(), store, on_step=on_step)
    assert stopped.value.kept is None


# -- refused before anything is drawn


@pytest.mark.parametrize(
    ("changes", "error", "says", "field"),
    [
        ({"extractor": "nosuch"}, ModelNotFoundError, "There is no scorer 'nosuch': choose builtin:clip", "extractor"),
        ({"extractor": "tiny"}, StudioError, "tiny is no CLIP model, it cannot score", "extractor"),
        ({"model": "builtin:clip"}, StudioError, "builtin:clip is a scorer, not a text-to-image model", "model"),
        ({"model": "builtin:emoji"}, ModelFileError, "ink.safetensors is a LoRA for", "adapters.ink"),
        ({"adapters": {"ink": "inc.safetensors"}}, StudioError, "There is no LoRA 'inc.safetensors'", "adapters.ink"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_before_anything_is_loaded(assets, folder, changes, error, says, field):
    store = ModelStore(assets, folder, device="cpu")
    for refuse in (
        lambda: run(asked(**changes), store),
        lambda: preflight.check(asked(**changes), Settings(assets=assets, models_dir=folder)),
    ):
        with pytest.raises(error) as refused:
            refuse()
        assert says in str(refused.value)
        assert refused.value.field == field
    assert store.loaded() == ()


def test_an_adapter_that_is_no_plain_lora_is_said_to_be_exact_and_slower(folder, tmp_path):
    tensors = load_file(folder / "ink.safetensors")
    for wide in [key for key in tensors if key.endswith("lora_B.weight")]:
        tensors[wide.replace("lora_B.weight", "lora_magnitude_vector")] = tensors[wide][:, 0].abs() + 1
    save_file(tensors, tmp_path / "dora.safetensors")
    said = slower({"ink": folder / "ink.safetensors", "other": tmp_path / "dora.safetensors"})
    assert said == ("other is DoRA (LoRA): exact as well, but slower than a plain LoRA.",)
