"""What a comparison of guidance looks like while it runs and when it is done, from the summaries the engine writes."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from studio.guidance.guiders import GUIDERS
from studio.guidance.settings import Settings
from studio.snapshots import Snapshot
from studio.ui import files, guidance_grid, guidance_plot, guidance_result, guidance_stage, guidance_table, history
from studio.ui.compare import of as compared
from studio.ui.drawings import drawing_of, made_on
from studio.ui.result import Result

REQUEST = {"model": "builtin:emoji", "adapters": {"pixel": "builtin:pixel"}, "prompts": ["a fox", "an <owl>"]}
REQUEST |= {"seed": 3, "seeds": 2, "guiders": ["cfg", "autolora"], "settings": {}, "resume": ""}


def estimate(value, spread=0.05):
    return {"value": value, "low": value - spread, "high": value + spread}


def column(guider, evaluations, diversity, fidelity, **point):
    title = GUIDERS[guider].title
    where = ", ".join(f"γ {value:g}" for value in point.values())
    found = {"guider": guider, "guider_title": title, "title": f"{title} · {where}" if where else title}
    found |= {"point": point, "settings": Settings(**point).model_dump(mode="json"), "pictures": 4}
    found |= {"diversity": estimate(diversity), "pc_clip": estimate(fidelity), "evaluations": evaluations}
    return found | {"products": {"div_pc_clip": diversity * fidelity}, "seconds": evaluations / 100}


COLUMNS = [
    column("cfg", 40, 0.2, 0.8),
    column("autolora", 80, 0.3, 0.7, gamma=1.5),
    column("autolora", 72, 0.4, 0.6, gamma=2),
]
ROWS = [
    {
        "prompt": prompt,
        "seed": seed,
        "cells": [{"image": f"cell-{x}-{seed}-{y}.png", "evaluations": 40, "seconds": 0.5} for y in range(3)],
    }
    for x, prompt in enumerate(REQUEST["prompts"])
    for seed in (3, 4)
]
SUMMARY = {"columns": COLUMNS, "rows": ROWS, "grid": "grid.png", "tables": ["table.csv", "table.json"]}
SUMMARY |= {"verdict": "Yes: AutoLoRA at 2.00 times the evaluations of LoRA + CFG gained diversity (0.200 to 0.300)."}
SUMMARY |= {"extractor": "builtin:clip", "stopped": False, "model": "builtin:emoji", "seconds": 6.0, "notes": []}
SUMMARY |= {"evaluations": 768}


def shown(summary=SUMMARY, folder="/runs/one"):
    def link(name, width):
        return f"o/{name}" + (f"?w={width}" if width else "")

    return Result("j1", REQUEST, summary, link, folder=folder, engine="guidance", title="a fox")


def stopped():
    """The last row was never drawn, and of the one before only the first picture."""
    rows = [*ROWS[:2], {**ROWS[2], "cells": [ROWS[2]["cells"][0], None, None]}]
    return {**SUMMARY, "rows": rows, "stopped": True}


def snapshot(**changes):
    first = Snapshot(id="j1", engine="guidance", title="t", owner="local", folder=Path("/none"), request=REQUEST,
                     created=0.0, lane="gpu")  # fmt: skip
    return replace(first, **changes)


def test_the_answer_stands_first_with_its_verdict_in_bold():
    drawn = guidance_result.of(shown())
    assert "<b>Yes:</b> AutoLoRA at 2.00 times" in drawn
    places = [drawn.index(part) for part in ('class="verdict"', "scroll cells", "scroll figures", "against")]
    assert places == sorted(places)
    assert "4 pictures a column are too few" in drawn
    assert "too few" not in guidance_result.of(
        shown({**SUMMARY, "columns": [{**each, "pictures": 8} for each in COLUMNS]})
    )
    assert "is said once it stands beside" in guidance_result.of(shown({**SUMMARY, "verdict": ""}))


def test_the_grid_has_a_row_for_every_seed_and_a_column_for_every_setting():
    drawn = guidance_grid.of(shown())
    assert re.findall(r'data-cell="([^"]+)"', drawn) == [f"{row}-{place}" for row in range(4) for place in range(3)]
    assert re.findall(r'scope="col"[^>]*data-title="([^"]+)"', drawn) == [each["title"] for each in COLUMNS]
    assert re.findall(r'data-prompt="([^"]+)" data-seed="(\d)"', drawn) == [
        (prompt, seed) for prompt in ("a fox", "an &lt;owl&gt;") for seed in "34"
    ]
    thumbnails = re.findall(r'<img src="[^"]+\?w=128"[^>]*>', drawn)
    assert len(thumbnails) == 12
    assert all('loading="lazy"' in each and 'width="96"' in each for each in thumbnails)
    # The first AutoLoRA is chosen, alone in the tab order, and large below.
    assert re.findall(r'data-cell="([^"]+)"[^>]*aria-pressed="true" tabindex="0"', drawn) == ["0-1"]
    assert 'src="o/cell-0-3-1.png"' in drawn
    assert "γ 1.5 · LoRA scale 1 · 20 steps" in drawn


def test_only_what_a_guider_heeds_is_told_of_its_column():
    for name, entry in GUIDERS.items():
        found = guidance_grid.settings_of({"guider": name, "settings": Settings().model_dump()})
        assert set(found) == {*entry.heeds, *entry.lengthened_by, "lora_scale", "steps"}, name


def test_a_grid_too_large_for_a_page_shows_its_first_rows_and_says_so():
    many = {**SUMMARY, "rows": [{**ROWS[0], "seed": seed} for seed in range(500)]}
    drawn = guidance_grid.of(shown(many))
    assert drawn.count('class="cell"') == 1200
    assert "The first 400 of 500 rows" in drawn


def test_the_table_tells_figures_intervals_and_the_price_over_lora_and_cfg():
    drawn = guidance_table.of(SUMMARY)
    assert re.findall(r"<td>([\d.]+×)</td>", drawn) == ["1.00×", "2.00×", "1.80×"]
    assert "<b>0.300</b><small>0.250 to 0.350</small>" in drawn
    assert [f"{each['products']['div_pc_clip']:.3f}" for each in COLUMNS] == ["0.160", "0.210", "0.240"]
    for figure in ("0.160", "0.210", "0.240"):
        assert f"<td>{figure}</td>" in drawn
    for title in ("Diversity", "PC-clip", "Div × PC-clip", "Evaluations", "Seconds", "Price"):
        assert f">{title}</th>" in drawn
    assert "SA-clip" not in drawn


def test_the_price_is_over_the_plain_column_at_the_same_steps():
    columns = [column("cfg", 20, 0, 0, steps=10), column("cfg", 40, 0, 0, steps=20)]
    columns += [column("autolora", 40, 0, 0, steps=10), column("autolora", 80, 0, 0, steps=20)]
    assert [guidance_table.price(index, columns) for index in range(4)] == [1.0, 1.0, 2.0, 2.0]
    assert guidance_table.price(0, columns[2:]) is None


def test_a_column_of_which_nothing_was_drawn_is_a_line_of_dashes():
    empty = {name: COLUMNS[1][name] for name in ("guider", "guider_title", "title", "point", "settings")}
    drawn = guidance_table.of({**SUMMARY, "columns": [COLUMNS[0], {**empty, "pictures": 0}]})
    assert drawn.count("<td>–</td>") == 6
    assert guidance_plot.of([COLUMNS[0], {**empty, "pictures": 0}], "p") == ""


def test_the_picture_of_the_figures_is_told_in_words_and_larger_where_it_is_dearer():
    drawn = guidance_plot.of(COLUMNS, "p")
    assert 'aria-labelledby="p-pc_clip-title p-pc_clip-desc"' in drawn
    assert "AutoLoRA · γ 2: diversity 0.400, PC-clip 0.600, 72 evaluations." in drawn
    assert drawn.count("<polyline") == 1
    marks = guidance_plot.marks_of(COLUMNS, guidance_table.FIDELITIES[0])
    across = [guidance_plot.across_of(mark, 80) for mark in marks]
    assert across == pytest.approx([44 / 2**0.5, 44, 44 * 0.9**0.5])
    assert guidance_plot.across_of(marks[0], 40_000) == 20


def test_lines_join_what_differs_in_the_last_setting_of_the_grid_alone():
    grid = [
        {**column("autolora", 80, 0.1 * a, 0.1 * b), "point": {"gamma": a, "lora_scale": b}}
        for a in (1, 2) for b in (3, 4, 5)
    ]  # fmt: skip
    marks = guidance_plot.marks_of([*grid, COLUMNS[0]], guidance_table.FIDELITIES[0])
    assert [[dict(mark.point) for mark in chain] for chain in guidance_plot.chains(marks)] == [
        [{"gamma": a, "lora_scale": b} for b in (3, 4, 5)] for a in (1, 2)
    ]


def test_a_stopped_comparison_says_what_is_there_and_goes_on_at_home_only():
    drawn = guidance_result.of(shown(stopped()))
    assert "Stopped: 7 of 12 pictures are drawn." in drawn
    assert 'data-act="go-on"' in drawn
    assert drawn.count("not drawn") == 2
    assert 'data-act="go-on"' not in guidance_result.of(shown(stopped(), folder=""))
    assert 'data-act="more-seeds"' in guidance_result.of(shown())


def test_what_ended_without_a_result_goes_on_where_pictures_were_kept(tmp_path):
    ended = snapshot(status="interrupted", folder=tmp_path)
    assert guidance_stage.actions(ended) == ()
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "cells.jsonl").write_text("")
    assert 'data-act="go-on"' in "".join(guidance_stage.actions(ended))
    assert guidance_stage.actions(replace(ended, owner="ann-" + "0" * 20)) == ()


@pytest.mark.parametrize("summary", [SUMMARY, stopped()])
def test_only_the_files_of_the_result_can_be_fetched(summary):
    names = files.named_files({**summary, "rows": [*summary["rows"], {"cells": [{"image": "../../etc/passwd"}]}]})
    pictures = {cell["image"] for row in summary["rows"] for cell in row["cells"] if cell}
    assert names == {*pictures, "grid.png", "table.csv", "table.json"}


def test_the_row_that_forms_names_its_columns_its_prompt_and_its_seed():
    request = {**REQUEST, "sweep": [{"setting": "gamma", "values": [1.5, 2]}]}
    waiting = guidance_stage.forming(snapshot(status="queued", request=request))
    assert re.findall(r"<strong[^>]*>([^<]+)</strong><span>([^<]+)</span>", waiting) == [
        ("LoRA + CFG", "\u00a0"),
        ("AutoLoRA", "γ 1.5"),
        ("AutoLoRA", "γ 2"),
    ]
    labels = ("LoRA + CFG", "LoRA + CFG, as dear as AutoLoRA", "AutoLoRA · γ 1.5")
    running = snapshot(
        status="running",
        labels=labels,
        previews=("data:a", "data:b", "data:grey"),
        note=f"{labels[1]}, prompt 2 of 2, seed 4",
    )
    drawn = guidance_stage.forming(running)
    assert "<b>an &lt;owl&gt;</b> · seed 4" in drawn
    assert re.findall(r'src="data:(\w+)"', drawn) == ["a", "b"]  # what is still to come is an empty frame
    assert drawn.index("is-now") > drawn.index("data:a")
    assert drawn.count("is-now") == 1


def test_history_and_comparison_have_a_picture_figures_and_the_answer():
    drawing = drawing_of("guidance")
    assert made_on("guidance") == ("guidance",)
    assert drawing.cover(SUMMARY) == "cell-0-3-1.png"
    assert list(drawing.told(SUMMARY)) == ["12 pictures", "3 columns", "AutoLoRA worth it? Yes"]
    assert drawing.cover({}) is None
    assert list(drawing.told({})) == []
    side = drawing.side(shown())
    assert side.measured == {"Diversity": 0.3, "PC-clip": 0.7, "Evaluations": 80}
    assert side.settings["gamma"] == 1.5
    assert "Diversity" in compared([side, replace(side, measured={"Diversity": 0.5})])
    cards = history.cards([snapshot(status="done", summary=SUMMARY)], lambda snapshot: "o/x.png", 10.0)
    assert "AutoLoRA worth it? Yes" in cards


def test_a_cell_s_settings_are_its_column_s_and_alone_all_that_draws_it():
    use = guidance_result.request_of(shown(), "3-2", alone=False)
    assert (use["settings"]["gamma"], use["sweep"], use["guiders"]) == (2, [], ["cfg", "autolora"])
    alone = guidance_result.request_of(shown(), "3-2", alone=True)
    assert (alone["guiders"], alone["prompts"], alone["seed"], alone["seeds"]) == (["autolora"], ["an <owl>"], 4, 1)
    for forged in ("", "9-0", "0-9", "-1-0", "0", "a-b", "0-0-0"):
        assert guidance_result.request_of(shown(), forged, alone=True) is None


def test_words_of_a_person_never_become_markup():
    drawn = guidance_result.of(shown({**SUMMARY, "verdict": "No: <i>x</i>"}))
    assert "<i>x" not in drawn
    assert "<owl>" not in drawn
