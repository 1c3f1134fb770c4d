"""PRXPixel, which has no autoencoder: equal to the stock pipeline in the loop, and whole in the engine."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import PRXPixelPipeline
from diffusers.pipelines.prx import pipeline_prx_pixel

from studio import illusions
from studio.devices import seeded_noise
from studio.errors import ModelFileError, ModelNotFoundError, RequestError
from studio.illusions.request import IllusionRequest
from studio.models.files import check_pipeline
from studio.models.loading import load_pipeline
from studio.models.refs import list_models
from studio.sampling import FLOW_SCHEDULERS, Upright, build_scheduler, denoise, guidance

CPU = torch.device("cpu")


def load(folder):
    return load_pipeline("tiny", folder, CPU, torch.float32)


def sample(network, noise, *, negative="", scheduler="euler", steps=5):
    terms = guidance("a fox", negative, 5.0, 1.0, Upright())
    return denoise(network, build_scheduler(scheduler, network.scheduler_config, steps, CPU), lambda i, s: terms, noise)


def wanted(folder, **changes):
    return IllusionRequest(**{"model": str(folder), "steps": 3, "prompts": ("a fox", "a penguin")} | changes)


@pytest.fixture
def stock(tiny_prx, monkeypatch):
    # The stock pipeline cleans its prompts with ftfy, which leaves plain ones as they are.
    monkeypatch.setattr(pipeline_prx_pixel, "ftfy", SimpleNamespace(fix_text=lambda text: text), raising=False)
    pipe = PRXPixelPipeline.from_pretrained(tiny_prx)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("steps", [5, 40])  # with forty, the last ones have less noise than flow is divided by
@pytest.mark.parametrize("negative", ["", "a red penguin"])
def test_the_loop_equals_the_stock_pipeline(tiny_prx, stock, negative, steps):
    noise = seeded_noise((1, 3, 32, 32), 3, CPU)
    options = {"height": 32, "width": 32, "use_resolution_binning": False, "output_type": "latent"}
    expected = stock(
        "a fox", negative, latents=2 * noise, num_inference_steps=steps, guidance_scale=5.0, **options
    ).images
    found = sample(load(tiny_prx), noise, negative=negative, steps=steps)
    assert (found - 2 * noise).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prompt", ["a fox", "", "  a &amp;amp; fox "])
def test_prompts_are_encoded_as_in_the_stock_pipeline(tiny_prx, stock, prompt):
    with torch.inference_mode():
        embeds, mask, *_ = stock.encode_prompt(prompt, CPU, do_classifier_free_guidance=False)
        found = load(tiny_prx).encode_prompts([prompt])
    assert found.embeds.shape == (1, 12, 32)
    assert torch.equal(found.extra["mask"], mask)
    torch.testing.assert_close(found.embeds, embeds)


def test_pixels_are_codes_of_themselves(tiny_prx):
    network = load(tiny_prx)
    pictures = seeded_noise((2, 3, 32, 32), 1, CPU)
    assert network.in_pixels
    assert (network.size, network.factor, network.channels, network.cells(None)) == (32, 1, 3, 32)
    assert torch.equal(network.encode(pictures), pictures)
    assert torch.equal(network.decode(pictures), pictures.clamp(-1, 1))
    assert torch.equal(network.preview(pictures), pictures.clamp(-1, 1))


def test_its_size_and_noise_are_those_of_its_index(tiny_prx, tmp_path):
    folder = shutil.copytree(tiny_prx, tmp_path / "large")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"default_sample_size": 64, "noise_scale": 1.5}))
    network = load(folder)
    assert (network.size, network.noise_scale) == (64, 1.5)
    with pytest.raises(RequestError, match="size: tiny draws multiples of 4 pixels; choose 60"):
        network.cells(62)


@pytest.mark.parametrize("scheduler", sorted(FLOW_SCHEDULERS))
@pytest.mark.parametrize(
    "views",
    [("identity", "rotate_180"), ("identity", "negate+channel_permutation"), ("grayscale", "colour")],
    ids="+".join,
)
def test_every_view_is_exact_in_pixels(tiny_prx, models, views, scheduler):
    result = illusions.run(wanted(tiny_prx, views=views, scheduler=scheduler), models)
    candidate = result.candidates[0]
    assert candidate.image.size == (32, 32)
    upright, other = (np.asarray(view).astype(int) for view in candidate.views)
    if views[1] == "rotate_180":
        assert np.array_equal(np.rot90(upright, 2), other)
    if views[1] == "negate+channel_permutation":
        assert np.abs(255 - upright[..., [1, 2, 0]] - other).max() <= 1
    assert any("no autoencoder" in note for note in result.notes)


@pytest.mark.parametrize("space", ["latent", "picture", "auto"])
def test_all_spaces_are_the_same_without_an_autoencoder(tiny_prx, models, space):
    def image(space):
        found = illusions.run(wanted(tiny_prx, views=("identity", "negate"), space=space), models)
        assert found.evaluations == 2 * 2 * 3
        return np.asarray(found.candidates[0].image)

    assert np.array_equal(image(space), image("latent"))


def test_a_models_folder_offers_it(tiny_prx, assets):
    assert "PRXPixel" in [choice.family for choice in list_models(assets, tiny_prx.parent)]


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "tokenizer", "scheduler"])
def test_a_part_that_it_lacks_is_named_before_anything_loads(tiny_prx, tmp_path, part):
    folder = shutil.copytree(tiny_prx, tmp_path / "prx")
    shutil.rmtree(folder / part)
    with pytest.raises(ModelNotFoundError, match=f"prx has no {part}"):
        check_pipeline(folder)


def test_a_transformer_that_reads_codes_is_refused(tiny_prx, tmp_path):
    folder = shutil.copytree(tiny_prx, tmp_path / "prx")
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"in_channels": 3', '"in_channels": 16'))
    with pytest.raises(ModelFileError, match="a text-to-image model with 3 channels is needed"):
        check_pipeline(folder)
