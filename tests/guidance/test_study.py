"""The study of AutoLoRA: its sheets, its figures by hand, its files, and that it goes on where it stopped."""

from __future__ import annotations

import csv
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from studio.__main__ import main
from studio.errors import RequestError, UnknownNameError
from studio.guidance import curves, study
from studio.guidance.grid import columns
from studio.guidance.metrics import Measured
from studio.guidance.preflight import cells
from studio.guidance.study import SHEETS, Line, Plan, kept, pixelness, price
from studio.intervals import Estimate
from tests.models.loras import save_random

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", SHEETS)
def test_every_sheet_is_a_comparison_that_can_run(name):
    request = Plan().request(name)
    assert columns(request)
    assert cells(request) % (16 * 2) == 0  # seeds and prompts
    assert SHEETS[name].title


def test_the_sheets_are_the_papers_sweeps():
    assert SHEETS["lora-scale"].changes["sweep"][0]["values"] == pytest.approx([0.1 * tenth for tenth in range(2, 14)])
    assert SHEETS["cfg"].changes["sweep"][0]["values"] == (3.5, 4, 4.5, 5, 5.5, 6, 6.5)
    assert SHEETS["gamma"].changes["sweep"][0]["values"] == (1.5, 1.75, 2)
    assert len(columns(Plan().request("guiders"))) == 12
    assert set(study.APPROXIMATE) <= set(SHEETS)


def test_what_cannot_be_studied_is_one_sentence(capsys):
    with pytest.raises(UnknownNameError, match="There is no sheet 'gama': did you mean 'gamma'"):
        Plan().request("gama")
    with pytest.raises(RequestError, match="seeds: diversity needs 2 or more, got 1"):
        Plan(seeds=1).request("gamma")
    assert main(["guidance-study", "--sheets", "gama"]) == 2
    assert "did you mean 'gamma'" in capsys.readouterr().err


def checked(side: int, colours=((255, 0, 0), (0, 0, 255))) -> Image.Image:
    """A chessboard of squares of ``side`` pixels, 32 x 32."""
    board = np.indices((32, 32)).sum(0) if side == 1 else np.add.outer(np.arange(32) // side, np.arange(32) // side)
    return Image.fromarray(np.array(colours, dtype=np.uint8)[board % 2])


def test_pixelness_is_the_share_of_variance_between_cells():
    assert pixelness(checked(2), cells=16) == pytest.approx(1.0)
    assert pixelness(checked(1), cells=16) == pytest.approx(0.0)
    assert pixelness(Image.new("RGB", (32, 32), "red"), cells=16) == 1.0
    half = Image.fromarray(np.asarray(checked(2)) // 2 + np.asarray(checked(1)) // 2)
    assert pixelness(half, cells=16) == pytest.approx(0.5, abs=0.01)


def line(guider, diversity, fidelity, evaluations, seconds, sheet="guiders"):
    (column,) = columns(Plan().request(sheet).model_copy(update={"guiders": (guider,), "sweep": ()}))
    around = [Estimate(value, value - 0.1, value + 0.1) for value in (diversity, fidelity, 0.9)]
    return Line(sheet, column, Measured(4, around[0], {"pc_clip": around[1]}, evaluations, seconds), around[2])


def test_what_is_kept_is_the_share_of_the_change_to_exact_autolora_and_the_price_that_of_lora_with_cfg():
    plain, exact = line("cfg", 0.2, 2.0, 40, 0.5), line("autolora", 0.4, 1.5, 80, 0.8)
    near = line("autolora_refresh", 0.3, 1.4, 48, 0.6, "refresh")
    lines = [plain, exact, near]
    assert kept(near, lines) == pytest.approx({"diversity": 0.5, "pc_clip": 1.2})
    assert kept(exact, lines) == pytest.approx({"diversity": 1.0, "pc_clip": 1.0})
    assert price(near, lines) == pytest.approx((1.2, 1.2))
    assert (kept(near, [near]), price(near, [near])) == ({}, None)


def test_a_figure_has_a_dot_for_every_column_as_large_as_its_price_and_a_name_for_every_curve():
    dots = [curves.Dot((x, x - 1, x + 1), (2 * x, x, 3 * x), cost, f"<{x}>") for x, cost in ((1, 40), (2, 160))]
    drawn = curves.svg("T & U", [curves.Curve("first", dots), curves.Curve("second", dots[:1])], "x", "y")
    root = ElementTree.fromstring(drawn)
    circles = root.findall(f"{SVG}circle")
    named = [circle for circle in circles if circle.find(f"{SVG}title") is not None]
    assert [circle.find(f"{SVG}title").text for circle in named] == ["<1>", "<2>", "<1>"]
    first, second = (float(circle.get("r")) for circle in named[:2])
    assert second == pytest.approx(2 * first)  # four times the area
    assert float(named[0].get("cx")) < float(named[1].get("cx"))
    assert float(named[0].get("cy")) > float(named[1].get("cy"))  # up is more
    words = [text.text for text in root.findall(f"{SVG}text")]
    assert {"T & U", "first", "second", "x", "y"} <= set(words)


def test_the_command_writes_tables_curves_and_grids_and_draws_nothing_twice(assets, tmp_path, capsys):
    lora = save_random(tmp_path / "ink.safetensors", assets / "models" / "emoji", "kohya", seed=1)
    asked = ["guidance-study", "--sheets", "guiders,refresh", "--seeds", "2", "--steps", "2", "--prompts", "a fox"]
    asked += ["--lora", str(lora), "--out", str(tmp_path / "cells"), "--device", "cpu", "--offline"]
    assert main([*asked, "--tables", str(tmp_path / "first")]) == 0
    out = capsys.readouterr().out
    names = {"table.md", "table.csv", "table.json"}
    names |= {f"{sheet}.{ending}" for sheet in ("guiders", "refresh") for ending in ("svg", "png")}
    assert {path.name for path in (tmp_path / "first").iterdir()} == names
    assert all(str(tmp_path / "first" / name) in out for name in names)
    with (tmp_path / "first" / "table.csv").open(newline="") as file:
        rows = {(row["sheet"], row["title"]): row for row in csv.DictReader(file)}
    assert len(rows) == 12 + 4
    assert float(rows["guiders", "AutoLoRA"]["apart"]) == 0.0
    assert float(rows["guiders", "LoRA + CFG"]["apart"]) == pytest.approx(1.0)
    assert float(rows["guiders", "AutoLoRA"]["kept_diversity"]) == 1.0
    same = rows["guiders", "AutoLoRA, refreshed"], rows["refresh", "AutoLoRA, refreshed · every 2"]
    assert same[0]["apart"] == same[1]["apart"] != "0.0"
    text = (tmp_path / "first" / "table.md").read_text()
    assert "## Every guider" in text
    assert "2 seeds of each, 2 DDIM steps; features by builtin:clip" in text
    record = json.loads((tmp_path / "first" / "table.json").read_text())
    assert (record["plan"]["seeds"], len(record["lines"])) == (2, 16)
    before = sorted((tmp_path / "cells" / "cells").glob("*.png"))
    assert len(before) == 2 * (12 + 3)  # what two sheets have in common is one cell
    assert main([*asked, "--tables", str(tmp_path / "second")]) == 0
    assert sorted((tmp_path / "cells" / "cells").glob("*.png")) == before
    assert (tmp_path / "second" / "table.csv").read_text() == (tmp_path / "first" / "table.csv").read_text()
