"""The Train tab in a real browser, over the real engine."""

import re
from pathlib import Path

import pytest

from tests.training.asked import save_set
from tests.ui.conftest import CHROMIUM

if not Path(CHROMIUM).exists():
    pytest.skip("chromium is not installed", allow_module_level=True)

from playwright.sync_api import expect

expect.set_options(timeout=60_000)
STAGE = "#train-stage"
LOADED = "[...document.querySelectorAll('#train-stage img')].every((one) => one.complete && one.naturalWidth > 0)"
RUNNING, DONE = f"{STAGE} [data-state=running]", f"{STAGE} [data-state=done]"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return str(save_set(tmp_path_factory.mktemp("own") / "pictures", 4, side=128))


def opened(visit, *size, **options):
    page = visit(*size, path="/?tab=train", **options)
    expect(page.locator("#train-cost")).to_contain_text("24 pictures, 2 held out, 500 steps")
    page.wait_for_timeout(300)
    return page


def write(page, label, value):
    field = page.get_by_label(label, exact=True)
    field.fill(value)
    field.press("Tab")


def write_text(page, place, value):
    """The label of a text field holds its help as well, so it is found by its place."""
    field = page.locator(f"{place} textarea, {place} input")
    field.fill(value)
    field.press("Tab")


def choose(page, label, value):
    field = page.get_by_label(label, exact=True)
    field.fill(value)
    field.press("Enter")
    field.press("Tab")


def small(page, own, steps):
    """Four pictures, two samples every second step."""
    choose(page, "Pictures", own)
    write(page, "Steps", str(steps))
    page.get_by_role("button", name="More").click()
    write_text(page, "#train-prompts", "a fox")
    numbers = {"Sample every": "2", "Validate every": "2", "Steps of a sample": "2", "Checkpoint every": "5"}
    for label, value in numbers.items():
        write(page, label, value)
    page.get_by_role("button", name="More").click()
    expect(page.locator("#train-cost")).to_contain_text(f"4 pictures, 1 held out, {steps} steps")


@pytest.mark.slow
def test_start_watch_the_curve_pause_resume_and_use_what_was_learned(visit, own):
    page = opened(visit)
    small(page, own, 60)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f"{RUNNING} .curve polyline")
    expect(page.locator(f"{RUNNING} .chips")).to_contain_text("Pictures/s")
    expect(page.locator(f"{RUNNING} .steps tbody tr").nth(1)).to_be_visible()
    page.wait_for_function(LOADED)
    page.get_by_role("button", name="Pause", exact=True).click()
    page.wait_for_selector(DONE)
    expect(page.locator(f"{DONE} .stage-line")).to_contain_text(re.compile(r"Stopped after step \d+"))
    page.reload()
    page.get_by_role("button", name=re.compile(r"Resume from step \d+")).click()
    page.wait_for_selector(RUNNING)
    page.wait_for_selector(f"{DONE} .stage-line:has-text('60 steps')")
    expect(page.locator(f"{DONE} .learned-file")).not_to_have_count(0)
    page.wait_for_function(LOADED)
    path = page.locator(".saved code").first.inner_text()
    assert Path(path).is_file()
    page.get_by_role("button", name="Use in Illusions").first.click()
    expect(page.locator("#adapters textarea")).to_have_value(re.compile(re.escape(path)))
    expect(page.get_by_role("tab", name="Illusions")).to_have_attribute("aria-selected", "true")
    page.get_by_role("tab", name="Train").click()
    page.get_by_role("button", name="Use in Merge").first.click()
    expect(page.get_by_label("Bake LoRAs in")).to_be_checked()


def test_nothing_typed_is_lost_by_a_reload(visit):
    page = opened(visit)
    choose(page, "Kind of adapter", "LoCon")
    expect(page.locator(".method-help:visible")).to_contain_text("on convolutions")
    write(page, "Steps", "77")
    expect(page.locator("#train-cost")).to_contain_text("77 steps")
    page.wait_for_timeout(800)
    page.reload()
    expect(page.locator("#train-cost")).to_contain_text("77 steps")
    expect(page.get_by_label("Kind of adapter", exact=True)).to_have_value(re.compile("LoCon"))
    page.get_by_role("button", name="More").click()
    expect(page.get_by_label("Rank of convolutions", exact=True)).to_have_value("4")


def test_an_error_stands_beside_its_field_and_goes_when_it_is_mended(visit):
    page = opened(visit)
    page.get_by_role("button", name="More").click()
    write_text(page, "#train-rate", "10")
    wrong = page.locator(".note .is-error:visible")
    expect(wrong).to_contain_text("would make AdamW diverge")
    page.get_by_role("button", name="Train", exact=True).click()
    expect(wrong).to_contain_text("would make AdamW diverge")
    expect(page.locator("#train-rate textarea, #train-rate input")).to_have_value("10")
    expect(page.locator("#train-cost")).to_contain_text("cannot be trained as it is")
    write_text(page, "#train-rate", "1e-4")
    expect(wrong).to_have_count(0)
    expect(page.locator("#train-cost")).to_contain_text("500 steps")


def test_on_a_phone_nothing_scrolls_sideways_and_the_result_comes_first(visit):
    page = opened(visit, 375, 812, has_touch=True, is_mobile=True)
    page.get_by_role("button", name="More").click()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    stage, form = page.locator(STAGE).bounding_box(), page.locator("#train-model").bounding_box()
    assert stage["y"] < form["y"]
    button = page.get_by_role("button", name="Train", exact=True).bounding_box()
    assert 0 < button["y"] < 812 - button["height"]


def test_every_control_of_the_tab_has_a_name(visit):
    page = opened(visit)
    page.get_by_role("button", name="More").click()
    for method in ("DreamBooth", "Textual inversion", "Pictures with captions"):
        page.get_by_label(method).check()
        page.wait_for_timeout(700)
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll('input, textarea, button, select')]
              .filter((e) => e.offsetParent && e.type !== 'file')
              .filter((e) => !(e.getAttribute('aria-label') || e.innerText.trim() || e.labels?.length))
              .map((e) => e.outerHTML.slice(0, 200))"""
        )
        assert unnamed == [], method


def test_a_run_s_settings_bring_its_captions_back_before_it_goes_on_or_begins_anew(visit, own):
    """What the page shows is what is trained, also where the form names the same set as before."""
    page = opened(visit)
    small(page, own, 2)
    caption, name = page.get_by_label("Caption of picture-0.png"), "picture-0.png"
    card = page.locator(".shot", has=page.locator(f'[title="{name}"]'))

    def say(text):
        caption.fill(text)
        caption.press("Enter")
        expect(card.locator(".kept-said")).to_have_text("Saved")

    say("as it was trained")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_selector(f"{DONE} .stage-line:has-text('2 steps')")
    for button in ("Restore settings", "Train longer"):
        say("written since")
        page.get_by_role("button", name=button).click()
        expect(caption).to_have_value("as it was trained")
    expect(page.locator("#train-cost")).to_contain_text("4 pictures, 1 held out, 4 steps")
    expect(page.locator("#train-cost")).to_contain_text("2 of them left")
    say("written since")
    page.get_by_role("tab", name="History").click()
    page.get_by_role("button", name=re.compile("^Restore ")).first.click()
    expect(caption).to_have_value("as it was trained")
