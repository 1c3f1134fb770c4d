"""Guidance as an engine of the studio: what strangers may ask for, on the command line, and its presets."""

from __future__ import annotations

import json

import pytest

from studio.__main__ import main
from studio.errors import PolicyError
from studio.guidance.grid import columns
from studio.guidance.preflight import check
from studio.guidance.request import GuidanceRequest
from studio.policy import LOCAL, SHARED, check_guidance
from studio.presets import list_presets
from studio.requests import parse
from studio.settings import Settings
from studio.workbench import engine_named
from tests.models.loras import save_random

MODELS, LORAS = ("builtin:emoji",), ("builtin:pixel", "ink.safetensors")
SHIPPED = list_presets(Settings().presets, "guidance")
SCALES = {"setting": "lora_scale", "values": [0.1 * tenth for tenth in range(1, 11)]}


def refusal(**changes):
    with pytest.raises(PolicyError) as refused:
        check_guidance(GuidanceRequest(**changes), SHARED, MODELS, LORAS)
    return refused.value


def test_the_default_request_is_allowed_everywhere():
    for limits in (LOCAL, SHARED):
        check_guidance(GuidanceRequest(), limits, MODELS, LORAS)


@pytest.mark.parametrize(
    ("changes", "says", "field"),
    [
        ({"model": "/etc/passwd"}, "this studio does not offer '/etc/passwd'", "model"),
        ({"adapters": {"a": "/etc/passwd"}}, "this studio does not offer '/etc/passwd'", "adapters"),
        ({"adapters": dict.fromkeys("abc", "builtin:pixel")}, "at most 2 are allowed here, got 3", "adapters"),
        ({"extractor": "my/clip"}, "this studio does not offer 'my/clip'; choose one of builtin:clip", "extractor"),
        ({"resume": "/tmp"}, "no folder can be named in a studio that strangers visit", "resume"),
        ({"settings": {"steps": 101}, "seeds": 1}, "at most 100 are allowed here, got 101", "settings.steps"),
        (
            {"settings": {"steps": 60}, "guiders": ("cfg_budget",), "seeds": 1},
            "at most 100 are allowed here, got 120",
            "settings.steps",
        ),
        ({"sweep": ({"setting": "steps", "values": (2, 101)},), "seeds": 1}, "got 101", "settings.steps"),
        ({"size": 1032}, "at most 1,024 are allowed here, got 1,032", "size"),
        ({"guiders": ("none",), "settings": {"steps": 1}, "seeds": 121}, "at most 120 are allowed here", "sweep"),
        (
            {"guiders": ("autolora",), "sweep": (SCALES,), "seeds": 3},
            "this comparison is up to 2,400 evaluations, and at most 2,000 are allowed here; lower seeds or steps",
            "seeds",
        ),
    ],
)
def test_a_visitor_of_a_shared_link_meets_every_limit_with_its_field(changes, says, field):
    error = refusal(**changes)
    assert says in str(error)
    assert error.field == field


def test_at_home_files_folders_and_long_runs_are_a_persons_own():
    asked = GuidanceRequest(
        model="/my/model", adapters={"a": "/my/lora"}, resume="/my/run", extractor="/my/clip", seeds=20, sweep=(SCALES,)
    )
    check_guidance(asked, LOCAL, MODELS, LORAS)


@pytest.fixture(scope="module")
def lora(assets, tmp_path_factory):
    path = tmp_path_factory.mktemp("lora") / "ink.safetensors"
    return save_random(path, assets / "models" / "emoji", "kohya", seed=1)


def test_the_command_line_draws_compares_and_goes_on(lora, tmp_path, capsys):
    asked = {"adapters": {"ink": str(lora)}, "guiders": ["cfg", "autolora"], "seeds": 2, "settings": {"steps": 1}}
    (tmp_path / "request.json").write_text(json.dumps(asked))
    options = ["--device", "cpu", "--offline"]
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["guidance", str(tmp_path / "request.json"), "--out", str(first), *options]) == 0
    out = capsys.readouterr().out
    assert f"{first / 'cell-0-0-1.png'}\n" in out
    assert "4 pictures, 2 seeds from 0; features by builtin:clip" in out
    found = json.loads((first / "result.json").read_text())
    assert [line["title"] for line in found["columns"]] == ["LoRA + CFG", "AutoLoRA"]
    assert found["evaluations"] == 2 * (2 + 4)
    again = [str(first / "request.json"), "--set", f"resume={first}", "--set", "seeds=3", "--out", str(second)]
    assert main(["guidance", *again, *options]) == 0
    assert json.loads((second / "result.json").read_text())["evaluations"] == 2 + 4


def test_what_cannot_be_compared_is_one_sentence_on_the_command_line(lora, capsys):
    adapters = json.dumps({"ink": str(lora)})
    for setting, says in (
        ('settings.gamma="1,5"', "settings.gamma: must be a number, got '1,5'."),
        ("settings.gamma=NaN", "settings.gamma: must be a finite number, got nan."),
        ("extractor=nosuch", "There is no scorer 'nosuch'"),
    ):
        assert main(["guidance", "--set", f"adapters={adapters}", "--set", setting, "--offline"]) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1


def test_there_are_the_papers_figures_to_start_from():
    assert {"paper-figure-1", "paper-figure-2", "paper-figure-4", "paper-pixel-art"} <= {each.slug for each in SHIPPED}
    assert len(list((Settings().presets / "guidance").glob("*.json"))) == len(SHIPPED)


@pytest.mark.parametrize("preset", SHIPPED, ids=lambda preset: preset.slug)
def test_every_preset_is_a_request_that_can_run_and_says_what_it_shows(preset):
    request = parse(engine_named("guidance").request_class(), preset.request)
    check(request)
    assert columns(request)
    assert preset.description


def test_the_papers_prompts_are_all_there_in_its_style():
    (request,) = [preset.request for preset in SHIPPED if preset.slug == "paper-pixel-art"]
    assert len(set(request["prompts"])) == 30
    assert all(prompt.endswith(", pixel art style") for prompt in request["prompts"])
    assert request["seeds"] == 16
