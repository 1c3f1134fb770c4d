"""Several adapters: apart each is what a training of its own makes, together they are the weighted sum, bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from studio import requests, training
from studio.errors import Cancelled, PolicyError, RequestError, ViewError
from studio.models.adapters import attach
from studio.models.lora_files import load, match, read_lora, scaling, shapes_of
from studio.models.store import ModelStore
from studio.policy import LOCAL, SHARED, check_train
from studio.training import checkpoints, joint, samples
from studio.training.course import Course
from studio.training.engine import Training
from studio.training.feed import Batch, Feed
from studio.training.injecting import adapted, injected
from studio.training.loop import Loop
from studio.training.objective import Objective
from studio.training.preflight import check, evaluations, file_name, headline, planned_for_tasks
from studio.training.request import TrainRequest
from studio.training.task_sets import read_sets
from studio.training.tasks import alone
from studio.views.view import build
from tests.training.asked import asked

WEIGHTS = {"up": 0.7, "down": -1.3}
TASKS = (
    {"name": "up", "prompt": "a fox", "weight": WEIGHTS["up"]},
    {"name": "down", "prompt": "a penguin", "view": "rotate_180", "weight": WEIGHTS["down"]},
)
APART, TOGETHER = 2, 2


def joined(data, **changes):
    """Two tasks on the same pictures, the second one upside down: 2 steps each, then 2 together."""
    settings = {"method": "joint", "tasks": TASKS, "steps_apart": APART, "steps": TOGETHER, "rank": 2, "alpha": 3.0}
    return asked(data, **settings | changes)


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


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def changes_in(path, network):
    """Layer -> what a LoRA file changes in its weight, float64."""
    file = read_lora(path)
    targets = match(file, shapes_of(network.adaptable), network.name)
    found = {}
    for target, tensors in zip(targets, load(file, targets), strict=True):
        up, down = tensors["up"].flatten(1).double(), tensors["down"].flatten(1).double()
        found[target.part, target.module] = scaling("lora", tensors) * up @ down
    return found


# -- the files


@pytest.fixture(scope="module")
def families(assets, tmp_path_factory):
    """A store with one tiny pipeline of each family."""
    from tests.tiny import save_tiny_pipeline, save_tiny_sd3, save_tiny_sdxl

    root = tmp_path_factory.mktemp("joint-families")
    save_tiny_pipeline(root / "sd1", "v_prediction")
    save_tiny_sdxl(root / "sdxl")
    save_tiny_sd3(root / "sd3", with_t5=False)
    return ModelStore(assets, root, device="cpu")


@pytest.mark.parametrize(
    ("family", "kind"), [("sd1", "locon"), ("sdxl", "lora"), ("sd3", "rslora")], ids=["sd1", "sdxl", "sd3"]
)
def test_the_joint_file_is_exactly_the_weighted_sum_in_both_notations(family, kind, pictures, families, tmp_path):
    more = {"targets": "all", "options": {"conv_rank": 3, "conv_alpha": 5.0}} if kind == "locon" else {}
    request = joined(pictures, model=family, adapter=kind, text_encoder=kind == "lora", steps_apart=1, steps=1, **more)
    summary = run(request, families).save(tmp_path)
    files = summary["files"]["last"]
    names = {task: f"up+down-{task}" for task in WEIGHTS}
    for notation, suffix in (("kohya", ""), ("diffusers", "-diffusers")):
        assert files[notation] == f"up+down{suffix}.safetensors"
        assert all(files[f"{task} {notation}"] == f"{name}{suffix}.safetensors" for task, name in names.items())
    with families.lease(family) as network:
        pass
    for suffix in ("", "-diffusers"):
        whole = changes_in(tmp_path / f"up+down{suffix}.safetensors", network)
        each = {task: changes_in(tmp_path / f"{name}{suffix}.safetensors", network) for task, name in names.items()}
        assert whole.keys() == each["up"].keys() == each["down"].keys()
        for layer, change in whole.items():
            wanted = sum(weight * each[task][layer] for task, weight in WEIGHTS.items())
            torch.testing.assert_close(change, wanted, atol=1e-7, rtol=1e-5)
        # The last block of SD 3 and what lies behind a text encoder's chosen layer learn nothing.
        learned = [layer for layer in whole if each["up"][layer].any() and each["down"][layer].any()]
        assert len(learned) > len(whole) / 2
        assert not any(torch.equal(each["up"][layer], each["down"][layer]) for layer in learned)


def test_the_files_draw_what_the_network_drew_while_all_adapters_were_worn(
    pictures, tiny_store, tiny_pipeline, tmp_path
):
    x, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([10, 700])
    seen, took = {}, Training._result

    def answer(network, worn=()):
        with torch.no_grad():
            conditions = network.encode_adapted(["a red fox", "a penguin"], worn)
            return network.predict(x, t, conditions, {name: torch.full((2,), scale) for name, scale in worn})

    def spy(self, stopped):
        seen["live"] = answer(self.network)
        return took(self, stopped)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_result", spy)
        kind = {"adapter": "locon", "targets": "all", "options": {"conv_rank": 3, "conv_alpha": 5.0}}
        run(joined(pictures, text_encoder=True, **kind), tiny_store).save(tmp_path)
    with tiny_store.lease("tiny") as network:
        bare = answer(network)
        assert (seen["live"] - bare).abs().max() > 1e-3
        files = {"whole": tmp_path / "up+down.safetensors"}
        files |= {task: tmp_path / f"up+down-{task}.safetensors" for task in WEIGHTS}
        with attach(network.attached, network.adaptable, files, "tiny"):
            for worn in ((("whole", 1.0),), tuple(WEIGHTS.items())):
                torch.testing.assert_close(answer(network, worn), seen["live"], atol=5e-6, rtol=0)
        assert torch.equal(answer(network), bare)
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline, local_files_only=True, safety_checker=None)
        pipeline.load_lora_weights(tmp_path / "up+down-diffusers.safetensors")
        before, network.parts = network.parts, network.parts | dict(pipeline.components)
        try:
            torch.testing.assert_close(answer(network), seen["live"], atol=5e-6, rtol=0)
        finally:
            network.parts = before


def test_headers_name_tasks_views_and_weights_and_bring_the_request_back(pictures, tiny_store, tmp_path):
    request = joined(pictures, steps_apart=1, steps=1)
    run(request, tiny_store).save(tmp_path)
    for name, task, rank in (("up+down", None, "4"), ("up+down-up", "up", "2"), ("up+down-down", "down", "2")):
        with safe_open(tmp_path / f"{name}.safetensors", "pt") as file:
            notes = file.metadata()
        said = json.loads(notes["duckrabbit.tasks"])
        assert [(each["name"], each["view"], each["weight"]) for each in said] == [
            ("up", "identity", 0.7),
            ("down", "rotate_180", -1.3),
        ]
        assert (notes.get("duckrabbit.task"), notes["ss_network_dim"]) == (task, rank)
        assert TrainRequest(**json.loads(notes["duckrabbit"])["request"]) == request


# -- apart


def test_apart_each_adapter_is_bit_for_bit_what_a_training_of_its_own_makes(pictures, tiny_store):
    tasks = (TASKS[0], {"name": "captioned", "trigger": "penguin"})
    request = joined(pictures, tasks=tasks, batch_size=2, weight_decay=0.1, ema=0.5)
    stopped = run(request, tiny_store, stop_after=2 * APART)
    assert len(stopped.points) == 2 * APART
    for index, adapter in enumerate(stopped.last.each):
        own = training.run(alone(request, index), tiny_store)
        assert_equal(own.last.kohya, adapter.kohya)
        losses = [point.loss for point in stopped.points[index * APART :][:APART]]
        assert [point.loss for point in own.points] == losses


def test_while_one_learns_the_others_do_not_change(pictures, tiny_store):
    request, seen = joined(pictures, weight_decay=0.1, ema=0.5), []

    def spy(self):
        before = {name: parameter.detach().clone() for name, parameter in self.loop.parameters.items()}
        true(self)
        changed = {name for name, parameter in self.loop.parameters.items() if not torch.equal(parameter, before[name])}
        seen.append({name.split(".")[-2] for name in changed})

    true = Training._one_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_one_step", spy)
        run(request, tiny_store)
    assert seen == [{"adapter_0"}] * APART + [{"adapter_1"}] * APART + [{"adapter_0", "adapter_1"}] * TOGETHER


def test_a_step_together_sees_one_batch_of_every_task_and_goes_on_in_its_order(pictures, tiny_store, monkeypatch):
    seen, true = [], Feed.batch

    def spy(self, index, rows):
        seen.append((self.request.instance_prompt, index))
        return true(self, index, rows)

    monkeypatch.setattr(Feed, "batch", spy)
    result = run(joined(pictures, accumulation=2), tiny_store)
    fox, penguin = "a fox", "a penguin"
    assert seen[:8] == [(fox, 0), (fox, 1), (fox, 2), (fox, 3), (penguin, 0), (penguin, 1), (penguin, 2), (penguin, 3)]
    assert seen[8:] == [(fox, 4), (penguin, 4), (fox, 5), (penguin, 5), (fox, 6), (penguin, 6), (fox, 7), (penguin, 7)]
    assert [point.part for point in result.points] == ["up alone"] * 2 + ["down alone"] * 2 + ["together"] * 2
    assert result.plan.steps == len(result.points) == 6
    # 8 passes apart and 8 together, of 8 batches in both sets
    assert float(result.plan.epochs) == 2.0
    assert evaluations(result.request) == result.rows == 3 * 16


def test_without_steps_apart_all_learn_together_from_the_beginning(pictures, tiny_store):
    result = run(joined(pictures, steps_apart=0, steps=1, validation_share=0.25), tiny_store)
    assert [point.part for point in result.points] == ["together"]
    assert result.by_task["up"]["alone"] is None
    assert result.by_task["up"]["bare"] == result.by_task["up"]["sum"]


# -- views


def test_the_network_is_shown_the_turned_codes_of_the_same_pictures(pictures, tiny_store):
    request = joined(pictures, validation_share=0.25)
    with tiny_store.lease("tiny") as network:
        course = joint.course_of(request, network, read_sets(request, tiny_store.assets))
        turned = course.feeds["down"]
        plain = Feed(alone(request, 1), network, turned.examples, turned.held_out)
        for feed in (turned, plain):
            feed.prepare(None, lambda step: None)
        for found, lying in ((turned.batch(3), plain.batch(3)), (turned.fixed()[0], plain.fixed()[0])):
            assert found.names == lying.names
            assert torch.equal(found.latents, lying.latents.rot90(2, (-2, -1)))
            assert not torch.equal(found.latents, lying.latents)


def test_the_loss_through_a_view_is_what_is_worked_out_by_hand(pictures, tiny_store, monkeypatch):
    request, view = joined(pictures), build("rotate_180", 2)
    clean, noise = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[[-1.0, 0.0], [0.0, 1.0]]]])
    batch = Batch(("a",), view.show(clean), None)
    with tiny_store.lease("tiny") as network, injected(network, request, joint.names_of(request)) as learner:
        course = joint.course_of(request, network, read_sets(request, tiny_store.assets))
        loop = Loop(request, network, learner, course, Objective("epsilon", torch.tensor([0.64]), 1))
        monkeypatch.setattr(network, "predict", lambda x, t, conditions, adapters: 2.0 * x)
        loss = loop._loss(batch, view.show(noise), torch.tensor([0.5]))
    # x_t = 0.8 x_0 + 0.6 e = [[0.2, 1.6], [2.4, 3.8]], shown as V x_t = [[3.8, 2.4], [1.6, 0.2]], and V e = [[1, 0],
    # [0, -1]]; the answer 2 V x_t is off by [[6.6, 4.8], [3.2, 1.4]].
    assert loss.item() == pytest.approx((6.6**2 + 4.8**2 + 3.2**2 + 1.4**2) / 4)


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ("low_pass", "From afar cannot be used: noise seen through it has variance"),
        ("negate", "tasks.1.view: the codes of builtin:emoji cannot carry negate: seen through its codes a picture is"),
        ("patch_permute(patches=64)", "patches=64 is too many for this picture: choose at most 16"),
    ],
)
def test_a_view_that_noise_or_these_codes_cannot_carry_is_refused_with_what_was_measured(view, words, pictures, emoji):
    tasks = (TASKS[0], {**TASKS[1], "view": view})
    with pytest.raises((ViewError, RequestError)) as refused:
        joint.view_for(joined(pictures, model="builtin:emoji", tasks=tasks), 1, emoji)
    assert refused.value.field == "tasks.1.view"
    assert words in str(refused.value)


def test_pictures_behind_a_view_are_square_and_the_others_keep_their_buckets(tmp_path, tiny_store):
    from PIL import Image

    for index in range(3):
        Image.new("RGB", (64, 32), (90 * index, 40, 90)).save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text("a fox", encoding="utf-8")
    request = joined(tmp_path)
    sets = read_sets(request, tiny_store.assets)
    with tiny_store.lease("tiny") as network:
        course = joint.course_of(request, network, sets)
    homes = {task: set(feed.homes) for task, feed in course.feeds.items()}
    assert homes["down"] == {(32, 32)} != homes["up"]
    plan = planned_for_tasks(request, [found.examples for found in sets], 32, 2)
    assert plan == course.plan
    assert "6 steps (2 x 2 apart and 2 together), 1.3 epochs of 6 pictures" in plan.words()


def test_each_task_s_sample_is_drawn_and_shown_through_its_view(pictures, tiny_store, monkeypatch):
    seen, true = [], samples.latents_of

    def spy(network, request, terms, *more):
        layer = next(iter(adapted(network.denoiser).values()))
        seen.append((terms[0].view.shown_as, *layer.active_adapters))
        return true(network, request, terms, *more)

    monkeypatch.setattr(samples, "latents_of", spy)
    drawn = {"sample_prompts": ("a fox", "a penguin"), "sample_steps": 1}
    result = run(joined(pictures, steps_apart=1, steps=1, **drawn), tiny_store)
    apart, both = [("identity", "adapter_0"), ("rotate_180", "adapter_1")], ("adapter_0", "adapter_1")
    assert seen == [*apart, *apart, *apart, ("identity", *both), ("rotate_180", *both)]
    assert sorted(result.journal.samples) == [0, 1, 2, 3]
    before, first, second, _ = (result.journal.samples[step] for step in range(4))
    assert before[0].tobytes() != first[0].tobytes()
    assert before[1].tobytes() == first[1].tobytes() != second[1].tobytes()


# -- measuring, stopping, going on


def test_every_task_is_measured_bare_alone_and_in_the_sum_and_only_what_is_together_can_be_best(pictures, tiny_store):
    request = joined(pictures, validation_share=0.25, validate_every=1)
    result = run(request, tiny_store)
    assert [set(point.by_task) for point in result.points] == [{"up"}] * 2 + [{"down"}] * 2 + [{"up", "down"}] * 2
    last = result.points[-1]
    assert last.validation == pytest.approx(sum(last.by_task.values()) / 2)
    assert set(result.by_task) == {"up", "down"}
    for task, measured in result.by_task.items():
        assert list(measured) == ["bare", "alone", "sum", "together"]
        assert measured["together"] == last.by_task[task]
    assert result.by_task["up"]["alone"] == result.points[1].validation
    assert result.before == pytest.approx(sum(measured["sum"] for measured in result.by_task.values()) / 2)
    assert result.best_step > 2 * APART
    assert any(line.startswith("Validation loss of up: ") for line in result.said)


@pytest.mark.parametrize("stops", [(1, 5), (3, 4)], ids=["first apart, then together", "second apart, then between"])
def test_stopped_in_either_part_it_goes_on_bit_for_bit(stops, pictures, tiny_store, tmp_path, whole):
    request, expected = whole
    folder = None
    for number, stop in enumerate((*stops, None)):
        again = request.model_copy(update={"resume": "" if folder is None else str(folder)})
        folder = tmp_path / str(number)
        result = run(again, tiny_store, folder, stop_after=stop)
    one, other = checkpoints.latest(expected), checkpoints.latest(folder)
    assert_equal(dict(one.tensors), dict(other.tensors))
    assert (one.step, one.facts) == (other.step, other.facts)
    result.save(tmp_path)
    assert (tmp_path / "up+down-down.safetensors").read_bytes() == (
        expected.parent / "up+down-down.safetensors"
    ).read_bytes()


@pytest.fixture(scope="module")
def whole(pictures, tiny_store, tmp_path_factory):
    """A request with averages, accumulation, a schedule and validations; the folder of its run that never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    rich = {"ema": 0.9, "accumulation": 2, "schedule": "cosine", "flip": True, "noise_offset": 0.1}
    request = joined(pictures, validation_share=0.25, validate_every=2, checkpoint_every=1, **rich)
    run(request, tiny_store, folder).save(folder.parent)
    return request, folder


def test_a_stop_while_adapters_are_apart_keeps_a_set_that_can_be_used(pictures, tiny_store, tmp_path):
    stopped = run(joined(pictures), tiny_store, stop_after=1)
    summary = stopped.save(tmp_path)
    assert (summary["stopped"], summary["steps"]) == (True, 1)
    down, whole = (load_file(tmp_path / f"up+down{name}.safetensors") for name in ("-down", ""))
    assert all(not value.any() for key, value in down.items() if key.endswith("lora_up.weight"))
    assert any(value.any() for key, value in whole.items() if key.endswith("lora_up.weight"))


def test_another_weight_is_not_the_same_run_any_more(whole, tiny_store):
    request, folder = whole
    heavier = request.tasks[0].model_copy(update={"weight": 0.9})
    changes = {"resume": str(folder), "tasks": (heavier, request.tasks[1]), "steps": 3}
    with pytest.raises(RequestError, match="tasks: was") as refused:
        run(request.model_copy(update=changes), tiny_store)
    assert refused.value.field == "tasks"


# -- what cannot be


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"tasks": TASKS[:1]}, "tasks", "joint training needs 2 to 4 of them, got 1"),
        ({"tasks": []}, "tasks", "needs 2 to 4 of them, got 0"),
        ({"tasks": [{"name": f"t{i}"} for i in range(5)]}, "tasks", "must have at most 4 entries"),
        ({"tasks": [TASKS[0], {"name": "UP"}]}, "tasks", "two are called 'up'"),
        ({"tasks": [{"name": "a", "weight": 0}, {"name": "b", "weight": 0}]}, "tasks.0.weight", "leave a out of the"),
        ({"tasks": [TASKS[0], {"name": "b", "weight": 5}]}, "tasks.1.weight", "must be at most 4"),
        ({"tasks": [TASKS[0], {"name": "../b"}]}, "tasks.1.name", "use letters, digits, - and _"),
        ({"tasks": [TASKS[0], {"name": "b", "view": "rotate_18"}]}, "tasks.1.view", "did you mean 'rotate_180'"),
        ({"method": "text_to_image"}, "tasks", "only the method joint has them"),
        ({"adapter": "dora"}, "adapter", "several of the kind dora do not add up"),
        ({"adapter": "lokr"}, "adapter", "choose lora, rslora or locon"),
        ({"epochs": 3}, "epochs", "sets of unlike sizes"),
        ({"sample_prompts": ["a fox"]}, "sample_prompts", "1 for 2 tasks"),
        ({"steps_apart": 5, "warmup_steps": 5, "steps": 9}, "warmup_steps", "less than the 5 steps apart"),
        ({"class_pictures": 3, "class_prompt": "a dog"}, "class_pictures", "only dreambooth has them"),
    ],
)
def test_what_cannot_be_is_a_sentence_with_its_field(changes, field, words):
    data = {"data": "x", "method": "joint", "tasks": list(TASKS), **changes}
    with pytest.raises(RequestError) as refused:
        check(requests.parse(TrainRequest, data))
    assert words in str(refused.value)
    assert refused.value.field == field


def test_a_task_s_own_set_is_named_by_its_own_field(pictures, tiny_store, tmp_path):
    (tmp_path / "empty").mkdir()
    for own, field in (({"data": str(tmp_path / "empty")}, "tasks.1.data"), ({"trigger": "a,b"}, "tasks.1.trigger")):
        with pytest.raises(RequestError) as refused:
            training.run(joined(pictures, tasks=(TASKS[0], {**TASKS[1], **own})), tiny_store)
        assert refused.value.field == field
    with pytest.raises(RequestError) as refused:
        training.run(joined(tmp_path / "empty"), tiny_store)
    assert refused.value.field == "data"


def test_strangers_name_no_folder_in_a_task_either():
    named = TrainRequest(method="joint", steps=40, steps_apart=40, tasks=({"name": "a", "data": "/home"}, TASKS[0]))
    with pytest.raises(PolicyError, match="no folder can be named") as refused:
        check_train(named, SHARED, ("builtin:emoji",))
    assert refused.value.field == "tasks.0.data"
    check_train(named, LOCAL, ("builtin:emoji",))


def test_it_goes_by_the_names_of_its_tasks():
    assert file_name(joined("x")) == "up+down"
    assert headline(joined("x")) == "LoRA of up+down"


def test_a_plain_training_is_a_course_of_one_part(pictures, tiny_store):
    request = asked(pictures)
    with tiny_store.lease("tiny") as network:
        course = Course.plain(request, network, *read_sets(request, tiny_store.assets))
    assert [(part.first, part.steps, part.title, dict(part.worn)) for part in course.parts] == [(0, 2, "", {})]
    assert list(course.looks(1)) == []
    assert [course.ends(step) for step in (0, 1, 2)] == [False, False, True]
