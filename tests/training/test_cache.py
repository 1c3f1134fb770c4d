import dataclasses

import pytest
import torch

from studio.errors import StudioError
from studio.imaging import to_tensor
from studio.models.store import ModelStore
from studio.training import cache as caches
from studio.training.buckets import CropRules, crop, cut
from studio.training.cache import Cache, LatentCache, PromptCache, weights_hash
from studio.training.dataset import read_dataset
from studio.training.pictures import PictureError, load
from tests.tiny import save_tiny_sd3
from tests.training.sets import encoded, picture, write_set


@pytest.fixture(scope="module")
def tiny_sd3_with_t5(tmp_path_factory):
    return save_tiny_sd3(tmp_path_factory.mktemp("tiny") / "sd3", with_t5=True)


@pytest.fixture(scope="module", params=["tiny_pipeline", "tiny_sdxl", "tiny_sd3_with_t5", "tiny_prx"])
def network(request, assets):
    folder = request.getfixturevalue(request.param)
    store = ModelStore(assets, device="cpu")
    with store.lease(str(folder)) as found:
        pass
    return found


@pytest.fixture
def tiny(tiny_pipeline, assets):
    store = ModelStore(assets, device="cpu")
    with store.lease(str(tiny_pipeline)) as found:
        pass
    return found


@pytest.fixture
def examples(tmp_path):
    return read_dataset(write_set(tmp_path / "set", {"a.png": 1, "b.png": 2}), trigger="fox").examples


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path):
    return Cache(tmp_path / "cache" if request.param == "disk" else None)


def centred(example, rules=CropRules(), **numbers):
    return crop(example.size, (32, 32), rules, **numbers)


def test_a_value_is_made_once(cache):
    made = []

    def make():
        made.append(1)
        return {"x": torch.arange(3.0), "y": torch.ones(2, dtype=torch.bfloat16)}

    first, second = cache.get("ab1", make), cache.get("ab1", make)
    assert made == [1]
    assert first["x"].tolist() == second["x"].tolist() == [0, 1, 2]
    assert cache.get("ab2", make)["y"].dtype == torch.bfloat16
    assert (cache.made, cache.mended) == (2, 0)


def test_a_cache_on_the_disk_is_found_by_the_next_run(tmp_path):
    value = {"x": torch.randn(3, 4), "mask": torch.tensor([True, False])}
    Cache(tmp_path).get("ab1", lambda: value)
    later = Cache(tmp_path)
    found = later.get("ab1", lambda: pytest.fail("made anew"))
    assert torch.equal(found["x"], value["x"])
    assert torch.equal(found["mask"], value["mask"])
    assert later.made == 0


@pytest.mark.parametrize("damage", ["empty", "short", "flipped bit", "no seal", "another file"])
def test_a_damaged_entry_is_made_anew(tmp_path, damage):
    from safetensors.torch import save

    Cache(tmp_path).get("ab1", lambda: {"x": torch.ones(4)})
    (path,) = tmp_path.glob("*/*.safetensors")
    data = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "short": data[:-1],
            "flipped bit": data[:-1] + bytes([data[-1] ^ 1]),
            "no seal": save({"x": torch.ones(4)}),
            "another file": b"not safetensors at all, but long enough to look at",
        }[damage]
    )
    mending = Cache(tmp_path)
    assert mending.get("ab1", lambda: {"x": torch.ones(4)})["x"].tolist() == [1, 1, 1, 1]
    assert (mending.made, mending.mended) == (1, 1)
    assert path.read_bytes() == data
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_memory_in_front_of_the_disk_is_bounded(tmp_path):
    cache = Cache(tmp_path, in_front=3 * 16)
    for index in range(10):
        cache.get(f"key{index}", lambda index=index: {"x": torch.full((4,), float(index))})
    assert len(cache._front) == 3
    assert cache.get("key0", lambda: pytest.fail("made anew"))["x"].tolist() == [0, 0, 0, 0]
    assert cache.made == 10


def test_a_disk_that_does_not_take_an_entry_is_said(tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(StudioError, match="cannot be written .*; make room or keep it in memory."):
        Cache(tmp_path / "cache").get("ab1", lambda: {"x": torch.ones(1)})


def test_latents_are_those_of_the_autoencoder_without_a_cache(network, cache, examples):
    latents = LatentCache(network, cache)
    for example in examples:
        where = centred(example)
        found = latents.posterior(example, where)
        pixels = to_tensor(cut(load(example), where))[None]
        with torch.no_grad():
            mean, deviation = network.posterior(pixels)
            assert torch.equal(found.mean, mean[0])
            assert torch.equal(found.deviation, deviation[0])
            assert torch.equal(found.mean, network.encode(pixels)[0])
        assert found.mean.dtype == torch.float32
        assert found.mean.requires_grad is False
        assert not found.mean.is_inference()


def test_a_sample_is_the_mean_and_noise_times_the_deviation(network, examples):
    found = LatentCache(network, Cache()).posterior(examples[0], centred(examples[0]))
    assert torch.equal(found.sample(torch.zeros_like(found.mean)), found.mean)
    noise = torch.randn_like(found.mean)
    assert torch.allclose(found.sample(noise) - found.mean, found.deviation * noise, atol=1e-6)
    assert bool((found.deviation > 0).all()) is not network.in_pixels


def test_the_posterior_is_the_librarys_own_scaled(tiny):
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        mean, deviation = tiny.posterior(pixels)
        theirs = tiny.vae.encode(pixels).latent_dist
    scale = tiny.vae.config.scaling_factor
    assert torch.allclose(mean, theirs.mean * scale)
    assert torch.allclose(deviation, theirs.std * scale)


def test_every_thing_that_latents_depend_on_changes_their_key(tiny, examples, assets):
    latents = LatentCache(tiny, Cache())
    first, second = examples
    where = centred(first)
    key = latents.key(first, where)
    assert key == LatentCache(tiny, Cache()).key(dataclasses.replace(first, caption="other", repeats=3), where)
    changed = [latents.key(second, where)]
    for name, value in (("size", (32, 16)), ("scaled", (64, 64)), ("left", 1), ("top", 1), ("flipped", True)):
        changed.append(latents.key(first, dataclasses.replace(where, **{name: value})))
    weight = next(tiny.vae.parameters())
    kept = weight.detach().clone()
    weight.view(-1)[0] += 1
    changed.append(LatentCache(tiny, Cache()).key(first, where))
    weight.copy_(kept)
    tiny.vae.to(torch.bfloat16)
    changed.append(LatentCache(tiny, Cache()).key(first, where))
    assert len({key, *changed}) == 1 + len(changed)


def test_a_picture_that_changed_is_not_encoded_as_the_old_one(tiny, examples):
    examples[0].path.write_bytes(encoded(picture(9)))
    with pytest.raises(PictureError, match="has changed"):
        LatentCache(tiny, Cache()).posterior(examples[0], centred(examples[0]))


def test_flips_and_random_crops_are_encoded_once_each(tiny, examples):
    cache = Cache()
    latents = LatentCache(tiny, cache)
    rules = CropRules("random", flip=True, variants=3)
    for epoch in range(40):
        latents.posterior(examples[0], crop((64, 48), (32, 32), rules, epoch=epoch))
    assert cache.made <= 6


def test_prompts_become_what_the_network_makes_of_them(network, cache):
    prompts = ["a red fox", "", "a blue penguin", "a red fox"]
    found = PromptCache(network, cache).conditions(prompts)
    with torch.no_grad():
        rows = [network.encode_prompts([prompt]) for prompt in prompts]
    assert torch.equal(found.embeds, torch.cat([row.embeds for row in rows]))
    assert set(found.extra) == set(rows[0].extra)
    for name, value in found.extra.items():
        assert torch.equal(value, torch.cat([row.extra[name] for row in rows]))
    assert cache.made == 3


def test_a_batch_of_cached_prompts_equals_a_batch_encoded_at_once(network):
    prompts = ["a red fox", "a blue penguin", ""]
    found = PromptCache(network, Cache()).conditions(prompts)
    with torch.no_grad():
        together = network.encode_prompts(prompts)
    assert torch.allclose(found.embeds.float(), together.embeds.float(), atol=1e-5)


def test_every_thing_that_a_prompt_depends_on_changes_its_key(tiny):
    prompts = PromptCache(tiny, Cache())
    key = prompts.key("a fox")
    assert key == PromptCache(tiny, Cache()).key("a fox")
    changed = [prompts.key("a Fox"), PromptCache(tiny, Cache(), salt="x").key("a fox")]
    changed.append(PromptCache(tiny, Cache(), adapters=[("one", 0.5)]).key("a fox"))
    weight = next(tiny.parts["text_encoder"].parameters())
    weight.view(-1)[0] += 1
    changed.append(PromptCache(tiny, Cache()).key("a fox"))
    assert len({key, *changed}) == 5


def test_filling_reports_each_and_leaves_nothing_to_make(tiny, examples):
    cache, steps = Cache(), []
    latents, prompts = LatentCache(tiny, cache), PromptCache(tiny, cache)
    latents.fill([(example, centred(example)) for example in examples], steps.append)
    prompts.fill(["a fox", ""], steps.append)
    assert [(step.index, step.total) for step in steps] == [(0, 2), (1, 2)] * 2
    made = cache.made
    latents.posterior(examples[1], centred(examples[1]))
    prompts.conditions(["", "a fox"])
    assert cache.made == made == 4


def test_what_is_cached_goes_through_a_backward_pass(tiny, examples):
    found = LatentCache(tiny, Cache()).posterior(examples[0], centred(examples[0]))
    weight = torch.ones(1, requires_grad=True)
    (found.mean * weight).sum().backward()
    assert weight.grad is not None


def test_a_hash_of_weights_sees_names_shapes_and_every_value():
    torch.manual_seed(0)
    first = torch.nn.Linear(3, 2)
    again = torch.nn.Linear(3, 2)
    again.load_state_dict(first.state_dict())
    assert weights_hash(first) == weights_hash(again)
    other = torch.nn.Linear(3, 2)
    other.load_state_dict(first.state_dict())
    with torch.no_grad():
        other.bias[1] += 1e-6
    assert weights_hash(first) != weights_hash(other)
    assert caches._digest({"a": torch.zeros(2, 3)}) != caches._digest({"a": torch.zeros(3, 2)})
