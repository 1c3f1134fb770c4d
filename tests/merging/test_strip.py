"""A merge drawn beside its checkpoints: the pictures that the saved merge draws, and nothing written but them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from studio import illusions, merging, runs
from studio.errors import Cancelled, ModelFileError, UnknownNameError
from studio.illusions.request import IllusionRequest
from studio.imaging import read_recipe
from studio.merging import strip, trials_preflight
from studio.merging.request import MergeRequest
from studio.merging.trials_request import StripRequest
from studio.models.store import ModelStore
from studio.requests import parse
from tests import single_files
from tests.tiny import save_tiny_pipeline

SMALL = {"steps": 2, "seed": 5, "prompts": ("a fox",)}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two diffusers folders of one architecture."""
    root = tmp_path_factory.mktemp("pair")
    return tuple(str(save_tiny_pipeline(root / name, "epsilon", seed)) for seed, name in enumerate("ab"))


@pytest.fixture(scope="module")
def tiny(assets, tmp_path_factory):
    """A store whose single files are tiny ones."""
    return ModelStore(single_files.small_assets(assets, tmp_path_factory.mktemp("assets")), device="cpu")


def strip_of(store, **settings):
    return strip.run(StripRequest(**SMALL | settings), store)


def pixels(picture):
    return picture.size, picture.tobytes()


def merged(result, index=0):
    """The pictures of one of the merges, one for each prompt."""
    return [pixels(picture) for picture in [c for c in result.columns if c.letter == "merge"][index].pictures]


def drawn_by_saved(store, folder, merge, **settings):
    """What the saved merge draws: as a checkpoint of another strip, and by the engine for illusions alone."""
    summary = runs.keep(folder, merging.run(MergeRequest(**{"title": "m"} | merge), store))
    name = str(folder / summary["output"])
    pictures = [
        pixels(picture) for picture in strip_of(store, merge={"models": (name, name)}, **settings).columns[0].pictures
    ]
    wanted = SMALL | settings
    alone = IllusionRequest(
        model=name, views=("identity",), prompts=wanted["prompts"][:1], steps=wanted["steps"], seed=wanted["seed"]
    )
    assert pixels(illusions.run(alone, store).candidates[0].image) == pictures[0]
    return pictures


def test_a_folder_pair_previews_exactly_what_the_saved_folder_draws(models, pair, tmp_path):
    prompts = ("a fox", "a red penguin")
    result = strip_of(models, merge={"models": pair}, alphas=(0.7, 0.2), prompts=prompts)
    for index, alpha in enumerate((0.2, 0.7)):
        saved = drawn_by_saved(models, tmp_path / str(index), {"models": pair, "alpha": alpha}, prompts=prompts)
        assert merged(result, index) == saved
    assert merged(result, 0) != merged(result, 1)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("sd1", torch.float16),
        pytest.param("sd1", torch.float32, marks=pytest.mark.slow),
        pytest.param("sdxl", torch.float16, marks=pytest.mark.slow),
    ],
)
def test_a_pair_of_files_previews_exactly_what_the_saved_file_draws(tiny, tmp_path, family, dtype):
    files = []
    for seed, name in enumerate("ab"):
        tensors = single_files.renamed(family, single_files.build(family, tiny.assets, seed))
        files.append(str(single_files.save(tmp_path / f"{name}.safetensors", tensors, dtype)))
    merge = {"models": tuple(files), "alpha": 0.4}
    result = strip_of(tiny, merge=merge, scorer="")
    assert merged(result) == drawn_by_saved(tiny, tmp_path / "out", merge, scorer="")


def test_a_baked_lora_previews_exactly_what_the_saved_folder_draws(models, pair, tmp_path):
    stem = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    lora = {f"{stem}.lora_down.weight": torch.randn(2, 16), f"{stem}.lora_up.weight": torch.randn(16, 2)}
    save_file(lora, tmp_path / "l.safetensors")
    merge = {"task": "bake", "models": pair[:1], "adapters": (str(tmp_path / "l.safetensors"),), "weights": (2.0,)}
    as_asked = strip_of(models, merge=merge)
    assert [column.letter for column in as_asked.columns] == ["a", "merge"]
    assert merged(as_asked) == drawn_by_saved(models, tmp_path / "out", merge)
    halves = strip_of(models, merge=merge, alphas=(0.0, 0.5, 1.0))
    assert merged(halves, 0) == [pixels(picture) for picture in halves.columns[0].pictures]
    assert merged(halves, 1) == merged(strip_of(models, merge=merge | {"weights": (1.0,)}))
    assert merged(halves, 2) == merged(as_asked)


def test_the_ends_of_alpha_are_the_checkpoints_themselves(models, pair):
    result = strip_of(models, merge={"models": pair, "parts": {"vae": "merge"}}, alphas=(0, 1))
    a, b = ([pixels(picture) for picture in column.pictures] for column in result.columns[:2])
    assert (merged(result, 0), merged(result, 1)) == (a, b)
    assert a != b


def test_the_summary_names_every_picture_and_the_strip_shows_them_between_a_and_b(models, pair, tmp_path):
    result = strip_of(models, merge={"models": pair}, alphas=(0.75, 0.25), prompts=("a fox", "a penguin"))
    summary = runs.keep(tmp_path / "out", result)
    shown = [(entry["model"], entry["alpha"], entry["prompt"], entry["image"]) for entry in summary["pictures"]]
    assert shown == [
        *(("a", None, i, f"a-{i}.png") for i in range(2)),
        *(("b", None, i, f"b-{i}.png") for i in range(2)),
        *(("merge", 0.25, i, f"merge-0-{i}.png") for i in range(2)),
        *(("merge", 0.75, i, f"merge-1-{i}.png") for i in range(2)),
    ]
    assert all(-1 <= entry["score"] <= 1 for entry in summary["pictures"])
    assert (summary["model"], summary["alphas"], summary["seed"]) == (pair[0], [0.25, 0.75], 5)
    assert (summary["scorer"], summary["prompts"]) == ("builtin:clip", ["a fox", "a penguin"])
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"result.json", "strip.png", *(entry["image"] for entry in summary["pictures"])}
    strip_picture = Image.open(tmp_path / "out" / "strip.png")
    assert strip_picture.size == (4 * 32 + 3 * 8, 2 * 32 + 8 + 22)
    for column, name in enumerate(("a-1.png", "merge-0-1.png", "merge-1-1.png", "b-1.png")):
        place = (column * 40, 22 + 40, column * 40 + 32, 22 + 72)
        assert strip_picture.crop(place).tobytes() == Image.open(tmp_path / "out" / name).tobytes()


def test_a_dropped_picture_draws_itself_again(models, pair, tmp_path):
    settings = {"merge": {"models": pair, "alpha": 0.9}, "alphas": (0.25, 0.75), "prompts": ("a fox", "a penguin")}
    runs.keep(tmp_path / "out", strip_of(models, **settings))
    recipe = read_recipe(tmp_path / "out" / "merge-1-1.png")
    assert recipe["engine"] == "merge-strip"
    request = parse(StripRequest, recipe["request"])
    assert (request.merge.alpha, request.alphas, request.prompts) == (0.75, (), ("a penguin",))
    runs.keep(tmp_path / "again", strip.run(request, models))
    again = (tmp_path / "again" / "merge-0-0.png").read_bytes()
    assert again == (tmp_path / "out" / "merge-1-1.png").read_bytes()
    whole = parse(StripRequest, read_recipe(tmp_path / "out" / "strip.png")["request"])
    assert whole == StripRequest(**SMALL | settings)


@pytest.mark.parametrize(
    ("settings", "cost"),
    [
        ({}, 2 * 2 * 3),
        ({"prompts": ("a fox", "a penguin"), "alphas": (0.1, 0.2)}, 2 * 2 * 4 * 2),
        ({"guidance_scale": 1.0}, 2 * 3),
        ({"guidance_scale": 0.0}, 2 * 3),
        ({"negative_prompt": "a fox"}, 2 * 3),
        ({"alphas": (0.1, 0.1)}, 2 * 2 * 3),
    ],
)
def test_the_cost_is_known_before(models, pair, settings, cost):
    request = StripRequest(**SMALL | {"merge": {"models": pair}, "scorer": ""} | settings)
    assert trials_preflight.evaluations(request) == strip.run(request, models).evaluations == cost


def test_a_checkpoint_that_stands_twice_is_drawn_once(models, pair):
    result = strip_of(models, merge={"models": (pair[0], pair[0])})
    assert [column.letter for column in result.columns] == ["a", "b", "merge"]
    assert result.evaluations == trials_preflight.evaluations(result.request) == 2 * 2 * 2


def test_steps_are_counted_over_all_pictures_and_show_what_forms(models, pair):
    steps = []
    strip.run(StripRequest(**SMALL, merge={"models": pair}, alphas=(0.5, 0.6)), models, on_step=steps.append)
    drawing = [step for step in steps if step.pictures]
    assert [(step.index, step.total) for step in drawing] == [(i, 8) for i in range(1, 9)]
    assert [step.evaluations for step in drawing] == [2 * i for i in range(1, 9)]
    assert [step.labels for step in drawing[::2]] == [
        ("a fox, A",),
        ("a fox, B",),
        ("a fox, alpha 0.5",),
        ("a fox, alpha 0.6",),
    ]
    assert all(step.pictures()[0].size == (16, 16) for step in drawing)
    assert all(one.index <= other.index for one, other in pairwise(steps))
    assert "Merging, alpha 0.5" in [step.note for step in steps]


@pytest.mark.parametrize("stop", [Cancelled, RuntimeError])
def test_a_stop_or_an_error_while_the_merge_draws_leaves_a_as_it_was(models, pair, stop):
    before = strip_of(models, merge={"models": pair})

    def on_step(step):
        if step.labels == ("a fox, alpha 0.5",):
            raise stop

    with pytest.raises(stop):
        strip.run(StripRequest(**SMALL, merge={"models": pair}), models, on_step=on_step)
    after = strip_of(models, merge={"models": pair})
    assert [pixels(column.pictures[0]) for column in after.columns] == [
        pixels(column.pictures[0]) for column in before.columns
    ]


def test_a_checkpoint_that_is_no_model_by_itself_is_left_out_and_that_is_said(tiny, tmp_path):
    a, b = (
        single_files.save(
            tmp_path / f"{name}.safetensors", single_files.renamed("sd1", single_files.build("sd1", tiny.assets, seed))
        )
        for seed, name in enumerate("ab")
    )
    single_files.save(b, {key: value for key, value in load_file(b).items() if not key.startswith("first_stage")})
    result = strip_of(tiny, merge={"models": (str(a), str(b))}, scorer="")
    assert [column.letter for column in result.columns] == ["a", "merge"]
    assert any(note.startswith("B is not drawn by itself: b.safetensors has no autoencoder") for note in result.notes)


def test_what_does_not_fit_is_named_with_its_place_in_the_request(models, pair, tmp_path):
    with pytest.raises(ModelFileError) as refused:
        strip_of(models, merge={"models": (pair[0], "builtin:emoji")})
    assert refused.value.field == "merge.models.1"
    with pytest.raises(UnknownNameError, match="builtin:klip"):
        strip_of(models, merge={"models": pair}, scorer="builtin:klip")
