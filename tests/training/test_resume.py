"""Going on after a stop, or after the machine went down, is going on as if nothing had happened: bit for bit."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studio import training
from studio.errors import Cancelled, RequestError, StudioError
from studio.training import checkpoints
from studio.training.checkpoints import PLACE, State
from studio.training.kinds import KINDS
from tests.training.asked import asked, save_set

SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
RICH = {
    "batch_size": 3,
    "accumulation": 2,
    "text_encoder": True,
    "ema": 0.9,
    "flip": True,
    "caption_dropout": 0.3,
    "shuffle_tags": True,
    "noise_offset": 0.1,
    "min_snr_gamma": 5.0,
    "schedule": "cosine",
    "warmup_steps": 2,
    "validation_share": 0.25,
    "validate_every": 2,
    "steps": STEPS,
    "checkpoint_every": 2,
}


def run(request, store, folder=None, stop_after=None):
    """The result; of a run that is stopped after that step what it kept."""

    def on_step(step):
        if stop_after is not None and step.index >= stop_after and step.note.startswith("loss"):
            raise Cancelled

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        return training.run(request, store, on_step=on_step, folder=folder)
    except Cancelled as stop:
        return stop.kept


def state(folder: Path) -> State:
    return checkpoints.latest(folder)


def assert_same(one: State, other: State) -> None:
    assert one.step == other.step
    assert one.tensors.keys() == other.tensors.keys()
    assert all(torch.equal(value, other.tensors[key]) for key, value in one.tensors.items())
    assert one.facts == other.facts


@pytest.mark.parametrize("optimizer", ["adamw", pytest.param("adafactor", marks=pytest.mark.slow)])
def test_twice_stopped_and_twice_resumed_is_bit_for_bit_the_run_that_never_stopped(
    optimizer, pictures, tiny_store, tmp_path
):
    request = asked(pictures, optimizer=optimizer, **RICH)
    whole = run(request, tiny_store, tmp_path / "whole")
    first = run(request, tiny_store, tmp_path / "first", stop_after=2)
    assert (first.stopped, first.points[-1].step) == (True, 2)
    again = request.model_copy(update={"resume": str(tmp_path / "first")})
    second = run(again, tiny_store, tmp_path / "second", stop_after=3)
    assert (second.stopped, second.points[-1].step) == (True, 3)
    third = run(request.model_copy(update={"resume": str(tmp_path / "second")}), tiny_store, tmp_path / "third")
    assert not third.stopped
    assert_same(state(tmp_path / "whole"), state(tmp_path / "third"))
    assert third.points == whole.points
    assert third.last.kohya.keys() == whole.last.kohya.keys()
    assert all(torch.equal(value, third.last.kohya[key]) for key, value in whole.last.kohya.items())
    log = [json.loads(line) for line in (tmp_path / "third" / PLACE / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [name for name in KINDS if name != "lora"])
def test_every_kind_resumes_bit_for_bit(kind, pictures, tiny_store, tmp_path):
    options = {"oft": {"block_size": 4}}.get(kind, {})
    request = asked(pictures, adapter=kind, targets=KINDS[kind].layers[-1], options=options, steps=3)
    run(request, tiny_store, tmp_path / "whole")
    run(request, tiny_store, tmp_path / "first", stop_after=2)
    run(request.model_copy(update={"resume": str(tmp_path / "first")}), tiny_store, tmp_path / "second")
    assert_same(state(tmp_path / "whole"), state(tmp_path / "second"))


def test_a_stop_leaves_a_lora_of_the_very_step(pictures, tiny_store, tmp_path):
    request = asked(pictures, steps=5)
    stopped = run(request, tiny_store, tmp_path / "stopped", stop_after=2)
    short = run(request.model_copy(update={"steps": 2}), tiny_store)
    summary = stopped.save(tmp_path)
    assert summary["stopped"] is True
    assert summary["steps"] == 2
    found = load_file(tmp_path / summary["output"])
    assert all(torch.equal(value, found[key]) for key, value in short.last.kohya.items())
    assert "Stopped after step 2 of 5; what was learned is kept." in summary["notes"]


def test_a_stop_before_the_first_step_keeps_nothing(pictures, tiny_store):
    def on_step(step):
        raise Cancelled

    with pytest.raises(Cancelled) as stop:
        training.run(asked(pictures), tiny_store, on_step=on_step)
    assert stop.value.kept is None


KILLED = """
import sys
from pathlib import Path
from studio.models.store import ModelStore
from studio.training import run
from studio.training.request import TrainRequest
request = TrainRequest.model_validate_json(sys.argv[1])
store = ModelStore(Path("assets"), Path(sys.argv[2]), device="cpu")
run(request, store, on_step=lambda step: print(step.index, flush=True), folder=Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_a_machine_that_went_down_costs_no_more_than_the_steps_since_the_last_checkpoint(
    pictures, tiny_store, tmp_path
):
    request = asked(pictures, **RICH | {"steps": 1000, "checkpoint_every": 2, "validation_share": 0.0})
    (tmp_path / "killed").mkdir()
    arguments = [request.model_dump_json(), str(tiny_store.models_dir), str(tmp_path / "killed")]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, **SILENT)
    place, deadline = tmp_path / "killed" / PLACE, time.monotonic() + 120
    while not checkpoints.listed(place) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = state(tmp_path / "killed").step
    assert reached >= 2
    # The schedule runs over 1000 steps in both, so that both are stopped at the same one.
    until = reached + 2
    run(request, tiny_store, tmp_path / "whole", stop_after=until)
    run(request.model_copy(update={"resume": str(tmp_path / "killed")}), tiny_store, tmp_path / "on", stop_after=until)
    assert_same(state(tmp_path / "whole"), state(tmp_path / "on"))


@pytest.fixture(scope="module")
def stopped(pictures, tiny_store, tmp_path_factory):
    """The folder of a run that was stopped after three steps of five, and its request."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    request = asked(pictures, steps=5, checkpoint_every=2)
    run(request, tiny_store, folder, stop_after=3)
    return folder, request


def test_only_the_last_two_checkpoints_stay_and_each_has_its_adapter(stopped):
    folder, _ = stopped
    assert [path.name for path in checkpoints.listed(folder / PLACE)] == ["state-00000002", "state-00000003"]
    assert sorted(path.name for path in (folder / PLACE).glob("*.safetensors")) == [
        "four-00000002.safetensors",
        "four-00000003.safetensors",
    ]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rank": 4}, "rank"),
        ({"seed": 1}, "seed"),
        ({"learning_rate": 1e-3}, "learning_rate"),
        ({"steps": 3}, "steps"),
        ({"resume": "/nowhere"}, "resume"),
    ],
)
def test_what_is_no_longer_the_same_run_is_refused_by_its_field(stopped, tiny_store, changes, field):
    folder, request = stopped
    with pytest.raises(RequestError) as refused:
        run(request.model_copy(update={"resume": str(folder), **changes}), tiny_store)
    assert refused.value.field == field
    assert str(refused.value).startswith(f"{field}: ")


def test_a_folder_with_a_training_in_it_is_never_begun_anew(stopped, tiny_store, tmp_path):
    folder, request = stopped
    before = sorted(path.name for path in (folder / PLACE).iterdir())
    for resume in ("", str(tmp_path)):
        with pytest.raises(RequestError, match="holds a training already") as refused:
            training.run(request.model_copy(update={"resume": resume}), tiny_store, folder=folder)
        assert refused.value.field == "resume"
    assert sorted(path.name for path in (folder / PLACE).iterdir()) == before


def test_other_pictures_are_refused(stopped, tiny_store, tmp_path):
    folder, request = stopped
    other = save_set(tmp_path / "other", count=5)
    with pytest.raises(RequestError, match="data: pictures or captions changed since the checkpoint"):
        run(request.model_copy(update={"resume": str(folder), "data": str(other)}), tiny_store)


def test_another_model_under_the_same_name_is_refused(stopped, tiny_store):
    folder, request = stopped
    with tiny_store.lease("tiny") as network:
        bias = network.denoiser.conv_out.bias
        bias.data += 1
    try:
        with pytest.raises(RequestError, match="model: it changed since the checkpoint") as refused:
            run(request.model_copy(update={"resume": str(folder)}), tiny_store)
    finally:
        bias.data -= 1
    assert refused.value.field == "model"


def test_more_steps_go_on_where_a_finished_run_ended(pictures, tiny_store, tmp_path):
    request = asked(pictures, steps=2)
    run(request, tiny_store, tmp_path / "short")
    longer = request.model_copy(update={"steps": 4, "resume": str(tmp_path / "short")})
    run(longer, tiny_store, tmp_path / "longer")
    run(request.model_copy(update={"steps": 4}), tiny_store, tmp_path / "whole")
    assert_same(state(tmp_path / "whole"), state(tmp_path / "longer"))


def small_state(step: int) -> State:
    return State(step, {"weights/a": torch.full((2,), float(step))}, {"points": []})


@pytest.mark.parametrize("damage", [b"", b"{", b"\x00" * 100])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, damage):
    for step in (1, 2):
        checkpoints.save(tmp_path / PLACE, small_state(step))
    (tmp_path / PLACE / "state-00000002" / checkpoints.FACTS).write_bytes(damage)
    assert state(tmp_path).step == 1
    checkpoints.save(tmp_path / PLACE, small_state(2))
    (tmp_path / PLACE / "state-00000002" / checkpoints.TENSORS).write_bytes(damage)
    assert state(tmp_path).held("weights")["a"].tolist() == [1.0, 1.0]


def test_a_checkpoint_is_never_seen_half(tmp_path, monkeypatch):
    checkpoints.save(tmp_path / PLACE, small_state(1))

    def full(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(StudioError, match="No space left on device"):
        checkpoints.save(tmp_path / PLACE, small_state(2))
    assert [path.name for path in (tmp_path / PLACE).iterdir()] == ["state-00000001"]


def test_a_disk_that_takes_no_more_is_said_in_words_and_leaves_the_checkpoint_before(tmp_path):
    """A limit on the size of a file stands for a full disk: safetensors tells of both in an exception of its own."""
    before = checkpoints.save(tmp_path, State(1, {"adapter/a": torch.zeros(4)}, {}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StudioError, match="The checkpoint cannot be written .*; make room and go on"):
            checkpoints.save(tmp_path, State(2, {"adapter/a": torch.zeros(40_000)}, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [before]
