"""The same engine without a page: ``python -m studio merge``."""

from __future__ import annotations

import json

import pytest

from studio.__main__ import main
from tests.merging.checkpoints import pair


def test_a_merge_is_made_on_the_command_line_and_replayed_from_its_own_file(tmp_path, capsys):
    a, b = pair(tmp_path)
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"models": [str(a), str(b)], "title": "m"}))
    out, again = tmp_path / "out", tmp_path / "again"
    options = ["--set", "method=slerp", "--set", "alpha=0.25", "--set", "parts.vae=b", "--device", "cpu"]
    assert main(["merge", str(request), "--out", str(out), *options]) == 0
    said = capsys.readouterr().out
    assert f"{out / 'm.safetensors'}\n" in said
    assert "SHA-256 of the tensors" in said
    assert main(["merge", str(out / "m.safetensors"), "--out", str(again), "--device", "cpu"]) == 0
    assert (again / "m.safetensors").read_bytes() == (out / "m.safetensors").read_bytes()
    assert json.loads((out / "request.json").read_text())["alpha"] == 0.25


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["alpha=7"], "alpha: must be at most 2, got 7."),
        (["method=slurp"], "did you mean 'slerp'"),
        (["task=extract"], "rank: extract needs a rank"),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(capsys, settings, says):
    assert main(["merge", *[part for text in settings for part in ("--set", text)]]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1


def test_an_engine_alone_explains_its_settings(capsys):
    assert main(["merge"]) == 0
    assert "How much of the others is taken" in capsys.readouterr().out
