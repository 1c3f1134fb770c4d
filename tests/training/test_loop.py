"""The loop: caches change nothing, what goes wrong is named at once, and what is measured is measured the same way."""

from __future__ import annotations

import math

import pytest
import torch

from studio import training
from studio.errors import Cancelled, RequestError
from studio.training import loop, samples
from studio.training.dataset import read_dataset
from studio.training.feed import Feed
from studio.training.loop import Average, NonFiniteLossError, worn
from tests.training.asked import asked, save_set


def losses(request, store, folder=None):
    return [point.loss for point in training.run(request, store, folder=folder).points]


def made(folder):
    folder.mkdir(parents=True)
    return folder


def test_caches_in_memory_on_disk_and_none_give_the_same_loss(pictures, tiny_store, tmp_path):
    request = asked(pictures, steps=3, batch_size=2, flip=True, crop="random", caption_dropout=0.2)
    found = {
        cache: losses(request.model_copy(update={"cache": cache}), tiny_store, made(tmp_path / "runs" / cache))
        for cache in ("memory", "off", "disk")
    }
    assert found["off"] == pytest.approx(found["memory"], abs=1e-5)
    assert found["disk"] == pytest.approx(found["memory"], abs=1e-5)
    assert list((tmp_path / "runs" / ".cache").rglob("*.safetensors"))


def test_a_cache_on_disk_needs_a_folder(pictures, tiny_store):
    with pytest.raises(RequestError, match="cache: without a folder for the run"):
        training.run(asked(pictures, cache="disk"), tiny_store)


def test_the_seed_alone_decides(pictures, tiny_store):
    first, again = losses(asked(pictures), tiny_store), losses(asked(pictures), tiny_store)
    torch.manual_seed(5)
    assert first == again == losses(asked(pictures), tiny_store)
    assert first != losses(asked(pictures, seed=1), tiny_store)


def test_the_loss_of_accumulated_passes_is_their_mean(pictures, tiny_store):
    still = {"learning_rate": 1e-12, "max_grad_norm": 0.0, "batch_size": 1}
    single = losses(asked(pictures, steps=4, **still), tiny_store)
    double = losses(asked(pictures, steps=2, accumulation=2, **still), tiny_store)
    assert double == pytest.approx([(single[0] + single[1]) / 2, (single[2] + single[3]) / 2], rel=1e-5)


def test_a_loss_that_is_no_number_ends_the_run_within_the_step_and_names_the_pictures(
    pictures, tiny_store, monkeypatch
):
    true = Feed.batch

    def poisoned(self, index, rows=None):
        batch = true(self, index)
        if index == 1:
            batch.latents.fill_(math.nan)
        return batch

    monkeypatch.setattr(Feed, "batch", poisoned)
    seen = []
    with pytest.raises(NonFiniteLossError) as ended:
        training.run(asked(pictures, steps=5), tiny_store, on_step=lambda step: seen.append(step.index))
    assert max(seen) == 1
    assert "The loss is nan in step 2, in the batch of picture-" in str(ended.value)
    with tiny_store.lease("tiny") as network:
        assert not any(parameter.requires_grad for parameter in network.denoiser.parameters())


def test_validation_is_the_same_whenever_nothing_was_learned(pictures, tiny_store):
    request = asked(pictures, steps=3, learning_rate=1e-12, validation_share=0.25, validate_every=1)
    result = training.run(request, tiny_store)
    values = [point.validation for point in result.points]
    assert values[0] == pytest.approx(result.before, rel=1e-5)
    assert values[0] == pytest.approx(values[1], rel=1e-5) == pytest.approx(values[2], rel=1e-5)


def test_it_ends_when_validations_get_no_better(pictures, tiny_store, monkeypatch):
    values = iter([4.0, 3.0, 2.0, 2.5, 2.5, 1.0, 1.0])
    monkeypatch.setattr(loop.Loop, "_measured", lambda self, batch, place, level: next(values))
    monkeypatch.setattr(loop, "LEVELS", 1)
    request = asked(pictures, steps=9, validation_share=0.25, validate_every=1, patience=2)
    result = training.run(request, tiny_store)
    assert [point.validation for point in result.points] == [3.0, 2.0, 2.5, 2.5]
    assert (result.before, result.best_step) == (4.0, 2)
    assert result.best is not None
    short = training.run(asked(pictures, steps=2, validation_share=0.25), tiny_store)
    assert all(torch.equal(value, result.best.kohya[key]) for key, value in short.last.kohya.items())
    assert "Ended after step 4: 2 validations were no better than the best." in result.said


def test_averaged_weights_start_young_and_follow(pictures):
    weights = torch.nn.Parameter(torch.zeros(1))
    average = Average({"a": weights}, 0.5)
    weights.data += 1.0
    average.update(1)  # keeps 1 / 11
    assert average.weights["a"].item() == pytest.approx(1 - 1 / 11)
    average.update(1000)  # keeps one half
    assert average.weights["a"].item() == pytest.approx(1 - 1 / 22)


def test_other_weights_are_worn_for_a_block_only():
    weights = torch.nn.Parameter(torch.zeros(1))
    with worn({"a": weights}, {"a": torch.ones(1)}):
        assert weights.item() == 1.0
    assert weights.item() == 0.0


def test_the_smoothed_loss_begins_with_the_first(pictures, tiny_store):
    points = training.run(asked(pictures, steps=2), tiny_store).points
    assert points[0].smoothed == points[0].loss
    assert points[1].smoothed == pytest.approx((0.95 * points[0].loss + points[1].loss) / 1.95)


def test_class_pictures_fill_half_of_every_batch_and_count_as_asked(pictures, tiny_store, monkeypatch):
    dreambooth = {"method": "dreambooth", "instance_prompt": "a red fox", "learning_rate": 1e-12, "sample_steps": 2}
    prior = {"class_prompt": "a fox", "class_pictures": 3, "batch_size": 2}
    seen = []
    true = loop.Loop._loss

    def spy(self, batch, noise, u):
        seen.append(batch)
        return true(self, batch, noise, u)

    monkeypatch.setattr(loop.Loop, "_loss", spy)
    whole = losses(asked(pictures, prior_weight=2.0, **dreambooth, **prior), tiny_store)
    half = losses(asked(pictures, prior_weight=1.0, **dreambooth, **prior), tiny_store)
    assert all(batch.latents.shape == (4, 4, 16, 16) and batch.prior == 2 for batch in seen)
    assert torch.equal(seen[0].latents[3], seen[2].latents[3])
    # own + 2 prior and own + prior
    assert whole[0] > half[0] > 0
    alone = losses(asked(pictures, prior_weight=1e-9, **dreambooth, **prior), tiny_store)
    assert whole[0] - half[0] == pytest.approx(half[0] - alone[0], rel=1e-4)


def test_predicted_steps_epochs_and_pictures_are_those_that_ran(tmp_path, tiny_store):
    data = save_set(tmp_path / "set", count=5)
    request = asked(data, epochs=2, batch_size=2, accumulation=2, validation_share=0.2)
    result = training.run(request, tiny_store)
    assert (result.plan.pictures, result.plan.batches, result.plan.held_out) == (4, 2, 1)
    assert result.points[-1].step == result.plan.steps == 2
    summary = result.save(tmp_path)
    assert summary["epochs"] == 2.0
    assert summary["evaluations"] == 3 * 8


def test_every_picture_is_seen_as_often_as_the_epochs_say(pictures, tiny_store):
    request = asked(pictures, batch_size=3)
    examples = read_dataset(pictures).examples
    with tiny_store.lease("tiny") as network:
        feed = Feed(request, network, examples)
        feed.prepare(None, lambda step: None)
        names = [name for index in range(2 * feed.batches) for name in feed.batch(index).names]
    assert sorted(names) == sorted(2 * [example.name for example in examples])


def test_samples_come_from_the_same_noise_and_show_what_was_learned(pictures, tiny_store, tmp_path):
    shown = []
    request = asked(pictures, steps=2, sample_prompts=("a fox", "a penguin"), sample_steps=2, sample_every=1)

    def on_step(step):
        if step.pictures is not None and step.note.startswith("loss"):
            shown.append((step.labels, step.pictures()))

    result = training.run(request, tiny_store, on_step=on_step)
    assert sorted(result.journal.samples) == [0, 1, 2]
    assert [labels for labels, _ in shown] == [("a fox", "a penguin")] * 2
    assert shown[0][1] == result.journal.samples[1]
    with tiny_store.lease("tiny") as network:
        assert samples.draw(network, request, lambda index: None)[0].tobytes() == (
            result.journal.samples[0][0].tobytes()
        )
    assert result.journal.samples[0][0].tobytes() != result.journal.samples[2][0].tobytes()
    summary = result.save(tmp_path)
    assert [row["step"] for row in summary["samples"]] == [0, 1, 2]
    assert (tmp_path / "samples.png").exists()


def test_gradient_checkpointing_and_precision_leave_the_loss_as_it_is(pictures, tiny_store):
    plain = losses(asked(pictures), tiny_store)
    assert losses(asked(pictures, gradient_checkpointing=True), tiny_store) == pytest.approx(plain, rel=1e-5)
    assert losses(asked(pictures, precision="bf16"), tiny_store) == pytest.approx(plain, rel=2e-2)
    with pytest.raises(RequestError, match="precision: fp16 needs a GPU"):
        losses(asked(pictures, precision="fp16"), tiny_store)


def test_a_stop_while_samples_are_drawn_loses_no_step(pictures, tiny_store):
    def on_step(step):
        if step.index == 1 and step.note.startswith("Drawing"):
            raise Cancelled

    request = asked(pictures, steps=3, sample_prompts=("a fox",), sample_every=1, sample_steps=2)
    with pytest.raises(Cancelled) as stop:
        training.run(request, tiny_store, on_step=on_step)
    assert stop.value.kept.points[-1].step == 1


def test_a_folder_without_pictures_is_refused_before_a_model_is_loaded(tmp_path, tiny_store, monkeypatch):
    monkeypatch.setattr(tiny_store, "network", lambda *args: pytest.fail("loaded"))
    with pytest.raises(RequestError, match="data: There is no picture here") as refused:
        training.run(asked(tmp_path), tiny_store)
    assert refused.value.field == "data"


def test_a_model_that_draws_in_pixels_is_refused(pictures, tiny_prx, assets):
    from studio.models.store import ModelStore

    store = ModelStore(assets, tiny_prx.parent, device="cpu")
    with pytest.raises(RequestError, match="model: prx draws in pixels"):
        training.run(asked(pictures, model="prx"), store)
