import contextlib
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import FrozenInstanceError, replace

import pytest
from PIL import Image

from studio import jobs, runs
from studio.errors import Cancelled, QueueFullError, RequestError, ViewError
from studio.jobs import Runner
from studio.progress import Step


class Result:
    """Writes one text file; the smallest thing an engine could return."""

    def __init__(self, text="made"):
        self.text = text

    def save(self, folder):
        (folder / "out.txt").write_text(self.text)
        return {"text": "out.txt", "seconds": 0.1}


class Gate:
    """Work that reports one step each time the test lets it, up to ``total``."""

    def __init__(self, total=1000, **step):
        self.total, self.step = total, step
        self.let, self.reached = threading.Semaphore(0), threading.Semaphore(0)
        self.result = Result()

    def __call__(self, on_step):
        for index in range(1, self.total + 1):
            self.let.acquire()
            try:
                on_step(Step(index=index, total=self.total, **self.step))
            finally:
                self.reached.release()
        return self.result

    def go(self, steps=1):
        for _ in range(steps):
            self.let.release()
            self.reached.acquire(timeout=5)


@pytest.fixture
def root(tmp_path):
    return tmp_path / "outputs"


@pytest.fixture
def runner(root):
    runner = Runner(root)
    yield runner
    runner.close()


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", 0.2)


def submit(runner, work, owner="ann", **more):
    return runner.submit(work, engine="illusion", title="a fox", owner=owner, request={"seed": 7}, **more)


def until(runner, job_id, *statuses, owner="ann"):
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        snapshot = runner.snapshot(job_id, owner)
        if snapshot.status in statuses:
            return snapshot
        time.sleep(0.005)
    raise AssertionError(f"still {snapshot.status}, not {statuses}")


def made(on_step):
    return Result()


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_job_runs_to_its_end_and_keeps_its_files(runner, root):
    done = until(runner, submit(runner, made), "done")
    assert done.folder.parent == root / "illusion"
    assert files(done.folder) == ["job.json", "out.txt", "request.json", "result.json"]
    assert done.summary == json.loads((done.folder / "result.json").read_text()) == {"text": "out.txt", "seconds": 0.1}
    assert json.loads((done.folder / "request.json").read_text()) == {"seed": 7}
    assert done.created <= done.started <= done.finished
    assert done.error is None


def test_a_snapshot_cannot_be_changed(runner):
    snapshot = runner.snapshot(submit(runner, made), "ann")
    with pytest.raises(FrozenInstanceError):
        snapshot.status = "done"


def test_steps_show_with_growing_revisions(runner):
    gate = Gate(total=3, note="denoising", evaluations=8, labels=("a fox", "a penguin"))
    job_id = submit(runner, gate)
    gate.go()
    first = runner.snapshot(job_id, "ann")
    gate.go()
    second = runner.snapshot(job_id, "ann")
    assert (first.step, second.step, second.total, second.note) == (1, 2, 3, "denoising")
    assert (second.evaluations, second.labels) == (8, ("a fox", "a penguin"))
    assert second.revision > first.revision
    assert runner.snapshot(job_id, "ann") is second
    gate.go()
    assert until(runner, job_id, "done").revision > second.revision


def test_what_an_engine_told_of_itself_stays_until_it_tells_more_and_is_in_no_file(runner):
    def work(on_step):
        on_step(Step(1, 2, data={"points": ((1, 0.5),)}))
        on_step(Step(2, 2, note="saving"))
        return Result()

    done = until(runner, submit(runner, work), "done")
    assert done.data == {"points": ((1, 0.5),)}
    assert "points" not in (done.folder / "job.json").read_text()


def test_a_slow_watcher_sees_the_latest_and_never_misses_the_end(runner):
    gate = Gate(total=500)
    job_id = submit(runner, gate)
    gate.go(500)
    assert until(runner, job_id, "done").step == 500


def test_jobs_of_a_lane_wait_for_one_another_and_know_their_position(runner):
    gate = Gate(total=1)
    first, second, third = submit(runner, gate), submit(runner, made), submit(runner, made)
    until(runner, first, "running")
    assert [runner.snapshot(job, "ann").position for job in (first, second, third)] == [0, 1, 2]
    before = runner.snapshot(third, "ann").revision
    assert runner.cancel(second, "ann")
    assert runner.snapshot(third, "ann").position == 1
    assert runner.snapshot(third, "ann").revision > before
    gate.go()
    until(runner, third, "done")


def test_the_net_lane_does_not_wait_behind_the_gpu_lane(runner):
    gate = Gate()
    until(runner, submit(runner, gate), "running")
    until(runner, submit(runner, made, lane="net"), "done")


def test_cancel_takes_effect_at_the_next_step(runner):
    gate = Gate()
    job_id = submit(runner, gate)
    gate.go(3)
    assert runner.cancel(job_id, "ann")
    assert runner.snapshot(job_id, "ann").status == "running"
    gate.go()
    stopped = until(runner, job_id, "cancelled")
    assert stopped.step == 3
    assert stopped.reason == "Stopped after step 3 of 1000; no result was saved, its settings are kept."
    assert files(stopped.folder) == ["job.json", "request.json"]


def test_a_library_that_swallows_exceptions_cannot_swallow_a_stop(runner):
    def stubborn(on_step):
        for index in range(1000):
            with contextlib.suppress(Exception):
                on_step(Step(index=index, total=1000))
            time.sleep(0.002)
        return Result()

    job_id = submit(runner, stubborn)
    until(runner, job_id, "running")
    assert runner.cancel(job_id, "ann")
    until(runner, job_id, "cancelled")


def test_cancel_of_a_waiting_job_is_immediate_and_it_never_runs(runner):
    gate, ran = Gate(total=1), []
    first = submit(runner, gate)
    second = submit(runner, lambda on_step: ran.append(1) or Result())
    assert runner.cancel(second, "ann")
    assert runner.snapshot(second, "ann").status == "cancelled"
    assert runner.snapshot(second, "ann").reason == "Stopped before it began; its settings are kept."
    gate.go()
    until(runner, first, "done")
    until(runner, submit(runner, made), "done")
    assert ran == []


def test_cancel_after_the_last_step_keeps_nothing(runner):
    computing, go_on = threading.Event(), threading.Event()

    def work(on_step):
        computing.set()
        go_on.wait(5)
        return Result()

    job_id = submit(runner, work)
    computing.wait(5)
    runner.cancel(job_id, "ann")
    go_on.set()
    assert files(until(runner, job_id, "cancelled").folder) == ["job.json", "request.json"]


def test_what_was_finished_before_a_stop_is_kept_where_the_engine_says_so(runner):
    gate = Gate()

    def work(on_step):
        try:
            return gate(on_step)
        except Cancelled:
            raise Cancelled(kept=Result("three trials")) from None

    job_id = submit(runner, work)
    gate.go(3)
    assert runner.cancel(job_id, "ann")
    gate.go()
    kept = until(runner, job_id, "done")
    assert (kept.step, kept.summary["text"], kept.reason) == (3, "out.txt", "")
    assert (kept.folder / "out.txt").read_text() == "three trials"
    until(runner, submit(runner, made), "done")


def test_what_a_stop_kept_fails_like_any_result_when_it_cannot_be_written(runner):
    class Broken:
        def save(self, folder):
            raise ViewError("picture: too large; choose a smaller size.", field="picture")

    def work(on_step):
        raise Cancelled(kept=Broken())

    failed = until(runner, submit(runner, work), "failed")
    assert failed.error.field == "picture"
    assert files(failed.folder) == ["job.json", "request.json"]


def test_cancel_of_a_finished_job_changes_nothing(runner):
    job_id = submit(runner, made)
    done = until(runner, job_id, "done")
    assert not runner.cancel(job_id, "ann")
    assert runner.snapshot(job_id, "ann") is done


def test_the_lane_goes_on_after_a_stop(runner):
    gate = Gate()
    job_id = submit(runner, gate)
    runner.cancel(job_id, "ann")
    gate.let.release()
    until(runner, job_id, "cancelled")
    until(runner, submit(runner, made), "done")


def test_an_error_of_the_studio_keeps_its_sentence_and_field(runner):
    def work(on_step):
        raise ViewError("views.1: this view loses noise; choose another.", field="views.1")

    failed = until(runner, submit(runner, work), "failed")
    assert failed.error == jobs.JobError("ViewError", "views.1: this view loses noise; choose another.", "views.1")
    assert failed.reason == failed.error.message


@pytest.mark.parametrize("raised", [ValueError("secret-token"), SystemExit(3), KeyboardInterrupt()])
def test_any_other_error_is_a_plain_sentence_and_its_traceback_goes_to_the_log(runner, caplog, raised):
    def work(on_step):
        raise raised

    failed = until(runner, submit(runner, work), "failed")
    name = type(raised).__name__
    assert failed.error.message == f"Something failed inside the studio ({name}); the log has the details."
    assert "Traceback" in caplog.text
    assert "secret" not in (failed.folder / "job.json").read_text()
    until(runner, submit(runner, made), "done")


def test_a_failed_job_keeps_nothing_of_its_frames_alive(runner):
    class Big:
        pass

    seen = []

    def work(on_step):
        tensor = Big()
        tensor.itself = tensor
        seen.append(weakref.ref(tensor))
        raise RuntimeError(tensor)

    until(runner, submit(runner, work), "failed")
    until(runner, submit(runner, made), "done")
    gc.collect()
    assert seen[0]() is None


def test_a_finished_job_lets_its_work_and_result_go(runner):
    gate = Gate(total=1)
    refs = weakref.ref(gate), weakref.ref(gate.result)
    job_id = submit(runner, gate)
    gate.go()
    until(runner, job_id, "done")
    del gate
    until(runner, submit(runner, made), "done")
    gc.collect()
    assert [ref() for ref in refs] == [None, None]


def test_a_result_that_cannot_be_saved_fails_and_leaves_no_half(runner):
    class Half:
        def save(self, folder):
            (folder / "out.txt").write_text("half")
            raise OSError(28, "No space left on device")

    failed = until(runner, submit(runner, lambda on_step: Half()), "failed")
    assert failed.reason == "The result cannot be written (No space left on device); make room and run it again."
    assert files(failed.folder) == ["job.json", "request.json"]


def test_a_summary_that_is_no_json_fails_and_leaves_no_half(runner):
    class Odd:
        def save(self, folder):
            (folder / "out.txt").write_text("x")
            return {"folder": folder}

    failed = until(runner, submit(runner, lambda on_step: Odd()), "failed")
    assert files(failed.folder) == ["job.json", "request.json"]


def test_a_stranger_sees_and_stops_nothing(runner):
    gate = Gate()
    job_id = submit(runner, gate)
    assert runner.snapshot(job_id, "eve") is None
    assert runner.history("eve") == ()
    assert not runner.cancel(job_id, "eve")
    assert not runner.delete(job_id, "eve")
    assert not runner.undelete(job_id, "eve")
    gate.go()
    assert runner.snapshot(job_id, "ann").step == 1


def test_an_unknown_job_is_no_job(runner):
    assert runner.snapshot("../../etc", "ann") is None
    assert not runner.cancel("nope", "ann")


def test_history_is_newest_first(runner):
    ids = [submit(runner, made) for _ in range(3)]
    until(runner, ids[-1], "done")
    assert [snapshot.id for snapshot in runner.history("ann")] == ids[::-1]


def test_the_queue_has_a_limit(root):
    runner, gate = Runner(root, max_queue=2), Gate()
    until(runner, submit(runner, gate), "running")
    submit(runner, made)
    submit(runner, made)
    with pytest.raises(QueueFullError, match="2 jobs wait already"):
        submit(runner, made)
    runner.close()


def test_one_owner_cannot_fill_the_queue(root):
    runner, gate = Runner(root, max_queue_per_owner=2), Gate()
    until(runner, submit(runner, gate), "running")
    submit(runner, made)
    with pytest.raises(QueueFullError, match="You have 2 jobs waiting or running"):
        submit(runner, made)
    submit(runner, made, owner="bob")
    assert len(list(root.glob("illusion/*"))) == 3
    runner.close()


@pytest.mark.parametrize("engine", ["../x", "Illusion", "", "a/b", "a" * 40, ".trash", "-x", "a.b"])
def test_an_engine_name_never_becomes_a_path(runner, root, engine):
    with pytest.raises(RequestError):
        runner.submit(made, engine=engine, title="", owner="ann", request={})
    assert list(root.glob("*")) == []


def test_no_text_of_a_visitor_is_in_a_path(runner, root):
    until(runner, submit(runner, made, owner="../../ann"), "done", owner="../../ann")
    assert all(runs.RUN_NAME.fullmatch(path.name) for path in root.glob("illusion/*"))


def test_previews_are_small_pictures_made_in_the_jobs_thread(runner):
    names = []

    def pictures():
        names.append(threading.current_thread().name)
        return (Image.effect_noise((512, 300), 90),) * 2

    gate = Gate(pictures=pictures)
    job_id = submit(runner, gate)
    gate.go()
    previews = runner.snapshot(job_id, "ann").previews
    assert names == ["lane-gpu"]
    assert len(previews) == 2
    assert all(uri.startswith("data:image/jpeg;base64,") and len(uri) <= 15 * 1024 for uri in previews)


def test_the_first_step_has_a_preview_and_the_next_ones_wait_a_quarter_second(runner):
    drawn = []
    gate = Gate(pictures=lambda: drawn.append(1) or (Image.new("RGB", (8, 8)),))
    job_id = submit(runner, gate)
    started = time.monotonic()
    gate.go(10)
    assert len(drawn) <= 1 + (time.monotonic() - started) / 0.25
    assert runner.snapshot(job_id, "ann").previews
    assert runner.snapshot(job_id, "ann").step == 10


def test_nothing_is_drawn_while_nobody_looks(runner, monkeypatch):
    monkeypatch.setattr("studio.previews.WATCHED_FOR", 0.05)
    drawn = []
    gate = Gate(pictures=lambda: drawn.append(1) or (Image.new("RGB", (8, 8)),))
    job_id = submit(runner, gate)
    time.sleep(0.1)
    gate.go(3)
    assert drawn == []
    runner.snapshot(job_id, "ann")
    gate.go()
    assert drawn == [1]


def test_a_preview_that_cannot_be_drawn_costs_no_result(runner, caplog):
    gate = Gate(total=1, pictures=lambda: 1 / 0)
    job_id = submit(runner, gate)
    gate.go()
    assert until(runner, job_id, "done").previews == ()
    assert "ZeroDivisionError" in caplog.text


def test_only_the_last_finished_jobs_keep_their_previews(runner, monkeypatch):
    monkeypatch.setattr(jobs, "PREVIEWS_KEPT", 1)
    ids = []
    for _ in range(2):
        gate = Gate(total=1, pictures=lambda: (Image.new("RGB", (8, 8)),))
        ids.append(submit(runner, gate))
        gate.go()
        until(runner, ids[-1], "done")
    assert [bool(runner.snapshot(job_id, "ann").previews) for job_id in ids] == [False, True]


def test_where_a_limit_is_set_the_oldest_results_give_way(root):
    runner = Runner(root, keep=2)
    ids = [submit(runner, made) for _ in range(4)]
    until(runner, ids[-1], "done")
    assert [snapshot.id for snapshot in runner.history("ann")] == ids[:1:-1]
    assert len(list(root.glob("illusion/*"))) == 2
    runner.close()


def test_the_rest_is_estimated_from_the_last_steps():
    pace = jobs.Pace()
    assert pace.eta(0.0, 0, 10) is None
    assert pace.eta(100.0, 1, 10) is None
    assert pace.eta(102.0, 2, 10) == pytest.approx(16.0)
    assert pace.eta(103.0, 3, 10) == pytest.approx(10.5)
    assert pace.eta(104.0, 3, 10) == pytest.approx(14.0)


def test_an_old_slow_start_is_forgotten_by_the_estimate():
    pace = jobs.Pace()
    for index in range(1, 51):
        eta = pace.eta(1000.0 * (index > 1) + index, index, 60)
    assert eta == pytest.approx(10.0)


def test_a_deleted_job_can_be_taken_back(runner, root):
    job_id = submit(runner, made)
    done = until(runner, job_id, "done")
    assert runner.delete(job_id, "ann")
    assert runner.snapshot(job_id, "ann") is None
    assert runner.history("ann") == ()
    assert not done.folder.exists()
    assert not runner.undelete(job_id, "eve")
    assert runner.undelete(job_id, "ann")
    back = runner.snapshot(job_id, "ann")
    assert replace(back, revision=0) == replace(done, revision=0)
    assert (done.folder / "out.txt").read_text() == "made"


def test_the_trash_is_emptied_in_time_and_at_the_end(runner, root, monkeypatch):
    ids = [submit(runner, made) for _ in range(2)]
    until(runner, ids[1], "done")
    runner.delete(ids[0], "ann")
    monkeypatch.setattr(jobs, "UNDO_FOR", 0.0)
    assert len(list(root.glob(".trash/illusion/*"))) == 1
    runner.delete(ids[1], "ann")
    assert list(root.glob(".trash/illusion/*")) == []
    assert not runner.undelete(ids[0], "ann")


def test_a_running_job_cannot_be_deleted(runner):
    gate = Gate()
    job_id = submit(runner, gate)
    gate.go()
    assert not runner.delete(job_id, "ann")


def test_a_job_whose_folder_a_person_removed_can_still_be_deleted(runner):
    job_id = submit(runner, made)
    runs.remove(until(runner, job_id, "done").folder)
    assert runner.delete(job_id, "ann")


def test_close_interrupts_what_waits_and_what_runs(root):
    runner = Runner(root)

    def work(on_step):
        for index in range(1000):
            on_step(Step(index=index, total=1000))
            time.sleep(0.005)

    running, waiting = submit(runner, work), submit(runner, made)
    until(runner, running, "running")
    runner.close()
    assert [runner.snapshot(job, "ann").status for job in (running, waiting)] == ["interrupted"] * 2
    assert runner.snapshot(running, "ann").reason.startswith("The studio ended before this was done")
    with pytest.raises(QueueFullError, match="closing"):
        submit(runner, made)


def test_finished_jobs_are_there_after_a_restart_for_their_owner_only(root):
    runner = Runner(root)
    done = until(runner, submit(runner, made), "done")

    def fails(on_step):
        raise ViewError("views.0: no.", field="views.0")

    failed = until(runner, submit(runner, fails), "failed")
    runner.close()
    again = Runner(root)
    assert [snapshot.id for snapshot in again.history("ann")] == [failed.id, done.id]
    assert again.history("eve") == ()
    back = again.snapshot(done.id, "ann")
    assert (back.summary, back.request, back.title, back.status) == (done.summary, {"seed": 7}, "a fox", "done")
    assert back.revision > done.revision
    assert again.snapshot(failed.id, "ann").error == failed.error
    again.close()


def test_a_warm_up_comes_first_and_its_failure_stops_nothing(root, caplog):
    runner, calls = Runner(root), []
    runner.warm_up(lambda: calls.append("warm") or 1 / 0)
    until(runner, submit(runner, lambda on_step: calls.append("job") or Result()), "done")
    assert calls == ["warm", "job"]
    assert len(runner.history("ann")) == 1
    runner.close()


def test_closing_tells_whether_a_thread_is_still_at_work(root, monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE", 0.1)
    runner, started, gate = Runner(root), threading.Event(), threading.Event()
    runner.warm_up(lambda: started.set() or gate.wait(20))
    assert started.wait(20)
    assert runner.close() is False
    gate.set()
    monkeypatch.setattr(jobs, "PATIENCE", 20.0)
    assert runner.close() is True


def test_damaged_run_folders_are_left_out_and_left_alone(root, caplog):
    names = [f"20250101-00000{n}-{'0' * 15}{n}" for n in range(4)]
    for name, text in zip(names, ("{", "[]", "{}", '{"id": 3}'), strict=True):
        (root / "illusion" / name).mkdir(parents=True)
        (root / "illusion" / name / "job.json").write_text(text)
        (root / "illusion" / name / "request.json").write_text("{}")
    (root / "illusion" / "notes").mkdir()
    runner = Runner(root)
    assert runner.history("ann") == ()
    assert caplog.text.count("left out the damaged run") == 4
    assert len(list(root.glob("illusion/*"))) == 5
    runner.close()


def test_results_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    runner = Runner(tmp_path / "outputs")
    with pytest.raises(jobs.StudioError, match="The folder for results cannot be written"):
        submit(runner, made)
    runner.close()


KILLED = """
import sys, time
from pathlib import Path
from studio.jobs import Runner
from studio.progress import Step

class Result:
    def save(self, folder):
        (folder / "out.txt").write_text("made")
        return {"text": "out.txt"}

class Slow:
    def save(self, folder):
        (folder / "half.txt").write_text("half")
        print("saving", flush=True)
        time.sleep(60)

def endless(on_step):
    on_step(Step(index=1, total=9))
    return Slow()

runner = Runner(Path(sys.argv[1]))
for work in (lambda on_step: Result(), endless, lambda on_step: Result()):
    runner.submit(work, engine="illusion", title="t", owner="ann", request={"seed": 7})
time.sleep(60)
"""


def test_a_killed_studio_loses_nothing_that_was_saved(root, monkeypatch):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "saving\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(5)
        process.stdout.close()
    assert len(list(root.glob("illusion/*/.partial/half.txt"))) == 1
    monkeypatch.setattr(runs, "ANOTHERS_FOR", 0.0)
    runner = Runner(root)
    history = runner.history("ann")
    assert [snapshot.status for snapshot in history] == ["interrupted", "interrupted", "done"]
    assert (history[2].folder / "out.txt").read_text() == "made"
    assert files(history[1].folder) == ["job.json", "request.json"]
    assert history[0].request == {"seed": 7}
    assert json.loads((history[0].folder / "job.json").read_text())["status"] == "interrupted"
    until(runner, submit(runner, made), "done")
    runner.close()


def test_a_second_studio_does_not_disturb_the_first(root):
    first, saving, go_on = Runner(root), threading.Event(), threading.Event()

    class Slow(Result):
        def save(self, folder):
            saving.set()
            go_on.wait(5)
            return super().save(folder)

    job_id = submit(first, lambda on_step: Slow())
    saving.wait(5)
    second = Runner(root)
    assert second.snapshot(job_id, "ann").status == "interrupted"
    go_on.set()
    assert until(first, job_id, "done").summary == {"text": "out.txt", "seconds": 0.1}
    second.close()
    third = Runner(root)
    assert third.snapshot(job_id, "ann").status == "done"
    third.close()
    first.close()


def test_a_studio_killed_between_result_and_record_has_the_result(root):
    runner = Runner(root)
    done = until(runner, submit(runner, made), "done")
    runner.close()
    record = json.loads((done.folder / "job.json").read_text())
    runs.write_json(done.folder / "job.json", {**record, "status": "running", "finished": None})
    again = Runner(root)
    assert again.snapshot(done.id, "ann").status == "done"
    assert again.snapshot(done.id, "ann").summary == done.summary
    again.close()


def test_many_threads_and_many_jobs_leave_every_job_in_one_final_state(root):
    runner = Runner(root, max_queue=1000)
    ids = []

    def work(on_step):
        for index in range(3):
            on_step(Step(index=index, total=3))
        return Result()

    def busy(number):
        for turn in range(10):
            job_id = submit(runner, work, lane=("gpu", "net")[turn % 2])
            ids.append(job_id)
            if number % 2:
                runner.cancel(job_id, "ann")
            runner.history("ann")

    threads = [threading.Thread(target=busy, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends = [until(runner, job_id, "done", "cancelled") for job_id in ids]
    for end in ends:
        assert (end.status == "done") == (end.folder / "result.json").exists()
        assert json.loads((end.folder / "job.json").read_text())["status"] == end.status
    runner.close()


def test_cancelled_is_no_exception_that_a_library_would_catch():
    assert not issubclass(Cancelled, Exception)
