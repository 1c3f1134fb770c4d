from __future__ import annotations

import json

import pytest

from studio.errors import ModelNotFoundError, UnknownNameError
from studio.models.refs import drawable, list_loras, list_models, resolve, resolve_lora


def test_a_builtin_name_is_a_folder_of_the_assets(assets):
    ref = resolve("builtin:emoji", assets)
    assert (ref.kind, ref.path) == ("builtin", assets / "models" / "emoji")


def test_an_unknown_builtin_suggests_the_nearest(assets):
    with pytest.raises(UnknownNameError, match="did you mean 'builtin:emoji'"):
        resolve("builtin:emojy", assets)


def test_a_builtin_name_cannot_leave_the_assets(assets):
    with pytest.raises(UnknownNameError):
        resolve("builtin:../training", assets)


def test_a_name_inside_the_models_folder_wins_over_the_hub(assets, tmp_path):
    (tmp_path / "me" / "mine").mkdir(parents=True)
    assert resolve("me/mine", assets, tmp_path).path == (tmp_path / "me" / "mine").resolve()


def test_a_name_with_an_owner_is_a_hub_id(assets):
    assert resolve("owner/name", assets).kind == "hub"


def test_a_path_that_does_not_exist_says_what_can_be_named(assets):
    with pytest.raises(ModelNotFoundError, match="diffusers folder or owner/name"):
        resolve("/nowhere/at/all", assets)


def test_the_picker_lists_builtins_first_then_the_models_folder(assets, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    choices = list_models(assets, tmp_path)
    assert [choice.name for choice in choices] == ["builtin:emoji", "builtin:ink", "mine"]
    assert {choice.family for choice in choices} == {"Stable Diffusion 1/2"}


@pytest.mark.parametrize("name", ["builtin:emoji", "builtin:ink"])
def test_the_builtins_know_what_they_can_draw(name, assets):
    things = drawable(name, assets)
    assert len(things) == len(set(things)) >= 200
    assert "fox" in things


def test_a_model_without_a_list_draws_nothing_in_particular(assets):
    assert drawable("owner/name", assets) == ()


@pytest.mark.parametrize(
    "name",
    ["~nosuchuser/x", "x" * 295, f"a/{'x' * 295}", "a/b--c", "foo/bar..", "foo/bar-", "a/b.git", "a\0b"],
    ids=lambda name: repr(name[:20]),
)
def test_a_name_that_nothing_can_have_is_one_sentence(name, assets, tmp_path):
    with pytest.raises(ModelNotFoundError, match="There is no model at .*: name a built-in") as refused:
        resolve(name, assets, tmp_path)
    assert refused.value.field == "model"
    with pytest.raises(UnknownNameError, match="There is no LoRA"):
        resolve_lora(name, assets, tmp_path)


@pytest.mark.parametrize("name", ["", "  "])
def test_no_name_is_no_folder(name, assets, tmp_path):
    with pytest.raises(ModelNotFoundError, match="none is named; name a built-in"):
        resolve(name, assets, tmp_path)


def safetensors(path, header: bytes):
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def nested(folder):
    safetensors(folder / "odd.safetensors", b'{"a":' * 50_000 + b"1" + b"}" * 50_000)


def index_of(text):
    def make(folder):
        (folder / "odd").mkdir()
        (folder / "odd" / "model_index.json").write_text(text)

    return make


def about_of(text):
    def make(folder):
        index_of('{"_class_name": "StableDiffusionPipeline"}')(folder)
        (folder / "odd" / "about.json").write_text(text)

    return make


@pytest.mark.parametrize(
    "make",
    [
        nested,
        lambda folder: safetensors(folder / "odd.safetensors", b'{"__metadata__": ["a"]}'),
        index_of("[]"),
        index_of('{"_class_name": ["a"]}'),
        index_of("[" * 50_000),
        index_of("{"),
    ],
)
def test_one_odd_file_leaves_the_list_whole(make, assets, tmp_path):
    make(tmp_path)
    assert list_models(assets, tmp_path) == list_models(assets)
    assert list_loras(assets, tmp_path) == list_loras(assets)


@pytest.mark.parametrize("text", ["[]", "{", '{"title": 3}'])
def test_words_about_a_folder_that_cannot_be_read_are_left_out(text, assets, tmp_path):
    about_of(text)(tmp_path)
    assert [(choice.name, choice.title) for choice in list_models(assets, tmp_path)][-1:] == [("odd", "odd")]
