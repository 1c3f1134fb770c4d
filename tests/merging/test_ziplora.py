"""ZipLoRA: column weights learned on a small real network, and what it leaves as it was."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from studio import merging, runs
from studio.errors import Cancelled, ModelFileError, RequestError
from studio.merging import recipe
from studio.merging.request import MergeRequest
from studio.models.lora_files import shapes_in
from studio.models.store import ModelStore
from studio.requests import parse

RANK = 2
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "conv1")


@pytest.fixture(scope="module")
def store(assets, tiny_pipeline):
    return ModelStore(assets, tiny_pipeline.parent, device="cpu")


def lora(path, folder, seed, columns=slice(None), strength=0.6):
    """A random LoRA that reads only some of each layer's inputs: all, even or odd ones."""
    draw = torch.Generator().manual_seed(seed)
    held = {}
    for module, shape in shapes_in(folder)["unet"].items():
        if module.endswith(LAYERS):
            down = torch.zeros(RANK, *shape[1:])
            down[:, columns] = torch.randn(RANK, *shape[1:], generator=draw)[:, columns] / shape[1] ** 0.5
            up = torch.randn(shape[0], RANK, *[1] * (len(shape) - 2), generator=draw) * strength
            stem = f"lora_unet_{module.replace('.', '_')}"
            held |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    save_file(held, path)
    return str(path)


def zipped(store, folder, adapters, on_step=lambda step: None, **settings):
    asked = {"task": "join", "join": "zip", "models": ("tiny",), "adapters": adapters, "title": "z", "steps": 25}
    asked |= {"prompts": ("a fox", "a penguin"), "models": (store_name(store),), "learning_rate": 0.05}
    request = MergeRequest(**asked | settings)
    summary = runs.keep(folder, merging.run(request, store, on_step=on_step))
    return summary, folder / summary["output"]


def store_name(store):
    return next(path.name for path in store.models_dir.iterdir() if (path / "model_index.json").exists())


def changes(path):
    held = load_file(path)
    stems = [key.removesuffix(".lora_up.weight") for key in held if key.endswith(".lora_up.weight")]
    return {s: held[f"{s}.lora_up.weight"].flatten(1) @ held[f"{s}.lora_down.weight"].flatten(1) for s in stems}


@pytest.fixture(scope="module")
def conflict(store, tiny_pipeline, tmp_path_factory):
    """Two LoRAs over the same inputs, zipped: their files, the summary and the result."""
    folder = tmp_path_factory.mktemp("zip")
    files = tuple(lora(folder / f"{i}.safetensors", tiny_pipeline, i) for i in range(2))
    return files, *zipped(store, folder / "out", files, similarity=0.0)


def test_two_loras_that_collide_each_keep_more_of_what_they_do_alone(conflict):
    _, summary, _ = conflict
    found = summary["zip"]
    assert found["after"] < 0.9 * found["before"]
    assert "ZipLoRA: error against each LoRA alone" in " ".join(summary["notes"])
    assert "do not beat" not in " ".join(summary["notes"])


def test_the_result_is_a_lora_of_both_ranks_whose_columns_alone_were_weighed(conflict):
    (one, other), summary, path = conflict
    assert summary["ranks"] == [2 * RANK]
    held, first, second = load_file(path), load_file(one), load_file(other)
    moved = 0.0
    for key in (key for key in held if key.endswith("lora_down.weight")):
        for rows, source in ((slice(0, RANK), first), (slice(RANK, None), second)):
            mergers = held[key][rows] / source[key]
            torch.testing.assert_close(mergers, mergers[:1, :, *[slice(0, 1)] * (mergers.dim() - 2)].expand_as(mergers))
            moved = max(moved, float((mergers - 1).abs().max()))
        up = key.replace("lora_down", "lora_up")
        assert torch.equal(held[up], torch.cat([first[up], second[up]], 1))
    assert moved > 0.05


@pytest.mark.slow
def test_a_penalty_parts_the_columns_and_says_so(store, tmp_path, conflict):
    files, summary, _ = conflict
    parted, _ = zipped(store, tmp_path / "out", files, similarity=10.0, steps=12)
    assert parted["zip"]["similarity_before"] == 1.0
    assert parted["zip"]["similarity"] < 0.5 * summary["zip"]["similarity"]


@pytest.mark.slow
def test_loras_that_read_different_inputs_hardly_change_and_the_columns_that_one_needs_stay(
    store, tiny_pipeline, tmp_path
):
    files = (
        lora(tmp_path / "0.safetensors", tiny_pipeline, 0, slice(0, None, 2)),
        lora(tmp_path / "1.safetensors", tiny_pipeline, 1, slice(1, None, 2)),
    )
    calm = {"similarity": 0.0, "learning_rate": 0.002, "steps": 10}
    _, path = zipped(store, tmp_path / "out", files, **calm)
    whole, apart = changes(path), [changes(file) for file in files]
    for name, change in whole.items():
        wanted = apart[0][name] + apart[1][name]
        assert (change - wanted).norm() <= 0.03 * wanted.norm()
        # No column of one leaked into those of the other.
        assert torch.equal(change == 0, wanted == 0)


def test_mergers_of_one_are_the_plain_sum_to_the_bit(store, tiny_pipeline, tmp_path):
    files = tuple(lora(tmp_path / f"{i}.safetensors", tiny_pipeline, i) for i in range(2))
    _, still = zipped(store, tmp_path / "out", files, learning_rate=1e-30, steps=1, similarity=0.0)
    _, plain = zipped(store, tmp_path / "sum", files, join="sum", prompts=())
    one, other = load_file(still), load_file(plain)
    assert all(torch.equal(one[key], other[key]) for key in other)


def test_where_it_does_not_help_the_notes_say_so(store, tiny_pipeline, tmp_path):
    file = lora(tmp_path / "0.safetensors", tiny_pipeline, 0)
    nothing = lora(tmp_path / "1.safetensors", tiny_pipeline, 1, strength=0.0)
    summary, _ = zipped(store, tmp_path / "out", (file, nothing), learning_rate=1.0, steps=3, similarity=10.0)
    assert summary["zip"]["after"] >= summary["zip"]["before"]
    assert any("do not beat the plain sum" in note for note in summary["notes"])


def test_a_stop_leaves_the_network_bit_for_bit_and_nothing_on_the_disk(store, tiny_pipeline, tmp_path):
    files = tuple(lora(tmp_path / f"{i}.safetensors", tiny_pipeline, i) for i in range(2))
    with store.lease(store_name(store)) as network:
        before = {name: value.clone() for name, value in network.denoiser.state_dict().items()}

    def stop(step):
        if step.index == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        zipped(store, tmp_path / "out", files, on_step=stop)
    assert not any((tmp_path / "out").iterdir())
    with store.lease(store_name(store)) as network:
        after = network.denoiser.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())
        assert not any(module._forward_hooks for module in network.denoiser.modules())
        assert network.attached.names == ()
        assert all(p.grad is None for p in network.denoiser.parameters())


@pytest.mark.slow
def test_a_zip_replays_to_the_same_bytes_and_other_joins_record_nothing_of_it(store, tiny_pipeline, tmp_path):
    files = tuple(lora(tmp_path / f"{i}.safetensors", tiny_pipeline, i) for i in range(2))
    _, path = zipped(store, tmp_path / "out", files, steps=3)
    request = recipe.read(path)["request"]
    assert len(request["verify"]) > 2  # the checkpoint's files as well
    again = runs.keep(tmp_path / "again", merging.run(parse(MergeRequest, request), store))
    assert (tmp_path / "again" / again["output"]).read_bytes() == path.read_bytes()
    _, plain = zipped(store, tmp_path / "sum", files, join="sum", prompts=())
    assert not recipe.ONLY_FOR_ZIP & recipe.read(plain)["request"].keys()


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"prompts": ("a fox",)}, "prompts", "a prompt for each of the 2 LoRAs, got 1"),
        ({"adapters": ("x",), "prompts": ("a fox",)}, "adapters", "at least two LoRAs"),
        ({"models": ()}, "models", "needs the checkpoint"),
        ({"weights": (1.0, 0.0)}, "weights", "weight 0"),
        ({"join": "sum"}, "prompts", "only join zip learns from prompts"),
        ({"task": "bake", "models": ("a",)}, "join", "choose the task join"),
    ],
)
def test_settings_that_cannot_be_used_are_named_before_a_file_is_opened(store, tmp_path, changed, field, says):
    with pytest.raises(RequestError, match=says) as found:
        zipped(store, tmp_path / "out", **{"adapters": ("x", "y")} | changed)
    assert found.value.field == field


def test_a_lora_for_another_network_is_refused_from_its_header(store, tiny_sdxl, tiny_pipeline, tmp_path):
    fits = lora(tmp_path / "0.safetensors", tiny_pipeline, 0)
    other = {"lora_unet_down_blocks_9_resnets_0_conv1.lora_down.weight": torch.ones(1, 8, 3, 3)}
    other["lora_unet_down_blocks_9_resnets_0_conv1.lora_up.weight"] = torch.ones(8, 1, 1, 1)
    save_file(other, tmp_path / "1.safetensors")
    with pytest.raises(ModelFileError, match="is a LoRA for") as found:
        zipped(store, tmp_path / "out", (fits, str(tmp_path / "1.safetensors")))
    assert found.value.field == "adapters.1"
