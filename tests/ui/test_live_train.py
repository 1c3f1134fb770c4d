"""The Train tab over HTTP, spoken to as its own page and as strangers would: start, follow, stop, resume, use."""

import json
import re
import time
import uuid

import pytest
from safetensors import safe_open

from tests.training.asked import save_set
from tests.ui.conftest import EVE, until_over
from tests.ui.test_live import act, get

GUEST = "guest-" + "2" * 20
FAST = {"Steps of a sample": 2, "Sample prompts": "a fox\nan owl", "Sample every": 2, "Validate every": 2}
FAST |= {"Pictures held out": 0.25, "Checkpoint every": 2}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return str(save_set(tmp_path_factory.mktemp("own") / "pictures", 4, side=128))


def pressed(address, elem_id, me, changes, data=None, event="click", session=None):
    """What the page would be sent after a press, as text."""
    return json.dumps(act(address, elem_id, event, me, changes, data, session=session)["data"])


def newest(bench, owner=GUEST):
    return bench.history(owner)[0]


def on_stage(address, job, session):
    """The Train tab as it shows a job, in one visit."""
    return pressed(address, "history", GUEST, {}, {"act": "show", "job": job}, "press", session)


def stage_press(address, data, session, changes=None):
    return pressed(address, "train-stage", GUEST, changes or {}, data, "press", session)


@pytest.fixture(scope="module")
def trained(home, own):
    """(bench, address, job) of a training of four steps."""
    bench, address = home
    answer = pressed(address, "train", GUEST, FAST | {"Pictures": own, "Steps": 4, "Trigger word": "sks", "Title": "t"})
    assert "data-state" in answer
    done = until_over(bench, newest(bench).id, GUEST)
    assert (done.engine, done.status) == ("train", "done"), done.reason
    return bench, address, done


def test_what_was_learned_is_fetched_by_its_own_names(trained):
    _, address, done = trained
    assert (done.summary["steps"], done.summary["stopped"]) == (4, False)
    shown = on_stage(address, done.id, uuid.uuid4().hex)
    paths = set(re.findall(r"outputs/[0-9a-f]{40}/[^?\\\"]+", shown))
    assert {path.rpartition("/")[2] for path in paths} >= {"t.safetensors", "t-diffusers.safetensors"}
    for path in paths:
        status, _, body = get(address, f"/{path}")
        assert status == 200, path
        assert body == (done.folder / path.rpartition("/")[2]).read_bytes()
    token = next(iter(paths)).split("/")[1]
    for name in ("request.json", "curve.json", "state.json", "00000000-0.png"):
        assert get(address, f"/outputs/{token}/{name}")[0] == 404


def test_the_plan_is_what_ran(trained, own):
    bench, _, done = trained
    seen, _ = bench.training({"data": own, "steps": 4, "validation_share": 0.25, "trigger": "sks"}, "")
    assert (seen.plan.steps, round(float(seen.plan.epochs), 3)) == (done.summary["steps"], done.summary["epochs"])
    assert seen.plan.held_out == 1


def test_a_run_is_followed_stopped_and_resumed_to_its_end(home, own):
    bench, address = home
    pressed(address, "train", GUEST, FAST | {"Pictures": own, "Steps": 400, "Seed": 3})
    job = newest(bench).id
    deadline = time.monotonic() + 60
    while bench.snapshot(job, GUEST).step < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    session = uuid.uuid4().hex
    shown = on_stage(address, job, session)
    assert "<polyline" in shown
    assert "Pictures/s" in shown
    samples = re.findall(r"outputs/[0-9a-f]{40}/0000[^?\\\"]+\.png", shown)
    assert samples
    assert get(address, f"/{samples[0]}")[1]["Content-Type"] == "image/png"
    token = samples[0].split("/")[1]
    for name in ("job.json", "log.jsonl", "..%2Fjob.json", "00000000-9.png"):
        assert get(address, f"/outputs/{token}/{name}")[0] == 404
    pressed(address, "train-stop", GUEST, {}, session=session)
    stopped = until_over(bench, job, GUEST)
    assert (stopped.status, stopped.summary["stopped"]) == ("done", True)
    at = stopped.summary["steps"]
    assert 3 <= at < 400
    assert f"Resume from step {at}" in on_stage(address, job, session)
    stage_press(address, {"act": "resume"}, session)
    resumed = newest(bench)
    assert resumed.id != job
    assert resumed.request == stopped.request | {"resume": str(stopped.folder)}
    while bench.snapshot(resumed.id, GUEST).step <= at:
        assert not bench.snapshot(resumed.id, GUEST).over
        time.sleep(0.02)
    bench.cancel(resumed.id, GUEST)
    ended = until_over(bench, resumed.id, GUEST)
    assert ended.status == "done", ended.reason
    assert ended.summary["steps"] > at
    assert ended.summary["curves"]["points"][0][0] == 1  # the earlier run's curve is its beginning


def test_a_whole_run_is_trained_longer_from_the_form(trained):
    _, address, done = trained
    session = uuid.uuid4().hex
    on_stage(address, done.id, session)
    answer = stage_press(address, {"act": "go-on"}, session)
    assert str(done.folder) in answer
    assert "say how many steps it shall have in all" in answer


def test_captions_that_another_page_changed_are_shown_when_they_are_trained(home, own):
    bench, address = home
    bench.sets("").change(own, lambda edits: edits.with_caption("picture-1.png", "a fox from another page"))
    try:
        answer = pressed(address, "train", GUEST, {"Pictures": own, "Steps": 0})
        assert "a fox from another page" in answer
    finally:
        bench.sets("").change(own, lambda edits: edits.without_caption("picture-1.png"))


def test_a_changed_setting_of_a_run_that_goes_on_is_refused_beside_its_field(trained, own):
    bench, address, done = trained
    before = len(bench.history(GUEST))
    changes = FAST | {"Pictures": own, "Steps": 9, "Trigger word": "sks", "Go on from": str(done.folder), "Rank": 3}
    answer = pressed(address, "train", GUEST, changes)
    assert 'data-field=\\"rank\\"' in answer
    assert "was 8 in the run to go on from" in answer
    assert len(bench.history(GUEST)) == before


@pytest.mark.parametrize("act_", ["use-illusions", "use-merge", "use-guidance"])
def test_what_was_learned_goes_into_the_form_of_another_tab(trained, act_):
    _, address, done = trained
    session = uuid.uuid4().hex
    on_stage(address, done.id, session)
    answer = stage_press(address, {"act": act_, "slot": "last"}, session)
    assert str(done.folder / "t.safetensors") in answer
    said = {"use-illusions": "sks = ", "use-merge": "to be baked into", "use-guidance": "to compare guidance for"}
    assert said[act_] in answer
    joined = stage_press(address, {"act": act_, "slot": "last"}, session, {"What to do": "join"})
    assert act_ != "use-merge" or "is among the LoRAs to join" in joined
    assert str(done.folder) not in stage_press(address, {"act": act_, "slot": "nonsense"}, session)


def test_the_illusions_tab_takes_the_adapter_as_it_is_written_there(trained):
    bench, _, done = trained
    path = str(done.folder / "t.safetensors")
    data = {"prompts": ["a fox", "an owl"], "views": ["identity", "negate"], "steps": 1, "adapters": {"sks": path}}
    drawn = until_over(bench, bench.submit("illusion", data, GUEST), GUEST)
    assert drawn.status == "done", drawn.reason


def test_only_the_header_of_a_lora_is_needed_to_restore_its_settings(trained, tmp_path):
    from studio.training import recipe

    bench, _, done = trained
    whole = (done.folder / "t.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: 8 + int.from_bytes(whole[:8], "little")])
    assert bench.restore_training(cut)["request"]["trigger"] == "sks"
    with safe_open(done.folder / "t.safetensors", "pt") as file:
        assert json.loads(file.metadata()[recipe.KEY])["request"]["trigger"] == "sks"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"Rank": 0}, "rank"),
        ({"Learning rate": "10"}, "learning_rate"),
        ({"Learning rate": ""}, "learning_rate"),
        ({"Steps": 10**9}, "steps"),
        ({"Steps": None}, "steps"),
        ({"Pictures": "/nowhere/at/all"}, "data"),
        ({"Pictures": "/etc/passwd"}, "data"),
        ({"Model that learns": "no/such model"}, "model"),
        ({"Optimiser": "rm -rf"}, "optimizer"),
        ({"Layers that learn": "everything"}, "targets"),
        ({"Method": "dreambooth"}, "instance_prompt"),
        ({"Trigger word": "x" * 99}, "trigger"),
        ({"Seed": -1}, "seed"),
        ({"Go on from": "/etc"}, "resume"),
        ({"Title": "../../x"}, "title"),
    ],
    ids=str,
)
def test_mistakes_come_back_beside_their_fields_before_anything_is_queued(home, changes, field):
    bench, address = home
    before = len(bench.history(GUEST))
    answer = pressed(address, "train", GUEST, changes)
    assert f'data-field=\\"{field}\\"' in answer
    assert "Traceback" not in answer
    assert len(bench.history(GUEST)) == before


def test_a_joint_training_is_not_put_into_a_form_that_cannot_hold_it(home, own):
    """Its method is none of the form's: every event of the tab would be refused from then on."""
    bench, address = home
    tasks = [{"name": name, "prompt": f"a {name}"} for name in ("fox", "owl")]
    small = {"steps": 1, "steps_apart": 1, "validation_share": 0.0}
    done = until_over(
        bench, bench.submit("train", {"data": own, "method": "joint", "tasks": tasks} | small, GUEST), GUEST
    )
    assert done.status == "done", done.reason
    session = uuid.uuid4().hex
    on_stage(address, done.id, session)
    for act_ in ("restore", "go-on"):
        answer = stage_press(address, {"act": act_}, session)
        assert "run it from the command line" in answer
        assert '"joint"' not in answer
    again = pressed(address, "history", GUEST, {}, {"act": "restore", "job": done.id}, "press")
    assert "run it from the command line" in again
    assert '"joint"' not in again


def test_strangers_train_what_is_built_in_and_name_no_folder(shared, own):
    bench, address = shared
    for changes in ({"Pictures": own}, {"Go on from": own}, {"Epochs": "2"}, {"Cache": "disk"}, {"Steps": 5000}):
        assert "is-error" in pressed(address, "train", EVE, changes), changes
    assert bench.history(EVE) == ()


@pytest.mark.slow
def test_a_stranger_s_run_shows_no_path_and_offers_nothing_that_needs_one(shared):
    bench, address = shared
    data = {"data": "builtin:mascot", "steps": 2, "validation_share": 0.0}
    done = until_over(bench, bench.submit("train", data, GUEST), GUEST)
    assert done.status == "done", done.reason
    session = uuid.uuid4().hex
    shown = on_stage(address, done.id, session)
    assert str(done.folder) not in shown
    assert "mascot.safetensors" in shown
    for act_ in ("use-illusions", "use-merge", "use-guidance"):
        assert str(done.folder) not in stage_press(address, {"act": act_, "slot": "last"}, session)
    assert done.id not in pressed(address, "history", EVE, {}, {"act": "show", "job": done.id}, "press")
    stage_press(address, {"act": "resume"}, session)
    assert len(bench.history(GUEST)) == 1


@pytest.mark.slow
def test_a_run_that_a_killed_studio_left_goes_on_after_a_restart(world, own):
    from dataclasses import replace

    from studio import snapshots
    from tests.ui.conftest import make

    bench = make(world, "train-restart")
    data = {"data": own, "steps": 4, "checkpoint_every": 2, "validation_share": 0.0}
    done = until_over(bench, bench.submit("train", data, GUEST), GUEST)
    bench.close()
    (done.folder / "result.json").unlink()
    snapshots.write(replace(done, status="running", step=4))
    again = make(world, "train-restart")
    left = again.snapshot(done.id, GUEST)
    assert left.status == "interrupted"
    more = left.request | {"resume": str(left.folder), "steps": 6}
    ended = until_over(again, again.submit("train", more, GUEST), GUEST)
    again.close()
    assert (ended.status, ended.summary["steps"]) == ("done", 6), ended.reason
