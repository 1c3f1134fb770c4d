import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from studio.__main__ import ProgressLine, main, read_request_file
from studio.engines import Engine
from studio.errors import Cancelled, RequestError
from studio.imaging import write_png
from studio.progress import Step

ROOT = Path(__file__).resolve().parents[1]
PRESET = ROOT / "presets" / "illusion" / "fox-penguin.json"


def command(*arguments):
    return [sys.executable, "-m", "studio", *map(str, arguments)]


def refused(capsys, *argv):
    """The sentence on stderr of a run that ends with code 2."""
    assert main([str(part) for part in argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_without_arguments_it_lists_the_engines(capsys):
    assert main([]) == 0
    assert "  illusion " in capsys.readouterr().out


def test_an_engine_alone_explains_its_settings(capsys):
    assert main(["illusion"]) == 0
    out = capsys.readouterr().out
    assert "Denoising steps; more is slower and a little cleaner. [30]" in out
    assert '["identity", "rotate_180"]' in out


def test_a_preset_makes_the_files_and_a_picture_of_them_makes_the_same_again(tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--device", "cpu", "--offline"]
    assert main(["illusion", str(PRESET), "--set", "seed=7", "--set", "steps=2", "--out", str(first), *options]) == 0
    captured = capsys.readouterr()
    assert f"{first / 'candidate-0.png'}\n" in captured.out
    assert "seed 7, alignment" in captured.out
    assert "step 2 of 2" in captured.err
    names = {path.name for path in first.iterdir()}
    assert {"request.json", "result.json", "candidate-0.webp", "candidate-0.gif", "candidate-0-grid.png"} <= names
    assert json.loads((first / "request.json").read_text())["seed"] == 7
    assert main(["illusion", str(first / "candidate-0.png"), "--out", str(second), *options]) == 0
    assert (second / "candidate-0.png").read_bytes() == (first / "candidate-0.png").read_bytes()
    assert main(["illusion", str(first / "request.json"), "--set", "steps=0", "--out", str(second)]) == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["steps=0"], "steps: must be at least 1, got 0."),
        (["prompts.2=a cat"], "prompts: 3 prompts for 2 views"),
        (["views.1=rotate_18"], "did you mean 'rotate_180'"),
        ([f"prompts.0={'x' * 10_000}"], "prompts.0: must have at most 400 characters"),
        (["promts=x"], "did you mean 'prompts'"),
        (["steps"], "--set needs name=value"),
        (['views=["low_pass", "identity"]'], "low_pass"),
        (["guidance_scale=NaN"], "guidance_scale: must be a finite number, got nan."),
        (["upscale_strength=Infinity"], "upscale_strength: must be a finite number, got inf."),
        (["model="], "model: must not be empty."),
        (["scorer=nosuch"], "There is no scorer 'nosuch': choose builtin:clip, or name the folder of a CLIP model"),
    ],
)
def test_settings_that_cannot_be_used_are_one_sentence(capsys, settings, says):
    assert says in refused(capsys, "illusion", PRESET, *[part for text in settings for part in ("--set", text)])


def test_an_unknown_engine_suggests_the_nearest(capsys):
    assert "did you mean 'illusion'" in refused(capsys, "ilusion", PRESET)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "neither JSON nor a PNG"),
        (b"\xff\xfe\x00", "neither JSON nor a PNG"),
        (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "this JSON is nested too deeply for a request"),
        (b'{"a":' * 700 + b"1" + b"}" * 700, "must not be nested so deeply"),
        (b"[1]", "must be an object of named settings, got a list of 1"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b'{"engine": "merge", "request": {}}', "is for the engine 'merge'"),
    ],
    ids=lambda part: repr(part[:20]),
)
def test_a_request_file_that_cannot_be_read_is_one_sentence(tmp_path, capsys, content, says):
    (tmp_path / "r.json").write_bytes(content)
    assert says in refused(capsys, "illusion", tmp_path / "r.json")


def test_a_missing_request_file_is_one_sentence(capsys):
    assert "cannot be read (No such file or directory)" in refused(capsys, "illusion", "/no/such.json")


@pytest.mark.parametrize("engine", ["illusion", "merge-strip"])
def test_a_folder_or_a_model_is_no_request_and_nothing_is_said_of_merges(tmp_path, capsys, engine):
    message = refused(capsys, engine, PRESET.parent)
    assert f"this is a folder, and {engine} needs a request, as JSON or a PNG of ours; name a file in it." in message
    (tmp_path / "x.safetensors").write_bytes(b"")
    message = refused(capsys, engine, tmp_path / "x.safetensors")
    assert f"this is a model, and {engine} needs a request, as JSON or a PNG of ours; to use the model, set " in message


def test_a_name_that_no_file_can_have_is_one_sentence(capsys):
    assert "cannot be read (File name too long)" in refused(capsys, "illusion", "x" * 300)


@pytest.mark.parametrize(
    "model", ["~nosuchuser/x", "x" * 295, "a/b--c", "foo/bar.."], ids=lambda model: repr(model[:20])
)
def test_a_model_that_cannot_be_is_one_sentence_and_leaves_no_folder(tmp_path, capsys, model):
    options = ["--device", "cpu", "--offline", "--out", str(tmp_path / "new" / "out")]
    assert main(["illusion", str(PRESET), "--set", f"model={model}", *options]) == 2
    assert "error: There is no model at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_cannot_be_is_one_sentence(tmp_path, capsys):
    message = refused(capsys, "illusion", PRESET, "--device", "cpu:x", "--out", tmp_path / "out")
    assert "device: there is no 'cpu:x' on this machine; choose auto, " in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--first", "0"], "first: must be at least 1, got 0"),
        (["--pairs", "nosuch"], "There is no list of pairs 'nosuch': choose one of"),
        (["--scorer", "nosuch"], "There is no scorer 'nosuch'"),
    ],
)
def test_a_benchmark_that_cannot_be_is_one_sentence(capsys, options, says):
    assert says in refused(capsys, "illusion-bench", *options)


def test_only_what_this_run_made_is_listed(tmp_path, capsys, monkeypatch):
    class Made:
        def save(self, folder):
            (folder / "new.png").write_text("")
            (folder / "again.png").write_text("new")
            return {}

    monkeypatch.setattr(Engine, "run_function", lambda engine: lambda request, models, *, on_step: Made())
    for name in ("again.png", "mine.png"):
        (tmp_path / name).write_text("old")
    assert main(["illusion", str(PRESET), "--out", str(tmp_path), "--device", "cpu"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [str(tmp_path / name) for name in ("again.png", "new.png", "result.json")]


def test_help_says_that_files_and_loras_count(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "folder of models and LoRAs: .safetensors files" in " ".join(capsys.readouterr().out.split())


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refused(capsys, "illusion", PRESET, "--out", tmp_path / "file" / "out")
    assert "file/out cannot be made (Not a directory); name another" in message


def test_a_model_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert main(["illusion", str(PRESET), "--set", "model=/no/such", "--out", str(tmp_path), "--offline"]) == 2
    error = capsys.readouterr().err
    assert "/no/such" in error
    assert "Traceback" not in error


def test_requests_are_read_from_presets_recipes_and_bare_files(tmp_path):
    (tmp_path / "bare.json").write_text('{"steps": 3}')
    (tmp_path / "recipe.json").write_text('{"version": 1, "engine": "illusion", "request": {"steps": 4}}')
    write_png(Image.new("RGB", (8, 8)), tmp_path / "p.png", {"engine": "illusion", "request": {"steps": 5}})
    found = [read_request_file(tmp_path / name, "illusion") for name in ("bare.json", "recipe.json", "p.png")]
    assert found == [{"steps": 3}, {"steps": 4}, {"steps": 5}]
    assert read_request_file(PRESET, "illusion")["prompts"] == ["a fox", "a penguin"]
    with pytest.raises(RequestError):
        read_request_file(tmp_path / "p.png", "merge")


def test_progress_away_from_a_terminal_is_a_line_for_every_tenth():
    stream = io.StringIO()
    progress = ProgressLine(stream)
    for index in range(101):
        progress(Step(index=index, total=100, note="denoising"))
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[-1] == "step 100 of 100  denoising"


def test_progress_on_a_terminal_is_one_line_that_is_rewritten():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    progress = ProgressLine(stream)
    progress(Step(index=15, total=30))
    progress.close()
    assert stream.getvalue() == f"\r[{'#' * 12}{' ' * 12}] {'step 15 of 30':<50}\n"


def test_ctrl_c_ends_with_130_and_says_what_was_kept(tmp_path):
    arguments = command("illusion", PRESET, "--set", "steps=20", "--out", tmp_path / "out", "--device", "cpu")
    process = subprocess.Popen(
        arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has told its children to ignore Ctrl+C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        lines = [process.stderr.readline()]
        while lines[-1] and not lines[-1].startswith("step 2"):
            lines.append(process.stderr.readline())
        os.kill(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, "".join(lines) + err
    assert "Stopped after step" in err
    assert "no result was saved" in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_what_an_engine_had_finished_and_still_ends_with_130(tmp_path, capsys, monkeypatch):
    class Kept:
        def save(self, folder):
            (folder / "trial-1.png").write_text("")
            return {"notes": ["Stopped after 1 of 9 trials; these were kept."]}

    def run(request, models, *, on_step):
        raise Cancelled(kept=Kept())

    monkeypatch.setattr(Engine, "run_function", lambda engine: run)
    assert main(["merge-search", "--set", "trials=9", "--out", str(tmp_path), "--device", "cpu"]) == 130
    assert "Stopped after 1 of 9 trials" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"trial-1.png", "result.json", "request.json"}


@pytest.mark.parametrize("arguments", [["--help"], [], ["illusion"], ["illusion", PRESET, "--set", "steps=0"]])
def test_help_and_refusals_do_not_wait_for_torch(arguments):
    code = (
        "import sys; from studio.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'gradio', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
