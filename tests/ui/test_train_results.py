"""What a training looks like while it runs, when it is done and in lists, from what the engine tells of it."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from studio.snapshots import Snapshot
from studio.training.folder import PLACE, SAMPLES
from studio.ui import compare, curve, files, history, stage, train_result, train_stage
from studio.ui.drawings import DRAWINGS, made_on
from studio.ui.examples import Examples
from studio.ui.markup import joined
from studio.ui.result import Result

REQUEST = {"model": "builtin:emoji", "trigger": "sks", "sample_prompts": ["a <i>fox", "an owl"], "steps": 100,
           "epochs": None}  # fmt: skip
POINTS = [[step, 1 / step, 2 / step, 0.002 * step / 100] for step in range(1, 101)]
CURVES = {"points": POINTS, "validation": [[50, 0.3], [100, 0.4]], "before": 0.5}
SUMMARY = {
    "output": "sks.safetensors",
    "files": {
        "last": {"kohya": "sks.safetensors", "diffusers": "sks-diffusers.safetensors"},
        "best": {"kohya": "sks-best.safetensors", "peft": "sks-best-peft"},
    },
    "sha256": {"sks.safetensors": "a" * 64, "sks-best.safetensors": "b" * 64},
    "curves": CURVES,
    "samples": [{"step": step, "pictures": [f"sample-{step:08d}-{i}.png" for i in (0, 1)]} for step in (0, 50, 100)],
    "checkpoints": [],
    "steps": 100,
    "epochs": 12.5,
    "stopped": False,
    "loss": 0.02,
    "validation": 0.4,
    "best_step": 50,
    "best_validation": 0.3,
    "seconds": 31.2,
    "evaluations": 400,
    "speed": 12.1,
    "peak_memory": 2 * 1024**3,
    "model": "builtin:emoji",
    "notes": ["A note."],
}


def link(name, width):
    return f"o/{name}" + (f"?w={width}" if width else "")


def shown(folder="", **changes):
    return Result("j1", REQUEST, SUMMARY | changes, link, engine="train", title="LoRA of sks", folder=str(folder))


def checkpoint(folder, step=40):
    (folder / PLACE / f"state-{step:08d}").mkdir(parents=True)
    return folder


def running(folder, **changes):
    data = CURVES | {"words": "loss 0.02", "best": 50, "speed": 3.2, "memory": 1024**3, "epoch": 2.5}
    snapshot = Snapshot(
        "j1", "train", "LoRA of sks", "local", folder, REQUEST, created=1000.0, status="running", step=60, total=200,
        note="loss 0.02", evaluations=77, eta=9.0, data=data,
    )  # fmt: skip
    return replace(snapshot, **changes)


def drawn_on_stage(snapshot):
    drawing = DRAWINGS["train"]
    body = joined(drawing.forming(snapshot), drawing.kept(snapshot, link))
    return stage.of(drawing.quiet(snapshot), body, *drawing.actions(snapshot))


def test_the_tab_makes_one_engine_s_jobs():
    assert made_on("train") == ("train",)


def test_a_result_says_what_was_learned_and_where_it_lies(tmp_path):
    drawn = train_result.of(shown(tmp_path))
    assert "100 steps · 12.5 epochs · 31 s · builtin:emoji" in drawn
    for text in (f"{tmp_path}/sks.safetensors", "a" * 64, "b" * 64, "A note."):
        assert text in drawn
    hrefs = re.findall(r'<a[^>]* href="(o/[^"]+)" download="([^"]+)"', drawn)
    assert hrefs == [
        ("o/sks-best.safetensors", "sks-best.safetensors"),
        ("o/sks-best-peft.zip", "sks-best-peft.zip"),
        ("o/sks.safetensors", "sks.safetensors"),
        ("o/sks-diffusers.safetensors", "sks-diffusers.safetensors"),
    ]
    assert re.findall(r'data-act="(use-\w+)" data-slot="(\w+)" data-open="(\w+)"', drawn) == [
        ("use-illusions", "best", "illusions"), ("use-merge", "best", "merge"), ("use-guidance", "best", "guidance"),
        ("use-illusions", "last", "illusions"), ("use-merge", "last", "merge"), ("use-guidance", "last", "guidance"),
    ]  # fmt: skip


def test_steps_stand_in_rows_the_newest_first_and_large_and_the_best_is_marked():
    drawn = train_result.of(shown())
    large, _, rest = drawn.partition("<h3>Step by step")
    assert re.findall(r'<img src="(o/sample[^"?]+)"', large) == ["o/sample-00000100-0.png", "o/sample-00000100-1.png"]
    steps = re.findall(r'<tr(?: class="(is-best)")?><th scope="row">([^<]+)<small>validation ([\d.]+)', rest)
    assert steps == [("", "step 100", "0.4000"), ("is-best", "step 50", "0.3000"), ("", "before learning", "0.5000")]
    assert "a &lt;i&gt;fox" in drawn
    assert "<i>fox" not in drawn


def test_strangers_see_no_path_and_are_offered_nothing_that_names_one():
    drawn = train_result.of(shown(folder=""))
    assert "<dt>File" not in drawn
    assert "data-open" not in drawn
    assert 'data-act="resume"' not in drawn
    assert 'href="o/sks.safetensors"' in drawn


def test_a_learned_word_is_not_offered_to_tabs_that_take_adapters(tmp_path):
    word = Result(
        "j1", REQUEST | {"method": "textual_inversion"}, SUMMARY, link, "train", "a word", folder=str(tmp_path)
    )
    assert "use-illusions" in train_result.of(shown(tmp_path))
    assert "use-illusions" not in train_result.of(word)


def test_a_stopped_run_is_resumed_and_a_whole_one_is_trained_longer(tmp_path):
    assert 'data-act="go-on"' not in train_result.of(shown(tmp_path))  # nothing to go on from
    checkpoint(tmp_path)
    assert 'data-act="go-on"' in train_result.of(shown(tmp_path))
    stopped = train_result.of(shown(tmp_path, stopped=True))
    assert "Resume from step 40" in stopped
    assert "Stopped after step 100" in stopped


def test_a_run_without_validation_or_samples_has_neither_best_nor_rows(tmp_path):
    bare = {"samples": [], "best_step": None, "best_validation": None, "validation": None}
    bare |= {"curves": CURVES | {"validation": [], "before": None}, "files": {"last": SUMMARY["files"]["last"]}}
    drawn = train_result.of(shown(tmp_path, **bare))
    assert "Step by step" not in drawn
    assert "is-best" not in drawn
    assert "The last" in drawn
    assert train_result.cover(SUMMARY | bare) is None
    assert train_result.side(shown(**bare)) is None


def test_only_what_a_summary_names_is_served():
    pictures = {f"sample-{step:08d}-{i}.png" for step in (0, 50, 100) for i in (0, 1)}
    models = {"sks.safetensors", "sks-diffusers.safetensors", "sks-best.safetensors", "sks-best-peft.zip"}
    assert files.named_files(SUMMARY) == pictures | models
    assert files.named_files(SUMMARY | {"stopped": True}) == pictures | models


def test_a_running_job_shows_chips_curves_and_the_samples_on_the_disk(tmp_path):
    place = tmp_path / PLACE / SAMPLES
    place.mkdir(parents=True)
    for step in (0, 50):
        for index in (0, 1):
            (place / f"{step:08d}-{index}.png").touch()
    (place / "00000060-0.png").touch()  # the second of this step is still being drawn
    drawn = drawn_on_stage(running(tmp_path))
    assert "Step 60 of 200, about 9 s left</p>" in drawn
    assert re.findall(r'<span class="chip"[^>]*>([^<]+) <b>([^<]+)</b>', drawn) == [
        ("Loss", "0.0200"), ("Validation", "0.4000"), ("Learning rate", "0.002"), ("Epoch", "2.5"),
        ("Pictures/s", "3.2"), ("Memory", "1.0 GB"),
    ]  # fmt: skip
    assert re.findall(r'<img src="(o/\d[^"?]+)"', drawn) == ["o/00000050-0.png", "o/00000050-1.png"]
    assert 'class="is-best"' in drawn
    assert "00000060" not in drawn


def test_what_is_not_told_by_chips_stays_in_the_line(tmp_path):
    for note in ("Drawing sample 1 of 2", "stopping after this step"):
        assert note in drawn_on_stage(running(tmp_path, note=note))
    early = running(tmp_path, data={}, note="Loading the model", step=0)
    assert "Loading the model" in drawn_on_stage(early)
    assert drawn_on_stage(early).count('class="frame"') == 2


def test_a_run_that_was_cut_off_shows_its_log_and_goes_on_from_its_checkpoint(tmp_path):
    checkpoint(tmp_path)
    (tmp_path / PLACE / "log.jsonl").write_text('{"step": 1, "loss": 0.5, "smoothed": 0.5, "rate": 0.1}\n')
    cut = running(tmp_path, data={}, status="interrupted", finished=1010.0, note="The studio ended.")
    drawn = drawn_on_stage(cut)
    assert "Resume from step 40" in drawn
    assert "Loss <b>0.5000</b>" in drawn
    assert "Resume" not in drawn_on_stage(replace(cut, owner="ann-00000000000000000"))
    assert "Resume" not in drawn_on_stage(replace(cut, folder=tmp_path / "nothing"))


def test_lists_and_comparisons_tell_trainings_apart():
    done = running(Path("run"), status="done", summary=SUMMARY, finished=1010.0)
    panel = history.cards([done, replace(done, summary=SUMMARY | {"stopped": True})], lambda snapshot: "c.jpg", 1310.0)
    assert "100 steps" in panel
    assert "stopped after 100 steps" in panel
    assert panel.count('data-act="compare"') == 2
    right = Result("j2", REQUEST | {"rank": 4}, SUMMARY | {"validation": 0.2}, link, engine="train", title="x")
    rows = re.findall(
        r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>',
        compare.of([train_result.side(shown()), train_result.side(right)]),
    )
    assert ("Validation loss", "0.40", "0.20") in rows
    assert ("rank", "–", "4") in rows


def test_an_example_of_a_training_is_told_from_one_of_an_illusion(tmp_path):
    import json

    for engine, summary in (("illusion", {"candidates": [{"image": "x.png"}]}), ("train", SUMMARY)):
        place = tmp_path / engine / "first"
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(summary))
    found = Examples(tmp_path / "illusion", {})
    found.add(tmp_path / "train", {"first": REQUEST}, "train")
    assert [example.slug for example in found.of("train")] == ["train.first"]
    assert found.find("example:train.first").request == REQUEST
    assert found.find("example:first").engine == "illusion"


@pytest.mark.parametrize(
    ("least", "most", "marks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0.13, 0.56, [0.2, 0.3, 0.4, 0.5]), (0, 140, [0, 50, 100]),
     (0.0501, 0.0599, [0.052, 0.054, 0.056, 0.058]), (0, 100_000, [0, 20_000, 40_000, 60_000, 80_000, 100_000])],
)  # fmt: skip
def test_axes_have_round_numbers(least, most, marks):
    assert curve.ticks(curve.Scale(least, most, 10)) == marks


def test_a_scale_turns_values_into_places_and_cuts_what_lies_outside():
    up = curve.Scale(0.0, 2.0, 300, up=True)
    assert [up.at(value) for value in (0, 1, 2, 9, -9)] == [300, 150, 0, 0, 300]
    assert curve.Scale(3, 3, 10).at(3) == 5


def test_a_curve_of_many_points_is_drawn_with_few_and_keeps_its_end():
    many = [[step, 1.0, 1.0, 0.1] for step in range(1, 100_001)]
    kept = curve.thinned(many)
    assert len(kept) <= curve.MOST + 1
    assert (kept[0][0], kept[-1][0]) == (1, 100_000)
    assert len(curve.drawn({"points": many}, 100_000, "c")) < 12_000


@pytest.mark.parametrize("values", [[1.0], [0.5, 0.5], [0.0, 0.0], [1e-9, 2e-9], [1e6, 1e-6]])
def test_any_losses_can_be_drawn(values):
    points = [[step + 1, value, value, 0.1] for step, value in enumerate(values)]
    drawn = curve.drawn({"points": points, "validation": [], "before": None}, 0, "c")
    assert "nan" not in drawn
    assert drawn.count("<polyline") == 2


def test_a_curve_says_in_words_what_it_shows_and_draws_the_rate_only_where_it_changes():
    drawn = curve.drawn(CURVES | {"best": 50}, 200, "c")
    assert 'role="img" aria-labelledby="c-title c-desc"' in drawn
    assert "from 2.0000 to 0.0200 in 100 steps. Validation went from 0.3000 to 0.4000; it was best at step 50." in drawn
    assert "Learning rate over steps" in drawn
    assert "best, step 50" in drawn
    flat = [[*point[:3], 0.1] for point in POINTS]
    assert "Learning rate over steps" not in curve.drawn({"points": flat}, 200, "c")
    assert train_stage.large(9) == "views learned n-4-wide"


def test_of_many_samples_the_latest_are_listed_and_always_the_first_and_the_best():
    rows = [train_stage.Row(step, ("x.png",), best=step == 300) for step in range(0, 10_000, 100)]
    shown = [row.step for row in train_stage.listed(rows, 3)]
    assert shown == [9900, 9800, 9700, 300, 0]


def test_what_is_sent_with_every_pull_stays_small(tmp_path):
    place = tmp_path / PLACE / SAMPLES
    place.mkdir(parents=True)
    for step in range(0, 10_000, 100):
        for index in (0, 1):
            (place / f"{step:08d}-{index}.png").touch()
    many = [[step, 1 / step, 2 / step, 0.002 / step] for step in range(1, 480)]
    data = CURVES | {"points": many, "validation": [[step, 0.3] for step in range(1, 480)], "words": ""}
    assert len(drawn_on_stage(running(tmp_path, data=data, total=100_000))) < 24_000
