import time

import pytest
from PIL import Image

from studio import workbench as module
from studio.engines import engine_named
from studio.errors import PolicyError, QueueFullError, RecipeError, RequestError, StudioError, UnknownNameError
from studio.illusions.request import IllusionRequest
from studio.imaging import write_png
from studio.settings import Settings
from studio.workbench import LOCAL_OWNER, Workbench, new_owner

ANN, EVE = "ann-" + "0" * 20, "eve-" + "0" * 20
SMALL = {"steps": 2, "seed": 5, "prompts": ["a fox", "a penguin"]}


@pytest.fixture
def bench(tmp_path):
    bench = Workbench(Settings(outputs=tmp_path, device="cpu", offline=True))
    yield bench
    bench.close()


@pytest.fixture
def shared(tmp_path):
    bench = Workbench(Settings(outputs=tmp_path, device="cpu", offline=True, profile="shared"))
    yield bench
    bench.close()


def until_over(bench, job_id, owner=ANN):
    deadline = time.monotonic() + 120
    while not (snapshot := bench.snapshot(job_id, owner)).over:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return snapshot


def test_an_illusion_is_made_shown_and_made_again_from_its_picture(bench):
    done = until_over(bench, bench.submit("illusion", SMALL, ANN))
    assert (done.status, done.title, done.engine) == ("done", "a fox / a penguin", "illusion")
    assert all(uri.startswith("data:image/jpeg") for uri in done.previews)
    assert len(done.previews) == 2
    best = done.summary["candidates"][0]
    restored = bench.restore(done.folder / best["image"])
    assert restored == {"engine": "illusion", "request": done.request, "seed": 5}
    again = until_over(bench, bench.submit("illusion", restored["request"], ANN))
    pictures = [(job.folder / best["image"]).read_bytes() for job in (done, again)]
    assert pictures[0] == pictures[1]


def test_what_was_estimated_is_what_it_took(bench):
    first = bench.estimate(IllusionRequest(**SMALL))
    assert first.seconds == pytest.approx(first.evaluations * module.FIRST_RATES["builtin:emoji"])
    done = until_over(bench, bench.submit("illusion", SMALL, ANN))
    assert first.evaluations == done.summary["evaluations"] == 2 * 2 * 2
    assert bench.estimate(IllusionRequest(**SMALL)).seconds == pytest.approx(done.summary["seconds"])


def test_a_time_is_estimated_from_the_jobs_that_were_most_alike(bench):
    on_codes, on_pictures = SMALL, {**SMALL, "space": "picture"}
    took = [
        until_over(bench, bench.submit("illusion", data, ANN)).summary["seconds"] for data in (on_codes, on_pictures)
    ]
    guessed = [bench.estimate(IllusionRequest(**data)).seconds for data in (on_codes, on_pictures)]
    assert guessed == pytest.approx(took)
    other = bench.estimate(IllusionRequest(**on_pictures | {"views": ["identity", "rotate_90"]}))
    assert other.seconds == pytest.approx(took[1])


def test_what_models_fill_is_told_once_there_is_something_to_tell(bench):
    assert bench.memory() == ""
    with bench._models().lease("builtin:emoji"):
        filled, unit, of, _, total_unit = bench.memory().split()
    assert (20 <= float(filled) <= 200, unit, of, total_unit) == (True, "MB", "of", "GB")


def test_the_store_has_the_settings_of_memory():
    store = module.make_store(Settings(device="cpu", dtype="bfloat16", offload="never", compiled=True, memory_gb=2))
    assert (str(store.dtype), store.options.offload, store.options.compiled) == ("torch.bfloat16", "never", True)
    assert store.free_memory() <= 2 * 1024**3


def test_an_unknown_cost_in_seconds_is_not_made_up(bench):
    assert bench.estimate(IllusionRequest(model="someone/else")).seconds is None


def test_a_stopped_illusion_leaves_the_model_as_it_was(bench):
    job_id = bench.submit("illusion", {**SMALL, "steps": 200}, ANN)
    while bench.snapshot(job_id, ANN).step < 2:
        time.sleep(0.005)
    assert bench.cancel(job_id, ANN)
    assert until_over(bench, job_id).status == "cancelled"
    assert until_over(bench, bench.submit("illusion", SMALL, ANN)).status == "done"


def test_a_model_that_is_not_there_fails_with_one_sentence(bench):
    failed = until_over(bench, bench.submit("illusion", {**SMALL, "model": "/no/such/folder"}, ANN))
    assert failed.status == "failed"
    assert failed.error.field == "model"
    assert "/no/such/folder" in failed.reason


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"steps": 0}, "steps"),
        ({"prompts": ["a"] * 3}, "prompts"),
        ({"views": ["identity", "rotate_18"]}, "views.1"),
        ({"views": ["identity", "low_pass"]}, "views"),
        ({"prompts": ["x" * 10_000, "b"]}, "prompts.0"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_bad_requests_are_refused_before_they_are_queued(bench, data, field):
    with pytest.raises(RequestError) as refused:
        bench.submit("illusion", data, ANN)
    assert refused.value.field == field
    assert bench.history(ANN) == ()


@pytest.mark.parametrize("engine", ["illusion", "merge-strip", "merge-search"])
@pytest.mark.parametrize(
    ("scorer", "says"),
    [
        ("nosuch", "There is no scorer 'nosuch': choose builtin:clip, or name the folder of a CLIP model"),
        ("builtin:klip", "There is no scorer 'builtin:klip': did you mean 'builtin:clip'?"),
        ("builtin:emoji", "builtin:emoji is no CLIP model, it cannot score"),
    ],
)
def test_a_scorer_that_is_none_is_refused_before_it_is_queued_with_its_own_field(bench, engine, scorer, says):
    with pytest.raises(StudioError, match=says) as refused:
        bench.submit(engine, {"scorer": scorer}, ANN)
    assert refused.value.field == "scorer"
    assert bench.history(ANN) == ()


def test_a_scorer_as_the_model_is_refused_before_it_is_queued(bench):
    with pytest.raises(StudioError, match="builtin:clip is a scorer, not a text-to-image model") as refused:
        bench.submit("illusion", {**SMALL, "model": "builtin:clip", "reduction": "weighted"}, ANN)
    assert refused.value.field == "model"
    assert bench.history(ANN) == ()


def test_an_unknown_engine_suggests_the_nearest(bench):
    with pytest.raises(UnknownNameError, match="did you mean 'illusion'"):
        bench.submit("ilusion", SMALL, ANN)


def test_at_home_all_browsers_are_one(bench):
    job_id = bench.submit("illusion", SMALL, ANN)
    assert bench.snapshot(job_id, EVE).owner == LOCAL_OWNER
    assert [snapshot.id for snapshot in bench.history("")] == [job_id]
    bench.cancel(job_id, EVE)


def test_in_a_shared_studio_a_stranger_sees_and_stops_nothing(shared):
    job_id = shared.submit("illusion", SMALL, ANN)
    assert shared.snapshot(job_id, EVE) is None
    assert shared.history(EVE) == ()
    assert not shared.cancel(job_id, EVE)
    assert until_over(shared, job_id).status == "done"
    assert not shared.delete(job_id, EVE)
    assert shared.delete(job_id, ANN)
    assert not shared.undelete(job_id, EVE)
    assert shared.undelete(job_id, ANN)


@pytest.mark.parametrize("owner", ["", "short", "x" * 65, "../" * 8, None, LOCAL_OWNER])
def test_a_shared_studio_takes_no_weak_token(shared, owner):
    with pytest.raises(RequestError, match="reload the page"):
        shared.submit("illusion", SMALL, owner)


def test_new_owners_are_valid_and_different(shared):
    assert shared.history(new_owner()) == ()
    assert new_owner() != new_owner()


def test_a_shared_studio_has_limits(shared):
    with pytest.raises(PolicyError) as refused:
        shared.submit("illusion", {**SMALL, "steps": 150, "model": "../../etc"}, ANN)
    assert refused.value.field == "model"
    assert "steps: at most 100" in str(refused.value)


def test_a_shared_studio_queues_only_so_many_jobs_of_one_visitor(shared):
    for _ in range(shared.limits.max_queue_per_owner):
        shared.submit("illusion", {**SMALL, "steps": 100}, ANN)
    with pytest.raises(QueueFullError, match="You have 4 jobs"):
        shared.submit("illusion", SMALL, ANN)
    for snapshot in shared.history(ANN):
        shared.cancel(snapshot.id, ANN)


@pytest.mark.parametrize("profile", ["local", "shared"])
@pytest.mark.parametrize("engine", [engine.name for engine in module.ENGINES])
def test_every_engine_takes_its_default_request_in_every_profile(tmp_path, profile, engine):
    bench = Workbench(Settings(outputs=tmp_path, device="cpu", offline=True, profile=profile))
    assert bench.request(engine, {}) == engine_named(engine).request_class()()
    bench.close()


def test_a_merge_is_previewed_estimated_and_drawn_again_from_its_picture(bench):
    data = {"steps": 1, "seed": 5, "alphas": [0.25]}
    request = bench.request("merge-strip", data)
    guess = bench.estimate(request, "merge-strip")
    assert (guess.evaluations, guess.seconds) == (6, pytest.approx(6 * module.FIRST_RATES["builtin:emoji"]))
    done = until_over(bench, bench.submit("merge-strip", data, ANN))
    assert (done.status, done.summary["evaluations"]) == ("done", 6)
    assert done.folder.parent.name == "merge-strip"
    restored = bench.restore(done.folder / "merge-0-0.png")
    assert (restored["engine"], restored["seed"], restored["request"]["merge"]["alpha"]) == ("merge-strip", 5, 0.25)


def test_history_is_there_after_a_restart(bench, tmp_path):
    done = until_over(bench, bench.submit("illusion", SMALL, ANN))
    bench.close()
    again = Workbench(bench.settings)
    assert [snapshot.id for snapshot in again.history(ANN)] == [done.id]
    assert again.estimate(IllusionRequest(**SMALL)).seconds == pytest.approx(done.summary["seconds"])
    again.close()


def test_the_built_in_model_is_offered_with_what_it_can_draw(bench):
    assert "builtin:emoji" in [choice.name for choice in bench.models()]
    assert {"fox", "penguin"} <= set(bench.drawable("builtin:emoji"))
    assert bench.drawable("builtin:../../..") == ()


def test_presets_of_an_engine_are_listed(bench):
    assert "fox-penguin" in [preset.slug for preset in bench.presets("illusion")]
    with pytest.raises(UnknownNameError):
        bench.presets("../illusion")


def saved(path, request, engine="illusion", **more):
    write_png(Image.new("RGB", (8, 8)), path, {"engine": engine, "request": request, **more})
    return path


def test_a_picture_restores_every_setting_with_its_own_seed(bench, tmp_path):
    request = {**SMALL, "candidates": 4, "views": ["identity", "rotate_90"]}
    restored = bench.restore(saved(tmp_path / "a.png", request, seed=8))
    assert restored["request"] == IllusionRequest(**{**request, "seed": 8}).model_dump(mode="json")
    assert restored["seed"] == 8


def test_a_recipe_with_an_unknown_key_names_it(bench, tmp_path):
    with pytest.raises(RequestError, match="stepz: there is no such setting, did you mean 'steps'"):
        bench.restore(saved(tmp_path / "a.png", {"stepz": 3}))


def test_a_recipe_of_an_unknown_engine_is_refused(bench, tmp_path):
    with pytest.raises(UnknownNameError):
        bench.restore(saved(tmp_path / "a.png", {}, engine="os.system"))


def test_a_picture_without_a_recipe_or_no_picture_is_refused(bench, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(RecipeError):
        bench.restore(tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(PolicyError):
        bench.restore(tmp_path / "text.png")


def test_every_engine_of_the_table_is_whole():
    for engine in module.ENGINES:
        assert engine_named(engine.name) is engine
        request = engine.request_class()()
        engine.check(request)
        assert engine.evaluations(request) > 0
        assert engine.headline(request)
        assert callable(engine.run_function())
