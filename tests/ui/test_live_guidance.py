"""The Guidance tab over HTTP, spoken to as its own page and as strangers would."""

import json
import re
from pathlib import Path

import pytest

from studio.jobs import Snapshot
from tests.ui.conftest import ANN, EVE, STYLE, until_over
from tests.ui.test_live import act, get

GUEST = "guest-" + "2" * 20
QUICK = {"Steps": 2, "Draw": "a fox", "Seeds": 2, "Guidance to compare": ["cfg", "autolora"], "LoRA": STYLE}
NINE = "1, 2, 3, 4, 5, 6, 0, -1, 1.5"
LARGE = QUICK | {"Seeds": 201}


def pressed(address, elem_id, me, changes, event="click", data=None):
    """What the page would be sent, as text."""
    return json.dumps(act(address, elem_id, event, me, changes, data)["data"])


def newest(bench, owner=GUEST) -> Snapshot:
    return until_over(bench, bench.history(owner)[0].id, owner)


@pytest.fixture(scope="module")
def done(home):
    bench, address = home
    shown = pressed(address, "guide", GUEST, QUICK)
    assert "data-state" in shown
    return newest(bench)


def test_a_comparison_is_drawn_measured_and_fetched(home, done):
    _, address = home
    assert (done.engine, done.status) == ("guidance", "done"), done.reason
    assert [column["guider"] for column in done.summary["columns"]] == ["cfg", "autolora"]
    assert [column["evaluations"] for column in done.summary["columns"]] == [4, 8]
    shown = pressed(address, "history", GUEST, {}, "press", {"act": "show", "job": done.id})
    assert "scroll cells" in shown
    for name, kind in (("table.csv", "text/csv"), ("table.json", "application/json"), ("grid.png", "image/png")):
        (path,) = set(re.findall(rf"outputs/[0-9a-f]{{40}}/{re.escape(name)}", shown))
        status, headers, body = get(address, f"/{path}")
        assert status == 200
        assert headers["Content-Type"].startswith(kind)
        assert body == (done.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"Beyond the LoRA": "1,5"}, "settings.gamma", "Must be a number, got"),
        ({"Draw": " "}, "prompts", "Must have at least one entry"),
        ({"Guidance to compare": []}, "guiders", "Must have at least one entry"),
        ({"LoRA": "nothing.safetensors"}, "adapters.nothing", "nothing.safetensors"),
        (
            {"Guidance to compare": ["cfg_interval"], "Interval: from sigma": "5", "Interval: to sigma": "1"},
            "settings.low",
            "upside down",
        ),
        ({"First setting": "gamma", "First setting's values": "1.5, x"}, "sweep.0.values.1", "Must be a number"),
        ({"Seeds": 1024, "First setting": "gamma", "First setting's values": NINE}, "sweep", "10,000 are allowed here"),
    ],
)
def test_a_mistake_comes_back_beside_its_field_and_nothing_is_queued(home, done, changes, field, says):
    bench, address = home
    before = len(bench.history(GUEST))
    answer = pressed(address, "guide", GUEST, QUICK | changes)
    assert f'data-field=\\"{field}\\"' in answer
    assert says in answer
    assert len(bench.history(GUEST)) == before


def test_a_very_large_grid_starts_only_when_a_person_says_so(home, done):
    bench, address = home
    before = len(bench.history(GUEST))
    asked = pressed(address, "guide", GUEST, LARGE)
    assert "402 pictures" in asked
    assert "run-anyway" in asked
    assert len(bench.history(GUEST)) == before
    pressed(address, "guidance-confirm", GUEST, LARGE, "press", {"act": "something-else"})
    assert len(bench.history(GUEST)) == before
    pressed(address, "guidance-confirm", GUEST, LARGE, "press", {"act": "run-anyway"})
    job = bench.history(GUEST)[0]
    assert len(bench.history(GUEST)) == before + 1
    bench.cancel(job.id, GUEST)
    until_over(bench, job.id, GUEST)


def test_a_saved_picture_restores_what_draws_it_alone(home, done):
    bench, _ = home
    found = bench.restore(done.folder / done.summary["rows"][1]["cells"][1]["image"])
    request = found["request"]
    assert (found["engine"], request["guiders"], request["seed"], request["seeds"]) == ("guidance", ["autolora"], 1, 1)


def test_a_finished_run_grows_by_what_is_missing(home, done):
    bench, _ = home
    job = bench.submit("guidance", {**done.request, "resume": str(done.folder), "seeds": 3}, "local")
    grown = until_over(bench, job, "local")
    assert grown.status == "done", grown.reason
    assert len(grown.summary["rows"]) == 3
    assert grown.summary["evaluations"] == 4 + 8  # the third seed alone was drawn
    first = done.summary["rows"][0]["cells"][0]["image"]
    assert (grown.folder / first).read_bytes() != b""


def test_strangers_see_neither_each_other_s_runs_nor_a_way_to_go_on(shared):
    bench, address = shared
    pressed(address, "guide", EVE, QUICK)
    done = newest(bench, EVE)
    assert done.status == "done", done.reason
    shown = pressed(address, "history", EVE, {}, "press", {"act": "show", "job": done.id})
    assert str(done.folder) not in shown
    assert "more-seeds" not in shown
    assert done.id not in pressed(address, "history", ANN, {}, "press", {"act": "show", "job": done.id})
    for changes in ({"Go on from": str(done.folder)}, {"LoRA": "/etc/passwd"}, {"Features by": "/etc"}):
        before = len(bench.history(EVE))
        assert "is-error" in pressed(address, "guide", EVE, QUICK | changes), changes
        assert len(bench.history(EVE)) == before
    assert Path(done.folder).is_dir()
