"""What cannot be asked for is refused in one sentence that names the field."""

from __future__ import annotations

import pytest

from studio.errors import RequestError
from studio.guidance.request import GuidanceRequest
from studio.requests import parse


@pytest.mark.parametrize(
    ("asked", "says", "field"),
    [
        ({"settings": {"gamma": "1,5"}}, "settings.gamma: must be a number, got '1,5'.", "settings.gamma"),
        ({"settings": {"gamma": float("nan")}}, "settings.gamma: must be a finite number, got nan.", "settings.gamma"),
        ({"settings": {"w2": float("inf")}}, "settings.w2: must be a finite number, got inf.", "settings.w2"),
        ({"settings": {"low": 5, "high": 1}}, "the interval is upside down (5 to 1); swap low and high", None),
        ({"settings": {"gama": 1}}, "settings.gama: there is no such setting", "settings.gama"),
        ({"sweep": [{"setting": "gamma", "values": []}]}, "sweep.0.values: must have at least one entry.", "sweep"),
        ({"sweep": [{"setting": "gama", "values": [1]}]}, "sweep.0.setting: must be one of 'w', 'w1'", "sweep"),
        ({"sweep": [{"setting": "w", "values": [1]}, {"setting": "w2", "values": [1]}]}, "the same setting", "sweep"),
        ({"sweep": [{"setting": "gamma", "values": [float("nan")]}]}, "must be a finite number, got nan", "sweep"),
        ({"guiders": ["cfg", "cfg"]}, "guiders: one stands there twice; leave it out once.", "guiders"),
        ({"guiders": ["autolara"]}, "guiders.0: must be one of 'none', 'cfg'", "guiders"),
        ({"adapters": {}}, "adapters: must have at least one entry.", "adapters"),
        ({"adapters": {"an ink": "a"}}, "adapters: 'an ink' is no name for an adapter", "adapters"),
        ({"scales": {"ink": 1}}, "scales: no adapter is called 'ink'; name one of pixel.", "scales"),
        ({"scales": {"pixel": 5}}, "scales.pixel: must be at most 4, got 5.", "scales"),
        ({"seeds": 0}, "seeds: must be at least 1, got 0.", "seeds"),
        ({"prompts": []}, "prompts: must have at least one entry.", "prompts"),
        ({"extractor": ""}, "extractor: must not be empty.", "extractor"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence(asked, says, field):
    with pytest.raises(RequestError) as refused:
        parse(GuidanceRequest, asked)
    assert says in str(refused.value)
    assert str(refused.value).count("\n") == 0
    assert field is None or (refused.value.field or "").startswith(field)


def test_a_request_survives_json():
    asked = GuidanceRequest(
        adapters={"a": "x", "b": "y"}, scales={"b": 0.5}, sweep=({"setting": "gamma", "values": (1.5, 2)},)
    )
    assert GuidanceRequest.model_validate_json(asked.model_dump_json()) == asked
    assert asked.worn == (("a", 1.0), ("b", 0.5))
