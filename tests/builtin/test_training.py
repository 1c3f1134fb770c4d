"""The trainings themselves, at a size that runs in seconds: the real classes, the real loop."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from studio.builtin import autoencoder, denoiser, scorer
from studio.builtin.export import export_pipeline, export_scorer
from studio.builtin.loop import Schedule, Trainer
from studio.builtin.words import MAX_TOKENS, build_tokenizer
from studio.builtin.world import FONT, load_things
from studio.models.loading import load_clip, load_stable_diffusion

needs_font = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is not installed")
CPU = torch.device("cpu")


def quadratic(net):
    return lambda step: {"loss": (net.weight - 3).square().mean()}


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    schedule = Schedule(steps=100, lr=1.0, warmup=0.1, decay=0.5)
    assert [round(schedule.lr_at(step), 2) for step in (0, 4, 9, 40, 74, 99)] == [0.1, 0.5, 1.0, 1.0, 0.5, 0.0]


def test_the_loop_minimises_and_logs(tmp_path):
    net = nn.Linear(3, 3, bias=False)
    Trainer(net, Schedule(steps=300, lr=0.05, ema=0.9), tmp_path).run(quadratic(net), log_every=100)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [100, 200, 300]
    assert lines[-1]["loss"] < lines[0]["loss"] / 10


def test_resumed_training_equals_uninterrupted_training(tmp_path):
    torch.manual_seed(0)
    first = nn.Linear(3, 3)  # its bias is never reached by the loss
    second = nn.Linear(3, 3)
    second.load_state_dict(first.state_dict())
    whole = Trainer(first, Schedule(steps=40, lr=0.05), tmp_path / "whole")
    whole.run(quadratic(first))
    half = Trainer(second, Schedule(steps=40, lr=0.05), tmp_path / "half")
    while half.step < 20:
        half._one_step(quadratic(second))
    half.save()
    third = nn.Linear(3, 3)
    resumed = Trainer(third, Schedule(steps=40, lr=0.05), tmp_path / "half")
    assert resumed.step == 20
    resumed.run(quadratic(third))
    torch.testing.assert_close(third.weight, first.weight)
    torch.testing.assert_close(resumed.average["weight"], whole.average["weight"])


def test_a_loss_that_is_no_number_stops_the_training(tmp_path):
    net = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="step 0"):
        Trainer(net, Schedule(steps=5, lr=1.0), tmp_path).run(lambda step: {"loss": net.weight.sum() * math.nan})


def test_blocks_of_codes_and_of_pixels_are_shuffled_alike():
    order = torch.randperm(16)
    codes = torch.randn(1, 4, 16, 16)
    pixels = codes.repeat_interleave(8, 2).repeat_interleave(8, 3)
    shuffled = autoencoder.shuffled_blocks(codes, order, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert torch.equal(autoencoder.shuffled_blocks(pixels, order, 4), shuffled)


def test_the_eight_rearrangements_of_the_square_are_different():
    x = torch.randn(1, 1, 4, 4)
    seen = {tuple(autoencoder.dihedral(x, index).flatten().tolist()) for index in range(8)}
    assert len(seen) == 8


def test_captions_fit_the_tokenizer_and_unknown_words_are_marked():
    tokenizer = build_tokenizer(["a", "fox"])
    ids = tokenizer(["a fox", "a zyx"], padding="max_length", truncation=True).input_ids
    assert [len(row) for row in ids] == [MAX_TOKENS, MAX_TOKENS]
    assert ids[0][:4] == [1, 4, 5, 3]
    assert ids[1][2] == tokenizer.unk_token_id


def test_a_sharp_right_answer_ranks_first_and_a_tie_does_not_lose():
    similarities = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.4, 0.3]])
    assert scorer.ranked_right(similarities, torch.tensor([0, 1])) == (0.5, 1.0)


@needs_font
@pytest.mark.slow
def test_a_few_steps_of_all_three_trainings_give_folders_that_load(tmp_path, monkeypatch):
    few = load_things()[:6]
    for module in (autoencoder, denoiser, scorer):
        monkeypatch.setattr(module, "load_things", lambda: few)
    monkeypatch.setattr(autoencoder, "every_thing", lambda: few)
    schedule = Schedule(steps=3, lr=1e-3)
    vae = autoencoder.train(schedule, tmp_path / "ae", batch=2)
    nets, tokenizer = denoiser.train(
        vae, schedule, tmp_path / "den", batch=4, per_thing=2, channels=(16, 16, 32), text_width=16
    )
    export_pipeline(vae, nets, tokenizer, tmp_path / "emoji")
    vae = vae.float()
    code_before = vae.quant_conv.weight.clone()
    out_before = vae.decoder.conv_out.weight.clone()
    vae = autoencoder.refine_decoder(vae, schedule, tmp_path / "dec", batch=2)
    assert torch.equal(vae.quant_conv.weight, code_before)
    assert not torch.equal(vae.decoder.conv_out.weight, out_before)
    export_scorer(*scorer.train(schedule, tmp_path / "clip", batch=4, per_thing=2), tmp_path / "out")
    stock = StableDiffusionPipeline.from_pretrained(tmp_path / "emoji")
    assert stock.tokenizer(few[0].name).input_ids[-1] == stock.tokenizer.eos_token_id
    network = load_stable_diffusion("x", tmp_path / "emoji", CPU, torch.float32)
    assert network.preview(torch.zeros(1, 8, 16, 16)).shape == (1, 3, 64, 64)
    clip = load_clip("x", tmp_path / "out", CPU)
    assert clip.similarities(torch.zeros(2, 3, 64, 64), ["a fox"]).shape == (2, 1)


@needs_font
def test_cached_latents_have_unit_variance_and_keep_their_labels(emoji):
    data = denoiser.cache_latents(emoji.vae, load_things()[:40], per_thing=1, seed=0)
    assert data.codes.shape == (40, emoji.channels, 16, 16)
    assert data.thing.tolist() == list(range(40))
    assert 0.8 < data.codes.std().item() < 1.2
    assert np.all(data.colour.numpy() < 12)


def test_balancing_changes_the_codes_and_not_the_pictures():
    torch.manual_seed(0)
    vae = autoencoder.build().eval()
    pictures = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        before = vae.decode(vae.encode(autoencoder.to_signed(pictures)).latent_dist.mean).sample
        autoencoder.balance(vae, pictures)
        codes = vae.encode(autoencoder.to_signed(pictures)).latent_dist.mean
        torch.testing.assert_close(vae.decode(codes).sample, before, atol=1e-4, rtol=1e-4)
    assert codes.var((0, 2, 3)).mean().item() == pytest.approx(1, abs=1e-3)
    assert codes.mean((0, 2, 3)).abs().max() < 1e-4


def test_a_widened_autoencoder_keeps_its_old_codes():
    torch.manual_seed(0)
    narrow = autoencoder.build(latent_channels=4)
    wide = autoencoder.widened(narrow, 8)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        old, new = narrow.encode(x).latent_dist, wide.encode(x).latent_dist
    torch.testing.assert_close(new.mean[:, :4], old.mean)
    torch.testing.assert_close(new.logvar[:, :4], old.logvar)
