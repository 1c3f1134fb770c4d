"""Ink drawings: the image processing by hand, the fine-tuning at a small size, and the folder that ships."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from studio.builtin import denoiser, ink, measure_ink
from studio.builtin.export import ABOUT_INK, export_restyled
from studio.builtin.loop import Schedule
from studio.builtin.world import COLOURS, FONT, SIZE, Thing, load_things
from studio.builtin.world import render as render_emoji

needs_font = pytest.mark.skipif(not FONT.exists(), reason="fonts-noto-color-emoji is not installed")
FOX, SNOWMAN = Thing("🦊", "fox"), Thing("⛄", "snowman")
UNET = "unet/diffusion_pytorch_model.safetensors"


def square(grey: float, side: int = 64) -> np.ndarray:
    """A grey square of half the side in the middle of nothing, premultiplied RGBa."""
    drawn = np.zeros((side, side, 4), np.float32)
    drawn[side // 4 : -side // 4, side // 4 : -side // 4] = (grey, grey, grey, 1)
    return drawn


def rendered(thing: Thing, colour: str | None = None, seed: int = 0) -> np.ndarray:
    return np.asarray(ink.render(thing, np.random.default_rng(seed), colour))


@pytest.mark.parametrize(("value", "expected"), [(1, 0), (2, 0), (2.5, 0.15625), (3, 0.5), (4, 1), (9, 1)])
def test_a_smooth_step_is_a_cubic_between_its_ends(value, expected):
    assert ink.smooth_step(np.array(value), 2, 4) == pytest.approx(expected)
    assert ink.smooth_step(np.array(value), 4, 2) == pytest.approx(1 - expected)


def test_a_blur_keeps_even_areas_and_the_sum_of_a_point():
    assert ink.blurred(np.full((9, 7, 2), 0.3), 1.5) == pytest.approx(0.3)
    point = np.zeros((41, 41))
    point[20, 20] = 1
    spread = ink.blurred(point, 2.0)
    assert spread.sum() == pytest.approx(1)
    # exp(-1/8) of the middle one pixel away, for sigma 2.
    assert spread[20, 21] / spread[20, 20] == pytest.approx(np.exp(-1 / 8))


@pytest.mark.parametrize("kind", [ink.OUTLINE, ink.DETAIL])
def test_a_line_runs_along_an_edge_of_enough_contrast_and_nowhere_else(kind):
    edge = np.zeros((40, 40))
    edge[:, 20:] = 1
    drawn = ink.line(edge, kind)
    assert drawn[:, 19:21] == pytest.approx(kind.ink)
    assert not drawn[:, :10].any()
    assert not drawn[:, 30:].any()
    assert np.allclose(drawn, drawn[:, ::-1])
    assert not ink.line(edge * (kind.begins - 0.01), kind).any()


def test_a_line_follows_the_strongest_of_several_channels():
    edges = np.zeros((30, 30, 2))
    edges[:, 15:, 1] = 1
    assert np.array_equal(ink.line(edges, ink.DETAIL), ink.line(edges[..., 1], ink.DETAIL))


@pytest.mark.parametrize(
    ("grey", "expected"),
    [(1.0, 0), (0.83, 0), (0.67, 0.16), (0.49, 0.16 + 0.17), (0.35, 0.16 + 0.17 + 0.20), (0.2, 1), (0.0, 1)],
)
def test_an_area_holds_the_ink_of_its_tone(grey, expected):
    assert ink.density(square(grey))[32, 32] == pytest.approx(expected, abs=1e-5)


def test_nothing_drawn_is_bare_paper_and_white_things_have_outlines_only():
    assert not ink.density(np.zeros((32, 32, 4), np.float32)).any()
    white = ink.density(square(1.0))
    assert white[32, 32] == white[2, 2] == 0
    assert white[32, 15] == pytest.approx(1)


@pytest.mark.parametrize("turn", [lambda x: x[:, ::-1], lambda x: x[::-1], lambda x: np.swapaxes(x, 0, 1)])
def test_ink_of_a_mirrored_drawing_is_the_mirrored_ink(turn):
    drawn = np.random.default_rng(0).random((48, 48, 4), np.float32)
    drawn[..., :3] *= drawn[..., 3:]
    assert ink.density(turn(drawn)) == pytest.approx(turn(ink.density(drawn)), abs=1e-4)


def test_density_runs_from_paper_to_ink_and_back():
    half = [round((p + i) / 2) for p, i in zip(ink.PAPER, ink.INK, strict=True)]
    picture = np.asarray(ink.on_paper(np.array([[0.0, 0.5, 1.0]], np.float32)))
    assert picture[0].tolist() == [list(ink.PAPER), half, list(ink.INK)]
    distance, share = ink.off_ink(picture)
    assert distance.max() < 1
    assert share[0] == pytest.approx([0, 0.5, 1], abs=0.01)


def test_pixels_off_the_mixture_are_as_far_as_they_are():
    grey_off = np.array(ink.PAPER) + 3  # beyond the paper's end of the line
    distance, share = ink.off_ink(np.array([grey_off, COLOURS["red"]], np.float32))
    assert distance[0] == pytest.approx(3)
    assert share[0] == 0
    assert distance[1] > 2 * measure_ink.NEAR


def test_a_named_ground_only_tints_the_paper():
    teal = [0.75 * p + 0.25 * c for p, c in zip(ink.PAPER, COLOURS["teal"], strict=True)]
    assert ink.paper("teal") == pytest.approx(teal)
    assert ink.paper() == pytest.approx(ink.PAPER)


@needs_font
def test_a_drawing_is_ink_on_paper_and_its_emoji_is_not():
    for thing in (FOX, SNOWMAN):
        pictures = (rendered(thing), np.asarray(render_emoji(thing, np.random.default_rng(0), "blue")))
        drawn, coloured = (
            measure_ink.likeness(torch.from_numpy(p.copy()).permute(2, 0, 1)[None] / 127.5 - 1) for p in pictures
        )
        assert drawn.mixture == drawn.pictures == 1
        assert drawn.bare > 0.4
        assert 0.03 < drawn.full < 0.3
        assert coloured.mixture < 0.7
        assert coloured.pictures == 0


@needs_font
def test_shapes_tell_the_things_apart_and_noise_matches_nothing():
    rng, things = np.random.default_rng(3), load_things()[:40]
    drawn = np.stack([np.asarray(ink.render(thing, rng, wobble=denoiser.TIGHT)) for thing in things])
    signed = torch.from_numpy(drawn).permute(0, 3, 1, 2) / 127.5 - 1
    assert measure_ink.matched(signed, torch.arange(40)) == (1, 1)
    assert measure_ink.matched(signed, torch.arange(40).roll(7))[0] == 0
    noise = torch.rand(40, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert measure_ink.matched(noise, torch.arange(40))[1] < 0.2


@needs_font
def test_a_drawing_is_its_seeds_and_the_ground_changes_the_paper_alone():
    assert np.array_equal(rendered(FOX), rendered(FOX))
    assert not np.array_equal(rendered(FOX), rendered(FOX, seed=1))
    plain, tinted = rendered(FOX), rendered(FOX, "teal")
    assert plain.shape == tinted.shape == (SIZE, SIZE, 3)
    share = ink.off_ink(plain)[1][..., None]
    assert tinted == pytest.approx((1 - share) * ink.paper("teal") + share * np.array(ink.INK), abs=1.5)


@needs_font
def test_captions_name_a_tinted_paper_always_and_plain_paper_never(emoji):
    data = denoiser.cache_latents(emoji.vae, load_things()[:30], per_thing=2, seed=0, style=ink.STYLE)
    assert 0.4 < (data.colour == -1).float().mean() < 0.8
    loss = denoiser.Loss(torch.nn.ModuleDict(), TextList(), data, 8, seed=1, said=ink.STYLE.said)
    rows = torch.arange(len(data.colour))
    for text, colour in zip(loss._tokens(rows, 0), data.colour.tolist(), strict=True):
        words = text.replace(",", " ").split()
        if colour == -1:
            assert not {"on", "background"} & set(words)
        else:
            assert not words or list(COLOURS)[colour] in words[1:]


class TextList:
    """Stands where a tokenizer does, and keeps the texts."""

    def __call__(self, texts, **_):
        self.input_ids = texts
        return self


@needs_font
def test_fine_tuning_moves_the_denoiser_alone_and_its_folder_loads(assets, tmp_path, monkeypatch):
    few = load_things()[:6]
    monkeypatch.setattr(denoiser, "load_things", lambda: few)
    source = assets / "models" / "emoji"
    schedule = Schedule(steps=2, lr=1e-3)
    unet = denoiser.restyle(source, ink.STYLE, schedule, tmp_path / "work", batch=4, per_thing=1)
    export_restyled(unet, source, tmp_path / "ink", ABOUT_INK)
    assert_only_the_denoiser_differs(source, tmp_path / "ink")
    StableDiffusionPipeline.from_pretrained(tmp_path / "ink")


def assert_only_the_denoiser_differs(emoji, folder):
    own = {"README.md", "sheet.png", "about.json", UNET}
    names = {path.relative_to(emoji).as_posix() for path in emoji.rglob("*") if path.is_file()} - own
    assert names | own >= {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in names:
        assert (folder / name).read_bytes() == (emoji / name).read_bytes(), name
        assert not (folder / name).is_symlink()
    before, after = load_file(emoji / UNET), load_file(folder / UNET)
    assert {k: (v.shape, v.dtype) for k, v in before.items()} == {k: (v.shape, v.dtype) for k, v in after.items()}
    assert any(not torch.equal(before[key], after[key]) for key in before)


def test_what_ships_differs_from_emoji_in_the_denoiser_only_and_is_small(assets):
    folder = assets / "models" / "ink"
    assert_only_the_denoiser_differs(assets / "models" / "emoji", folder)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 40e6


def test_stock_diffusers_draws_ink_with_what_ships(assets):
    pipeline = StableDiffusionPipeline.from_pretrained(assets / "models" / "ink", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(1)
    picture = pipeline("a fox", num_inference_steps=8, guidance_scale=4.0, generator=rng, output_type="pt").images
    found = measure_ink.likeness(picture * 2 - 1)
    assert found.mixture > 0.8
    assert found.bare > 0.3
    assert found.full > 0.02
