"""A training from the command line and as a job: the same files, a stop that keeps what was learned, and policy."""

from __future__ import annotations

import json
import threading
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from studio import training
from studio.__main__ import main
from studio.errors import Cancelled, PolicyError
from studio.policy import LOCAL, SHARED, check_train
from studio.settings import Settings
from studio.training.engine import Training
from studio.training.request import TrainRequest
from studio.workbench import Workbench
from tests.training.asked import asked

OFFERED = ("builtin:emoji", "my-model")


def command(request, out, models_dir, *more):
    file = out.parent / "asked.json"
    file.write_text(request.model_dump_json(), encoding="utf-8")
    options = ["--device", "cpu", "--offline", "--models", str(models_dir), "--out", str(out)]
    return main(["train", str(file), *more, *options])


def test_the_command_line_writes_the_adapter_its_curve_and_a_recipe_that_trains_it_again(
    pictures, tiny_store, tmp_path, capsys
):
    request = asked(pictures, sample_prompts=("a fox",), sample_steps=2)
    assert command(request, tmp_path / "one", tiny_store.models_dir) == 0
    out = capsys.readouterr()
    assert "step 2 of 2" in out.err
    assert f"{tmp_path / 'one' / 'four.safetensors'}\n" in out.out
    assert "2 steps, 0.5 epochs of 4 pictures." in out.out
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {"four.safetensors", "four-diffusers.safetensors", "samples.png", "curve.json", "request.json"} <= names
    with safe_open(tmp_path / "one" / "four.safetensors", "pt") as file:
        recipe = json.loads(file.metadata()["duckrabbit"])
    assert TrainRequest(**recipe["request"]) == request
    options = ["--device", "cpu", "--models", str(tiny_store.models_dir)]
    assert main(["train", str(tmp_path / "one" / "four.safetensors"), "--out", str(tmp_path / "two"), *options]) == 0
    for name in ("four.safetensors", "four-diffusers.safetensors", "sample-00000002-0.png"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_the_command_line_goes_on_in_the_same_folder(pictures, tiny_store, tmp_path, capsys):
    request = asked(pictures, adapter="loha")
    assert command(request, tmp_path / "one", tiny_store.models_dir) == 0
    more = ("--set", "steps=3", "--set", f"resume={tmp_path / 'one'}")
    assert command(request, tmp_path / "one", tiny_store.models_dir, *more) == 0
    assert json.loads((tmp_path / "one" / "result.json").read_text())["steps"] == 3
    assert "step 3 of 3" in capsys.readouterr().err


def test_a_file_that_was_not_trained_here_has_no_recipe(tmp_path, capsys):
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", metadata={"duckrabbit": '{"engine": "merge"}'})
    for name, words in (("plain", "holds no recipe"), ("odd", "is damaged"), ("none", "there is no such file")):
        assert main(["train", str(tmp_path / f"{name}.safetensors"), "--out", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err


def test_ctrl_c_keeps_what_was_learned_but_makes_no_checkpoint_of_half_a_step(pictures, tiny_store, tmp_path):
    def on_step(step):
        if step.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(Cancelled) as stop:
        training.run(asked(pictures, steps=5), tiny_store, on_step=on_step, folder=tmp_path)
    assert stop.value.kept.points[-1].step == 1
    assert list((tmp_path / "training").glob("state-*")) == []


@pytest.fixture
def bench(tiny_store, tmp_path):
    settings = Settings(outputs=tmp_path / "outputs", models_dir=tiny_store.models_dir, device="cpu", offline=True)
    bench = Workbench(settings)
    yield bench
    bench.close()


def until(bench, job_id, good):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = bench.snapshot(job_id, "anyone")
        if good(found) or found.over:
            return found
        time.sleep(0.01)
    raise AssertionError(found)


def test_a_job_that_is_stopped_keeps_its_lora_and_goes_on_as_another_job(bench, pictures, monkeypatch):
    reached, go_on = threading.Event(), threading.Event()
    true = Training._one_step

    def waiting(self):
        true(self)
        reached.set()
        go_on.wait(30)

    monkeypatch.setattr(Training, "_one_step", waiting)
    data = asked(pictures, steps=4).model_dump(mode="json")
    job_id = bench.submit("train", data, "anyone")
    assert reached.wait(120)
    bench.cancel(job_id, "anyone")
    go_on.set()
    stopped = until(bench, job_id, lambda snapshot: snapshot.over)
    assert (stopped.status, stopped.summary["stopped"], stopped.summary["steps"]) == ("done", True, 1)
    assert (stopped.folder / stopped.summary["output"]).is_file()
    monkeypatch.undo()
    again = bench.submit("train", {**data, "resume": str(stopped.folder)}, "anyone")
    done = until(bench, again, lambda snapshot: snapshot.over)
    assert (done.status, done.summary["stopped"], done.summary["steps"]) == ("done", False, 4)
    assert done.folder != stopped.folder
    assert bench.estimate(TrainRequest(**data), "train").seconds > 0


def test_a_job_that_fails_says_why_in_a_sentence(bench, tmp_path):
    (tmp_path / "empty").mkdir()
    failed = until(bench, bench.submit("train", {"data": str(tmp_path / "empty")}, "anyone"), lambda found: found.over)
    assert failed.status == "failed"
    assert failed.error.field == "data"
    assert failed.error.message.startswith("data: There is no picture here")


# -- strangers


def test_the_default_training_is_allowed_everywhere():
    check_train(TrainRequest(), LOCAL, OFFERED)
    check_train(TrainRequest(), SHARED, OFFERED)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": "my-model"}, "model"),
        ({"model": "/somewhere"}, "model"),
        ({"data": "/etc"}, "data"),
        ({"resume": "/somewhere"}, "resume"),
        ({"cache": "disk"}, "cache"),
        ({"epochs": 2}, "epochs"),
        ({"checkpoint_every": 1}, "checkpoint_every"),
        ({"steps": 1001}, "steps"),
        ({"batch_size": 8}, "steps"),
        ({"resolution": 2048}, "resolution"),
        ({"sample_steps": 101}, "sample_steps"),
    ],
)
def test_strangers_name_no_place_and_train_for_a_short_time(changes, field):
    with pytest.raises(PolicyError) as refused:
        check_train(TrainRequest(**changes), SHARED, OFFERED)
    assert refused.value.field == field
    check_train(TrainRequest(**changes), LOCAL, OFFERED)
