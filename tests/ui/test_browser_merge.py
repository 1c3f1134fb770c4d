"""The Merge tab in a real browser, over the real engine."""

import re
from pathlib import Path

import pytest

from tests.ui.conftest import CHROMIUM, SECOND

if not Path(CHROMIUM).exists():
    pytest.skip("chromium is not installed", allow_module_level=True)

from playwright.sync_api import expect

expect.set_options(timeout=30_000)
STAGE = "#merge-stage"
DONE = f"{STAGE} [data-state=done]"


def opened(visit, *size, **options):
    page = visit(*size, path="/?tab=merge", **options)
    page.wait_for_selector("#fit .fit-line")
    page.wait_for_timeout(300)
    return page


def choose(page, label, value):
    """A name typed into one of the pickers."""
    field = page.get_by_label(label, exact=True)
    field.fill(value)
    field.press("Enter")
    field.press("Tab")


def set_number(page, name, value):
    field = page.get_by_label(f"number input for {name}").locator("visible=true")
    field.fill(value)
    field.press("Tab")


def small(page):
    """A preview of few steps of the built-in model and the second one."""
    choose(page, "B", SECOND)
    page.get_by_label("Draw").fill("a fox")
    page.get_by_label("At these alphas too").fill("0.25, 0.75")
    page.get_by_role("button", name="More").click()
    set_number(page, "Steps", "2")
    expect(page.locator("#merge-cost")).to_contain_text("1 prompt × 5 pictures = 20 evaluations")


def dropped(page, path):
    """A file of this machine dropped on the page."""
    data = page.evaluate_handle(
        """([bytes, name]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], name));
          return data;
        }""",
        [list(path.read_bytes()), path.name],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    page.dispatch_event("body", "drop", {"dataTransfer": data})


@pytest.mark.slow
def test_pick_preview_slide_save_drop_the_file_back_and_replay(visit):
    page = opened(visit)
    expect(page.locator("#fit")).to_contain_text("It fits")
    small(page)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f"{DONE} .is-merge")
    shown = page.locator(".is-merge .frame img:not([hidden])")
    expect(shown).to_have_count(1)
    before = shown.get_attribute("src")
    page.get_by_label("Alpha of the merge that is shown").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".alpha-said")).to_have_text("alpha 0.75")
    assert shown.get_attribute("src") != before
    page.get_by_role("button", name="Use this alpha").click()
    expect(page.get_by_label("number input for Alpha")).to_have_value("0.75")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_selector(f"{STAGE} .saved")
    folder, sha256 = (Path(text) for text in page.locator(".saved code").all_inner_texts())
    page.get_by_label("number input for Alpha").fill("0.1")
    dropped(page, folder / "merge.json")
    expect(page.locator(".note .is-done:visible")).to_contain_text("The recipe of merge.json is in the form")
    expect(page.get_by_label("number input for Alpha")).to_have_value("0.75")
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_function(
        "(old) => { const code = document.querySelector('.saved code'); return code && code.textContent !== old; }",
        arg=str(folder),
    )
    again, same = (Path(text) for text in page.locator(".saved code").all_inner_texts())
    assert (again != folder, same) == (True, sha256)


def test_of_a_dropped_model_only_the_header_is_sent(visit, tmp_path):
    from tests.merging.checkpoints import pair
    from tests.ui.conftest import until_over

    a, b = pair(tmp_path)
    job = visit.bench.submit("merge", {"models": [str(a), str(b)], "title": "m", "alpha": 0.125}, "local")
    merged = until_over(visit.bench, job, "local").folder / "m.safetensors"
    page = opened(visit)
    with page.expect_request("**/gradio_api/upload*") as sent:
        dropped(page, merged)
    assert sent.value.sizes()["requestBodySize"] < merged.stat().st_size
    expect(page.locator(".note .is-done:visible")).to_contain_text("The recipe of m.safetensors is in the form")
    expect(page.get_by_label("number input for Alpha")).to_have_value("0.125")
    expect(page.get_by_label("A", exact=True)).to_have_value(str(a))


def test_nothing_typed_is_lost_by_a_reload(visit):
    page = opened(visit)
    choose(page, "B", SECOND)
    choose(page, "Method", "TIES")
    expect(page.get_by_label("number input for Share of changes kept")).to_be_visible()
    set_number(page, "Share of changes kept", "0.35")
    page.get_by_label("Draw").fill("an owl")
    page.wait_for_timeout(800)
    page.reload()
    page.wait_for_selector("#fit .fit-line")
    expect(page.get_by_label("Draw")).to_have_value("an owl")
    expect(page.get_by_label("Method", exact=True)).to_have_value("TIES")
    expect(page.get_by_label("number input for Share of changes kept")).to_have_value("0.35")


def test_an_error_stands_beside_its_field_and_goes_when_it_is_mended(visit):
    page = opened(visit)
    choose(page, "B", "/nowhere/b.safetensors")
    row = page.locator(".model-rows .field").nth(1)
    expect(row.locator(".is-error")).to_contain_text("There is no model at")
    expect(page.locator("#fit")).to_contain_text("cannot be merged")
    choose(page, "B", SECOND)
    expect(row.locator(".is-error")).to_have_count(0)
    expect(page.locator("#fit")).to_contain_text("It fits")


def test_bars_of_the_blocks_write_their_alphas(visit):
    page = opened(visit)
    page.get_by_role("button", name="More").click()
    bar = page.get_by_label("Alpha of M00")
    bar.focus()
    page.keyboard.press("Home")
    expect(page.get_by_label("Alpha of each block").last).to_have_value(re.compile(r"0\.5, .*0,"))
    expect(page.get_by_role("button", name="Back to the curve")).to_be_visible()


@pytest.mark.slow
def test_escape_stops_a_preview(visit):
    page = opened(visit)
    page.get_by_role("button", name="More").click()
    set_number(page, "Steps", "200")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f"{STAGE} [data-state=running] .frame img")
    page.keyboard.press("Escape")
    page.wait_for_selector(f"{STAGE} [data-state=cancelled]")


def test_on_a_phone_nothing_scrolls_sideways_and_the_result_comes_first(visit):
    page = opened(visit, 375, 812, has_touch=True, is_mobile=True)
    page.get_by_role("button", name="More").click()
    page.get_by_role("button", name="Search for the best alpha").click()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    stage, form = page.locator(STAGE).bounding_box(), page.locator("#merge-0").bounding_box()
    assert stage["y"] < form["y"]
    button = page.get_by_role("button", name="Preview").bounding_box()
    assert 0 < button["y"] < 812 - button["height"]


def test_every_control_of_the_tab_has_a_name(visit):
    page = opened(visit)
    page.get_by_role("button", name="More").click()
    page.get_by_role("button", name="Search for the best alpha").click()
    for task in ("Join LoRAs", "Extract a LoRA", "Bake LoRAs in", "Merge checkpoints"):
        page.get_by_label(task).check()
        page.wait_for_timeout(700)
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll('input, textarea, button, select')]
              .filter((e) => e.offsetParent && e.type !== 'file')
              .filter((e) => !(e.getAttribute('aria-label') || e.innerText.trim() || e.labels?.length))
              .map((e) => e.outerHTML.slice(0, 200))"""
        )
        assert unnamed == [], task
