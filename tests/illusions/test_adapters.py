"""Adapters in the illusion engine: what each view wears, what is refused, and that nothing of it stays behind."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from studio import illusions
from studio.errors import Cancelled, ModelFileError, PolicyError, StudioError, UnknownNameError
from studio.illusions import preflight
from studio.illusions.adapters import worn
from studio.illusions.drawing import view_terms
from studio.illusions.request import IllusionRequest
from studio.models.lora_files import match, read_lora, shapes_in
from studio.models.store import ModelStore
from studio.policy import LOCAL, SHARED, check_illusion
from studio.settings import Settings
from studio.views.admission import Headroom
from studio.views.view import build
from studio.workbench import Workbench
from tests.models.loras import save_random

INK, WASH = {"ink": "loras/ink.safetensors"}, {"wash": "wash.safetensors"}


def request(**changes) -> IllusionRequest:
    return IllusionRequest(**{"steps": 2, "seed": 3, "prompts": ("a fox", "a penguin"), **changes})


def problems(**changes) -> str:
    with pytest.raises(ValidationError) as refused:
        request(**changes)
    return str(refused.value)


@pytest.fixture(scope="module")
def folder(tiny_pipeline, tmp_path_factory):
    """A models folder: the tiny model, and two LoRAs for it in both kinds of names."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_pipeline, root / "tiny")
    (root / "loras").mkdir()
    save_random(root / "loras" / "ink.safetensors", root / "tiny", "diffusers", seed=1)
    save_random(root / "wash.safetensors", root / "tiny", "kohya", seed=2)
    return root


@pytest.fixture(scope="module")
def store(assets, folder):
    store = ModelStore(assets, folder, device="cpu")
    with store.lease("tiny") as network:
        network.headrooms["rotate_180 16"] = Headroom(0.0, 0.0, 1.0, 1.0)  # random codes carry no view
    return store


def drawn(store, **changes):
    return illusions.run(request(model="tiny", **changes), store)


def pixels(result) -> np.ndarray:
    return np.asarray(result.candidates[0].image).astype(int)


# -- what a view wears


@pytest.mark.parametrize(
    ("asked", "wears"),
    [
        ({}, ((), ())),
        ({"adapters": INK | WASH}, ((("ink", 1.0), ("wash", 1.0)),) * 2),
        ({"adapters": INK | WASH, "view_adapters": ({"wash": 0.5, "ink": 0.8},)}, ((("ink", 0.8), ("wash", 0.5)),) * 2),
        ({"adapters": INK | WASH, "view_adapters": ({"ink": 1}, {"wash": -1})}, ((("ink", 1.0),), (("wash", -1.0),))),
        ({"adapters": INK, "view_adapters": ({"ink": 0}, {"ink": 2})}, ((), (("ink", 2.0),))),
    ],
)
def test_a_view_wears_what_is_asked_and_everything_when_nothing_is_said(asked, wears):
    assert worn(request(**asked)) == wears


def test_prompt_and_negative_prompt_of_a_view_wear_its_adapters():
    asked = request(adapters=INK | WASH, view_adapters=({"ink": 0.8}, {"ink": 0.5, "wash": 1}))
    terms = view_terms(asked, [build(spec, 16) for spec in asked.views])
    assert [[term.adapters for term in group] for group in terms] == [
        [(("ink", 0.8),)] * 2,
        [(("ink", 0.5), ("wash", 1.0))] * 2,
    ]
    assert [sum(term.weight for term in group) for group in terms] == [1.0, 1.0]


def test_a_request_with_adapters_survives_json_and_one_from_before_them_still_parses():
    asked = request(adapters=INK, view_adapters=({"ink": 1}, {}), adapter_study=True)
    assert IllusionRequest.model_validate_json(asked.model_dump_json()) == asked
    old = {k: v for k, v in IllusionRequest().model_dump().items() if "adapter" not in k}
    assert IllusionRequest(**old) == IllusionRequest()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"adapters": {"an ink": "a"}}, "adapters: 'an ink' is no name for an adapter"),
        ({"adapters": INK, "view_adapters": ({}, {"ink": 1}, {})}, "view_adapters: 3 entries for 2 views"),
        (
            {"adapters": INK, "view_adapters": ({"ink": 1}, {"inc": 1})},
            "view_adapters.1: there is no adapter 'inc'; did",
        ),
        ({"view_adapters": ({"ink": 1},)}, "view_adapters.0: there is no adapter 'ink'; name its file in adapters"),
        ({"adapters": INK | WASH, "view_adapters": ({"ink": 1},)}, "adapters: no view wears 'wash'"),
        ({"adapters": INK, "view_adapters": ({"ink": 5},)}, "view_adapters.0.ink"),
        ({"adapters": INK, "view_adapters": ({"ink": float("nan")},)}, "view_adapters.0.ink"),
        ({"adapters": {f"a{i}": "x" for i in range(5)}}, "adapters"),
        ({"adapters": {"ink": "x" * 400}}, "adapters.ink"),
        ({"adapter_study": True}, "adapter_study: there is no adapter to study"),
    ],
)
def test_names_and_scales_that_cannot_be_used_say_how_to_mend_them(asked, says):
    assert says in problems(**asked)


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"views": ("identity",) * 2, "prompts": ("a fox",) * 2, "view_adapters": ({"ink": 1}, {})}, 4),
        ({"views": ("identity",) * 2, "prompts": ("a fox",) * 2, "view_adapters": ({"ink": 1}, {"ink": 1})}, 2),
        ({"view_adapters": ({"ink": 1}, {})}, 4),
        # The bare model, the adapter in both views, and the views as they are: each costs as much.
        ({"view_adapters": ({"ink": 1}, {}), "adapter_study": True}, 3 * 4),
        ({"view_adapters": ({"ink": 1},), "adapter_study": True}, 2 * 4),
    ],
)
def test_rows_differ_by_their_adapters_and_a_study_counts_all_its_settings(asked, rows):
    assert preflight.evaluations(request(adapters=INK, **asked)) == 2 * rows


# -- drawn


def test_one_adapter_per_view_differs_from_both_in_all_and_costs_the_same(store):
    bare, own = drawn(store), drawn(store, adapters=INK | WASH, view_adapters=({"ink": 1}, {"wash": 1}))
    joint = drawn(store, adapters=INK | WASH)
    assert own.evaluations == joint.evaluations == bare.evaluations == 2 * 2 * 2
    found = [pixels(result) for result in (bare, own, joint)]
    assert all(abs(a - b).max() > 2 for i, a in enumerate(found) for b in found[:i])


def test_the_joint_model_is_the_model_whose_weights_are_the_posters_sum(store, folder, assets, tmp_path):
    """W_final = W_0 + alpha W_adapter1 + beta W_adapter2, written into a copy of the model's files."""
    merged = shutil.copytree(folder / "tiny", tmp_path / "merged")
    for path, scale in ((folder / "loras" / "ink.safetensors", 0.8), (folder / "wash.safetensors", -0.5)):
        held = load_file(path)
        for target in match(read_lora(path), shapes_in(merged), "merged"):
            keys = target.piece.keys
            (file,) = (merged / target.part).glob("*.safetensors")
            tensors = load_file(file)
            tensors[f"{target.module}.weight"] += scale * held[keys["up"]] @ held[keys["down"]]
            save_file(tensors, file, metadata={"format": "pt"})
    joint = drawn(store, adapters=INK | WASH, view_adapters=({"ink": 0.8, "wash": -0.5},))
    plain = ModelStore(assets, tmp_path, device="cpu")
    with plain.lease("merged") as network:
        network.headrooms["rotate_180 16"] = Headroom(0.0, 0.0, 1.0, 1.0)
    expected = illusions.run(request(model="merged"), plain)
    assert abs(pixels(joint) - pixels(expected)).max() <= 1  # of 255: rounding
    assert abs(pixels(joint) - pixels(drawn(store))).max() > 2


def test_after_a_run_and_after_a_cancel_the_model_is_as_it_was(store):
    before = pixels(drawn(store))

    def stop(step):
        if step.index == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        illusions.run(request(model="tiny", adapters=INK), store, on_step=stop)
    with store.lease("tiny") as network:
        assert network.attached.names == ()
    assert np.array_equal(pixels(drawn(store)), before)


def test_prompts_are_encoded_once_for_each_set_of_adapters_that_changes_them(store, monkeypatch):
    asked = []
    with store.lease("tiny") as network:
        encode = network.encode_adapted
        monkeypatch.setattr(network, "encode_adapted", lambda p, a: asked.append((*p, a)) or encode(p, a))
    drawn(store, adapters=INK, view_adapters=({"ink": 1}, {}), prompts=("a fox", "a fox"))
    assert sorted(asked) == [("", ()), ("", (("ink", 1.0),)), ("a fox", ()), ("a fox", (("ink", 1.0),))]


def test_the_built_in_model_wears_loras_in_both_kinds_of_names(assets, models, tmp_path):
    wanted = {"prompts": ("a fox",), "views": ("identity",), "steps": 2}
    found = [pixels(illusions.run(IllusionRequest(**wanted), models))]
    for naming in ("diffusers", "kohya"):
        path = tmp_path / f"{naming}.safetensors"
        save_random(path, assets / "models" / "emoji", naming, seed=1, strength=3.0)
        found.append(pixels(illusions.run(IllusionRequest(**wanted, adapters={"ink": str(path)}), models)))
    assert abs(found[0] - found[1]).max() > 5
    assert np.array_equal(found[1], found[2])


# -- refused before anything is loaded


def sdxl_lora(path):
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    save_file({f"{name}.lora_down.weight": torch.ones(4, 2048), f"{name}.lora_up.weight": torch.ones(640, 4)}, path)


def half(path):
    sdxl_lora(path)
    path.write_bytes(path.read_bytes()[:-9])


def pickled(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", "x" * 100)


def autoencoder(path):
    save_file({"encoder.conv_in.weight": torch.ones(1), "decoder.conv_in.weight": torch.ones(1)}, path)


@pytest.mark.parametrize("model", ["tiny", "builtin:emoji"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (sdxl_lora, "bad.safetensors is a LoRA for SDXL, but {model} is"),
        (half, "bad.safetensors is truncated or damaged"),
        (autoencoder, "bad.safetensors is an autoencoder, not a LoRA: a LoRA"),
        (pickled, "bad.safetensors is a pickle, not a safetensors file: convert"),
    ],
)
def test_a_file_that_cannot_be_worn_is_named_before_anything_is_loaded(model, make, says, assets, folder, tmp_path):
    path = tmp_path / "bad.safetensors"
    make(path)
    asked = request(model=model, adapters=INK | {"bad": str(path)})
    store = ModelStore(assets, folder, device="cpu")
    settings = Settings(assets=assets, models_dir=folder)
    if model != "tiny":
        asked = request(model=model, adapters={"bad": str(path)})
    for refuse in (lambda: illusions.run(asked, store), lambda: preflight.check(asked, settings)):
        with pytest.raises(ModelFileError) as refused:
            refuse()
        assert says.format(model=model) in str(refused.value)
        assert refused.value.field == "adapters.bad"
    assert store.loaded() == ()


def test_a_lora_that_is_not_there_suggests_the_nearest_of_the_models_folder(assets, folder):
    asked = request(model="tiny", adapters={"ink": "loras/inc.safetensors"})
    with pytest.raises(
        UnknownNameError, match="There is no LoRA 'loras/inc.safetensors': did you mean 'loras/ink"
    ) as no:
        preflight.check(asked, Settings(assets=assets, models_dir=folder))
    assert no.value.field == "adapters.ink"
    with pytest.raises(UnknownNameError, match="There is no LoRA 'loras/inc.safetensors'"):
        preflight.check(asked, Settings(assets=assets))


def test_a_model_that_cannot_be_used_is_said_before_its_adapters(assets, folder, tmp_path):
    shutil.copytree(folder / "tiny", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "vae")
    asked = request(model=str(tmp_path / "cut"), adapters=INK)
    with pytest.raises(StudioError, match="cut has no vae") as refused:
        preflight.check(asked, Settings(assets=assets, models_dir=folder))
    assert refused.value.field == "model"


# -- strangers


@pytest.mark.parametrize("text", ["/etc/passwd", "../wash.safetensors", "~/x.safetensors", "loras/../wash.safetensors"])
def test_a_visitor_of_a_shared_link_names_listed_loras_only(text):
    listed = ("loras/ink.safetensors", "wash.safetensors")
    check_illusion(request(adapters=INK | WASH), SHARED, ("builtin:emoji",), listed)
    with pytest.raises(PolicyError, match="adapters: this studio does not offer") as refused:
        check_illusion(request(adapters={"ink": text}), SHARED, ("builtin:emoji",), listed)
    assert refused.value.field == "adapters"
    check_illusion(request(adapters={"ink": text}), LOCAL, ("builtin:emoji",), listed)


def test_a_visitor_meets_limits_on_adapters_and_on_studies():
    listed = tuple("abc")
    with pytest.raises(PolicyError, match="adapters: at most 2 are allowed here, got 3"):
        check_illusion(request(adapters={name: name for name in listed}), SHARED, ("builtin:emoji",), listed)
    asked = request(adapters={"a": "a", "b": "b"}, adapter_study=True, steps=100)
    limits = dataclasses.replace(SHARED, max_evaluations=1_999)
    with pytest.raises(PolicyError, match=r"1 candidates x 5 settings are up to 2,000 evaluations.*at most 1,999"):
        check_illusion(asked, limits, ("builtin:emoji",), listed)


def test_the_studio_offers_its_loras_and_checks_what_is_submitted(folder, tmp_path):
    bench = Workbench(Settings(outputs=tmp_path, models_dir=folder, device="cpu", offline=True, profile="shared"))
    try:
        own = [name for name in bench.loras() if not name.startswith("builtin:")]
        assert sorted(own) == ["loras/ink.safetensors", "wash.safetensors"]
        data = {"model": "tiny", "adapters": INK}
        assert bench.request("illusion", data).adapters == INK
        with pytest.raises(PolicyError, match="did you mean 'loras/ink.safetensors'"):
            bench.request("illusion", {**data, "adapters": {"ink": "loras/inc.safetensors"}})
        with pytest.raises(ModelFileError, match="ink.safetensors is a LoRA for .*, but builtin:emoji is"):
            bench.request("illusion", {**data, "model": "builtin:emoji"})
    finally:
        bench.close()
