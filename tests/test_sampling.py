"""The loop against its oracles: stock pipelines, linearity, and the rules of evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from studio.devices import seeded_noise
from studio.errors import Cancelled
from studio.models.loading import load_stable_diffusion
from studio.sampling import (
    FLOW_SCHEDULERS,
    SCHEDULERS,
    Route,
    Start,
    Term,
    Upright,
    begun,
    build_scheduler,
    clean_estimate,
    combine,
    denoise,
    from_clean,
    guidance,
    noise_share,
    sigma_at,
)
from studio.views.view import build

CPU = torch.device("cpu")


@dataclass
class CountingNetwork:
    """predict(x, rows) = x + a number per prompt; counts what it was asked."""

    asked: list

    def __call__(self, x, rows):
        self.asked.append(rows)
        return x + torch.tensor([float(len(prompt)) for _, prompt, _ in rows]).view(-1, 1, 1, 1)


def sample(network, terms, *, scheduler="ddim", steps=6, seed=3):
    noise = seeded_noise((1, network.channels, 16, 16), seed, CPU)
    return denoise(network, build_scheduler(scheduler, network.scheduler_config, steps, CPU), lambda i, s: terms, noise)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("which", ["emoji", "tiny"])
def test_plain_guidance_equals_the_stock_pipeline(scheduler, which, assets, tiny_pipeline):
    folder = tiny_pipeline if which == "tiny" else assets / "models" / "emoji"
    network = load_stable_diffusion("test", folder, CPU, torch.float32)
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = SCHEDULERS[scheduler](dict(network.scheduler_config))
    noise = seeded_noise((1, network.channels, 16, 16), 3, CPU)
    expected = pipe(
        "a fox", num_inference_steps=6, guidance_scale=5.0, latents=noise.clone(), output_type="latent"
    ).images
    found = sample(network, guidance("a fox", "", 5.0, 1.0, Upright()), scheduler=scheduler)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_a_run_from_a_picture_equals_the_stock_img2img_pipeline(scheduler, tiny_pipeline):
    network = load_stable_diffusion("test", tiny_pipeline, CPU, torch.float32)
    pipe = StableDiffusionImg2ImgPipeline.from_pretrained(tiny_pipeline, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = SCHEDULERS[scheduler](dict(network.scheduler_config))
    clean, rng = seeded_noise((1, network.channels, 16, 16), 8, CPU), torch.Generator().manual_seed(3)
    expected = pipe(
        "a fox",
        image=clean,
        strength=0.5,
        num_inference_steps=6,
        generator=rng,
        guidance_scale=5.0,
        output_type="latent",
    ).images
    terms, steps = guidance("a fox", "", 5.0, 1.0, Upright()), []
    made = build_scheduler(scheduler, network.scheduler_config, 6, CPU)
    noise = seeded_noise(clean.shape, 3, CPU)
    found = denoise(network, made, lambda i, s: terms, noise, steps.append, Route(Start(clean, 3)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert [(step.index, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("scheduler", sorted(FLOW_SCHEDULERS))
def test_flow_begins_on_the_straight_line_between_the_picture_and_the_noise(scheduler):
    made = build_scheduler(scheduler, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, 10, CPU)
    clean, noise = seeded_noise((1, 4, 8, 8), 1, CPU), seeded_noise((1, 4, 8, 8), 2, CPU)
    share = noise_share(sigma_at(made, 6))
    assert 0.2 < share < 0.9
    expected = (1 - share) * clean + share * noise
    torch.testing.assert_close(begun(made, noise, Start(clean, 6)), expected, atol=1e-3, rtol=1e-3)


def test_guidance_weight_one_is_the_plain_conditional_model(emoji):
    guided = sample(emoji, guidance("a fox", "", 1.0, 1.0, Upright()))
    assert torch.equal(guided, sample(emoji, [Term(1.0, "a fox")]))


def test_an_anagram_of_identity_views_equals_plain_sampling(emoji):
    twice = [term for _ in range(2) for term in guidance("a fox", "", 4.0, 0.5, build("identity", 16, 8))]
    torch.testing.assert_close(sample(emoji, twice), sample(emoji, guidance("a fox", "", 4.0, 1.0, Upright())))


def test_the_same_request_gives_the_same_bytes(emoji):
    terms = guidance("a fox", "", 4.0, 1.0, build("rotate_180", 16, 8))
    assert torch.equal(sample(emoji, terms), sample(emoji, terms))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "flow"])
def test_averaging_over_orthogonal_views_is_the_same_in_every_prediction_form(kind):
    x, sigma = seeded_noise((1, 4, 16, 16), 0, CPU).double(), 1.7
    views = [build("rotate_90", 16), build("flip_vertical", 16)]
    cleans = [seeded_noise((1, 4, 16, 16), 1 + i, CPU).double() for i in range(2)]
    average = sum(view.bring_back(clean) for view, clean in zip(views, cleans, strict=True)) / 2
    predictions = [from_clean(c, view.show(x), sigma, kind) for view, c in zip(views, cleans, strict=True)]
    averaged = sum(view.bring_back(p) for view, p in zip(views, predictions, strict=True)) / 2
    torch.testing.assert_close(clean_estimate(averaged, x, sigma, kind), average, atol=1e-5, rtol=1e-5)


def test_rows_that_agree_are_evaluated_once_and_zero_weights_never():
    predict = CountingNetwork([])
    terms = [Term(0.5, "ab"), Term(0.25, "ab"), Term(0.0, "never"), Term(-1.0, "")]
    total, evaluated = combine(terms, torch.ones(1, 1, 2, 2), predict)
    assert predict.asked == [[("identity", "ab", ()), ("identity", "", ())]]
    assert evaluated == 2
    assert torch.equal(total, torch.full((1, 1, 2, 2), 0.75 * 3 - 1.0))


def test_components_share_one_look_of_the_network_at_the_picture():
    predict = CountingNetwork([])
    terms = [Term(1.0, "same", build("low_pass", 8)), Term(1.0, "same", build("high_pass", 8))]
    total, evaluated = combine(terms, torch.randn(1, 4, 8, 8), predict)
    assert evaluated == 1
    assert total.shape == (1, 4, 8, 8)


def test_a_batch_of_pictures_keeps_its_rows_apart():
    predict = CountingNetwork([])
    x = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    total, evaluated = combine([Term(1.0, "abc"), Term(1.0, "")], x, predict)
    assert evaluated == 4
    assert total[:, 0, 0, 0].tolist() == [3.0, 5.0]


def test_a_sum_in_half_precision_is_taken_in_float32():
    total, _ = combine([Term(10.0, "a"), Term(-9.0, "b")], torch.ones(1, 1, 1, 1).half(), lambda x, rows: x)
    assert total.dtype == torch.float32


def test_steps_carry_sigma_clean_estimate_and_evaluations(emoji):
    steps = []
    noise = seeded_noise((1, emoji.channels, 16, 16), 3, CPU)
    terms = guidance("a fox", "", 4.0, 1.0, Upright())
    denoise(emoji, build_scheduler("ddim", emoji.scheduler_config, 4, CPU), lambda i, s: terms, noise, steps.append)
    assert [(step.index, step.total, step.evaluations) for step in steps] == [
        (1, 4, 2),
        (2, 4, 4),
        (3, 4, 6),
        (4, 4, 8),
    ]
    assert [step.sigma for step in steps] == sorted((step.sigma for step in steps), reverse=True)
    assert steps[-1].clean.shape == noise.shape


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_the_first_sigma_of_every_scheduler_is_nearly_all_noise(scheduler, emoji):
    assert sigma_at(build_scheduler(scheduler, emoji.scheduler_config, 30, CPU), 0) > 10


def test_a_cancel_takes_effect_at_its_step_and_leaves_the_model_as_it_was(emoji):
    terms = guidance("a fox", "", 4.0, 1.0, Upright())
    before, seen = sample(emoji, terms), []

    def stop(step):
        seen.append(step.index)
        if step.index == 2:
            raise Cancelled

    noise = seeded_noise((1, emoji.channels, 16, 16), 3, CPU)
    with pytest.raises(Cancelled):
        denoise(emoji, build_scheduler("ddim", emoji.scheduler_config, 6, CPU), lambda i, s: terms, noise, stop)
    assert seen == [1, 2]
    assert torch.equal(sample(emoji, terms), before)
