"""The LoRAs that ship: they fit the built-in model, name what made them, and change what it draws as they say."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open

from studio.devices import seeded_noise
from studio.models import wearing
from studio.models.refs import list_loras, resolve_lora
from studio.requests import parse
from studio.sampling import Term, Upright, build_scheduler, denoise
from studio.training.request import TrainRequest

NAMES = ("mascot", "pixel")


def test_they_are_offered_by_name_before_all_others(assets, tmp_path):
    assert list_loras(assets) == tuple(f"builtin:{name}" for name in NAMES)
    for name in NAMES:
        assert resolve_lora(f"builtin:{name}", assets, tmp_path) == assets / "loras" / name / f"{name}.safetensors"


@pytest.mark.parametrize("name", NAMES)
def test_each_fits_both_built_in_models_is_small_and_has_a_card(assets, name):
    for model in ("builtin:emoji", "builtin:ink"):
        wearing.check({"it": f"builtin:{name}"}, model, assets, None)
    folder = assets / "loras" / name
    assert (folder / f"{name}.safetensors").stat().st_size < 3_000_000
    assert f"# builtin:{name}" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_the_header_holds_the_request_that_trains_it_again(assets, name):
    with safe_open(assets / "loras" / name / f"{name}.safetensors", "pt") as file:
        request = parse(TrainRequest, json.loads(file.metadata()["duckrabbit"])["request"])
    assert (request.model, request.data, request.title) == ("builtin:emoji", f"builtin:{name}", name)


def cells_apart(pixels):
    """The share of a picture's variance that lies between its cells of 8 x 8 pixels: 1 for pixel art."""
    grey = pixels.mean(0)
    cells = grey.unfold(0, 8, 8).unfold(1, 8, 8)
    return (cells.mean((-1, -2)).var(correction=0) / grey.var(correction=0)).item()


def test_with_pixel_pictures_lie_in_cells_as_they_do_not_without(assets, models):
    files = wearing.files({"pixel": "builtin:pixel"}, assets, None)

    def drawn(network, prompt, scale):
        scheduler = build_scheduler("ddim", network.scheduler_config, 12, network.device)
        worn = (("pixel", scale),) if scale else ()
        terms = [Term(-4.0, "", Upright(), worn), Term(5.0, prompt, Upright(), worn)]
        noise = seeded_noise((1, network.channels, 16, 16), 3, network.device)
        with torch.inference_mode():
            return network.decode(denoise(network, scheduler, lambda step, sigma: terms, noise))[0]

    with models.lease("builtin:emoji") as network, models.adapters(network, files):
        for prompt in ("a cat on a yellow background", "an umbrella on a green background"):
            assert cells_apart(drawn(network, prompt, 1.0)) > cells_apart(drawn(network, prompt, 0.0)) + 0.02, prompt


def test_no_config_that_ships_names_a_place_of_the_machine_that_made_it(assets):
    configs = [path for path in (assets / "models").glob("**/*.json") if path.name != "tokenizer.json"]
    assert configs
    assert not [str(path) for path in configs if "_name_or_path" in path.read_text(encoding="utf-8")]
