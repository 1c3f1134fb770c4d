"""SDXL and SD 3: equal to the stock pipelines in the loop, and whole in every path of the engine."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline, StableDiffusionXLPipeline

from studio import illusions
from studio.devices import seeded_noise
from studio.errors import ModelFileError, ModelNotFoundError, RequestError
from studio.illusions.request import IllusionRequest
from studio.models.files import check_pipeline, variant_in
from studio.models.loading import load_pipeline
from studio.sampling import (
    FLOW_SCHEDULERS,
    SCHEDULERS,
    Upright,
    build_scheduler,
    clean_estimate,
    denoise,
    from_clean,
    guidance,
    noise_share,
    sigma_at,
)
from studio.views.admission import Headroom

CPU = torch.device("cpu")


def load(folder):
    return load_pipeline("tiny", folder, CPU, torch.float32)


def sample(network, noise, *, negative="", scheduler="euler", steps=5):
    terms = guidance("a fox", negative, 5.0, 1.0, Upright())
    return denoise(network, build_scheduler(scheduler, network.scheduler_config, steps, CPU), lambda i, s: terms, noise)


def stock(pipe, noise, *, negative=None, steps=5):
    pipe.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": steps, "guidance_scale": 5.0, "output_type": "latent", "height": 32, "width": 32}
    return pipe("a fox", negative_prompt=negative, latents=noise.clone(), **options).images


def stock_sd3(folder):
    left_out = {} if (folder / "text_encoder_3").exists() else {"text_encoder_3": None, "tokenizer_3": None}
    return StableDiffusion3Pipeline.from_pretrained(folder, **left_out)


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("negative", ["", "a red penguin"])
def test_the_loop_equals_the_stock_sdxl_pipeline(tiny_sdxl, scheduler, negative):
    network, noise = load(tiny_sdxl), seeded_noise((1, 4, 16, 16), 3, CPU)
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipe.scheduler = SCHEDULERS[scheduler](dict(network.scheduler_config))
    expected = stock(pipe, noise, negative=negative or None)
    found = sample(network, noise, negative=negative, scheduler=scheduler)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("negative", ["", "a red penguin"])
def test_the_loop_equals_the_stock_sd3_pipeline(tiny_sd3, negative):
    noise = seeded_noise((1, 16, 16, 16), 3, CPU)
    expected = stock(stock_sd3(tiny_sd3), noise, negative=negative)
    found = sample(load(tiny_sd3), noise, negative=negative)
    assert (found - noise).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_flow_with_dpm_equals_the_stock_sd3_pipeline(tiny_sd3):
    network, noise = load(tiny_sd3), seeded_noise((1, 16, 16, 16), 3, CPU)
    pipe = stock_sd3(tiny_sd3)
    pipe.scheduler = FLOW_SCHEDULERS["dpm++2m"](network.scheduler_config)
    torch.testing.assert_close(sample(network, noise, scheduler="dpm++2m"), stock(pipe, noise), atol=1e-4, rtol=1e-4)


def test_decoding_takes_back_what_encoding_did_in_both_pipelines_units(tiny_sd3):
    network, pipe = load(tiny_sd3), stock_sd3(tiny_sd3)
    pictures = seeded_noise((1, 3, 32, 32), 1, CPU).clamp(-1, 1)
    with torch.inference_mode():
        expected = (pipe.vae.encode(pictures).latent_dist.mean - 0.0609) * 1.5305
        codes = network.encode(pictures)
        torch.testing.assert_close(codes, expected)
        decoded = pipe.vae.decode(codes / 1.5305 + 0.0609).sample.clamp(-1, 1)
        torch.testing.assert_close(network.decode(codes), decoded)


def test_sdxl_takes_an_empty_prompt_for_zeros_only_where_the_model_was_trained_so(tiny_sdxl, tmp_path):
    with torch.inference_mode():
        said, empty = (load(tiny_sdxl).encode_prompts([text]) for text in ("a fox", ""))
        assert said.embeds.shape == (1, 16, 32)
        assert said.extra["pooled"].shape == (1, 128)
        assert empty.embeds.abs().max() == empty.extra["pooled"].abs().max() == 0
        folder = shutil.copytree(tiny_sdxl, tmp_path / "spoken")
        index = folder / "model_index.json"
        index.write_text(
            index.read_text().replace('"force_zeros_for_empty_prompt": true', '"force_zeros_for_empty_prompt": false')
        )
        assert load(folder).encode_prompts([""]).embeds.abs().max() > 0


def test_sdxl_is_told_the_size_of_the_picture(tiny_sdxl):
    network = load(tiny_sdxl)
    with torch.inference_mode():
        ids = network._time_ids(torch.zeros(2, 4, 16, 24))
    assert ids.tolist() == [[32, 48, 0, 0, 32, 48]] * 2


@pytest.mark.parametrize("scheduler", sorted(FLOW_SCHEDULERS))
def test_flow_starts_at_noise_and_ends_at_the_clean_picture(scheduler):
    """A network that always means the same picture is taken straight to it."""
    built = build_scheduler(scheduler, {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, 6, CPU)
    sigmas = [sigma_at(built, index) for index in range(6)]
    assert sigmas == sorted(sigmas, reverse=True)
    assert noise_share(sigmas[0]) > 0.99
    x, clean = seeded_noise((1, 1, 4, 4), 0, CPU), seeded_noise((1, 1, 4, 4), 1, CPU)
    for sigma, t in zip(sigmas, built.timesteps, strict=True):
        prediction = from_clean(clean, x, sigma, "flow")
        torch.testing.assert_close(clean_estimate(prediction, x, sigma, "flow"), clean, atol=1e-4, rtol=1e-4)
        x = built.step(prediction, t, x, return_dict=False)[0]
    torch.testing.assert_close(x, clean, atol=1e-4, rtol=1e-4)


def test_noise_to_signal_of_flow_is_its_share_over_the_rest():
    built = build_scheduler("euler", {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 1.0}, 2, CPU)
    assert isinstance(built, FlowMatchEulerDiscreteScheduler)
    assert math.isinf(sigma_at(built, 0))
    share = float(built.sigmas[1])
    assert sigma_at(built, 1) == pytest.approx(share / (1 - share))
    assert noise_share(sigma_at(built, 1)) == pytest.approx(share)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++2m"])
def test_sdxl_draws_two_views_through_the_engine(tiny_sdxl, scheduler, models):
    draws_two_views(tiny_sdxl, scheduler, models)


@pytest.mark.parametrize("scheduler", ["ddim", "euler", "dpm++2m"])
def test_sd3_draws_two_views_through_the_engine(tiny_sd3, scheduler, models):
    draws_two_views(tiny_sd3, scheduler, models)


def draws_two_views(folder, scheduler, models):
    with models.lease(str(folder)) as network:
        network.headrooms["rotate_180 16"] = Headroom(0.0, 0.0, 1.0, 1.0)  # random codes carry no view
    wanted = {"model": str(folder), "steps": 2, "scheduler": scheduler, "prompts": ("a fox", "a penguin")}
    result = illusions.run(IllusionRequest(**wanted), models)
    upright, turned = (np.asarray(view) for view in result.candidates[0].views)
    assert result.evaluations == 2 * 2 * 2
    assert upright.shape == (32, 32, 3)
    assert np.array_equal(np.rot90(upright, 2), turned)


@pytest.mark.parametrize("reduction", ["mean", "alternate"])
def test_every_reduction_runs_on_flow(tiny_sd3, reduction, models):
    with models.lease(str(tiny_sd3)) as network:
        network.headrooms["flip_vertical 16"] = Headroom(0.0, 0.0, 1.0, 1.0)
    wanted = {"model": str(tiny_sd3), "steps": 2, "views": ("identity", "flip_vertical"), "reduction": reduction}
    previews = []
    illusions.run(IllusionRequest(**wanted), models, on_step=lambda step: previews.append(step.pictures))
    assert [picture.size for picture in previews[1]()] == [(16, 16)] * 2


def test_patches_set_the_sizes_that_sd3_can_draw(tiny_sd3):
    network = load(tiny_sd3)
    assert (network.size, network.cells(None), network.cells(36)) == (32, 16, 18)
    with pytest.raises(RequestError, match=r"size: tiny draws multiples of 4 pixels; choose 36"):
        network.cells(38)


def test_sd3_is_whole_without_t5_but_not_with_half_of_it(tmp_path):
    from tests.tiny import save_tiny_sd3

    folder = save_tiny_sd3(tmp_path / "sd3", with_t5=True)
    shutil.rmtree(folder / "tokenizer_3")
    with pytest.raises(ModelNotFoundError, match="sd3 has no tokenizer_3"):
        check_pipeline(folder)
    shutil.rmtree(folder / "text_encoder_3")
    assert check_pipeline(folder) == "StableDiffusion3Pipeline"
    assert load(folder).encode_prompts(["a fox"]).embeds.shape == (1, 16 + 256, 48)


def test_a_t5_whose_tokenizer_is_only_sentencepiece_says_what_to_do(tmp_path):
    from tests.tiny import save_tiny_sd3

    folder = save_tiny_sd3(tmp_path / "sd3", with_t5=True)
    shutil.rmtree(folder / "tokenizer_3")
    (folder / "tokenizer_3").mkdir()
    (folder / "tokenizer_3" / "spiece.model").write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"only spiece.model, .*take text_encoder_3 and tokenizer_3 away"):
        check_pipeline(folder)


@pytest.mark.parametrize("part", ["unet", "text_encoder_2", "tokenizer_2", "scheduler"])
def test_a_part_that_sdxl_lacks_is_named_before_anything_loads(tiny_sdxl, tmp_path, part):
    folder = shutil.copytree(tiny_sdxl, tmp_path / "sdxl")
    shutil.rmtree(folder / part)
    with pytest.raises(ModelNotFoundError, match=f"sdxl has no {part}"):
        check_pipeline(folder)


def test_an_inpainting_folder_is_called_one(tiny_pipeline, tmp_path):
    folder = shutil.copytree(tiny_pipeline, tmp_path / "fill")
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 4', '"in_channels": 9'))
    with pytest.raises(ModelFileError, match="fill is an inpainting model"):
        check_pipeline(folder)


@pytest.mark.parametrize("kind", ["EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_a_folder_with_a_noise_that_is_not_its_familys_is_refused(tiny_sdxl, tmp_path, kind):
    folder = shutil.copytree(tiny_sdxl, tmp_path / "sdxl")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("EulerDiscreteScheduler", kind))
    with pytest.raises(ModelFileError, match=f"sdxl was trained with the noise of {kind}"):
        check_pipeline(folder)


def test_a_folder_that_came_only_in_fp16_loads(tiny_sdxl, tmp_path):
    folder = shutil.copytree(tiny_sdxl, tmp_path / "half")
    for plain in folder.glob("*/*.safetensors"):
        plain.rename(plain.with_name(plain.stem + ".fp16.safetensors"))
    assert variant_in(folder / "unet") == "fp16"
    assert torch.equal(load(folder).unet.conv_in.weight, load(tiny_sdxl).unet.conv_in.weight)


def test_a_missing_shard_is_a_half_download(tiny_sdxl, tmp_path):
    folder = shutil.copytree(tiny_sdxl, tmp_path / "sdxl")
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    with pytest.raises(ModelFileError, match="sdxl/unet has 1 of 2 files"):
        check_pipeline(folder)
