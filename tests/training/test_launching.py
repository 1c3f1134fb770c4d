"""A training outside the studio: what is started, how it is followed and stopped, and that it outlives the studio."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from studio import jobs
from studio.__main__ import main
from studio.errors import Cancelled, Closing, PolicyError, RequestError, StudioError
from studio.progress import Step
from studio.settings import Launch, Settings, environment_of_child, machine_arguments
from studio.training import events, launching
from studio.training.events import Process, Tail, Teller
from studio.workbench import Workbench
from tests.training.asked import asked

# A training that only pretends: it tells its steps, answers SIGTERM by a result, and ends as it is told to.
PRETENDER = """
import json, os, signal, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
from studio.errors import Cancelled, RequestError
from studio.progress import Step
from studio.training.events import told
folder, end = Path({folder!r}), {end!r}
print("getting ready", flush=True)
def result(steps):
    (folder / "lora.safetensors").write_text("weights")
    (folder / "result.json").write_text(json.dumps({{"output": "lora.safetensors", "steps": steps, "notes": []}}))
with told(folder / "launch" / "events.jsonl", lambda step: None) as on_step:
    if end == "refuse":
        raise RequestError("data: There is no picture here.", field="data")
    if end == "crash":
        sys.exit("CUDA error: an illegal memory access was encountered")
    steps = 0
    try:
        while end == "wait" or steps < 3:
            time.sleep(0.05)
            steps += 1
            on_step(Step(steps, 3 if end == "done" else 9999, note=f"loss {{steps}}", evaluations=steps))
            while end == "wait" and (folder / "hold").exists():
                time.sleep(0.02)
                on_step(Step(steps, 9999))
    except Cancelled:
        pass
    result(steps)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(launching, "PAUSE", 0.05)
    monkeypatch.setattr(jobs, "PATIENCE", 5.0)


@pytest.fixture
def pretend(monkeypatch):
    """``pretend(end)``: what is launched from now on ends so."""

    def as_if(end):
        root = str(Path(__file__).resolve().parents[2])
        monkeypatch.setattr(
            launching,
            "command",
            lambda settings, folder: [sys.executable, "-c", PRETENDER.format(root=root, folder=str(folder), end=end)],
        )

    return as_if


@pytest.fixture
def settings(tmp_path):
    return Settings(outputs=tmp_path / "outputs", device="cpu", offline=True, launch=Launch(1))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def until(good, seconds=30):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := good():
            return found
        time.sleep(0.02)
    raise AssertionError("nothing came of it")


# -- what is started


def test_the_launcher_gets_a_list_of_arguments_and_the_machine_settings_but_starts_nothing_itself(tmp_path):
    settings = Settings(models_dir=tmp_path, device="cpu", threads=3, offline=True, launch=Launch(2))
    arguments = launching.command(settings, tmp_path / "a folder; rm -rf $HOME")
    assert arguments[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert arguments[arguments.index("--num_processes") + 1] == "2"
    assert arguments[arguments.index("--num_cpu_threads_per_process") + 1] == "3"
    assert "--multi_gpu" in arguments
    at = arguments.index("studio")
    assert arguments[at - 1 : at + 2] == ["-m", "studio", "train"]
    assert str(tmp_path / "a folder; rm -rf $HOME") in arguments
    assert ["--models", str(tmp_path), "--device", "cpu", "--threads", "3"] == arguments[-11:-5]
    assert arguments[-1] == "--offline"
    assert "--processes" not in arguments


def test_a_file_of_accelerates_decides_what_is_not_given(tmp_path):
    arguments = launching.command(Settings(launch=Launch(config=tmp_path / "two-machines.yaml")), tmp_path)
    assert arguments[3:5] == ["--config_file", str(tmp_path / "two-machines.yaml")]
    assert "--num_processes" not in arguments
    assert "--num_machines" not in arguments


def test_one_process_is_launched_without_the_flag_for_several(tmp_path):
    assert "--multi_gpu" not in launching.command(Settings(launch=Launch(1)), tmp_path)


def test_machine_arguments_make_the_settings_that_they_came_from(tmp_path):
    settings = Settings(models_dir=tmp_path, device="cpu", memory_gb=1.5, dtype="float32", compiled=True, offline=True)
    assert Settings.read(machine_arguments(settings), {}) == replace(settings, port=None)


def test_the_child_finds_this_studio_and_is_told_no_password():
    env = environment_of_child({"DUCKRABBIT_AUTH": "ann:secret", "PYTHONPATH": "/elsewhere", "HOME": "/home/ann"})
    assert "secret" not in json.dumps(env)
    root, other = env["PYTHONPATH"].split(os.pathsep)
    assert (Path(root) / "studio" / "__main__.py").is_file()
    assert (other, env["HOME"]) == ("/elsewhere", "/home/ann")


def test_no_shared_page_can_be_told_to_launch(tmp_path, capsys):
    with pytest.raises(SystemExit):
        Settings.read(["--host", "0.0.0.0", "--processes", "2"], {})
    assert "no page of them can be shared" in capsys.readouterr().err
    assert Settings.read(["--processes", "2"], {}).launch == Launch(2)
    with pytest.raises(PolicyError, match="starts no programs") as refused:
        Workbench(Settings(outputs=tmp_path, profile="shared", launch=Launch(2)))
    assert refused.value.field == "processes"


# -- following


def test_what_is_told_is_read_once_and_half_lines_wait(tmp_path):
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.news() == []
    tell = Teller(path)
    tell(Step(1, 2, "loss 1", evaluations=3))
    with path.open("a") as file:
        file.write('[1]\n{"no": "kind"}\nnot json\n{"kind": "st')
    process, step = tail.news()
    assert Process.read(process) == Process.this()
    assert (step["step"], step["total"], step["note"], step["evaluations"]) == (1, 2, "loss 1", 3)
    with path.open("a") as file:
        file.write('ep", "step": 2}\n')
    assert [event["step"] for event in tail.news()] == [2]
    assert tail.news() == []


def test_steps_that_come_thick_and_fast_are_told_now_and_then_but_the_last_one_always(tmp_path):
    tell = Teller(tmp_path / "events.jsonl")
    for index in range(1, 1001):
        tell(Step(index, 1000))
    steps = [event["step"] for event in Tail(tmp_path / "events.jsonl").news() if event["kind"] == "step"]
    assert steps[0] == 1
    assert steps[-1] == 1000
    assert len(steps) < 100


def test_a_process_is_known_by_its_birth_too():
    mine = Process.this()
    assert mine.living.pid == os.getpid()
    assert replace(mine, started=mine.started - 60).living is None
    gone = subprocess.Popen([sys.executable, "-c", ""])
    dead = Process.this(gone.pid)
    until(lambda: dead.living is None)  # a zombie by now
    gone.wait()
    assert dead.living is None
    assert [Process.read(data) for data in (None, {}, {"pid": "1", "started": 0.0}, {"pid": 1, "started": 0.0})] == [
        None
    ] * 4


def test_a_training_that_ends_well_gives_its_summary_and_its_last_step(pretend, settings, folder):
    pretend("done")
    steps = []
    done = launching.run(asked("x"), settings, on_step=steps.append, folder=folder)
    assert done.save(folder / "unused")["steps"] == 3
    assert steps[0].note == "Launching the training"
    assert [step.index for step in steps] == sorted(step.index for step in steps)
    assert json.loads((folder / "launch" / "run.json").read_text())["model"] == "tiny"
    assert (folder / "launch" / "output.txt").read_text() == "getting ready\n"
    assert launching.outlived(folder) is None


def test_what_it_refuses_is_refused_here_in_the_same_words(pretend, settings, folder):
    pretend("refuse")
    with pytest.raises(RequestError, match="data: There is no picture here.") as refused:
        launching.run(asked("x"), settings, folder=folder)
    assert refused.value.field == "data"


def test_a_crash_is_told_with_the_last_lines_of_output(pretend, settings, folder):
    pretend("crash")
    with pytest.raises(StudioError, match="without a result; .*getting ready / CUDA error: an illegal memory"):
        launching.run(asked("x"), settings, folder=folder)


def test_a_result_of_an_earlier_run_in_the_same_folder_is_not_taken_for_this_ones(pretend, settings, folder):
    (folder / "result.json").write_text("{}")
    os.utime(folder / "result.json", (1, 1))
    pretend("crash")
    with pytest.raises(StudioError, match="ended without a result"):
        launching.run(asked("x"), settings, folder=folder)
    assert (folder / "result.json").exists()


def test_a_stop_becomes_a_signal_that_is_answered_by_a_result(pretend, settings, folder):
    pretend("wait")

    def stop(step):
        if step.index >= 2:
            raise Cancelled

    with pytest.raises(Cancelled) as stopped:
        launching.run(asked("x"), settings, on_step=stop, folder=folder)
    assert stopped.value.kept.save(folder)["steps"] >= 2
    assert launching.outlived(folder) is None


def test_what_answers_no_signal_is_killed_in_the_end(monkeypatch, settings, folder):
    deaf = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    monkeypatch.setattr(launching, "command", lambda settings, folder: [sys.executable, "-c", deaf])
    monkeypatch.setattr(launching, "STOPS_WITHIN", 0.3)

    def stop(step):
        if (folder / "launch" / "output.txt").exists() and (folder / "launch" / "output.txt").read_text():
            raise Cancelled

    with pytest.raises(Cancelled) as stopped:
        launching.run(asked("x"), settings, on_step=stop, folder=folder)
    assert stopped.value.kept is None
    pid = json.loads((folder / "launch" / "process.json").read_text())["pid"]
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_what_is_told_ends_up_on_disk_also_when_the_command_line_refuses(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code = main(
        ["train", "--set", f"data={tmp_path / 'empty'}", "--events", str(tmp_path / "e"), "--out", str(tmp_path / "o")]
    )
    assert code == 2
    told = Tail(tmp_path / "e").news()
    assert [event["kind"] for event in told] == ["process", "step", "error"]
    assert told[-1]["message"] in capsys.readouterr().err


def test_a_signal_to_the_command_line_is_a_stop_at_the_next_step(pictures, tiny_store, tmp_path):
    seen = []

    def show(step):
        seen.append(step)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with events.told(None, show) as on_step, pytest.raises(Cancelled):
        on_step(Step(1, 2))
    assert len(seen) == 1
    assert signal.getsignal(signal.SIGTERM) is before


# -- as a job, and over a restart


@pytest.fixture
def bench(settings):
    benches = [Workbench(settings)]

    def restarted():
        benches[-1].close()
        benches.append(Workbench(settings))
        return benches[-1]

    yield benches[0], restarted
    for job in benches[-1].history("me"):
        benches[-1].cancel(job.id, "me")
    until(lambda: all(job.over for job in benches[-1].history("me")))
    benches[-1].close()


def submitted(bench):
    return bench.submit("train", asked("x").model_dump(mode="json"), "me")


def test_a_launched_job_shows_its_steps_stops_when_asked_and_keeps_its_result(bench, pretend):
    studio, _ = bench
    pretend("wait")
    job = submitted(studio)
    until(lambda: studio.snapshot(job, "me").step >= 2)
    assert studio._store is None  # no model is loaded for what others do
    studio.cancel(job, "me")
    done = until(lambda: (found := studio.snapshot(job, "me")).over and found)
    assert (done.status, done.error) == ("done", None)
    assert (done.folder / done.summary["output"]).is_file()


def test_a_studio_that_ends_leaves_it_at_work_and_the_next_one_follows_it_on(bench, pretend):
    studio, restarted = bench
    pretend("wait")
    job = submitted(studio)
    before = until(lambda: (found := studio.snapshot(job, "me")).step >= 2 and found)
    (before.folder / "hold").touch()
    again = restarted()
    follows = until(lambda: (found := again.snapshot(job, "me")).status == "running" and found.step >= 2 and found)
    assert follows.started == pytest.approx(before.started)
    assert follows.revision > before.revision
    (before.folder / "hold").unlink()
    until(lambda: again.snapshot(job, "me").step > follows.step)
    again.cancel(job, "me")
    done = until(lambda: (found := again.snapshot(job, "me")).over and found)
    assert (done.status, done.summary["steps"] > 2) == ("done", True)


def test_what_ended_while_no_studio_was_there_is_done_when_the_next_one_starts(bench, pretend):
    studio, restarted = bench
    pretend("wait")
    job = submitted(studio)
    before = until(lambda: (found := studio.snapshot(job, "me")).step >= 1 and found)
    studio.close()
    pid = next(event["pid"] for event in Tail(before.folder / "launch" / "events.jsonl").news())
    os.kill(pid, signal.SIGTERM)
    until(lambda: (before.folder / "result.json").exists())
    found = restarted().snapshot(job, "me")
    assert (found.status, found.summary["output"]) == ("done", "lora.safetensors")


def test_what_died_while_no_studio_was_there_is_interrupted_with_its_last_words(bench, pretend):
    studio, restarted = bench
    pretend("wait")
    job = submitted(studio)
    before = until(lambda: (found := studio.snapshot(job, "me")).step >= 1 and found)
    studio.close()
    pid = json.loads((before.folder / "launch" / "process.json").read_text())["pid"]
    os.killpg(pid, signal.SIGKILL)
    found = restarted().snapshot(job, "me")
    assert found.status == "interrupted"
    assert found.reason == "The training ended without a result; the last that it said: getting ready"


def test_a_follower_whose_studio_ends_leaves_the_process_alone(pretend, settings, folder):
    pretend("wait")

    def close(step):
        if step.index:
            raise Closing

    with pytest.raises(Closing):
        launching.run(asked("x"), settings, on_step=close, folder=folder)
    follow = launching.outlived(folder)
    assert follow is not None

    def stop(step):
        raise Cancelled

    with pytest.raises(Cancelled) as stopped:
        follow(stop)
    assert stopped.value.kept is not None
    assert launching.outlived(folder) is None


@pytest.mark.slow
def test_a_real_training_is_launched_followed_and_stopped_with_a_usable_lora(
    tiny_store, pictures, tmp_path, monkeypatch
):
    from studio.training import recipe

    settings = Settings(
        outputs=tmp_path / "outputs", models_dir=tiny_store.models_dir, device="cpu", offline=True, launch=Launch(2)
    )
    studio = Workbench(settings)
    request = asked(pictures, steps=100_000, batch_size=2, sample_prompts=("a fox",), sample_steps=2)
    try:
        job = studio.submit("train", request.model_dump(mode="json"), "me")
        seen = until(lambda: (found := studio.snapshot(job, "me")).step >= 3 and found.previews and found, 240)
        assert seen.labels == ("a fox",)
        studio.cancel(job, "me")
        done = until(lambda: (found := studio.snapshot(job, "me")).over and found, 240)
    finally:
        studio.close()
    assert done.status == "done", done.error
    assert done.summary["stopped"]
    assert recipe.read(done.folder / done.summary["output"])["request"]["steps"] == 100_000
    assert (done.folder / "training" / f"state-{done.summary['steps']:08d}").is_dir()
