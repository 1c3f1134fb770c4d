"""The benchmark's plan, its going on, and its figures, with illusions that cost nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest

from studio.errors import RequestError, UnknownNameError
from studio.illusions import bench, bench_command, bench_report
from studio.illusions.bench import METHODS, NAMED, Plan, Record, Task, load_pairs, run, tasks
from studio.illusions.preflight import check

PAIRS = (("a fox", "an owl"), ("a cat", "a key"), ("a bus", "a bee"))
SMALL = Plan(seeds=2, steps=4)


@dataclass(frozen=True)
class Score:
    alignment: float
    concealment: float


@dataclass(frozen=True)
class Made:
    candidates: tuple[Score, ...]
    evaluations: int = 16


class Hand:
    """Draws by rule: seed s of the k-th pair reads as k/10 + s/100, and notes what it was asked for."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked, self.stop_after = [], stop_after

    def __call__(self, request):
        if self.stop_after is not None and len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(request)
        first = [pair[0] for pair in PAIRS].index(request.prompts[0])
        return Made((Score(first / 10 + request.seed / 100, 0.5),))


def test_every_list_holds_its_pairs_of_different_prompts(assets):
    lists = {name: load_pairs(assets, name) for name in ("emoji", "cifar10")}
    assert {name: len(pairs) for name, pairs in lists.items()} == {"emoji": 50, "cifar10": 45}
    for pairs in lists.values():
        assert len({frozenset(pair) for pair in pairs}) == len(pairs)
        assert all(len(set(pair)) == 2 for pair in pairs)
    with pytest.raises(UnknownNameError, match="cifar10"):
        load_pairs(assets, "cifar")


def test_the_pairs_of_the_own_world_are_things_the_model_knows_each_used_once(assets):
    things = {entry["name"] for entry in json.loads((assets / "training" / "things.json").read_text())}
    named = [prompt.removeprefix("an ").removeprefix("a ") for pair in load_pairs(assets, "emoji") for prompt in pair]
    assert set(named) <= things
    assert len(set(named)) == 100


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_makes_a_request_that_can_run(method):
    request = SMALL.request(Task(method.name, 0, 1, PAIRS[0]))
    check(request)
    assert (request.prompts, request.views, request.steps) == (PAIRS[0], ("identity", "flip_vertical"), 4)
    assert (request.candidates, request.stop_early) == ((2, True) if method.searches else (1, False))


def test_a_pair_is_drawn_by_every_method_before_the_next_and_a_search_takes_all_seeds_at_once():
    found = [(task.pair, task.method, task.seed) for task in tasks(replace(SMALL, first=2), PAIRS)]
    per_pair = [("mean", 0), ("mean", 1), ("alternate", 0), ("alternate", 1)]
    per_pair += [("weighted_rectified", 0), ("weighted_rectified", 1), ("search", 0)]
    assert found == [(pair, *task) for pair in (0, 1) for task in per_pair]


def test_a_run_that_was_stopped_goes_on_and_makes_nothing_twice(tmp_path):
    whole = run(SMALL, PAIRS, Hand(), tmp_path / "whole")
    stopped = Hand(stop_after=9)
    with pytest.raises(KeyboardInterrupt):
        run(SMALL, PAIRS, stopped, tmp_path / "parts")
    warm_up = 4  # one picture of one step for every method, so that no figure holds the loading of models
    assert len((tmp_path / "parts" / bench.RECORDS).read_text().splitlines()) == 9 - warm_up
    rest = Hand()
    records = run(SMALL, PAIRS, rest, tmp_path / "parts")
    assert len(rest.asked) == warm_up + len(whole) - (9 - warm_up)
    assert [replace(record, seconds=0) for record in records] == [replace(record, seconds=0) for record in whole]
    again = Hand()
    assert run(SMALL, PAIRS, again, tmp_path / "parts") == records
    assert again.asked == []


def test_a_line_that_was_cut_off_is_made_anew(tmp_path):
    records = run(SMALL, PAIRS, Hand(), tmp_path)
    file = tmp_path / bench.RECORDS
    file.write_text(file.read_text()[:-20])
    again = Hand()
    assert len(run(SMALL, PAIRS, again, tmp_path)) == len(records)
    assert len(again.asked) == 1 + 1


def test_a_folder_of_another_plan_is_refused_with_what_differs(tmp_path):
    run(SMALL, PAIRS, Hand(), tmp_path)
    with pytest.raises(RequestError, match="steps 4 then, 5 now") as refused:
        run(replace(SMALL, steps=5), PAIRS, Hand(), tmp_path)
    assert refused.value.field == "out"


def test_progress_counts_illusions_and_says_what_is_left(tmp_path):
    steps = []
    run(SMALL, PAIRS, Hand(), tmp_path, steps.append)
    assert [step.index for step in steps] == list(range(22))
    assert {step.total for step in steps} == {21}
    assert steps[1].note.startswith("pair 1, mean, about ")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": ("mein",)}, "did you mean 'mean'"),
        ({"seeds": 0}, "seeds: must be at least 1, got 0"),
        ({"first": 0}, "first: must be at least 1, got 0"),
        ({"first": -3}, "first: must be at least 1, got -3"),
        ({"guidance_scale": float("nan")}, "guidance_scale: must be a finite number"),
        ({"seeds": 17}, "candidates: must be at most 16"),
        ({"pairs": "cifar10"}, "knows emoji only"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, says):
    with pytest.raises((RequestError, UnknownNameError), match=says):
        replace(SMALL, **changes).check()


def made(method, values, concealment=0.6):
    """Records of one pair after the other, each pair's alignments being one tuple."""
    return [
        Record(method, pair, seed, value, concealment, 80, 0.5)
        for pair, seeds in enumerate(values)
        for seed, value in enumerate(seeds)
    ]


def test_figures_are_means_over_pairs_quantiles_over_illusions_and_paired_differences():
    records = made("mean", [(0.2, 0.4), (0.1, 0.3)]) + made("search", [(0.4,), (0.4,)], 0.7)
    mean, search = bench_report.lines(records, ("mean", "alternate", "search"))
    assert (mean.illusions, search.illusions) == (4, 2)
    assert mean.alignment.value == pytest.approx(0.25)
    assert (mean.alignment.low, mean.alignment.high) == pytest.approx((0.2, 0.3))
    assert mean.alignment_quantiles == pytest.approx((0.37, 0.385))
    assert search.more_alignment.value == pytest.approx((0.1 + 0.2) / 2)
    assert search.more_concealment.value == pytest.approx(0.1)
    assert mean.more_alignment is None
    assert (mean.evaluations, mean.seconds) == (80, 0.5)


def test_the_bootstrap_of_many_values_is_the_normal_interval():
    values = [float(value) for value in range(100)]
    found = bench_report.estimate(values)
    assert found.value == 49.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * 28.87 / 10, rel=0.05)


@pytest.mark.parametrize(
    ("search", "alternate", "said"),
    [
        ([(0.4,), (0.4,)], [(0.1,), (0.0,)], ("holds, clear of chance", "holds, clear of chance")),
        ([(0.6,), (0.1,)], [(0.1,), (0.4,)], ("holds, within chance", "holds, within chance")),
        ([(0.1,), (0.1,)], [(0.4,), (0.4,)], ("does not hold", "does not hold")),
    ],
)
def test_bars_are_told_by_the_differences_and_their_intervals(search, alternate, said):
    records = made("mean", [(0.3,), (0.3,)]) + made("search", search, 0.7) + made("alternate", alternate)
    found = bench_report.bars(bench_report.lines(records, ("mean", "alternate", "search")))
    assert tuple(str(bar).partition(": ")[2] for bar in found) == said


def test_the_table_names_its_methods_and_what_it_was_made_with():
    records = made("mean", [(0.3,), (0.3,)]) + made("alternate", [(0.1,), (0.1,)])
    table = bench_report.markdown(SMALL, bench_report.lines(records, SMALL.methods))
    assert "2 seeds, 4 steps" in table
    assert f"| {NAMED['alternate'].title} | 2 | 0.100 [0.100, 0.100] |" in table
    assert "-0.200 [-0.200, -0.200]" in table
    assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1


def test_the_command_writes_its_table_and_ends_with_130_when_stopped(tmp_path, monkeypatch, capsys):
    shown = []

    class Progress:
        def __call__(self, step):
            shown.append(step)

        def close(self):
            shown.append("closed")

    def draw(request):
        return Made((Score(0.1 + request.seed / 100, 0.5),))

    monkeypatch.setattr(bench_command, "_draw", lambda models: draw)
    options = ["--first", "2", "--seeds", "2", "--steps", "4", "--out", str(tmp_path)]
    assert bench_command.main(options, lambda settings: None, Progress()) == 0
    assert "mean (Visual Anagrams)" in capsys.readouterr().out
    assert "mean beats alternate in A" in (tmp_path / bench_command.TABLE).read_text()
    assert json.loads((tmp_path / bench_command.FIGURES).read_text())["plan"]["seeds"] == 2
    assert shown[-1] == "closed"
    monkeypatch.setattr(bench_command, "_draw", lambda models: Hand(stop_after=0))
    assert bench_command.main([*options[:-1], str(tmp_path / "new")], lambda settings: None, Progress()) == 130
    assert "goes on from" in capsys.readouterr().err
