"""Parts that come to the device one after the other. The meta device stands for a GPU where nothing is computed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from studio import illusions
from studio.illusions.request import IllusionRequest
from studio.models import memory
from studio.models.loading import load_pipeline
from studio.models.residence import Residence
from studio.models.store import ModelStore
from studio.sampling import Predictor, Route, Term, Upright, build_scheduler, denoise, guidance

CPU, META = torch.device("cpu"), torch.device("meta")
GB = 1024**3


def places(residence):
    return {name: next(part.parameters()).device.type for name, part in residence.parts.items()}


@pytest.fixture
def network(tiny_sdxl):
    return load_pipeline("tiny", tiny_sdxl, CPU, torch.float32)


class Fixed:
    """A host with so much free memory, and as much more once the idle models are gone."""

    def __init__(self, free: int, idle: int = 0) -> None:
        self.free, self.idle, self.evictions = free, idle, 0

    def free_memory(self, held: int = 0) -> int:
        return self.free + held

    def evict_idle(self) -> None:
        self.free, self.idle, self.evictions = self.free + self.idle, 0, self.evictions + 1


def test_one_part_at_a_time_is_on_the_device_and_its_weights_come_back_untouched(network):
    residence = Residence(network.parts, META)
    residence.settle(True)
    before = network.denoiser.state_dict()
    where = [tensor.data_ptr() for tensor in before.values()]
    copies = [tensor.clone() for tensor in before.values()]
    residence.bring("text_encoder")
    residence.bring("unet")
    assert places(residence) == {"vae": "cpu", "unet": "meta", "text_encoder": "cpu", "text_encoder_2": "cpu"}
    assert all(tensor.device == META for tensor in network.denoiser.buffers())
    residence.leave()
    after = network.denoiser.state_dict()
    assert set(places(residence).values()) == {"cpu"}
    assert [tensor.data_ptr() for tensor in after.values()] == where
    assert all(torch.equal(after[name], copy) for name, copy in zip(before, copies, strict=True))


def test_a_part_comes_when_it_is_called_and_its_inputs_with_it():
    linear = nn.Linear(2, 3)
    residence = Residence({"text_encoder": linear}, META)
    residence.settle(True)
    assert linear(torch.ones(1, 2)).device == META
    residence.settle(False)
    assert linear.weight.device == META
    assert not linear._forward_pre_hooks


def test_an_offloaded_run_is_the_same_picture_and_moves_each_part_once(network):
    scheduler = lambda: build_scheduler("euler", network.scheduler_config, 3, CPU)  # noqa: E731
    terms, noise = guidance("a fox", "", 4.0, 1.0, Upright()), torch.randn(1, 4, 16, 16)
    latents = denoise(network, scheduler(), lambda i, s: terms, noise)
    whole = network.decode(latents)
    came = []
    network.residence.settle(True)
    bring = network.residence.bring
    network.residence.bring = lambda name: (came.append(name), bring(name)) if not came or came[-1] != name else None
    assert torch.equal(network.decode(denoise(network, scheduler(), lambda i, s: terms, noise)), whole)
    # Each prompt goes through both encoders; then the U-Net stays for all steps.
    assert came == ["text_encoder", "text_encoder_2"] * 2 + ["unet", "vae"]


def test_a_run_leaves_everything_in_place_when_there_is_room(network):
    network.residence.host = Fixed(10 * GB)
    found = network.residence.arrange(64, 4)
    assert (found.offload, found.tiled, found.rows) == (False, False, 4)
    assert not network.residence.offloaded
    assert network.residence.host.evictions == 0


def test_idle_models_leave_before_anything_slower_is_chosen(network):
    network.residence.host = Fixed(0, idle=10 * GB)
    assert not network.residence.arrange(64, 4).offload
    assert network.residence.host.evictions == 1


def test_without_room_parts_are_offloaded_and_with_room_again_they_return(network):
    network.residence.host = Fixed(0)
    assert network.residence.arrange(64, 4).rows == 1
    assert network.residence.offloaded
    network.residence.host = Fixed(10 * GB)
    network.residence.arrange(64, 4)
    assert not network.residence.offloaded


def test_a_large_picture_is_decoded_in_tiles_when_whole_ones_are_too_large(network):
    side = 2 * memory.TILE
    needs = memory.Work(side, 1, 4)
    network.residence.host = Fixed(max(needs.forward(1), needs.decode(True)) + 1000)
    assert network.residence.arrange(side, 1).tiled
    assert network.vae.use_tiling
    network.residence.host = Fixed(100 * GB)
    network.residence.arrange(side, 1)
    assert not network.vae.use_tiling


def test_tiles_make_nearly_the_same_picture(emoji):
    codes = emoji.encode(torch.linspace(-1, 1, 256).expand(1, 3, 256, 256))
    whole = emoji.decode(codes)
    try:
        emoji.residence.tile(128)
        tiled = emoji.decode(codes)
    finally:
        emoji.residence.tile(None)
    assert tiled.shape == whole.shape
    assert 0 < (tiled - whole).abs().mean() < 0.05


def test_decoding_that_runs_out_of_memory_goes_on_in_tiles(network, monkeypatch):
    network.residence.tile_side, plain = 16, network.vae.decoder.forward

    def forward(codes, *args):
        if codes.shape[-1] > 8:
            raise torch.OutOfMemoryError("pretend")
        return plain(codes, *args)

    monkeypatch.setattr(network.vae.decoder, "forward", forward)
    with torch.inference_mode():
        assert network.decode(torch.randn(1, 4, 16, 16)).shape == (1, 3, 32, 32)
    assert network.residence.tiled


def limited(network, most, monkeypatch):
    """The real tiny network, on a device where a forward of more than ``most`` rows runs out of memory."""
    plain, seen = network.denoiser.forward, []

    def forward(x, *args, **kwargs):
        seen.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError("pretend")
        return plain(x, *args, **kwargs)

    monkeypatch.setattr(network.denoiser, "forward", forward)
    return seen


def test_a_batch_that_runs_out_of_memory_is_halved_for_the_rest_of_the_run_and_comes_out_equal(network, monkeypatch):
    terms = [Term(0.25, prompt) for prompt in ("a fox", "a penguin", "red", "blue", "a")]
    noise = torch.randn(1, 4, 16, 16)

    def drawn():
        predict = Predictor(network)
        scheduler = build_scheduler("euler", network.scheduler_config, 3, CPU)
        return denoise(network, scheduler, lambda i, s: terms, noise, route=Route(predict=predict)), predict

    whole, quiet = drawn()
    seen = limited(network, 3, monkeypatch)
    split, predict = drawn()
    torch.testing.assert_close(split, whole, atol=1e-5, rtol=1e-5)
    assert seen == [5, 3, 2, 3, 2, 3, 2]
    assert quiet.notes() == ()
    assert predict.notes() == ("Memory was short: the network saw 3 rows at a time.",)


def test_when_one_row_is_too_much_the_error_comes_out(network, monkeypatch):
    seen = limited(network, 0, monkeypatch)
    predict = Predictor(network)
    with pytest.raises(torch.OutOfMemoryError), torch.inference_mode():
        predict(torch.randn(4, 4, 16, 16), [("identity", "a fox", ())] * 4)
    assert seen == [4, 2, 1]


def test_the_engine_says_what_memory_made_different_and_how_much_was_used(tiny_pipeline, assets, monkeypatch, tmp_path):
    store = ModelStore(assets, device="cpu")
    wanted = IllusionRequest(model=str(tiny_pipeline), steps=2)
    whole = illusions.run(wanted, store)
    with store.lease(wanted.model) as network:
        limited(network, 1, monkeypatch)
    split = illusions.run(wanted, store)
    assert split.candidates[0].image.tobytes() == whole.candidates[0].image.tobytes()
    assert "Memory was short: the network saw 1 row at a time." in split.notes
    summary = split.save(tmp_path)
    assert 100 * 1024**2 < summary["peak_memory"] < 64 * GB
    assert f"Memory: {memory.gigabytes(summary['peak_memory'])} at the most." in summary["notes"]
