from __future__ import annotations

import shutil
import threading

import pytest
import torch

from studio import illusions
from studio.errors import ModelError, ModelNotFoundError, OutOfMemoryError
from studio.illusions.request import IllusionRequest
from studio.models import loading
from studio.models import store as store_module
from studio.models.store import ModelStore, Options
from tests.tiny import save_tiny_pipeline

GB = 1024**3


@pytest.fixture
def two(tiny_pipeline, tmp_path, assets):
    """A models folder with two tiny pipelines, and a store that can keep only one of them."""
    for name in ("one", "two"):
        shutil.copytree(tiny_pipeline, tmp_path / name)
    store = ModelStore(assets, tmp_path, device="cpu")
    with store.lease("one"):
        store.budget = store.bytes_used() + 1
    return store


def test_models_load_only_when_first_leased(assets, tmp_path):
    assert ModelStore(assets, tmp_path, device="cpu").loaded() == ()


def test_a_second_lease_gives_the_same_object(two):
    with two.lease("one") as first:
        pass
    with two.lease("one") as second:
        assert second is first


def test_the_least_recently_used_model_leaves_when_the_budget_is_full(two):
    with two.lease("two"):
        assert two.loaded() == ("two",)


def test_a_leased_model_is_never_evicted(two):
    with two.lease("one"), two.lease("two"):
        assert two.loaded() == ("one", "two")


def test_one_job_at_a_time_holds_a_model(two):
    order = []

    def other():
        with two.lease("one"):
            order.append("other")

    with two.lease("one"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.1)
        order.append("first")
    thread.join(5)
    assert order == ["first", "other"]


def test_a_job_that_asks_for_what_it_holds_is_refused_instead_of_waiting_for_itself(two):
    said = []

    def nested():
        with two.lease("one"):
            try:
                with two.lease("one"):
                    pass
            except ModelError as error:
                said.append(str(error))

    thread = threading.Thread(target=nested, daemon=True)
    thread.start()
    thread.join(30)
    assert len(said) == 1
    assert "one is at work in this very job" in said[0]
    with two.lease("one"):
        pass


def test_out_of_memory_evicts_the_idle_and_tries_once_more(two):
    two.budget = GB
    with two.lease("two"):
        pass
    seen = []

    def work(network):
        seen.append(two.loaded())
        if len(seen) == 1:
            raise torch.OutOfMemoryError("pretend")
        return "done"

    assert two.network("one", work) == "done"
    assert seen == [("two", "one"), ("one",)]


def test_out_of_memory_twice_is_one_clear_error(two):
    def work(network):
        raise torch.OutOfMemoryError("pretend")

    with pytest.raises(OutOfMemoryError, match="choose a smaller size"):
        two.network("one", work)


def test_a_scorer_is_not_a_text_to_image_model(models):
    with pytest.raises(ModelError, match="is a scorer"):
        models.network("builtin:clip", lambda network: None)


@pytest.mark.parametrize("name", ["builtin:clip", "folder"])
def test_a_scorer_is_refused_as_the_model_before_anything_is_leased(name, assets, monkeypatch):
    store = ModelStore(assets, device="cpu")
    monkeypatch.setattr(store, "lease", lambda name: pytest.fail("was leased"))
    name = str(assets / "models" / "clip") if name == "folder" else name
    wanted = IllusionRequest(model=name, scorer=name, stop_early=True, candidates=2)
    with pytest.raises(ModelError, match="is a scorer, not a text-to-image model") as refused:
        illusions.run(wanted, store)
    assert refused.value.field == "model"
    with pytest.raises(ModelError, match="is a scorer, not a text-to-image model"):
        store.network(name, lambda network: None)


def test_a_pipeline_is_refused_as_the_scorer_before_it_is_loaded(tiny_pipeline, assets, monkeypatch):
    store = ModelStore(assets, device="cpu")
    monkeypatch.setattr(store, "lease", lambda name: pytest.fail("was leased"))
    for name in ("builtin:emoji", str(tiny_pipeline)):
        with pytest.raises(ModelError, match="no CLIP model.*folder of a CLIP model") as refused:
            store.scorer(name, lambda scorer: None)
        assert refused.value.field == "scorer"


def test_a_hub_id_without_a_network_says_so(assets):
    store = ModelStore(assets, device="cpu", offline=True)
    says = "There is no file or folder owner/name here, and as a hub id .* not in the local cache"
    with pytest.raises(ModelNotFoundError, match=says), store.lease("owner/name"):
        pass


def test_a_model_whose_files_were_replaced_is_read_again(tiny_pipeline, assets, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(tiny_pipeline, folder)
    store = ModelStore(assets, tmp_path, device="cpu")
    with store.lease("mine") as first:
        before = first.denoiser.conv_in.weight.clone()
    with store.lease("mine") as same:
        assert same is first
    other = save_tiny_pipeline(tmp_path / "other", "epsilon", seed=1)
    weights = "unet/diffusion_pytorch_model.safetensors"
    (other / weights).replace(folder / weights)
    with store.lease("mine") as second:
        assert not torch.equal(second.denoiser.conv_in.weight, before)
    assert store.loaded() == ("mine",)


def test_a_model_larger_than_memory_is_refused_before_anything_is_loaded(tiny_pipeline, assets, monkeypatch):
    monkeypatch.setattr(loading, "load_pipeline", lambda *args: pytest.fail("was loaded"))
    size = sum(loading.part_bytes(tiny_pipeline, torch.float32).values())
    store = ModelStore(assets, device="cpu", memory_gb=(size - 1) / GB)
    said = f"needs {size / 1024**2:.0f} MB of memory and {size / 1024**2:.0f} MB is free: .*--dtype"
    with (
        pytest.raises(OutOfMemoryError, match=said),
        store.lease(str(tiny_pipeline)),
    ):
        pass


def test_idle_models_make_room_for_one_that_would_not_fit_beside_them(two, monkeypatch):
    size = two.bytes_used()
    monkeypatch.setattr(store_module, "free_memory", lambda device: int(1.5 * size) - two.bytes_used())
    with two.lease("two"):
        assert two.loaded() == ("two",)


def test_the_bytes_told_from_headers_are_those_that_are_loaded(tiny_pipeline, tiny_sdxl, tiny_sd3):
    for folder in (tiny_pipeline, tiny_sdxl, tiny_sd3):
        for dtype in (torch.float32, torch.bfloat16):
            network = loading.load_pipeline("tiny", folder, torch.device("cpu"), dtype)
            saved = {
                name: {id(t): t.nbytes for t in part.state_dict(keep_vars=True).values()}
                for name, part in network.residence.parts.items()
            }
            assert loading.part_bytes(folder, dtype) == {name: sum(found.values()) for name, found in saved.items()}


def test_usage_names_what_is_loaded_and_what_is_free(two):
    usage = two.usage()
    assert usage.models == {"one": two.bytes_used()}
    assert 0 < usage.free < usage.total


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_on_the_cpu_is_there_for_who_asks_and_draws_nearly_the_same(dtype, tiny_pipeline, assets):
    wanted = IllusionRequest(model=str(tiny_pipeline), steps=2)
    stores = [ModelStore(assets, device="cpu", options=Options(dtype=name)) for name in ("auto", dtype)]
    whole, half = (illusions.run(wanted, each).candidates[0].image for each in stores)
    store = stores[1]
    with store.lease(wanted.model) as network:
        assert network.denoiser.dtype == network.parts["text_encoder"].dtype == getattr(torch, dtype)
        assert network.vae.dtype == torch.float32
    off = [abs(a - b) for a, b in zip(whole.tobytes(), half.tobytes(), strict=True)]
    assert 0 < sum(off) / len(off) < 8  # of 255
