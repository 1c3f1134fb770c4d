from dataclasses import replace
from pathlib import Path

import pytest

from studio.snapshots import JobError, Snapshot
from studio.ui import history, result, stage

REQUEST = {
    "prompts": ["a fox", "a <b>penguin"],
    "views": ["identity", "rotate_180"],
    "model": "builtin:emoji",
    "seed": 5,
}
WAITING = Snapshot("j1", "illusion", "a fox", "local", Path("run"), REQUEST, created=1000.0, position=3)
RUNNING = replace(
    WAITING,
    status="running",
    position=0,
    step=12,
    total=30,
    eta=2.2,
    evaluations=48,
    previews=("data:image/jpeg;base64,AAAA", "data:image/jpeg;base64,BBBB"),
    labels=("a fox", "a <b>penguin"),
)
FAILED = replace(
    WAITING, status="failed", finished=1010.0, error=JobError("ModelFileError", "It is cut short.", "model")
)
STOPPED = replace(RUNNING, status="cancelled", finished=1010.0, note="Stopped after step 12 of 30.", eta=None)


def drawn_on_stage(snapshot):
    return stage.of(snapshot, result.forming(snapshot))


def test_a_running_job_shows_every_view_under_its_prompt():
    drawn = drawn_on_stage(RUNNING)
    assert drawn.count('src="data:image/jpeg') == 2
    assert "Half turn" in drawn
    assert "a &lt;b&gt;penguin" in drawn
    assert "<b>penguin" not in drawn


def test_a_running_job_says_how_far_it_is():
    drawn = drawn_on_stage(RUNNING)
    assert "Step 12 of 30, about 2 s left · 48 evaluations" in drawn
    assert 'role="progressbar"' in drawn
    assert 'aria-valuenow="12"' in drawn
    assert "width:40.0%" in drawn


def test_frames_are_there_before_the_first_preview_so_that_nothing_jumps():
    early = drawn_on_stage(replace(RUNNING, previews=(), step=0, total=0))
    late = drawn_on_stage(RUNNING)
    assert early.count('class="frame"') == late.count('class="frame"') == 3
    assert "<img" not in early


def test_a_waiting_job_says_what_it_waits_for():
    assert "Waiting for 2 jobs in line before it" in drawn_on_stage(WAITING)
    assert "Starting" in drawn_on_stage(replace(WAITING, position=1))


@pytest.mark.parametrize("snapshot", [FAILED, STOPPED])
def test_what_ended_early_gives_its_reason_and_its_settings_back(snapshot):
    drawn = drawn_on_stage(snapshot)
    assert snapshot.reason in drawn
    assert 'data-act="restore"' in drawn


def test_announcements_name_the_job_and_the_reason():
    assert stage.announcement(RUNNING) == "Started: a fox / a <b>penguin."
    assert stage.announcement(FAILED) == "Failed: a fox / a <b>penguin. It is cut short."


def test_the_history_lists_what_ended_with_its_reason():
    panel = history.cards([RUNNING, FAILED, STOPPED], lambda snapshot: None, now=1310.0)
    assert panel.count('class="card"') == 2
    assert "5 min ago" in panel
    assert "It is cut short." in panel
    assert "Stopped after step 12" in panel
    assert all(f'data-act="{act}"' in panel for act in ("show", "restore", "delete"))


def test_the_queue_lists_what_runs_and_waits_in_order():
    later = replace(WAITING, id="j2", created=2000.0)
    drawn = history.queue([later, RUNNING])
    assert drawn.index('data-job="j1"') < drawn.index('data-job="j2"')
    assert history.queue([]) == ""


def test_the_history_is_searched_by_prompt_state_and_reason():
    def found(**asked):
        return history.matching([RUNNING, FAILED, STOPPED], history.Filter(**asked), now=1310.0)

    assert found(text="penguin cut") == [FAILED]
    assert found(text="stopped") == [STOPPED]  # the word that the page shows, not "cancelled"
    assert found(engine="merge") == []
    assert found(engine="illusion", text="FOX") == [RUNNING, FAILED, STOPPED]


def test_the_history_is_searched_by_time_from_when_a_job_ended():
    jobs = [replace(FAILED, finished=float(ended)) for ended in (1000, 1800, 2000)]
    within = history.Filter(within=300)
    assert [job.finished for job in history.matching(jobs, within, now=2100.0)] == [1800.0, 2000.0]
    assert history.matching(jobs, history.Filter(), now=1e9) == jobs


def test_a_search_without_a_find_says_another_thing_than_an_empty_history():
    assert history.EMPTY in history.cards([], lambda snapshot: None, now=1310.0)
    assert history.NONE_MATCHES in history.cards([], lambda snapshot: None, 1310.0, nothing=history.NONE_MATCHES)


def test_only_what_has_pictures_can_be_compared():
    done = replace(FAILED, status="done", error=None, summary={"candidates": [{"seed": 5, "image": "a.png"}]})
    assert 'data-act="compare"' in history.cards([done], lambda snapshot: "a.png", now=1310.0)
    assert 'data-act="compare"' not in history.cards([FAILED, STOPPED], lambda snapshot: None, now=1310.0)


def test_the_frames_keep_their_place_while_a_page_opens_and_after_a_job_stopped_early():
    assert stage.opening(2).count('class="frame"') == 3
    assert drawn_on_stage(replace(STOPPED, previews=())).count('class="frame"') == 3
