"""Several processes make the steps that one would have made: the shares of a pass add up to the whole of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studio.errors import Cancelled, RequestError
from studio.progress import Step
from studio.settings import Place, place_among_processes
from studio.training.course import Course, Part
from studio.training.dataset import read_dataset
from studio.training.feed import Feed, Prior
from studio.training.injecting import injected
from studio.training.loop import Loop
from studio.training.objective import Objective
from studio.training.preflight import planned
from studio.training.processes import Processes
from tests.training.asked import asked, save_set

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
LAUNCH = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


# -- who takes what


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_row_of_every_pass_belongs_to_exactly_one_process(count):
    all_of_them = [Processes(CPU, Place(index, count)) for index in range(count)]
    for begin in range(7):
        for rows in range(1, 7):
            taken = [row for processes in all_of_them for row in processes.rows(begin, rows)]
            assert sorted(taken) == list(range(rows))


def test_passes_of_one_picture_go_round():
    second = Processes(CPU, Place(1, 2))
    assert [second.rows(index, 1) for index in range(4)] == [[], [0], [], [0]]


def test_fewer_pictures_than_processes_are_refused_with_what_to_raise():
    Processes(CPU, Place(0, 4)).check(4)
    with pytest.raises(RequestError, match="a step has 3 pictures for 4 processes; raise batch_size") as refused:
        Processes(CPU, Place(0, 4)).check(3)
    assert refused.value.field == "batch_size"


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({}, Place(0, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2)),
        ({"PMI_RANK": "2", "PMI_SIZE": "3"}, Place(2, 3)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}, Place(0, 4)),
        ({"RANK": "2", "WORLD_SIZE": "2"}, Place(0, 1)),
        ({"RANK": "x", "WORLD_SIZE": "2"}, Place(0, 1)),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, Place(0, 1)),
    ],
)
def test_the_launchers_variables_say_which_process_this_is(env, place):
    assert place_among_processes(env) == place


# -- the same step


def with_loop(network, request, data, work):
    """``work`` on a loop whose class pictures, where the request has any, are noise."""
    with injected(network, request) as learner:
        feed = Feed(request, network, read_dataset(data).examples)
        feed.prepare(None, lambda step: None)
        if request.class_pictures:
            draw = torch.Generator().manual_seed(3)
            feed.prior = Prior("a fox", torch.randn(request.class_pictures, 4, 16, 16, generator=draw))
        plan = planned(request, len(feed.examples), feed.batches)
        course = Course(plan, {"": feed}, (Part(0, request.steps, {"": feed}),))
        return work(Loop(request, network, learner, course, Objective.of(network, request)))


def gradients(loop, places):
    """Loss and gradients of the first passes, added up over the shares."""
    loss = 0.0
    for place in places:
        loop.processes = Processes(CPU, place)
        passes = loop.course.last.passes(0, loop.request.accumulation)
        loss += sum(loop._pass(feed, index, len(passes)) for feed, index in passes)
    found = {name: parameter.grad.clone() for name, parameter in loop.parameters.items()}
    for parameter in loop.parameters.values():
        parameter.grad = None
    return loss, found


DREAMBOOTH = {"method": "dreambooth", "instance_prompt": "a red fox", "class_prompt": "a fox", "class_pictures": 5}


@pytest.mark.parametrize("more", [{}, {"text_encoder": True}, {**DREAMBOOTH, "prior_weight": 0.5}])
@pytest.mark.parametrize("count", [2, 3])
def test_the_shares_of_a_step_add_up_to_its_loss_and_gradients(pictures, tiny_store, more, count):
    request = asked(pictures, batch_size=2, accumulation=2, noise_offset=0.1, flip=True, adapter="dora", **more)
    with tiny_store.lease("tiny") as network:
        whole, parts = with_loop(
            network,
            request,
            pictures,
            lambda loop: (gradients(loop, [Place()]), gradients(loop, [Place(i, count) for i in range(count)])),
        )
    assert parts[0] == pytest.approx(whole[0], rel=1e-6)
    assert max(gradient.abs().max() for gradient in whole[1].values()) > 1e-4
    for name, gradient in whole[1].items():
        torch.testing.assert_close(parts[1][name], gradient, rtol=1e-4, atol=1e-7)


# -- a stop is everybody's


def test_of_several_processes_a_stop_waits_until_all_agree(monkeypatch):
    def stop(step):
        raise Cancelled

    alone, one_of_two = Processes(CPU), Processes(CPU, Place(0, 2))
    assert alone.patient(stop) is stop
    alone.agree()
    one_of_two.patient(stop)(Step(1, 2))
    assert one_of_two.asked
    sums = iter([[0.0], [1.0]])
    monkeypatch.setattr(Processes, "added", lambda self, values: next(sums))
    one_of_two.agree()
    with pytest.raises(Cancelled):
        one_of_two.agree()


# -- two real processes


def launched(out, request, store, *more):
    """``accelerate launch`` with two processes on the CPU."""
    file = out.parent / f"{out.name}.json"
    file.write_text(request.model_dump_json(), encoding="utf-8")
    options = ["--device", "cpu", "--offline", "--models", str(store.models_dir), "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, *LAUNCH, "-m", "studio", "train", str(file), *options, *more],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(child, code=0):
    out, _ = child.communicate(timeout=300)
    assert child.returncode == code, out[-4000:]
    return out


def in_one(out, request, store):
    from studio import training

    out.mkdir()
    result = training.run(request, store, folder=out)
    result.save(out)
    return result


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"batch_size": 3, "accumulation": 2, "ema": 0.9, "text_encoder": True, "validation_share": 0.2},
        {"batch_size": 1, "accumulation": 3, **DREAMBOOTH, "class_pictures": 2, "sample_steps": 2},
    ],
)
def test_two_processes_learn_the_weights_that_one_does(tiny_store, tmp_path, more):
    data = save_set(tmp_path / "seven", count=7)
    request = asked(data, steps=6, validate_every=2, checkpoint_every=2, sample_prompts=("a fox",), **more)
    said = ended(launched(tmp_path / "two", request, tiny_store))
    one = in_one(tmp_path / "one", request, tiny_store)
    losses = [point["loss"] for point in json.loads((tmp_path / "two" / "curve.json").read_text())]
    assert losses == pytest.approx([point.loss for point in one.points], rel=1e-4)
    first, second = (load_file(tmp_path / name / "seven.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys()
    assert max(float(first[key].abs().max()) for key in first if "up" in key) > 1e-2
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=2e-3, atol=2e-5)
    names = sorted(path.name for path in (tmp_path / "two" / "training" / "samples").iterdir())
    assert names == ["00000000-0.png", "00000006-0.png"]
    assert said.count("step 6 of 6") == 1  # one of the two speaks


@pytest.mark.slow
def test_a_signal_to_the_first_process_makes_both_stop_after_the_same_step_with_a_checkpoint(tiny_store, tmp_path):
    data = save_set(tmp_path / "seven", count=7)
    out = tmp_path / "two"
    child = launched(out, asked(data, steps=100_000, batch_size=2), tiny_store, "--events", str(tmp_path / "events"))
    try:
        worker, reached = None, 0
        deadline = time.monotonic() + 120
        while reached < 2 and time.monotonic() < deadline and child.poll() is None:
            time.sleep(0.1)
            told = (tmp_path / "events").read_text().splitlines() if (tmp_path / "events").exists() else []
            events = [json.loads(line) for line in told[:-1]]
            worker = next((event["pid"] for event in events if event["kind"] == "process"), None)
            reached = max((event.get("step", 0) for event in events), default=0)
        os.kill(worker, signal.SIGTERM)
        said, _ = child.communicate(timeout=120)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    summary = json.loads((out / "result.json").read_text())
    assert summary["stopped"], said[-3000:]
    assert (out / summary["output"]).is_file()
    assert (out / "training" / f"state-{summary['steps']:08d}").is_dir()
