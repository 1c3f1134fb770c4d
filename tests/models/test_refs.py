from __future__ import annotations

import json

import pytest

from studio.errors import ModelNotFoundError, UnknownNameError
from studio.models.refs import drawable, list_models, resolve


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
