from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, StableDiffusionPipeline
from peft import LoHaConfig, LoKrConfig
from safetensors.torch import load_file, save_file

from studio.errors import ModelFileError, UnknownNameError
from studio.models.loading import load_stable_diffusion
from studio.models.store import ModelStore
from studio.sampling import Predictor, Term, Upright, build_scheduler, denoise
from tests.models.loras import TEXT_LAYERS, add, lora_config, save_diffusers, save_kohya, save_peft

PROMPTS = ["a fox", "a penguin", "red", "a blue fox"]
EXACT = {"atol": 1e-5, "rtol": 0}


@pytest.fixture
def network(tiny_pipeline):
    return load_stable_diffusion("tiny", tiny_pipeline, torch.device("cpu"), torch.float32)


@pytest.fixture
def store(assets):
    return ModelStore(assets, device="cpu")


@pytest.fixture
def stock(tiny_pipeline):
    """The same network as a stock diffusers pipeline: what everything is compared with."""
    return StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)


@pytest.fixture(scope="module")
def files(tiny_pipeline, tmp_path_factory):
    """Two LoRAs (rank 2 and 3, alpha 5 and 1) of U-Net and text encoder, the first in both kinds of names."""
    folder = tmp_path_factory.mktemp("loras")
    found = {}
    for name, rank, alpha, seed in (("one", 2, 5, 1), ("two", 3, 1, 2)):
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
        unet = add(pipeline.unet, lora_config(rank, alpha), seed)
        text = add(pipeline.text_encoder, lora_config(rank, alpha, TEXT_LAYERS), seed + 10)
        parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
        found[name] = save_diffusers(folder / name, parts)
        kohya = {"lora_unet": unet, "lora_te_text_model": text}
        found[f"{name}-kohya"] = save_kohya(folder / f"{name}-kohya.safetensors", kohya, alpha)
    return found


def noise(rows=4, seed=0):
    return torch.randn(rows, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def predicted(network, scales, rows=4):
    conditions = network.encode_prompts(PROMPTS[:rows])
    tensors = {name: torch.as_tensor(scale).expand(rows) for name, scale in scales.items()}
    return network.predict(noise(rows), torch.tensor(300), conditions, tensors)


@torch.inference_mode()
def stock_predicted(unet, network, rows=4):
    embeds = network.encode_prompts(PROMPTS[:rows]).embeds
    return unet(noise(rows), torch.tensor(300), encoder_hidden_states=embeds, return_dict=False)[0]


@pytest.mark.parametrize("scale", [1.0, 0.6, -0.5])
@pytest.mark.parametrize("file", ["one", "one-kohya", "two", "two-kohya"])
def test_a_lora_changes_the_network_as_diffusers_does(network, store, stock, files, file, scale):
    base = predicted(network, {})
    stock.load_lora_weights(files[file], adapter_name="a")
    stock.set_adapters(["a"], [scale])
    expected = stock_predicted(stock.unet, network)
    with store.adapters(network, {"a": files[file]}):
        found = predicted(network, {"a": scale})
    assert (expected - base).abs().max() > 0.05
    torch.testing.assert_close(found, expected, **EXACT)


def test_every_row_of_a_batch_has_its_own_scale_for_every_adapter(network, store, stock, files):
    pairs = [(1.0, 0.0), (0.0, 1.0), (0.7, 0.4), (-0.3, 1.5)]
    for name in ("one", "two"):
        stock.load_lora_weights(files[name], adapter_name=name)
    expected = []
    for row, weights in enumerate(pairs):
        stock.set_adapters(["one", "two"], list(weights))
        expected.append(stock_predicted(stock.unet, network)[row])
    with store.adapters(network, {"one": files["one"], "two": files["two-kohya"]}):
        found = predicted(network, dict(zip(("one", "two"), torch.tensor(pairs).T, strict=True)))
    torch.testing.assert_close(found, torch.stack(expected), **EXACT)


def test_a_row_of_zeros_is_the_base_model(network, store, files):
    base = predicted(network, {})
    with store.adapters(network, {"one": files["one"]}):
        mixed = predicted(network, {"one": torch.tensor([0.0, 1.0, 0.0, 1.0])})
        assert torch.equal(predicted(network, {}), base)
    assert torch.equal(mixed[[0, 2]], base[[0, 2]])
    assert (mixed - base)[[1, 3]].abs().max() > 0.05


def test_what_is_attached_but_not_named_is_off(network, store, files):
    with store.adapters(network, {"one": files["one"]}):
        alone = predicted(network, {"one": 1.0})
    with store.adapters(network, {"one": files["one"], "two": files["two"]}):
        torch.testing.assert_close(predicted(network, {"one": 1.0}), alone, atol=1e-6, rtol=0)


def test_the_network_is_bit_identical_afterwards_even_when_the_job_fails(network, store, files):
    before = {name: copy.deepcopy(part.state_dict()) for name, part in network.adaptable.items()}
    base = predicted(network, {})

    def job():
        with store.adapters(network, {"one": files["one"]}):
            predicted(network, {"one": 1.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    for name, part in network.adaptable.items():
        assert part.state_dict().keys() == before[name].keys()
        assert all(torch.equal(value, before[name][key]) for key, value in part.state_dict().items())
        assert not any(module._forward_hooks for module in part.modules())
    assert torch.equal(predicted(network, {}), base)
    with store.adapters(network, {"one": files["one"]}):
        predicted(network, {"one": 1.0})


def test_one_bad_file_leaves_nothing_attached(network, store, files, tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no")
    with pytest.raises(ModelFileError), store.adapters(network, {"one": files["one"], "bad": bad}):
        pass
    assert network.attached.names == ()
    assert not any(module._forward_hooks for module in network.unet.modules())


def test_a_name_that_is_not_attached_suggests_the_nearest(network, store, files):
    with store.adapters(network, {"anna": files["one"]}), pytest.raises(UnknownNameError, match="did you mean 'anna'"):
        predicted(network, {"ana": 1.0})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks_stay_in_their_precision(tiny_pipeline, store, files, dtype):
    full = load_stable_diffusion("tiny", tiny_pipeline, torch.device("cpu"), torch.float32)
    half = load_stable_diffusion("tiny", tiny_pipeline, torch.device("cpu"), dtype)
    with store.adapters(full, {"one": files["one"]}), store.adapters(half, {"one": files["one"]}):
        expected, found = predicted(full, {"one": 0.7}), predicted(half, {"one": 0.7})
    assert half.unet.dtype == dtype
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


# -- the other kinds


@pytest.fixture(scope="module")
def dora(tiny_pipeline, tmp_path_factory):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline, safety_checker=None)
    layers = ["to_q", "to_out.0", "conv1", "conv_shortcut"]
    add(pipeline.unet, lora_config(2, 5, layers, use_dora=True), seed=5)
    return save_diffusers(tmp_path_factory.mktemp("dora"), {"unet": pipeline.unet})


def test_a_dora_as_trained_equals_pefts(network, store, stock, dora):
    stock.load_lora_weights(dora, adapter_name="a")
    expected = stock_predicted(stock.unet, network)
    with store.adapters(network, {"a": dora}):
        found = predicted(network, {"a": torch.tensor([1.0, 0.0, 1.0, 0.0])})
    assert (expected - predicted(network, {})).abs().max() > 0.05
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], **EXACT)
    assert torch.equal(found[[1, 3]], predicted(network, {})[[1, 3]])


def test_a_dora_at_another_scale_moves_every_weight_that_share_of_the_way(network, store, stock, dora):
    stock.load_lora_weights(dora, adapter_name="a")
    stock.fuse_lora()
    stock.unload_lora_weights()
    trained, mixed = stock.unet.state_dict(), copy.deepcopy(network.unet)
    mixed.load_state_dict({key: value.lerp(trained[key], 0.4) for key, value in network.unet.state_dict().items()})
    with store.adapters(network, {"a": dora}):
        found = predicted(network, {"a": 0.4})
    torch.testing.assert_close(found, stock_predicted(mixed, network), **EXACT)


def test_a_dora_and_a_lora_share_a_batch(network, store, dora, files):
    alone = []
    for name, path in (("d", dora), ("l", files["one"])):
        with store.adapters(network, {name: path}):
            alone.append(predicted(network, {name: 1.0}))
    with store.adapters(network, {"d": dora, "l": files["one"]}):
        found = predicted(network, {"d": torch.tensor([1.0, 0, 1, 0]), "l": torch.tensor([0, 1.0, 0, 1])})
    torch.testing.assert_close(found, torch.stack([alone[row % 2][row] for row in range(4)]), **EXACT)


OTHERS = {
    "LoHa": LoHaConfig(r=2, alpha=3, target_modules=["to_q", "conv1"]),
    "LoHa with cores": LoHaConfig(r=2, alpha=3, target_modules=["to_q", "conv1"], use_effective_conv2d=True),
    "LoKr": LoKrConfig(r=2, alpha=3, target_modules=["to_q", "conv1"], decompose_both=True),
    "LoKr with cores": LoKrConfig(r=1, alpha=3, target_modules=["to_q", "conv1"], use_effective_conv2d=True),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_kinds_equal_pefts_own(network, store, kind, tmp_path):
    carrying = save_peft(tmp_path, copy.deepcopy(network.unet), OTHERS[kind], seed=3)
    expected = stock_predicted(carrying, network)
    base = predicted(network, {})
    with store.adapters(network, {"a": tmp_path}):
        found = predicted(network, {"a": torch.tensor([1.0, 0.0, 1.0, 1.0])})
    assert (expected - base).abs().max() > 1e-3
    torch.testing.assert_close(found, torch.stack([expected[0], base[1], *expected[2:]]), **EXACT)


LAYER = "mid_block.resnets.0.conv1"
KEY = "lora_unet_mid_block_resnets_0_conv1"


def with_weight(network, change, bias=0.0):
    """The U-Net with one convolution's weight and bias changed by hand."""
    unet = copy.deepcopy(network.unet)
    layer = unet.get_submodule(LAYER)
    layer.weight.data += change
    layer.bias.data += bias
    return unet


def attached_prediction(network, store, tmp_path, tensors, scale=1.0):
    save_file({f"{KEY}.{role}": value.contiguous() for role, value in tensors.items()}, tmp_path / "a.safetensors")
    with store.adapters(network, {"a": tmp_path / "a.safetensors"}):
        return predicted(network, {"a": scale})


def test_a_convolution_with_a_core_is_rebuilt_as_its_three_convolutions(network, store, tmp_path):
    up, mid, down = torch.randn(16, 2, 1, 1), torch.randn(2, 2, 3, 3), torch.randn(2, 16, 1, 1)
    held = {"lora_up.weight": up, "lora_mid.weight": mid, "lora_down.weight": down, "alpha": torch.tensor(1.0)}
    delta = torch.zeros(16, 16, 3, 3)
    for channel in range(16):  # the answer of the three convolutions to every unit impulse is the kernel, mirrored
        impulse = torch.zeros(1, 16, 5, 5)
        impulse[0, channel, 2, 2] = 1
        answer = F.conv2d(F.conv2d(F.conv2d(impulse, down), mid, padding=1), up)
        delta[:, channel] = answer[0, :, 1:4, 1:4].flip(1, 2)
    expected = stock_predicted(with_weight(network, delta / 2), network)
    torch.testing.assert_close(attached_prediction(network, store, tmp_path, held), expected, **EXACT)


def test_a_full_difference_changes_weight_and_bias(network, store, tmp_path):
    weight, bias = torch.randn(16, 16, 3, 3) * 0.1, torch.randn(16)
    found = attached_prediction(network, store, tmp_path, {"diff": weight, "diff_b": bias}, 0.5)
    torch.testing.assert_close(found, stock_predicted(with_weight(network, weight / 2, bias / 2), network), **EXACT)
    found = attached_prediction(network, store, tmp_path, {"diff_b": bias})
    torch.testing.assert_close(found, stock_predicted(with_weight(network, 0, bias), network), **EXACT)


@pytest.mark.parametrize("by_output", [True, False])
def test_lycoris_magnitudes_are_per_output_or_per_input(network, store, tmp_path, by_output):
    up, down = torch.randn(16, 2, 1, 1) * 0.2, torch.randn(2, 16, 3, 3) * 0.2
    shape, others = ((16, 1, 1, 1), (1, 2, 3)) if by_output else ((1, 16, 1, 1), (0, 2, 3))
    magnitude = torch.rand(shape) + 1
    held = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(2.0), "dora_scale": magnitude}
    weight = network.unet.get_submodule(LAYER).weight
    changed = weight + torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    change = changed * magnitude / changed.square().sum(others, keepdim=True).sqrt() - weight
    expected = stock_predicted(with_weight(network, change.detach()), network)
    torch.testing.assert_close(attached_prediction(network, store, tmp_path, held), expected, **EXACT)


def test_rank_stabilised_loras_and_patterns_of_alpha_scale_as_peft_says(network, store, stock, tmp_path):
    options = {"use_rslora": True, "rank_pattern": {"conv1": 3}, "alpha_pattern": {"mid_block.*to_q": 9}}
    add(stock.unet, lora_config(2, 5, **options), seed=8)
    expected = stock_predicted(stock.unet, network)
    path = save_diffusers(tmp_path, {"unet": stock.unet})
    with store.adapters(network, {"a": path}):
        torch.testing.assert_close(predicted(network, {"a": 1.0}), expected, **EXACT)


# -- prompts and the loop


def test_a_text_encoder_lora_changes_prompts_as_diffusers_does(network, store, stock, files):
    stock.load_lora_weights(files["one-kohya"], adapter_name="a")
    stock.set_adapters(["a"], [0.7])
    expected = stock.encode_prompt("a fox", "cpu", 1, False)[0]
    with torch.inference_mode(), store.adapters(network, {"a": files["one-kohya"]}):
        found = network.encode_adapted(["a fox"], [("a", 0.7)]).embeds
        assert torch.equal(network.encode_prompts(["a fox"]).embeds, network.encode_adapted(["a fox"], ()).embeds)
    assert (expected - network.encode_prompts(["a fox"]).embeds).abs().max() > 0.01
    torch.testing.assert_close(found, expected, **EXACT)


def unet_only(path, folder):
    """The same file without its text encoder."""
    save_file({k: v for k, v in load_file(path).items() if "lora_te" not in k}, folder / "unet-only.safetensors")
    return folder / "unet-only.safetensors"


def test_prompts_are_encoded_once_for_each_set_of_adapters_that_changes_them(network, store, files, tmp_path):
    encoded = []
    encode = network.encode_adapted
    network.encode_adapted = lambda prompts, adapters: encoded.append((*prompts, adapters)) or encode(prompts, adapters)
    rows = [
        ("identity", "a fox", ()),
        ("identity", "a fox", (("text", 1.0),)),
        ("rotate_180", "a fox", (("text", 1.0), ("picture", 0.5))),
        ("identity", "a fox", (("picture", 1.0),)),
        ("identity", "a fox", (("text", 0.0),)),
        ("identity", "a fox", (("text", 0.5),)),
    ]
    adapters = {"text": files["one-kohya"], "picture": unet_only(files["two-kohya"], tmp_path)}
    with torch.inference_mode(), store.adapters(network, adapters):
        predictor = Predictor(network)
        predictor(noise(6), rows)
        predictor(noise(6), rows)
    assert encoded == [("a fox", ()), ("a fox", (("text", 1.0),)), ("a fox", (("text", 0.5),))]


def test_the_loop_with_a_lora_is_the_stock_pipeline_with_that_lora(network, store, stock, files):
    stock.scheduler = DDIMScheduler.from_config(stock.scheduler.config)
    stock.load_lora_weights(files["one"], adapter_name="a")
    stock.set_adapters(["a"], [0.8])
    stock.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 5, "guidance_scale": 4.0, "output_type": "latent"}
    expected = stock("a fox", negative_prompt="red", latents=noise(1), **options).images
    worn = (("a", 0.8),)
    terms = [Term(-3.0, "red", Upright(), worn), Term(4.0, "a fox", Upright(), worn)]
    with store.adapters(network, {"a": files["one"]}):
        scheduler = build_scheduler("ddim", network.scheduler_config, 5, network.device)
        found = denoise(network, scheduler, lambda index, sigma: terms, noise(1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_terms_with_different_adapters_go_through_one_forward(network, store, files):
    sizes = []
    network.unet.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    terms = [Term(0.5, "a fox", Upright(), worn) for worn in ((), (("one", 1.0),), (("two", 0.5), ("one", -1.0)))]
    with store.adapters(network, {"one": files["one"], "two": files["two"]}):
        scheduler = build_scheduler("ddim", network.scheduler_config, 2, network.device)
        denoise(network, scheduler, lambda index, sigma: terms, noise(1))
    assert sizes == [3, 3]
