"""The table of adapter kinds: every one begins as nothing, learns, and comes back from its files as it was."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from studio import training
from studio.models.adapters import attach
from studio.models.lora_files import read_lora
from studio.training.engine import Training
from studio.training.export import PRECISIONS
from studio.training.injecting import injected
from studio.training.kinds import KINDS
from studio.training.preflight import check
from tests.training.asked import asked

OPTIONS = {"locon": {"conv_rank": 3, "conv_alpha": 5.0}, "oft": {"block_size": 4}, "boft": {"block_size": 4}}


def request(pictures, kind, **changes):
    """Rank 2 with an alpha that is not the rank, wherever there is one, on as many layers as the kind can change."""
    entry = KINDS[kind]
    ranked = {"rank": 2, "alpha": 5.0} if entry.ranked else {}
    settings = ranked | {"adapter": kind, "targets": entry.layers[-1], "options": OPTIONS.get(kind, {})}
    return asked(pictures, **settings | {"text_encoder": True} | changes)


def answer(network, scale: float | None = None) -> Tensor:
    """What the network says of fixed noise and a prompt; with the attached adapter at ``scale``."""
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    worn = () if scale is None else (("it", scale),)
    with torch.no_grad():
        conditions = network.encode_adapted(["a red fox", "a penguin"], worn)
        rows = {name: torch.full((2,), value) for name, value in worn}
        return network.predict(x, torch.tensor([10, 700]), conditions, rows)


@pytest.fixture(scope="module", params=list(KINDS))
def learned(request, pictures, tiny_store, tmp_path_factory):
    """(request, network, its answer without, live with the learned adapter, result, folder of the files)"""
    asked_for = globals()["request"](pictures, request.param)
    folder = tmp_path_factory.mktemp(request.param)
    seen = {}
    taken = Training._result

    def spy(self, stopped):
        seen["live"] = answer(self.network)
        return taken(self, stopped)

    with tiny_store.lease("tiny") as network:
        bare = answer(network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_result", spy)
        result = training.run(asked_for, tiny_store)
    result.save(folder)
    return asked_for, network, bare, seen["live"], result, folder


def test_what_is_injected_changes_nothing_yet_and_leaves_nothing_behind(learned):
    asked_for, network, bare, *_ = learned
    before = {name: part.state_dict() for name, part in network.adaptable.items()}
    modules = [type(module) for part in network.adaptable.values() for module in part.modules()]
    with injected(network, asked_for) as learner:
        assert learner.parameters
        assert all(parameter.dtype == torch.float32 for parameter in learner.parameters.values())
        torch.testing.assert_close(answer(network), bare, atol=2e-6, rtol=0)
    assert [type(module) for part in network.adaptable.values() for module in part.modules()] == modules
    for name, part in network.adaptable.items():
        assert part.state_dict().keys() == before[name].keys()
        assert all(torch.equal(value, before[name][key]) for key, value in part.state_dict().items())
        assert not any(parameter.requires_grad for parameter in part.parameters())
    assert torch.equal(answer(network), bare)


def test_it_learns(learned):
    _, _, bare, live, result, _ = learned
    assert [point.step for point in result.points] == [1, 2]
    assert all(0 < point.loss < 10 for point in result.points)
    assert (live - bare).abs().max() > 1e-3


def test_the_studio_reads_the_kohya_file_back_as_it_was(learned):
    asked_for, network, bare, live, _result, folder = learned
    path = folder / f"{asked_for.data.rpartition('/')[2]}.safetensors"
    with attach(network.attached, network.adaptable, {"it": path}, "tiny"):
        torch.testing.assert_close(answer(network, 1.0), live, atol=5e-6, rtol=0)
        assert torch.equal(answer(network, 0.0), bare)
    assert torch.equal(answer(network), bare)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_files_of_half_the_size_hold_the_same_numbers_rounded_and_whole_alphas(learned, precision, tmp_path):
    asked_for, network, bare, live, result, folder = learned
    name = asked_for.data.rpartition("/")[2]
    result.last.rounded(precision).save(tmp_path, name, result.notes["last"])
    whole, half = load_file(folder / f"{name}.safetensors"), load_file(tmp_path / f"{name}.safetensors")
    assert whole.keys() == half.keys()
    for key, value in half.items():
        assert value.dtype == (torch.float32 if key.endswith(".alpha") else PRECISIONS[precision]), key
        assert torch.equal(value, whole[key].to(value.dtype)), key
    with attach(network.attached, network.adaptable, {"it": tmp_path / f"{name}.safetensors"}, "tiny"):
        apart = (answer(network, 1.0) - live).abs().max()
    assert apart < 0.02 * (live - bare).abs().max()


def test_the_other_file_gives_the_same_in_its_own_library(learned, tiny_pipeline):
    asked_for, network, _bare, live, _result, folder = learned
    name = asked_for.data.rpartition("/")[2]
    if KINDS[asked_for.adapter].low_rank:
        pipeline = StableDiffusionPipeline.from_pretrained(tiny_pipeline, local_files_only=True, safety_checker=None)
        pipeline.load_lora_weights(folder / f"{name}-diffusers.safetensors")
        unet, encoder = pipeline.unet, pipeline.text_encoder
        with attach(network.attached, network.adaptable, {"it": folder / f"{name}-diffusers.safetensors"}, "tiny"):
            torch.testing.assert_close(answer(network, 1.0), live, atol=5e-6, rtol=0)
    else:
        unet = UNet2DConditionModel.from_pretrained(tiny_pipeline / "unet")
        unet = PeftModel.from_pretrained(unet, folder / f"{name}-peft" / "unet")
        encoder = type(network.text_encoder).from_pretrained(tiny_pipeline / "text_encoder")
        encoder = PeftModel.from_pretrained(encoder, folder / f"{name}-peft" / "text_encoder").eval()
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    ids = network.parts["tokenizer"](["a red fox", "a penguin"], padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        found = unet(x, torch.tensor([10, 700]), encoder_hidden_states=encoder(ids)[0]).sample
    torch.testing.assert_close(found, live, atol=1e-6, rtol=0)


def test_kohya_readers_find_alpha_beside_every_layer(learned):
    asked_for, _, _, _, _, folder = learned
    kind = KINDS[asked_for.adapter]
    path = folder / f"{asked_for.data.rpartition('/')[2]}.safetensors"
    with safe_open(path, "pt") as file:
        keys, notes = set(file.keys()), file.metadata()
        alphas = {key: float(file.get_tensor(key)) for key in keys if key.endswith(".alpha")}
    stems = {key.partition(".")[0] for key in keys}
    assert all(stem.startswith(("lora_unet_", "lora_te_text_model_encoder_layers_0_")) for stem in stems)
    assert any(stem.startswith("lora_te_") for stem in stems)
    assert all(isinstance(value, str) for value in notes.values())
    assert notes["modelspec.architecture"] == "stable-diffusion-v1/lora"
    wanted = {"rslora": 5.0 * 2**0.5}.get(kind.name, 5.0)
    if kind.ranked and kind.name != "lokr":
        assert {stem + ".alpha" for stem in stems} == set(alphas)
        assert all(abs(value - wanted) < 1e-5 for value in alphas.values())
    assert read_lora(path).pieces


@pytest.mark.parametrize("kind", list(KINDS.values()), ids=list(KINDS))
def test_every_kind_says_what_it_is(kind):
    assert kind.title
    assert kind.help.endswith(".")
    assert kind.reference
    assert kind.layers
    assert all(field.description for field in kind.options.model_fields.values())
    check(asked("x", adapter=kind.name, targets=kind.layers[0]))
