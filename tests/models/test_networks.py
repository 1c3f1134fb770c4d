from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from studio.errors import UnknownNameError
from studio.imaging import to_tensor
from studio.models.loading import load_stable_diffusion


@pytest.fixture(scope="module")
def tiny(tiny_pipeline):
    return load_stable_diffusion("tiny", tiny_pipeline, torch.device("cpu"), torch.float32)


def test_sizes_follow_from_the_configs(tiny):
    assert (tiny.factor, tiny.size, tiny.channels, tiny.prediction) == (2, 32, 4, "epsilon")


def test_a_model_without_its_own_preview_map_uses_stable_diffusions(tiny):
    assert tiny.preview_scale == 1
    assert tiny.preview(torch.zeros(1, 4, 16, 16)).abs().max() == 0


def test_codes_have_the_shape_the_network_reads(tiny):
    with torch.inference_mode():
        codes = tiny.encode(torch.zeros(2, 3, 32, 32))
        assert codes.shape == (2, 4, 16, 16)
        assert tiny.decode(codes).shape == (2, 3, 32, 32)


def test_rows_of_conditions_are_picked_in_order(tiny):
    with torch.inference_mode():
        conditions = tiny.encode_prompts(["a fox", "a penguin"])
        picked = conditions.rows([1, 0, 1])
    assert torch.equal(picked.embeds, conditions.embeds[[1, 0, 1]])


def test_an_adapter_that_is_not_attached_is_refused_by_name(tiny):
    with pytest.raises(UnknownNameError, match="no adapter 'one'"):
        tiny.predict(torch.zeros(1, 4, 16, 16), torch.tensor(5), tiny.encode_prompts(["a"]), {"one": torch.ones(1)})


def test_the_builtin_preview_resembles_the_decoded_picture(emoji, assets):
    with torch.inference_mode():
        codes = emoji.encode(_drawn_things(assets))
        preview = emoji.preview(codes)
        decoded = F.interpolate(emoji.decode(codes), preview.shape[-2:], mode="area")
    assert (preview - decoded).square().mean() < 0.1 * decoded.var()


def _drawn_things(assets) -> torch.Tensor:
    """The first row of the contact sheet: pictures of the model's own world, 8 x 3 x 128 x 128."""
    with Image.open(assets / "models" / "emoji" / "sheet.png") as sheet:
        return torch.stack([to_tensor(sheet.crop((x, 0, x + 128, 128))) for x in range(0, 1024, 128)])
