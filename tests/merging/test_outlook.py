"""What would come of a merge is said from headers alone; and a recipe is read from no more than a header."""

from __future__ import annotations

import time

import pytest
import torch
from safetensors.torch import save_file

from studio.errors import ModelError, RecipeError, RequestError, StudioError
from studio.merging import recipe
from studio.merging.engine import run
from studio.merging.outlook import outlook
from studio.merging.request import MergeRequest
from studio.models.store import ModelStore
from tests.merging.checkpoints import pair


def seen(assets, **settings):
    return outlook(MergeRequest(**settings), assets)


@pytest.fixture
def two(tmp_path):
    return tuple(map(str, pair(tmp_path)))


@pytest.fixture
def lora(tmp_path):
    stem = "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k"
    held = {f"{stem}.lora_down.weight": torch.ones(2, 768), f"{stem}.lora_up.weight": torch.ones(8, 2)}
    save_file(held, tmp_path / "ink.safetensors")
    return str(tmp_path / "ink.safetensors")


def test_a_merge_of_checkpoints_tells_kinds_counts_size_and_blocks(assets, two):
    found = seen(assets, models=two, alpha=0.5)
    assert found.kinds == {"A": "Stable Diffusion 1", "B": "Stable Diffusion 1"}
    assert found.counts["unet"] == (8, 0)
    assert set(found.parts) == {"unet", "text_encoder", "vae", "other"}
    assert dict(found.blocks) == {"BASE": 0.5, "IN00": 0.5, "IN01": 0.5, "M00": 0.5, "OUT00": 0.5, "OUT01": 0.5}
    assert found.size is not None
    assert not found.is_folder


def test_blocks_show_the_curve_or_what_is_given(assets, two):
    assert list(seen(assets, models=two, alpha=1.0, curve="rising").blocks.values()) == [1.0, 0.0, 0.25, 0.5, 0.75, 1.0]
    given = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert tuple(seen(assets, models=two, blocks=given).blocks.values()) == given


def test_loras_are_told_apart_without_their_numbers(assets, two, lora):
    baked = seen(assets, task="bake", models=two[:1], adapters=(lora,), parts={})
    assert baked.kinds == {"A": "Stable Diffusion 1", "ink": "LoRA for SD 1.x"}
    assert baked.counts["unet"] == (1, 7)
    joined = seen(assets, task="join", models=(), adapters=(lora, lora), parts={})
    assert joined.counts == {"layers": (1, 0)}
    extracted = seen(assets, task="extract", models=two, rank=2, parts={})
    assert extracted.counts["layers"][0] > 0


def test_a_target_is_looked_at_before_anything_starts(assets, two):
    with pytest.raises(RequestError, match="one of the sources") as refused:
        seen(assets, models=two, target=two[1])
    assert refused.value.field == "target"


def test_what_is_missing_is_refused_with_its_field(assets, two, lora):
    with pytest.raises(ModelError) as refused:
        seen(assets, models=(two[0], "/nowhere/b.safetensors"))
    assert refused.value.field == "models.1"
    with pytest.raises(StudioError, match="There is no LoRA") as refused:
        seen(assets, task="bake", models=two[:1], adapters=(lora, "/nowhere/c.safetensors"), parts={})
    assert refused.value.field == "adapters.1"


def test_the_built_in_model_is_looked_through_in_well_under_a_second(assets):
    start = time.process_time()
    seen(assets, models=("builtin:emoji", "builtin:emoji"))
    assert time.process_time() - start < 0.5


def test_the_header_of_a_merged_file_is_enough_to_read_its_recipe(assets, two, tmp_path):
    run(MergeRequest(models=two, title="m", alpha=0.25), ModelStore(assets, device="cpu")).save(tmp_path)
    whole = (tmp_path / "m.safetensors").read_bytes()
    head = tmp_path / "head" / "m.safetensors"
    head.parent.mkdir()
    head.write_bytes(whole[: 8 + int.from_bytes(whole[:8], "little")])
    assert recipe.read_upload(head) == recipe.read(tmp_path / "m.safetensors")
    assert recipe.read_upload(head)["request"]["alpha"] == 0.25
    with pytest.raises(RecipeError, match="truncated"):
        recipe.read(head)


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 7, b"\xff" * 64, (2).to_bytes(8, "little") + b"[]", (9).to_bytes(8, "little") + b"not json!"],
)
def test_an_upload_without_a_header_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"^x\.safetensors (has|holds) no recipe"):
        recipe.read_upload(path)


def test_a_merged_folder_s_recipe_is_its_merge_json(tmp_path):
    path = tmp_path / "merge.json"
    for text in ("[]", "{}", "no json", '{"version": 1, "engine": "merge", "request": 3, "sources": []}'):
        path.write_text(text)
        with pytest.raises(RecipeError):
            recipe.read_upload(path)
