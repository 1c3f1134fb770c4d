"""What previews, searches and saved merges look like, from the summaries that the engine writes."""

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from studio.engines import ENGINES
from studio.snapshots import JobError, Snapshot
from studio.ui import compare, files, history, merge_result, merge_stage, search_result, stage, strip_result
from studio.ui.drawings import DRAWINGS, drawing_of, made_on
from studio.ui.result import Result

MERGE = {"task": "checkpoints", "models": ["builtin:emoji", "folder/<b>"], "alpha": 0.5, "method": "weighted_sum"}
REQUEST = {"merge": MERGE, "prompts": ["a fox", "a <i>"], "seed": 7}


def picture(model, alpha, prompt, score=0.25):
    name = f"{model}-{alpha}-{prompt}.png"
    return {"model": model, "title": model, "alpha": alpha, "prompt": prompt, "image": name, "score": score}


COLUMNS = [("a", None), ("b", None), ("merge", 0.25), ("merge", 0.5), ("merge", 0.75)]
STRIP = {
    "pictures": [picture(*column, prompt) for column in COLUMNS for prompt in (0, 1)],
    "prompts": REQUEST["prompts"],
    "alphas": [0.25, 0.5, 0.75],
    "strip": "strip.png",
    "seed": 7,
    "scorer": "builtin:clip",
    "evaluations": 400,
    "seconds": 4.2,
    "notes": ["A note."],
}
TRIALS = [
    {"place": 2, "alpha": 0.4, "blocks": None, "score": 0.9, "image": "trial-2.png"},
    {"place": 1, "alpha": 0.5, "blocks": None, "score": 0.8, "image": "trial-1.png"},
    {"place": 3, "alpha": 0.9, "blocks": None, "score": 0.7, "image": "trial-3.png"},
]
SAVED = {"output": "m.safetensors", "data_sha256": "0" * 64, "bytes": 2_132_000_000, "seconds": 31.2}
SAVED |= {"parts": {"unet": {"merged": 686, "copied": 0}}, "faults": {}, "notes": [], "sources": []}


def shown(summary, request=REQUEST, folder="/runs/one"):
    return Result(
        "j1", request, summary, lambda name, width: f"o/{name}" + (f"?w={width}" if width else ""), folder=folder
    )


def test_every_engine_has_its_drawing_and_its_tab():
    assert set(DRAWINGS) == {engine.name for engine in ENGINES}
    assert made_on("merge") == ("merge", "merge-strip", "merge-search")
    assert drawing_of("of another studio").engine == "illusion"


def test_a_preview_stands_a_merge_b_for_every_prompt_and_shows_the_chosen_alpha():
    drawn = strip_result.of(shown(STRIP))
    heads = re.findall(r"<strong[^>]*>(.*?)</strong>", drawn)
    assert heads == ["A · emoji", "Merge", "B · &lt;b&gt;"] * 2
    visible = re.findall(r'<img src="o/(merge-[^"]+)"(?:(?!hidden|>).)*>', drawn)
    assert visible[:2] == ["merge-0.5-0.png", "merge-0.5-1.png"]
    assert 'max="2"' in drawn
    assert 'aria-valuetext="alpha 0.5"' in drawn
    assert 'data-alphas="0.25 0.5 0.75"' in drawn


def test_the_whole_strip_has_a_column_for_every_model_and_alpha():
    drawn = strip_result.of(shown(STRIP))
    assert re.findall(r'<th scope="col">(.*?)</th>', drawn) == ["A", "alpha 0.25", "alpha 0.5", "alpha 0.75", "B"]
    assert drawn.count("data-show-alpha=") == 6
    assert "a &lt;i&gt;" in drawn
    assert "<i>" not in drawn.replace("<i>0", "")


def test_a_merge_whose_method_knows_no_alpha_has_no_slider():
    one = {**STRIP, "pictures": [picture("a", None, 0), picture("merge", None, 0)], "alphas": [None]}
    drawn = strip_result.of(shown(one))
    assert "data-alpha-slide" not in drawn
    assert 'data-act="save-this"' in drawn
    assert 'data-act="use-alpha"' not in drawn


def test_a_parent_that_was_not_drawn_leaves_no_gap():
    alone = {**STRIP, "pictures": [entry for entry in STRIP["pictures"] if entry["model"] == "merge"]}
    assert "n-1-wide" in strip_result.of(shown(alone))


def test_trials_stand_best_first_with_their_scores_and_can_be_used():
    drawn = search_result.of(shown({"trials": TRIALS, "scorer": "builtin:clip", "evaluations": 60, "seconds": 2.0}))
    assert re.findall(r'<span class="seed">([\d.]+)</span>', drawn) == ["0.900", "0.800", "0.700"]
    assert re.findall(r'data-act="use-trial" data-trial="(\d)"', drawn) == ["0", "1", "2"]
    assert "Score from 0.700 to 0.900 over alpha from 0.4 to 0.9" in drawn
    assert len(re.findall(r"<section[^>]* hidden ", drawn)) == 2


def test_a_saved_merge_says_where_it_lies_how_large_it_is_and_its_hash():
    drawn = merge_result.of(shown(SAVED, MERGE))
    assert "Saved in 31 s · 2.1 GB" in drawn
    assert "/runs/one/m.safetensors" in drawn
    assert "0" * 64 in drawn
    assert 'href="o/m.safetensors"' in drawn
    assert "686" in drawn


def test_strangers_see_no_path_and_a_folder_is_fetched_as_an_archive():
    drawn = merge_result.of(shown({**SAVED, "output": "m"}, MERGE, folder=""))
    assert "/runs" not in drawn
    assert 'href="o/m.zip"' in drawn


def test_what_was_written_elsewhere_is_not_served():
    summary = {**SAVED, "output": "/models/m.safetensors"}
    assert "Download" not in merge_result.of(shown(summary, MERGE))
    assert files.named_files(summary) == set()


def test_faults_that_were_saved_are_listed():
    faults = {"unet.x": {"nan": 3, "infinite": 0, "overflow": 1}}
    drawn = merge_result.of(shown({**SAVED, "faults": faults}, MERGE))
    assert "3 NaN, 1 too large for the precision" in drawn


@pytest.mark.parametrize(
    ("summary", "names"),
    [
        (STRIP, {"strip.png", *(entry["image"] for entry in STRIP["pictures"])}),
        ({"trials": TRIALS}, {"trial-1.png", "trial-2.png", "trial-3.png"}),
        (SAVED, {"m.safetensors"}),
        ({"output": "m-0.5"}, {"m-0.5.zip"}),
    ],
)
def test_only_what_a_summary_names_is_served(summary, names):
    assert files.named_files(summary) == names


def test_a_folder_is_packed_while_it_is_sent(tmp_path):
    (tmp_path / "m" / "unet").mkdir(parents=True)
    (tmp_path / "m" / "unet" / "w.bin").write_bytes(b"x" * (2 * files.CHUNK + 3))
    (tmp_path / "m" / "a.json").write_text("{}")
    pieces = list(files.zipped(tmp_path / "m"))
    assert len(pieces) > 3
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert sorted(archive.namelist()) == ["m/a.json", "m/unet/w.bin"]
        assert len(archive.read("m/unet/w.bin")) == 2 * files.CHUNK + 3
        assert archive.testzip() is None


RUNNING = Snapshot(
    "j1", "merge-strip", "Preview of x", "local", Path("run"), REQUEST, created=1000.0, status="running",
    step=3, total=100, previews=("data:image/jpeg;base64,AAAA",), labels=("a fox, B",),
)  # fmt: skip


def test_the_picture_that_forms_stands_in_its_own_place():
    drawn = merge_stage.forming(RUNNING)
    assert drawn.count("<figure") == 3
    assert drawn.index("data:image") > drawn.index("B · ")
    merged = merge_stage.forming(replace(RUNNING, labels=("a fox, alpha 0.25",)))
    assert merged.index("Merge") < merged.index("data:image") < merged.index("B · ")
    assert "a fox, alpha 0.25" in merged


def test_a_merge_refused_for_its_weights_can_be_saved_all_the_same():
    failed = replace(RUNNING, engine="merge", request=MERGE, status="failed", previews=())
    finite = replace(failed, error=JobError("NonFiniteError", "2 tensors hold weights.", "accept_nonfinite"))
    assert "Save all the same" in stage.of(finite, merge_stage.sources(finite), *merge_stage.actions(finite))
    assert merge_stage.actions(replace(failed, error=JobError("ModelFileError", "It is cut short."))) == ()


def test_the_history_lists_merges_with_their_tab_and_compares_what_has_pictures():
    strip = replace(RUNNING, status="done", summary=STRIP, finished=1010.0)
    saved = replace(RUNNING, id="j2", engine="merge", request=MERGE, status="done", summary=SAVED, finished=1010.0)
    panel = history.cards([strip, saved], lambda snapshot: None, now=1310.0)
    assert panel.count('data-act="compare"') == 1
    assert panel.count('data-act="delete"') == 2
    assert 'data-tab="illusions"' not in panel
    assert "2.1 GB" in panel
    assert history.matching([strip, saved], history.Filter(text="emoji"), now=1310.0) == [saved]


def test_two_previews_are_compared_by_their_settings_and_the_match():
    left = strip_result.side(shown(STRIP))
    request = {**REQUEST, "merge": {**MERGE, "method": "slerp", "alpha": 0.75}}
    right = strip_result.side(shown(STRIP, request))
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>', compare.of([left, right]))
    assert ("method", "weighted_sum", "slerp") in rows
    assert ("alpha", "0.5", "0.75") in rows
    assert ("Match with the prompt", "0.25", "0.25") in rows
