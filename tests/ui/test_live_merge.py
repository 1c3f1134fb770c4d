"""The Merge tab over HTTP, spoken to as its own page and as strangers would."""

import io
import json
import re
import time
import urllib.request
import zipfile

import pytest

from studio.merging import recipe
from tests.merging.checkpoints import FIRST, pair, save, tensors
from tests.ui.conftest import EVE, SECOND, until_over
from tests.ui.test_live import act, get

GUEST = "guest-" + "1" * 20
QUICK = {"Steps": 2, "Draw": "a fox", "At these alphas too": "0.25"}


def pressed(address, button, me, changes):
    """What the page would be sent after a press, as text."""
    return json.dumps(act(address, button, "click", me, changes)["data"])


def newest(bench, owner=GUEST):
    return until_over(bench, bench.history(owner)[0].id, owner)


def uploaded(address, path, data):
    """The page's answer to a chosen file of this name and content."""
    head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{path}"\r\n\r\n'.encode()
    body = head + data + b"\r\n--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    request = urllib.request.Request(f"{address}/gradio_api/upload", body, kind)
    with urllib.request.urlopen(request, timeout=30) as answer:
        (place,) = json.loads(answer.read())
    chosen = {"path": place, "orig_name": path, "meta": {"_type": "gradio.FileData"}}
    return json.dumps(act(address, "restore-merge", "upload", GUEST, {"Restore from a merged file": chosen})["data"])


def test_a_preview_is_drawn_by_a_the_merge_and_b_and_writes_no_model(home):
    bench, address = home
    shown = pressed(address, "preview", GUEST, QUICK | {"B": SECOND})
    assert "data-state" in shown
    done = newest(bench)
    assert (done.engine, done.status) == ("merge-strip", "done"), done.reason
    assert [entry["model"] for entry in done.summary["pictures"]] == ["a", "b", "merge", "merge"]
    assert done.summary["alphas"] == [0.25, 0.5]
    assert not list(done.folder.rglob("*.safetensors"))


def test_save_writes_a_model_that_is_fetched_as_an_archive_and_read_back(home):
    bench, address = home
    pressed(address, "save", GUEST, {"B": SECOND, "Title": "both", "Alpha": 0.25})
    done = newest(bench)
    assert (done.engine, done.status) == ("merge", "done"), done.reason
    assert recipe.read(done.folder / "both")["request"]["alpha"] == 0.25
    text = (done.folder / "both" / recipe.FOLDER_FILE).read_bytes()
    answer = uploaded(address, "merge.json", text)
    assert "The recipe of merge.json is in the form" in answer
    assert SECOND in answer


def test_only_the_header_of_a_merged_file_is_needed_to_restore_it(home, tmp_path):
    bench, address = home
    a, b = pair(tmp_path)
    job = bench.submit("merge", {"models": [str(a), str(b)], "title": "m", "alpha": 0.75}, GUEST)
    done = until_over(bench, job, GUEST)
    whole = (done.folder / "m.safetensors").read_bytes()
    answer = uploaded(address, "m.safetensors", whole[: 8 + int.from_bytes(whole[:8], "little")])
    assert "The recipe of m.safetensors is in the form" in answer
    assert "SHA-256 were checked" in answer
    assert str(b) in answer


@pytest.mark.parametrize(("name", "data"), [("x.safetensors", b"x" * 40), ("x.json", b"[]"), ("x.png", b"no picture")])
def test_a_file_without_a_recipe_is_one_sentence_beside_the_button(home, name, data):
    answer = uploaded(home[1], name, data)
    assert "is-error" in answer
    assert "is in the form" not in answer


def test_weights_that_are_not_finite_are_saved_only_when_a_person_says_so(home, tmp_path):
    bench, address = home
    broken = tensors(1)
    broken[FIRST][0, 0, 0, 0] = float("nan")
    save(tmp_path / "a.safetensors", tensors(0))
    save(tmp_path / "b.safetensors", broken)
    names = {"A": str(tmp_path / "a.safetensors"), "B": str(tmp_path / "b.safetensors"), "Title": "nan"}
    pressed(address, "save", GUEST, names)
    failed = newest(bench)
    assert (failed.status, failed.error.type, failed.error.field) == ("failed", "NonFiniteError", "accept_nonfinite")
    pressed(address, "save", GUEST, names | {"Save it even when weights are not finite": True})
    done = newest(bench)
    assert done.status == "done", done.reason
    assert list(done.summary["faults"].values()) == [{"nan": 1, "infinite": 0, "overflow": 0}]


def test_mistakes_come_back_beside_their_fields_before_anything_is_queued(home, tmp_path):
    bench, address = home
    before = len(bench.history(GUEST))
    a, _ = pair(tmp_path)
    assert 'data-field=\\"target\\"' in pressed(address, "save", GUEST, {"A": str(a), "B": str(a), "Write to": str(a)})
    assert 'data-field=\\"models.1\\"' in pressed(address, "save", GUEST, {"A": "builtin:emoji", "B": str(a)})
    assert 'data-field=\\"prompts\\"' in pressed(address, "preview", GUEST, {"Draw": ""})
    assert 'data-field=\\"picture_seed\\"' in pressed(address, "preview", GUEST, {"Seed of the pictures": -1})
    assert len(bench.history(GUEST)) == before


def test_strangers_merge_what_is_built_in_and_name_no_file(shared, tmp_path):
    bench, address = shared
    a, _ = pair(tmp_path)
    for changes in ({"Write to": str(tmp_path / "x")}, {"Rules": "attn = 0.5"}, {"VAE (autoencoder)": str(a)}):
        assert "is-error" in pressed(address, "save", EVE, changes), changes
    answer = act(address, "restore-path", "submit", EVE, {"Restore from a merged file": str(a)})
    assert "cannot be named here" in json.dumps(answer["data"])
    assert bench.history(EVE) == ()
    assert list(tmp_path.glob("x*")) == []


def test_a_stranger_s_merge_is_fetched_by_its_owner_as_an_archive(shared):
    bench, address = shared
    job = bench.submit("merge", {"models": ["builtin:emoji", "builtin:emoji"], "title": "both"}, GUEST)
    done = until_over(bench, job, GUEST)
    assert done.status == "done", done.reason
    shown = json.dumps(act(address, "history", "press", GUEST, {}, {"act": "show", "job": job})["data"])
    assert str(done.folder) not in shown
    (path,) = set(re.findall(r"outputs/[0-9a-f]{40}/both\.zip", shown))
    status, headers, body = get(address, f"/{path}")
    assert (status, headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert "both/model_index.json" in archive.namelist()
        assert f"both/{recipe.FOLDER_FILE}" in archive.namelist()
    assert job not in json.dumps(act(address, "history", "press", EVE, {}, {"act": "show", "job": job})["data"])


def test_a_search_ranks_its_trials(home):
    bench, address = home
    pressed(address, "search", GUEST, QUICK | {"B": SECOND, "Trials": 2, "How": "grid"})
    done = newest(bench)
    assert (done.engine, done.status) == ("merge-search", "done"), done.reason
    scores = [trial["score"] for trial in done.summary["trials"]]
    assert scores == sorted(scores, reverse=True)


def test_the_fit_line_answers_in_under_a_second(home):
    _, address = home
    act(address, "alpha", "change", GUEST, {"B": SECOND})
    start = time.perf_counter()
    answer = act(address, "alpha", "change", GUEST, {"B": SECOND})
    spent = time.perf_counter() - start
    assert "It fits" in json.dumps(answer["data"])
    assert spent < 1.0
