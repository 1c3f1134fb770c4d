"""The Guidance tab in a real browser, over the real engine."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.ui.conftest import CHROMIUM, STYLE

if not Path(CHROMIUM).exists():
    pytest.skip("chromium is not installed", allow_module_level=True)

from playwright.sync_api import expect

expect.set_options(timeout=60_000)
STAGE = "#guidance-stage"
DONE = f"{STAGE} [data-state=done]"


def opened(visit, *size, **options):
    page = visit(*size, path="/?tab=guidance", **options)
    expect(page.locator("#guidance-cost")).to_contain_text("pictures")
    return page


def choose(page, label, value):
    field = page.get_by_label(label, exact=True)
    field.fill(value)
    field.press("Enter")
    field.press("Tab")


def two_by_three(page):
    """AutoLoRA at two gammas by three scales of the LoRA, from two seeds, in few steps."""
    page.get_by_label("AutoLoRA", exact=True).check()
    for name in ("LoRA + CFG", "LoRA times gamma"):
        page.get_by_label(name, exact=True).uncheck()
    page.get_by_label("Seeds", exact=True).fill("2")
    page.get_by_role("button", name="Grid over settings").click()
    for label, option, values in (
        ("First", "Beyond the LoRA (gamma)", "1.5, 2"),
        ("Second", "LoRA scale", "0.6, 1, 1.3"),
    ):
        page.get_by_label(f"{label} setting", exact=True).click()
        page.get_by_role("option", name=option).click()
        page.get_by_label(f"{label} setting's values").fill(values)
    page.locator("#guidance-more > button").click()
    steps = page.locator("#guidance-more").get_by_label("number input for Steps")
    steps.fill("2")
    steps.press("Tab")


def test_a_grid_is_run_two_cells_are_compared_and_the_table_is_exported(visit, tmp_path):
    page = opened(visit)
    choose(page, "LoRA", STYLE)
    two_by_three(page)
    expect(page.locator("#guidance-cost")).to_contain_text("6 columns × 2 seeds = 12 pictures, at most 96 evaluations")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(DONE, timeout=120_000)
    cells = page.locator(f"{STAGE} [data-cell]")
    expect(cells).to_have_count(12)
    # A cell is shown large with its recipe, and the arrow keys walk on.
    page.locator("[data-cell='0-0']").click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-cell='1-1']")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("[data-fact=settings]")).to_contain_text("γ 1.5 · LoRA scale 1 · 2 steps")
    expect(page.locator("[data-fact=seed]")).to_have_text("1")
    # Two are compared, with a slider and a map.
    page.locator("[data-compare]").click()
    page.locator("[data-cell='1-5']").click()
    expect(page.locator(".cell-pair .amount")).to_contain_text("% on average")
    rows = page.locator(".cell-pair tbody tr:visible th")
    assert rows.all_inner_texts()[:2] == ["Guidance", "Settings"]
    slider = page.get_by_label("How much of the left picture is shown")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.evaluate("(input) => input.closest('.slide').style.getPropertyValue('--at')") == "51%"
    page.keyboard.press("Escape")
    expect(page.locator(".cell-pair")).to_have_count(0)
    exported(page, tmp_path)
    # One column's numbers go into the form, and the grid gives way to them.
    page.locator("[data-cell='0-5']").click()
    page.get_by_role("button", name="Use these settings").click()
    expect(page.get_by_label("number input for Beyond the LoRA")).to_have_value("2")
    expect(page.get_by_label("number input for LoRA scale")).to_have_value("1.3")
    expect(page.locator("#guidance-cost")).to_contain_text("1 column × 2 seeds = 2 pictures")


def exported(page, tmp_path):
    """The table as CSV and JSON and the grid as a PNG, under names that say what they are."""
    for name, saved_as in (("CSV", "guidance.csv"), ("JSON", "guidance.json"), ("Grid", "guidance-grid.png")):
        with page.expect_download() as waiting:
            page.locator(STAGE).get_by_role("link", name=name, exact=True).click()
        assert waiting.value.suggested_filename == saved_as
        waiting.value.save_as(tmp_path / saved_as)
    with (tmp_path / "guidance.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["point.gamma"], line["point.lora_scale"]) for line in lines] == [
        (gamma, scale) for gamma in ("1.5", "2.0") for scale in ("0.6", "1.0", "1.3")
    ]
    assert len(json.loads((tmp_path / "guidance.json").read_text(encoding="utf-8"))) == 6
    with Image.open(tmp_path / "guidance-grid.png") as grid:
        assert grid.width > grid.height


def test_a_comma_in_a_slider_s_number_is_a_point(visit):
    page = opened(visit)
    field = page.get_by_label("number input for Beyond the LoRA")
    field.click()
    field.press("Control+a")
    page.keyboard.type("1,75")
    field.press("Tab")
    expect(field).to_have_value("1.75")


def test_on_a_phone_nothing_scrolls_sideways_and_the_button_is_in_reach(visit):
    page = opened(visit, 375, 812, has_touch=True, is_mobile=True)
    page.get_by_role("button", name="Grid over settings").click()
    page.locator("#guidance-more > button").click()
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    button = page.get_by_role("button", name="Compare").bounding_box()
    assert 0 < button["y"] < 812 - button["height"]


def test_every_control_of_the_tab_has_a_name(visit):
    page = opened(visit)
    page.get_by_role("button", name="Grid over settings").click()
    page.locator("#guidance-more > button").click()
    for guider in ("AutoLoRA in an interval", "AutoLoRA, refreshed", "Adaptive projected guidance"):
        page.get_by_label(guider, exact=True).check()
    page.wait_for_timeout(1500)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, button, select')]
          .filter((e) => e.offsetParent && e.type !== 'file')
          .filter((e) => !(e.getAttribute('aria-label') || e.innerText.trim() || e.labels?.length))
          .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
