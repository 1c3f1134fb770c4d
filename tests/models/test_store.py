from __future__ import annotations

import shutil
import threading

import pytest
import torch

from studio.errors import ModelError, ModelNotFoundError, OutOfMemoryError
from studio.models.store import ModelStore

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


def test_a_hub_id_without_a_network_says_so(assets):
    store = ModelStore(assets, device="cpu", offline=True)
    with pytest.raises(ModelNotFoundError, match="not in the local cache"), store.lease("owner/name"):
        pass
