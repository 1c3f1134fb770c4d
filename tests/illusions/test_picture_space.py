"""Views that act on decoded pictures: what they keep, what they cost, and when they are chosen."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from studio import illusions, passes
from studio.devices import seeded_noise
from studio.errors import Cancelled, ViewError
from studio.illusions.picture_space import InPictures, tracks
from studio.illusions.preflight import evaluations
from studio.illusions.reductions import ENTRIES
from studio.illusions.request import IllusionRequest
from studio.illusions.spaces import FINEST, choose, pixel_by_pixel
from studio.models.loading import load_pipeline
from studio.sampling import FLOW_SCHEDULERS, Route, Term, Upright, build_scheduler, denoise, guidance
from studio.views.admission import Headroom
from studio.views.specs import VIEWS
from studio.views.view import build
from tests.tiny import save_tiny_sd3

CPU = torch.device("cpu")
FAMILIES = ("tiny_pipeline", "tiny_sdxl", "sd3")
CARRIED, LOST = Headroom(0.1, 0.1, 1.0, 1.0), Headroom(0.9, 0.1, 1.0, 1.0)


@pytest.fixture(scope="module")
def sd3(tmp_path_factory):
    return save_tiny_sd3(tmp_path_factory.mktemp("tiny") / "sd3", with_t5=False)


@pytest.fixture(params=FAMILIES)
def folder(request):
    return request.getfixturevalue(request.param)


def load(folder):
    return load_pipeline("tiny", folder, CPU, torch.float32)


def wanted(folder, **changes):
    settings = {"model": str(folder), "steps": 5, "prompts": ("a fox", "a penguin"), "space": "picture"}
    return IllusionRequest(**settings | {"views": ("identity", "negate")} | changes)


def guider(network, views, prompts, reduction="mean", scale=4.0):
    views = [build(view, 32) for view in views]
    by_view = [guidance(prompt, "", scale, 1.0, track) for prompt, track in zip(prompts, tracks(views), strict=True)]
    return InPictures(network, views, by_view, ENTRIES[reduction])


def run(network, guider, scheduler="ddim", steps=4, travel=passes.NOWHERE):
    built = build_scheduler(scheduler, network.scheduler_config, steps, CPU)
    return denoise(network, built, guider, guider.noise_of(3, 16), route=Route(travel=travel))


@pytest.mark.parametrize("scheduler", sorted(FLOW_SCHEDULERS))
def test_identity_views_draw_what_plain_sampling_draws(folder, scheduler):
    """The residual carries what a random autoencoder loses, which is nearly everything."""
    network = load(folder)
    noise = seeded_noise((1, network.channels, 16, 16), 3, CPU)
    terms = guidance("a fox", "", 4.0, 1.0, Upright())
    built = build_scheduler(scheduler, network.scheduler_config, 4, CPU)
    plain = denoise(network, built, lambda step, sigma: terms, noise)
    alike = guider(network, ("identity", "identity"), ("a fox", "a fox"))
    found = run(network, alike, scheduler)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(alike.finished(found), network.decode(plain)[0], atol=1e-4, rtol=1e-4)
    assert (found - noise).abs().max() > 0.1


@pytest.mark.parametrize("scheduler", sorted(FLOW_SCHEDULERS))
def test_every_family_draws_views_that_its_codes_lose(folder, scheduler, models):
    steps = []
    request = wanted(folder, scheduler=scheduler, candidates=2)
    result = illusions.run(request, models, on_step=lambda step: steps.append(step) if step.pictures else None)
    upright, negative = (np.asarray(view).astype(int) for view in result.candidates[0].views)
    assert np.abs(255 - upright - negative).max() <= 1
    made = passes.IN_PICTURES.passes(5)
    assert result.evaluations == evaluations(request) == 2 * 2 * made * 2
    assert [(step.index, step.total) for step in steps] == [(i + 1, 2 * made) for i in range(2 * made)]
    assert steps[-1].evaluations == result.evaluations
    first, second = (np.asarray(picture).astype(int) for picture in steps[-1].pictures())
    assert first.shape == (32, 32, 3)
    assert np.abs(255 - first - second).max() <= 1


def test_codings_and_passes_are_in_the_notes(tiny_pipeline, models):
    request = wanted(tiny_pipeline, views=("identity", "rotate_180"))
    notes = illusions.run(request, models).notes
    assert notes[0] == "The views act on decoded pictures, as space=picture asks."
    made = passes.IN_PICTURES.passes(5)
    # Each view's estimate is decoded, and it and the joined picture are encoded; both are decoded in the end.
    said = f"5 steps took {made} passes of the network, {2 * made + 2} decodings and {4 * made} encodings of pictures"
    assert said in notes[-1]


def test_codes_that_carry_all_views_are_used(tiny_pipeline, models):
    with models.lease(str(tiny_pipeline)) as network:
        network.headrooms["rotate_180 16"] = CARRIED
    request = wanted(tiny_pipeline, views=("identity", "rotate_180"), space="auto")
    found = illusions.run(request, models)
    assert found.notes[0] == "The views act on this model's codes, which carry them."
    assert "Half turn" in found.notes[1]
    assert found.evaluations == 2 * 2 * 5
    told = illusions.run(request.model_copy(update={"space": "latent"}), models)
    assert np.array_equal(np.asarray(told.candidates[0].image), np.asarray(found.candidates[0].image))


def test_one_view_that_codes_lose_sends_all_of_them_to_pictures(tiny_pipeline):
    network = load(tiny_pipeline)
    network.headrooms |= {"rotate_180 16": CARRIED, "negate 16": LOST}
    chosen = choose("auto", ("identity", "rotate_180", "negate"), network, 16)
    assert chosen.in_pictures
    assert chosen.notes[0].endswith("since this model's codes cannot carry Negative.")
    assert "89% lost, 25% allowed" in chosen.notes[2]
    assert [(view.cells, view.cell) for view in chosen.views] == [(32, 1)] * 3


def test_codes_that_lose_a_view_are_refused_with_the_figures_and_the_way_out(tiny_pipeline):
    network = load(tiny_pipeline)
    network.headrooms["negate 16"] = LOST
    with pytest.raises(ViewError, match=r"cannot carry negate: .* 0\.900, .*89% lost.*choose space=picture"):
        choose("latent", ("identity", "negate"), network, 16)


@pytest.mark.parametrize(("size", "grid"), [(32, (32, 1)), (512, (256, 2)), (1024, (256, 4)), (520, (130, 4))])
def test_views_of_large_pictures_have_cells_of_several_pixels(tiny_pipeline, size, grid):
    (view,) = choose("picture", ("inner_circle",), load(tiny_pipeline), size // 2).views
    assert (view.cells, view.cell) == grid
    assert view.cells <= FINEST


@pytest.mark.parametrize("entry", VIEWS, ids=lambda entry: entry.name)
def test_pixel_by_pixel_a_view_shows_what_a_viewer_sees_and_takes_it_back(entry):
    view = build(entry.name, 16, 4)
    pixels, x = pixel_by_pixel(view), seeded_noise((2, 3, 64, 64), 1, CPU)
    if entry.kind == "orthogonal":
        assert torch.equal(pixels.show(x), view.picture(x))
        assert torch.equal(pixels.bring_back(pixels.show(x)), x)
    else:
        family = [pixel_by_pixel(build(name, 16, 4)) for name in entry.family]
        torch.testing.assert_close(sum(part.bring_back(part.show(x)) for part in family), x)


def test_parts_of_a_picture_share_its_codes_and_their_rows(tiny_pipeline, models):
    request = wanted(tiny_pipeline, views=("grayscale", "colour"))
    found = illusions.run(request, models)
    assert found.evaluations == evaluations(request) == 3 * passes.IN_PICTURES.passes(5)
    gray, colour = (np.asarray(view).astype(int) for view in found.candidates[0].views)
    assert np.array_equal(gray[..., 0], gray[..., 1])
    assert np.abs(colour.mean(-1) - gray[..., 0]).max() <= 1


def test_equal_parts_draw_what_plain_sampling_draws(tiny_pipeline):
    network = load(tiny_pipeline)
    parts = run(network, guider(network, ("low_pass", "high_pass"), ("a fox", "a fox"), "sum"))
    plain = run(network, guider(network, ("identity",), ("a fox",)))
    torch.testing.assert_close(parts, plain, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "weights", "rows"),
    [
        ({"reduction": "alternate"}, None, 2),
        ({"reduction": "weighted", "weights": (1, 3)}, (0.25, 0.75), 4),
        ({"reduction": "weighted"}, "measured", 4),
        ({"reduction": "rectified"}, (0.5, 0.5), 4),
        ({"reduction": "weighted_rectified"}, "measured", 4),
    ],
)
def test_every_reduction_joins_pictures(tiny_pipeline, models, changes, weights, rows):
    request = wanted(tiny_pipeline, **changes)
    found = illusions.run(request, models)
    assert found.evaluations == evaluations(request) == rows * passes.IN_PICTURES.passes(5)
    own = found.candidates[0].weights
    assert own == pytest.approx(weights) if weights != "measured" else sum(own) == pytest.approx(1)
    shift = found.candidates[0].failures[1]
    if "rectified" in changes["reduction"]:
        assert shift.measured["kept"] == pytest.approx(1)


def test_the_view_whose_turn_it_is_counts_alone(tiny_pipeline):
    turns = guider(load(tiny_pipeline), ("identity", "negate"), ("a fox", "a fox"), "alternate")
    picture = seeded_noise((1, 3, 32, 32), 2, CPU).clamp(-1, 1)
    assert torch.equal(turns._joined({1: picture}), -picture)


def test_joined_pictures_are_weighted_means_of_views_brought_back(tiny_pipeline):
    joint = guider(load(tiny_pipeline), ("identity", "negate"), ("a fox", "a fox"))
    joint.weights = (0.75, 0.25)
    one, other = (seeded_noise((1, 3, 32, 32), seed, CPU) / 8 for seed in (1, 2))
    torch.testing.assert_close(joint._joined({0: one, 1: other}), 0.75 * one - 0.25 * other)


def test_a_cancel_stops_between_passes_of_one_step(tiny_pipeline, models):
    seen = []

    def stop(step):
        seen.append(step.index)
        if step.index == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        illusions.run(wanted(tiny_pipeline), models, on_step=stop)
    assert seen[-3:] == [1, 2, 3]


def test_the_same_seed_gives_the_same_picture_alone_and_among_candidates(tiny_pipeline, models):
    many = illusions.run(wanted(tiny_pipeline, candidates=2, seed=7), models).candidates
    last = next(candidate for candidate in many if candidate.seed == 8)
    alone = illusions.run(wanted(tiny_pipeline, seed=8), models).candidates[0]
    assert np.array_equal(np.asarray(alone.image), np.asarray(last.image))


def test_tracks_take_their_own_codes_and_put_them_back():
    views = [build(name, 8) for name in ("identity", "negate", "identity")]
    first, second, third = tracks(views)
    assert (first, third.index, second.index, second.count) == (third, 0, 1, 2)
    x = seeded_noise((2, 4, 8, 8), 0, CPU)
    assert torch.equal(second.show(x), x[1:])
    assert torch.equal(first.bring_back(first.show(x)) + second.bring_back(second.show(x)), x)


def test_the_built_in_model_draws_negatives(models):
    found = illusions.run(IllusionRequest(steps=2, views=("identity", "negate")), models)
    assert re.match("The views act on decoded pictures, since .* cannot carry Negative", found.notes[0])
    upright, negative = (np.asarray(view).astype(int) for view in found.candidates[0].views)
    assert np.abs(255 - upright - negative).max() <= 1


@pytest.mark.parametrize(
    ("space", "views", "expected"),
    [
        ("latent", ("identity", "negate"), 10),
        ("auto", ("identity", "rotate_180"), 10),
        ("auto", ("identity", "rotate_180+negate"), 10 + 6 * (passes.IN_PICTURES.repeats - 1)),
        ("picture", ("identity", "rotate_180"), 10 + 6 * (passes.IN_PICTURES.repeats - 1)),
    ],
)
def test_passes_are_foreseen_from_the_words(space, views, expected):
    assert passes.expected(space, views).passes(10) == expected
    request = IllusionRequest(space=space, views=views, steps=10, candidates=3)
    assert evaluations(request) == expected * 4 * 3


def test_every_track_starts_from_noise_of_its_own_and_the_first_one_as_on_codes(tiny_pipeline):
    joint = guider(load(tiny_pipeline), ("identity", "negate", "rotate_90"), ("a fox",) * 3)
    first, *others = joint.noise_of(3, 64).flatten(1)
    assert torch.equal(first, seeded_noise((1, 4, 64, 64), 3, CPU).flatten())
    assert torch.corrcoef(torch.stack([first, *others])).triu(1).abs().max() < 0.05


def test_terms_of_tracks_name_their_views_in_their_rows():
    track = tracks([build("rotate_180", 8)])[0]
    assert Term(1.0, "a fox", track).row == ("rotate_180", "a fox", ())
