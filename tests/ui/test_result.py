import re

import pytest
from PIL import Image

from studio.illusions.request import IllusionRequest
from studio.illusions.result import Candidate, IllusionResult
from studio.ui import result
from studio.ui.files import named_files
from studio.ui.result import Result
from studio.views.view import build


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """What the engine's own result writes: (folder, request, summary) of two candidates."""
    folder = tmp_path_factory.mktemp("run")
    request = IllusionRequest(prompts=("a fox", 'a "<b>" penguin'), seed=7, candidates=2, steps=2)
    picture = Image.new("RGB", (16, 16), "teal")
    candidates = tuple(
        Candidate(seed, picture, (picture, picture), 0.3141, 0.88, ((0.31, 0.1), (0.12, 0.42)), 0.5) for seed in (8, 7)
    )
    views = tuple(build(spec, 2, 8) for spec in request.views)
    summary = IllusionResult(request, candidates, views, "builtin:clip", 1.87, 8, ("A note.",)).save(folder)
    return folder, request.model_dump(mode="json"), summary


@pytest.fixture
def drawn(saved):
    _, request, summary = saved
    shown = Result("j1", request, summary, lambda name, width: f"outputs/t/{name}" + (f"?w={width}" if width else ""))
    return result.of(shown)


def test_every_address_in_the_result_is_a_file_that_was_saved(saved, drawn):
    folder, _, summary = saved
    names = set(re.findall(r'(?:src|href|data-moving|data-still)="outputs/t/([^"?]+)', drawn))
    assert names <= named_files(summary)
    assert all((folder / name).is_file() for name in names)
    assert {name.rpartition(".")[2] for name in names} == {"png", "webp", "gif"}


def test_scores_say_who_measured_them_and_what_chance_is(drawn):
    assert "Alignment <b>0.31</b>" in drawn
    assert "Concealment <b>0.88</b>" in drawn
    assert "Measured by builtin:clip." in drawn
    assert "0.50 (chance)" in drawn


def test_candidates_stand_best_first_and_only_the_first_is_visible(drawn):
    assert re.findall(r'aria-label="Candidate (\d), seed (\d)"', drawn) == [("1", "8"), ("2", "7")]
    assert drawn.count("<section") == 2
    assert len(re.findall(r"<section[^>]* hidden ", drawn)) == 1
    assert len(re.findall(r"<details[^>]* hidden>", drawn)) == 1
    assert drawn.count('role="radio"') == 2


def test_prompts_are_escaped_everywhere(drawn):
    assert "<b>&quot;" not in drawn
    assert '"<b>"' not in drawn
    assert "a &quot;&lt;b&gt;&quot; penguin" in drawn


def test_downloads_have_telling_names(drawn):
    assert re.findall(r'download="([^"]+)"', drawn)[:4] == [
        "fox-b-penguin-seed8.png",
        "fox-b-penguin-seed8-grid.png",
        "fox-b-penguin-seed8.webp",
        "fox-b-penguin-seed8.gif",
    ]


def test_a_puzzle_s_sheets_are_offered_and_served():
    puzzle = {"a4": "c-puzzle-a4.pdf", "letter": "c-puzzle-letter.pdf", "svg": "c-puzzle.svg"}
    summary = {"candidates": [{"seed": 1, "image": "c.png", "views": [], "puzzle": puzzle}], "prompts": ["a fox"]}
    drawn = result.of(Result("j", {}, summary, lambda name, width: name))
    assert re.findall(r'href="([^"]+)"', drawn) == ["c.png", *puzzle.values()]
    assert re.findall(r'download="([^"]+)"', drawn)[1:] == [
        "fox-seed1-puzzle-a4.pdf",
        "fox-seed1-puzzle-letter.pdf",
        "fox-seed1-puzzle.svg",
    ]
    assert set(puzzle.values()) <= named_files(summary)


def test_remarks_are_folded_and_name_what_was_found():
    failures = [{"title": "Noise shift", "found": True}, {"title": "Correlated noise", "found": False}]
    best = {"seed": 1, "image": "c.png", "views": [], "failures": failures}
    drawn = result.of(Result("j", {}, {"candidates": [best], "notes": ["Half turn: 1% lost."]}, lambda n, w: n))
    assert "Remarks<small>noise shift</small>" in drawn
    assert "<li>Half turn: 1% lost.</li>" in drawn


def test_readings_show_every_view_with_every_prompt(drawn):
    assert re.findall(r"<td[^>]*>([\d.]+)</td>", drawn)[:4] == ["0.31", "0.10", "0.12", "0.42"]


def test_the_animation_can_be_held(drawn):
    assert drawn.count("data-hold") == 2
    assert 'aria-label="Pause the animation"' in drawn


@pytest.fixture
def searched():
    """A search over partners with a study, of which one candidate was left unfinished."""
    found = [
        {"seed": 5, "prompts": ["a bear", partner], "image": f"{i}.png", "views": [f"{i}a.png", f"{i}b.png"]}
        for i, partner in enumerate(("a skull", "a cat"))
    ]
    stopped = [{"seed": 6, "prompts": ["a bear", "a cat"], "grid": "stopped-0.png", "why": "After 11 of 15 steps."}]
    summary = {
        "candidates": found,
        "stopped": stopped,
        "prompts": ["a bear", "a skull"],
        "views": ["identity", "negate"],
    }
    request = {"prompts": ["a bear", "a pumpkin"], "partners": ["a skull", "a cat"], "candidates": 2, "seed": 5}
    request |= {"stop_early": True, "adapter_study": True, "steps": 15}
    return Result("j", request, summary | {"study": {"grid": "study.png"}}, lambda name, width: name)


def test_every_candidate_of_a_search_stands_under_its_own_prompts(searched):
    drawn = result.of(searched)
    assert re.findall(r'alt="(a \w+)"', drawn)[:4] == ["a bear", "a skull", "a bear", "a cat"]
    assert re.findall(r'aria-label="Candidate \d of 2, ([^"]+)"', drawn) == ["a skull, seed 5", "a cat, seed 5"]
    assert 'download="bear-cat-seed5.png"' in drawn
    assert "pumpkin" not in drawn


def test_the_settings_of_one_candidate_make_it_alone(searched):
    assert searched.alone(searched.candidates[1]) == {
        "prompts": ["a bear", "a cat"],
        "seed": 5,
        "candidates": 1,
        "partners": [],
        "stop_early": False,
        "adapter_study": False,
        "steps": 15,
    }


def test_a_study_s_grid_and_what_was_stopped_early_are_shown_and_served(searched):
    drawn = result.of(searched)
    assert 'src="study.png"' in drawn
    assert "1 candidate stopped early" in drawn
    assert "After 11 of 15 steps." in drawn
    assert {"study.png", "stopped-0.png"} <= named_files(searched.summary)


def test_a_summary_without_extras_is_still_shown():
    bare = {
        "candidates": [{"seed": 1, "image": "a.png", "views": ["a.png"]}],
        "prompts": ["a fox"],
        "views": ["identity"],
    }
    drawn = result.of(Result("j", {}, bare, lambda name, width: name))
    assert "a fox" in drawn
    assert "Seed" in drawn
    assert "<details" not in drawn
