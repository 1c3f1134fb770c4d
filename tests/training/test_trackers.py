"""Trackers: what they are given, that nothing secret is among it, and that none of them can end a training."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest
from accelerate.tracking import GeneralTracker
from PIL import Image

from studio import training
from studio.errors import Cancelled, PolicyError, RequestError
from studio.policy import LOCAL, SHARED, check_train
from studio.training import preflight, trackers
from studio.training.loop import Point
from studio.training.recipe import recipe
from studio.training.trackers import TRACKERS, Trackers, is_logged_in, told
from tests.training.asked import asked


class Remembering(GeneralTracker):
    """Accelerate's own base class, as anybody would write a tracker."""

    name = "remembering"
    requires_logging_directory = False
    main_process_only = False

    def __init__(self, run, fails_at=""):
        super().__init__()
        self.run, self.fails_at, self.calls = run, fails_at, []

    @property
    def tracker(self):
        return self.calls

    def _note(self, what, *more):
        self.calls.append((what, *more))
        if what == self.fails_at:
            raise ConnectionError("https://user:secret-key@example.org cannot be reached")

    def start(self):
        self._note("start")

    def store_init_configuration(self, values):
        self._note("settings", values)

    def log(self, values, step=None, **kwargs):
        self._note("log", values, step)

    def log_images(self, values, step=None, **kwargs):
        self._note("images", values, step)

    def finish(self):
        self._note("finish")


@pytest.fixture
def remembered(monkeypatch):
    """``remembered(fails_at)`` puts two trackers of ours into the table; returns those that were begun."""

    def put(fails_at=""):
        begun = []

        def begin(run, fails_at):
            begun.append(Remembering(run, fails_at))
            return begun[-1]

        def draw(tracker, step, pictures):
            tracker.log_images({"samples": list(pictures)}, step)

        one = replace(TRACKERS["wandb"], package="json", begin=lambda run: begin(run, fails_at), draw=draw)
        other = replace(TRACKERS["trackio"], package="json", begin=lambda run: begin(run, ""), draw=None)
        monkeypatch.setattr(trackers, "TRACKERS", {"wandb": one, "trackio": other})
        return begun

    return put


def names(tracker):
    return [call[0] for call in tracker.calls]


@pytest.mark.parametrize("name", TRACKERS)
def test_every_tracker_says_what_it_is(name):
    entry = TRACKERS[name]
    assert entry.help.endswith(".")
    assert entry.reference.startswith("https://")
    assert entry.here == (importlib.util.find_spec(entry.package) is not None)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_is_refused_with_how_to_get_it(name, monkeypatch):
    gone = replace(TRACKERS[name], package="no_such_package_anywhere")
    monkeypatch.setattr(trackers, "TRACKERS", {**TRACKERS, name: gone})
    with pytest.raises(RequestError, match="is not installed; pip install no_such_package_anywhere") as refused:
        preflight.check(asked("x", trackers=(name,)))
    assert refused.value.field == "trackers"


def test_strangers_send_nothing_anywhere():
    offered = ("builtin:emoji",)
    request = asked("builtin:mascot", model="builtin:emoji", checkpoint_every=100, trackers=("wandb",))
    check_train(request, LOCAL, offered)
    with pytest.raises(PolicyError) as refused:
        check_train(request, SHARED, offered)
    assert refused.value.field == "trackers"


def test_who_was_told_is_no_part_of_the_recipe():
    assert recipe(asked("x", trackers=("wandb",))) == recipe(asked("x"))


def test_no_place_on_this_machine_is_told_and_every_value_is_plain():
    request = asked("/home/ann/pictures", model="/home/ann/models/mine.safetensors", resume="/home/ann/run")
    values = told(request.model_copy(update={"sample_prompts": ("a fox",)}))
    assert "ann" not in str(values)
    assert (values["model"], values["rank"], values["alpha"]) == ("mine.safetensors", 8, "None")
    assert {type(value) for value in values.values()} <= {str, int, float, bool}


def test_a_training_tells_its_curve_its_validation_and_its_samples(pictures, tiny_store, tmp_path, remembered):
    begun = remembered()
    request = asked(
        pictures,
        trackers=("wandb", "trackio"),
        validation_share=0.25,
        validate_every=2,
        sample_prompts=("a fox",),
        sample_steps=1,
    )
    result = training.run(request, tiny_store, folder=tmp_path)
    both, curve_only = begun
    assert names(both) == ["start", "settings", "images", "log", "log", "images", "finish"]
    assert names(curve_only) == ["start", "settings", "log", "log", "finish"]
    logged = [call[1:] for call in both.calls if call[0] == "log"]
    for (values, step), point in zip(logged, result.points, strict=True):
        assert step == point.step
        assert (values["loss"], values["loss/smoothed"]) == (point.loss, point.smoothed)
        assert values["learning_rate"] == point.rate == 1e-2
        assert values.get("loss/validation") == point.validation
    assert logged[-1][0]["loss/validation"] > 0
    (drawn,) = both.calls[-2][1]["samples"]
    assert (drawn.size, both.calls[-2][2]) == ((32, 32), 2)
    assert both.run.name == "four"
    assert not any("failed" in note for note in result.said)


@pytest.fixture(scope="module")
def untracked(pictures, tiny_store):
    """The losses of the same training that nobody is told of."""
    request = asked(pictures, sample_prompts=("a fox",), sample_steps=1)
    return [point.loss for point in training.run(request, tiny_store).points]


@pytest.mark.parametrize("fails_at", ["start", "settings", "log", "images", "finish"])
def test_a_tracker_that_fails_costs_a_remark_and_nothing_else(
    pictures, tiny_store, tmp_path, remembered, untracked, caplog, fails_at
):
    begun = remembered(fails_at)
    request = asked(pictures, trackers=("wandb", "trackio"), sample_prompts=("a fox",), sample_steps=1)
    result = training.run(request, tiny_store, folder=tmp_path)
    assert [point.loss for point in result.points] == untracked
    remarks = [note for note in result.said if "failed" in note]
    assert remarks == ["Weights & Biases failed (ConnectionError) and was left alone; the training went on."]
    assert names(begun[0]).count(fails_at) == 1  # it is not asked again
    assert names(begun[1]) == ["start", "settings", "log", "log", "finish"]
    assert "secret-key" not in caplog.text + str(result.said)


def test_a_stop_ends_the_trackers_too(pictures, tiny_store, tmp_path, remembered):
    begun = remembered()

    def stop(step):
        if step.index == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        training.run(asked(pictures, trackers=("wandb",)), tiny_store, on_step=stop, folder=tmp_path)
    assert names(begun[0])[-2:] == ["log", "finish"]


def test_without_a_folder_nothing_is_written_anywhere_and_that_is_said(pictures, tiny_store, remembered):
    begun = remembered()
    result = training.run(asked(pictures, trackers=("wandb",)), tiny_store)
    assert begun == []
    assert "Without a folder for the run nothing was given to trackers." in result.said


def test_weights_and_biases_is_online_for_who_is_logged_in_and_allows_it(tmp_path, monkeypatch):
    nobody, somebody = tmp_path / "nobody", tmp_path / "somebody"
    nobody.write_text("machine example.org login ann password x\n")
    somebody.write_text("machine api.wandb.ai login user password key\n")
    broken = tmp_path / "broken"
    broken.write_text("machine\n")
    assert not is_logged_in({"NETRC": str(nobody)})
    assert not is_logged_in({"NETRC": str(tmp_path / "none")})
    assert not is_logged_in({"NETRC": str(broken)})
    assert is_logged_in({"NETRC": str(somebody)})
    assert is_logged_in({"WANDB_API_KEY": "key", "NETRC": str(nobody)})
    monkeypatch.setattr(trackers, "environment", lambda: {"NETRC": str(somebody)})
    modes = [trackers._wandb(trackers.Run("a", tmp_path, online)).init_kwargs["mode"] for online in (True, False)]
    assert modes == ["online", "offline"]
    monkeypatch.setattr(trackers, "environment", lambda: {"NETRC": str(somebody), "WANDB_MODE": "offline"})
    assert trackers._wandb(trackers.Run("a", tmp_path, True)).init_kwargs["mode"] == "offline"
    monkeypatch.setattr(trackers, "environment", lambda: {"NETRC": str(nobody)})
    assert trackers._wandb(trackers.Run("a", tmp_path, True)).init_kwargs["mode"] == "offline"


def test_offline_trackio_sends_nothing_to_a_space_that_the_environment_names(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "environment", lambda: {"TRACKIO_SPACE_ID": "ann/curves"})
    found = Trackers(asked("x", trackers=("trackio",)), tmp_path, offline=True)
    found.begin("a run")
    assert found.remarks == ["Trackio failed (ConnectionError) and was left alone; the training went on."]
    assert trackers._trackio(trackers.Run("a", tmp_path, True)).init_kwargs["embed"] is False


# -- the real ones, where they are installed


def through(name, folder):
    """Two steps and a picture, through the real tracker, sent nowhere."""
    found = Trackers(asked("/home/ann/pictures", trackers=(name,)), folder, offline=True)
    found.begin("a run")
    found.log(Point(1, 0.5, 0.5, 1e-3))
    found.draw(1, [Image.new("RGB", (8, 8), "red")])
    found.log(Point(2, 0.25, 0.4, 1e-3, validation=0.3))
    found.close()
    assert found.remarks == []


def test_tensorboard_reads_back_what_it_was_given(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    through("tensorboard", tmp_path)
    written = EventAccumulator(str(tmp_path / "tensorboard" / "a run"))
    written.Reload()
    assert [(found.step, found.value) for found in written.Scalars("loss")] == [(1, 0.5), (2, 0.25)]
    assert [found.step for found in written.Scalars("loss/validation")] == [2]
    assert [found.step for found in written.Images("samples")] == [1]
    assert not any(b"ann" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_weights_and_biases_keeps_what_it_was_given_in_the_folder(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setattr(trackers, "environment", dict)
    through("wandb", tmp_path)
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert kept.stat().st_size > 0
    assert not any(b"/home/ann" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_trackio_takes_what_it_is_given(tmp_path):
    pytest.importorskip("trackio")
    through("trackio", tmp_path)
