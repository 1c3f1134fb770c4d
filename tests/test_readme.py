"""The README is kept true: its Python runs, its commands exist, its front matter fits the pinned packages."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def pinned() -> dict[str, str]:
    lines = (ROOT / "requirements.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def test_every_requirement_is_pinned_to_one_version():
    assert {"torch", "gradio", "diffusers", "peft", "transformers", "accelerate", "openai", "numpy"} <= set(pinned())


def test_the_space_runs_the_pinned_gradio():
    assert f'sdk_version: "{pinned()["gradio"]}"' in TEXT


def test_the_front_matter_has_what_a_space_needs():
    front = TEXT.split("---")[1]
    for key in ("title", "emoji", "colorFrom", "colorTo", "sdk", "python_version", "app_file"):
        assert re.search(rf"^{key}: .+", front, re.M), key
    assert (ROOT / "app.py").exists()


def test_every_relative_link_and_picture_is_there():
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in t]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_command_line_example_names_a_preset_that_is_there():
    preset = re.search(r"presets/illusion/[\w-]+\.json", TEXT)
    assert preset is not None
    assert (ROOT / preset[0]).exists()


def test_the_python_example_runs(monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    monkeypatch.chdir(ROOT)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.match(r"-?\d\.\d+ builtin:clip", printed)


@pytest.mark.parametrize("command", ["pip install -r requirements.txt && python app.py", "python -m pytest"])
def test_the_two_commands_are_in_the_readme(command):
    assert command in TEXT
