"""What a training may be asked to be: every problem a sentence with its field, before anything is loaded."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from studio import requests
from studio.errors import RequestError, UnknownNameError
from studio.training import preflight
from studio.training.buckets import batch_count, batches
from studio.training.plan import split
from studio.training.preflight import OPTIMIZERS, check, planned, planned_for, seconds
from studio.training.request import TrainRequest
from studio.training.schedules import SCHEDULES, factor
from tests.training.asked import asked


def refusal(**changes) -> RequestError:
    with pytest.raises(RequestError) as refused:
        check(requests.parse(TrainRequest, {"data": "x", **changes}))
    return refused.value


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"rank": 0}, "rank", "must be at least 1, got 0"),
        ({"learning_rate": 10}, "learning_rate", "10 would make AdamW diverge; 0.0001 is usual, and at most 0.05"),
        ({"learning_rate": 0}, "learning_rate", "must be more than 0"),
        ({"text_encoder_learning_rate": 1}, "text_encoder_learning_rate", "would make AdamW diverge"),
        ({"steps": 0}, "steps", "must be at least 1"),
        ({"warmup_steps": 500}, "warmup_steps", "must be less than the 500 steps"),
        ({"patience": 3, "validation_share": 0}, "patience", "set validation_share"),
        ({"adapter": "locon"}, "targets", "changes all, got attention"),
        ({"adapter": "oft", "alpha": 4}, "alpha", "OFT has none"),
        ({"options": {"conv_rank": 4}}, "options.conv_rank", "there is no such option (lora has none)"),
        ({"adapter": "lokr", "options": {"factor": 100}}, "options.factor", "must be less than or equal to 64"),
        ({"adapter": "lorra"}, "adapter", "must be one of"),
        ({"method": "dreambooth"}, "instance_prompt", "such as 'a photo of sks dog'"),
        ({"class_pictures": 4, "class_prompt": "a dog"}, "class_pictures", "only dreambooth has them"),
        (
            {"method": "dreambooth", "instance_prompt": "sks", "class_pictures": 4},
            "class_prompt",
            "class pictures need one",
        ),
        ({"stepz": 3}, "stepz", "did you mean 'steps'"),
        ({"resolution": 16}, "resolution", "must be at least 32"),
    ],
)
def test_what_cannot_be_is_a_sentence_with_its_field(changes, field, words):
    error = refusal(**changes)
    assert error.field == field
    assert words in str(error)
    assert str(error).endswith((".", "?"))


def test_a_built_in_set_is_found_by_name_and_a_wrong_one_suggests_the_nearest(tmp_path):
    (tmp_path / "datasets" / "mascot").mkdir(parents=True)
    assert preflight.data_place("builtin:mascot", tmp_path) == tmp_path / "datasets" / "mascot"
    assert preflight.data_place("some/folder", tmp_path) == Path("some/folder")
    for name in ("builtin:mascto", "builtin:../../etc"):
        with pytest.raises(UnknownNameError) as refused:
            preflight.data_place(name, tmp_path)
        assert refused.value.field == "data"


def test_a_run_counts_every_row_of_the_network():
    assert asked("x", steps=10, batch_size=2, accumulation=3).evaluations == 3 * 10 * 6
    drawn = asked("x", steps=10, sample_prompts=("a", "b"), sample_every=5, sample_steps=4)
    assert drawn.evaluations == 30 + 2 * 2 * 3 * 4
    both = asked(
        "x", steps=10, method="dreambooth", instance_prompt="a", class_prompt="b", class_pictures=3, sample_steps=4
    )
    assert both.evaluations == 2 * 30 + 2 * 3 * 4


def test_an_optimiser_that_is_not_installed_names_its_package_and_those_that_are(monkeypatch):
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda name: None)
    error = refusal(optimizer="prodigy")
    assert error.field == "optimizer"
    assert "needs the package prodigyopt, which is not installed; choose adamw, adafactor." in str(error)


@pytest.mark.parametrize("entry", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_every_optimiser_says_what_it_is(entry):
    assert entry.title
    assert entry.help.endswith(".")
    assert entry.reference
    assert 0 < entry.usual <= entry.most


def test_what_nobody_waits_for_is_refused():
    assert seconds(asked("x", batch_size=2), 100, 0.5) == 3 * 100 * 2 * 0.5
    with pytest.raises(RequestError, match="would take about 35 days here") as refused:
        seconds(asked("x"), 1_000_000, 1.0)
    assert refused.value.field == "steps"
    drawing = asked("x", sample_prompts=("a fox", "an owl"), sample_every=10, sample_steps=5)
    assert seconds(drawing, 100, 0.5) == (3 * 100 + 2 * 2 * 11 * 5) * 0.5


def test_the_request_is_the_same_after_a_round_through_json():
    request = asked("x", options={}, sample_prompts=("a fox",))
    assert requests.parse(TrainRequest, request.model_dump(mode="json")) == request


# -- the learning rate


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_every_schedule_begins_whole_and_stays_between_none_and_all(name):
    values = [factor(name, step, 100, 0) for step in range(100)]
    assert values[0] == 1.0
    assert all(0.0 <= value <= 1.0 for value in values)
    assert SCHEDULES[name].title
    assert SCHEDULES[name].help


def test_warming_up_rises_evenly_and_then_the_schedule_begins():
    assert [factor("linear", step, 12, 4) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.875])


def test_cosine_is_half_way_at_half_time():
    assert factor("cosine", 50, 100, 0) == pytest.approx(0.5)
    assert factor("polynomial", 50, 100, 0) == pytest.approx(0.25, abs=1e-3)
    assert factor("cosine_restarts", 50, 150, 0) == pytest.approx(1.0)


# -- steps and epochs


def example(name, size=(32, 32), repeats=1, twin=""):
    return SimpleNamespace(name=name, size=size, repeats=repeats, twin=twin)


def test_predicted_steps_and_epochs_are_those_that_run():
    chance = random.Random(0)
    for _ in range(200):
        count, batch = chance.randint(1, 30), chance.randint(1, 7)
        accumulation, epochs = chance.randint(1, 5), chance.randint(1, 6)
        homes = [chance.choice([(32, 32), (48, 24), (24, 48)]) for _ in range(count)]
        repeats = [chance.randint(1, 4) for _ in range(count)]
        request = asked("x", batch_size=batch, accumulation=accumulation, epochs=epochs)
        plan = planned(request, sum(repeats), batch_count(homes, repeats, batch))
        seen, passes = dict.fromkeys(range(count), 0), 0
        for index in range(plan.steps * accumulation):
            epoch, place = divmod(index, plan.batches)
            order = batches(homes, repeats, batch, seed=1, epoch=epoch)
            assert len(order) == plan.batches
            passes += 1
            if epoch < epochs:
                for member in order[place]:
                    seen[member] += 1
        assert all(times == epochs * repeats[member] for member, times in seen.items())
        assert passes == plan.epochs * plan.batches
        assert epochs <= plan.epochs < epochs + accumulation
        assert (plan.steps - 1) * accumulation < epochs * plan.batches


def test_steps_that_are_asked_for_are_taken_whatever_the_epochs_are():
    plan = planned(asked("x", steps=7, accumulation=2), 10, 5, 2)
    assert (plan.steps, float(plan.epochs)) == (7, 2.8)
    assert plan.words() == "7 steps, 2.8 epochs of 10 pictures; 2 held out"


def test_the_plan_before_the_start_knows_buckets_repeats_and_what_is_held_out():
    examples = [example(f"{i}", (64, 32) if i < 3 else (32, 32), repeats=2) for i in range(8)]
    plan = planned_for(asked("x", batch_size=4, epochs=2, validation_share=0.25), examples, 32, 2)
    learned, kept = split(examples, 0.25, 0)
    assert len(kept) == 2 == plan.held_out
    assert plan.pictures == 2 * len(learned) == 12
    wide = 2 * sum(each.size == (64, 32) for each in learned)
    assert plan.batches == -(-wide // 4) + -(-(12 - wide) // 4)
    assert plan.steps == 2 * plan.batches


def test_pictures_that_look_alike_are_held_out_together():
    examples = [example(f"{i}", twin="0" if i in (1, 2) else "") for i in range(6)]
    for seed in range(20):
        learned, kept = split(examples, 0.3, seed)
        names = {each.name for each in kept}
        assert names.isdisjoint(each.name for each in learned)
        assert len(names & {"0", "1", "2"}) in (0, 3)
        assert learned
        assert kept


def test_one_picture_is_never_held_out():
    assert split([example("a")], 0.5, 0) == ((example("a"),), ())
    assert split([example("a"), example("b", twin="a")], 0.5, 0)[1] == ()
    assert len(split([example(f"{i}") for i in range(3)], 0.01, 0)[1]) == 1


def test_a_resolution_that_no_bucket_has_names_one_that_works():
    with pytest.raises(RequestError, match="resolution: must be a multiple of 8 pixels, got 36; choose 32") as refused:
        planned_for(asked("x", resolution=36), [example("a")], 32, 2)
    assert refused.value.field == "resolution"
