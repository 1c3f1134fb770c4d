"""The page in a real browser, over the real engine."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from studio.imaging import write_png
from tests.ui.conftest import CHROMIUM

if not Path(CHROMIUM).exists():
    pytest.skip("chromium is not installed", allow_module_level=True)

from playwright.sync_api import expect

expect.set_options(timeout=30_000)

DONE = "[data-state=done]"
RUNNING = "[data-state=running]"
PREVIEW = f"{RUNNING} .frame img"
LONG = "200"


def ready(page, selector=DONE):
    """Waits until the page has attached and shows something."""
    page.wait_for_selector(f"#stage {selector}")
    page.wait_for_timeout(300)
    return page


def set_steps(page, steps):
    field = page.get_by_label("number input for Steps")
    field.fill(steps)
    field.press("Tab")


def set_long(page):
    """A run that is still at work when the page has drawn it, also on a quick machine."""
    page.get_by_label("number input for Candidates").fill("8")
    set_steps(page, LONG)


def stop(page):
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-state=cancelled]")


def test_the_first_visit_shows_a_finished_example_and_the_first_click_works(visit):
    page = ready(visit())
    expect(page.locator("#stage")).to_contain_text("Example")
    expect(page.get_by_label("View 1 shows")).to_have_value("a fox")
    expect(page.locator("#cost")).to_contain_text("2 views × 2 steps = 8 evaluations, about")
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector(f"#stage {DONE}:not([data-job^=example])")
    pictures = page.locator("#stage .candidate:not([hidden]) .frame img")
    expect(pictures).to_have_count(3)
    page.wait_for_function(
        "[...document.querySelectorAll('#stage .frame img')].every((image) => image.naturalWidth > 0)"
    )
    expect(page.locator("#said")).to_contain_text("Finished: a fox / a penguin.")


def test_views_form_live_and_escape_stops(visit):
    page = ready(visit())
    set_long(page)
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(PREVIEW)
    expect(page.locator(PREVIEW)).to_have_count(2)
    first = page.locator(PREVIEW).first.get_attribute("src")
    assert first.startswith("data:image/jpeg;base64,")
    assert len(first) <= 15 * 1024
    page.wait_for_function("(first) => document.querySelector('#stage .frame img').src !== first", arg=first)
    expect(page.locator("#stage")).to_contain_text(re.compile("of 1,?600"))
    stop(page)
    expect(page.locator("#stage")).to_contain_text("Stopped after step")
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()


def test_a_reload_in_the_middle_finds_the_job_and_keeps_what_was_typed(visit):
    page = ready(visit())
    page.get_by_label("View 1 shows").fill("a cat")
    page.get_by_role("button", name="+ Add a view").click()
    page.get_by_label("View 3 shows").fill("an owl")
    set_long(page)
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector(PREVIEW)
    page.reload()
    page.wait_for_selector(PREVIEW)
    expect(page.locator("#stage h2")).to_have_text("a cat / a penguin / an owl")
    expect(page.get_by_label("View 3 shows")).to_have_value("an owl")
    expect(page.get_by_label("number input for Steps")).to_have_value(LONG)
    stop(page)


@pytest.mark.slow
def test_a_finished_result_is_still_there_after_a_reload(visit):
    page = ready(visit())
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector(f"#stage {DONE}:not([data-job^=example])")
    job = page.locator("#stage .stage").get_attribute("data-job")
    page.reload()
    page.wait_for_selector(f"#stage [data-job='{job}']")


def test_a_dropped_picture_restores_every_setting(visit, tmp_path):
    page = ready(visit())
    request = {"prompts": ["an owl", "a cat", "a bear"], "views": ["negate", "jigsaw(seed=3)", "skew"], "steps": 3}
    recipe = {"engine": "illusion", "request": {**request, "negative_prompt": "fog"}, "seed": 77}
    picture = tmp_path / "saved.png"
    write_png(Image.new("RGB", (32, 32)), picture, recipe)
    data = page.evaluate_handle(
        """([bytes, name]) => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], name, { type: "image/png" }));
          return data;
        }""",
        [list(picture.read_bytes()), picture.name],
    )
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    expect(page.locator("#drop-veil")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.locator(".note .is-done")).to_have_text("Settings and seed 77 restored from saved.png.")
    expect(page.locator("#drop-veil")).to_be_hidden()
    for index, prompt in enumerate(request["prompts"], 1):
        expect(page.get_by_label(f"View {index} shows")).to_have_value(prompt)
    expect(page.get_by_label("View 2 is seen")).to_have_value("jigsaw(seed=3)")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("77")
    expect(page.get_by_label("number input for Steps")).to_have_value("3")
    page.get_by_role("button", name="More").click()
    expect(page.get_by_label("What no view should show")).to_have_value("fog")


@pytest.mark.slow
def test_a_file_that_holds_no_recipe_gets_one_sentence(visit, tmp_path):
    page = ready(visit())
    other = tmp_path / "notes.txt"
    other.write_text("hello")
    page.set_input_files(".starts-head:visible input[type=file]", other)
    expect(page.locator(".note .is-error")).to_have_count(1)
    expect(page.get_by_label("View 1 shows")).to_have_value("a fox")


@pytest.mark.slow
def test_errors_stand_beside_their_fields_and_nothing_typed_is_lost(visit):
    page = ready(visit())
    page.get_by_label("View 2 shows").fill("")
    page.get_by_label("View 1 shows").fill("a quasar")
    expect(page.locator(".view-row .is-hint")).to_contain_text("has never seen “a quasar”")
    page.get_by_role("button", name="Generate").click()
    rows = page.locator(".view-row")
    expect(rows.nth(1).locator(".is-error")).to_have_text("Must not be empty.")
    expect(page.get_by_label("View 1 shows")).to_have_value("a quasar")
    page.get_by_label("View 2 shows").fill("a fox")
    expect(rows.nth(1).locator(".is-error")).to_have_count(0)


def test_markup_in_a_prompt_stays_text(visit):
    page = ready(visit())
    nasty = "a fox <img src=x onerror=boom()> {{value}} ${boom()}"
    page.get_by_label("View 1 shows").fill(nasty)
    set_steps(page, "1")
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector(f"#stage {DONE}:not([data-job^=example])")
    expect(page.locator("#stage h2")).to_contain_text(nasty)
    assert page.locator("#stage img[src=x]").count() == 0


@pytest.mark.slow
def test_candidates_are_walked_with_arrow_keys_and_a_new_result_starts_at_the_best(visit):
    page = ready(visit())
    field = page.get_by_label("number input for Candidates")
    field.fill("3")
    field.press("Tab")
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("#stage .strip")
    page.locator("[data-pick='0']").click()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".candidate:not([hidden])")).to_have_attribute("data-candidate", "1")
    seed = page.locator(".candidate:not([hidden]) .chip.is-plain b").inner_text()
    page.locator(".candidate:not([hidden])").get_by_role("button", name="Restore settings").click()
    expect(page.get_by_label("Seed", exact=True)).to_have_value(seed)
    page.locator("[data-slug=first]").click()
    page.wait_for_selector("#stage [data-job^=example]")
    expect(page.locator(".candidate:not([hidden])")).to_have_count(1)
    expect(page.locator(".candidate").first).to_be_visible()


@pytest.mark.slow
def test_vary_makes_the_next_seeds(visit):
    page = ready(visit())
    page.get_by_role("button", name="Vary").click()
    page.wait_for_selector(f"#stage {DONE}:not([data-job^=example])")
    expect(page.locator(".candidate .chip.is-plain b")).to_have_text("6")
    expect(page.get_by_label("Seed", exact=True)).to_have_value("6")


@pytest.mark.slow
def test_a_download_carries_its_recipe(visit, tmp_path):
    page = ready(visit())
    with page.expect_download() as waiting:
        page.get_by_role("link", name="PNG").click()
    assert waiting.value.suggested_filename == "fox-penguin-seed5.png"
    saved = tmp_path / "saved.png"
    waiting.value.save_as(saved)
    assert visit.bench.restore(saved)["request"]["prompts"] == ["a fox", "a penguin"]


@pytest.mark.slow
def test_the_word_list_is_searched_and_fills_the_prompt_used_last(visit):
    page = ready(visit())
    page.get_by_label("View 2 shows").focus()
    page.get_by_role("button", name="What it can draw").click()
    page.get_by_label("Search what it can draw").fill("octop")
    words = page.locator(".words li:visible button")
    expect(words).to_have_count(1)
    words.click()
    expect(page.get_by_label("View 2 shows")).to_have_value("an octopus")


@pytest.mark.slow
def test_the_history_restores_deletes_and_takes_back(visit):
    page = ready(visit())
    page.get_by_label("View 1 shows").fill("a mushroom")
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector(f"#stage {DONE}:not([data-job^=example])")
    page.get_by_label("View 1 shows").fill("a cat")
    page.get_by_role("tab", name="History").click()
    assert re.search(r"[?&]tab=history", page.url)
    page.get_by_label("Search").fill("mushroom")
    expect(page.locator(".card")).to_have_count(1)
    page.locator(".card").get_by_role("button", name="Delete").click()
    expect(page.locator(".card")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".card")).to_have_count(1)
    page.locator(".card").get_by_role("button", name="Restore").click()
    expect(page.get_by_label("View 1 shows")).to_have_value("a mushroom")
    expect(page.locator("#stage h2")).to_have_text("a mushroom / a penguin")


@pytest.mark.slow
def test_every_deletion_can_be_taken_back_and_a_new_visit_to_the_history_lists_it(visit):
    page = ready(visit())
    for seed in ("5", "6"):
        page.get_by_label("Seed", exact=True).fill(seed)
        page.get_by_role("button", name="Generate").click()
        page.wait_for_selector(f"#stage {DONE}:has-text('Seed {seed}'):not([data-job^=example])")
    page = visit(path="/?tab=history")
    page.wait_for_selector(".card")
    there = page.locator(".card").count()
    for gone in (1, 2):
        page.locator(".card").first.get_by_role("button", name="Delete").click()
        expect(page.locator(".card")).to_have_count(there - gone)
    for left in (1, 0):
        page.get_by_role("button", name="Undo").first.click()
        expect(page.get_by_role("button", name="Undo")).to_have_count(left)
    expect(page.locator(".card")).to_have_count(there)


def test_a_fold_opens_for_the_error_inside_it(visit):
    page = ready(visit())
    fold = page.locator("#more > button.label-wrap")
    fold.click()
    page.get_by_label("How much each view counts").fill("1, 2, 3")
    expect(page.locator("#more .is-error")).to_be_visible()
    fold.click()
    expect(page.locator("#more .is-error")).to_be_hidden()
    page.get_by_role("button", name="Generate").click()
    expect(page.locator("#more .is-error")).to_be_visible()


def test_two_results_are_compared_with_a_slider_and_a_map(visit):
    page = ready(visit())
    for seed in ("5", "6"):
        page.get_by_label("Seed", exact=True).fill(seed)
        page.get_by_role("button", name="Generate").click()
        page.wait_for_selector(f"#stage {DONE}:has-text('Seed {seed}'):not([data-job^=example])")
    page.get_by_role("tab", name="History").click()
    page.get_by_label("When").click()
    page.get_by_role("option", name="The last hour").click()
    choose = page.locator(".card [data-act=compare]")
    choose.nth(0).click()
    expect(page.locator("#comparison")).to_contain_text("Choose a second picture")
    expect(choose.nth(0)).to_have_attribute("aria-pressed", "true")
    choose.nth(1).click()
    expect(page.locator("#comparison h2")).to_be_focused()
    expect(page.locator("#comparison .amount")).to_contain_text("% on average")
    expect(page.locator("#comparison tbody tr").first).to_have_text("Seed65")
    slider = page.get_by_label("How much of the left picture is shown")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.evaluate("(input) => input.closest('.slide').style.getPropertyValue('--at')") == "51%"
    page.keyboard.press("Escape")
    expect(page.locator("#comparison h2")).to_have_count(0)


def test_a_refusal_right_after_typing_stays_and_is_tied_to_its_field(visit):
    page = ready(visit())
    page.get_by_label("View 1 shows").fill("a fox")
    page.get_by_label("View 2 shows").fill("")
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".view-row").nth(1).locator(".is-error")).to_have_text("Must not be empty.")
    page.wait_for_timeout(1500)
    expect(page.locator(".view-row").nth(1).locator(".is-error")).to_have_text("Must not be empty.")
    field = page.get_by_label("View 2 shows")
    expect(field).to_have_attribute("aria-invalid", "true")
    note = field.get_attribute("aria-describedby")
    expect(page.locator(f"#{note}")).to_contain_text("Must not be empty.")


def test_a_press_shows_at_once(visit):
    page = ready(visit())
    shown = page.evaluate(
        """() => {
          const button = document.querySelector("#generate");
          button.click();
          return "pending" in button.dataset;
        }"""
    )
    assert shown
    page.wait_for_selector(f"#stage {DONE}:not([data-job^=example])")
    expect(page.locator("[data-pending]")).to_have_count(0)


@pytest.mark.slow
def test_the_pill_shows_the_job_on_every_tab_and_opens_the_queue(visit):
    page = ready(visit())
    set_long(page)
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector(PREVIEW)
    page.get_by_role("tab", name="Score").click()
    expect(page.locator(".later:visible")).to_contain_text("It is not there yet.")
    page.locator(".pill-open").click()
    expect(page.locator("#queue li")).to_have_count(1)
    page.locator("#queue").get_by_role("button", name="Stop").click()
    expect(page.locator("#queue li")).to_have_count(0)
    expect(page.locator(".card").first).to_contain_text("Stopped after step")


@pytest.mark.slow
def test_an_address_opens_its_tab(visit):
    page = visit(path="/?tab=score")
    expect(page.get_by_role("tab", name="Score")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".later:visible h2")).to_have_text("Score")


@pytest.mark.slow
def test_light_and_dark_follow_the_system_until_one_is_chosen(visit):
    page = ready(visit(color_scheme="dark"))
    expect(page.locator("body")).to_have_class(re.compile(r"\bdark\b"))
    page.get_by_role("button", name="Light or dark").click()
    expect(page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))
    page.reload()
    ready(page)
    expect(page.locator("body")).not_to_have_class(re.compile(r"\bdark\b"))


def test_on_a_phone_nothing_scrolls_sideways_and_the_result_comes_first(visit):
    page = ready(visit(375, 812, has_touch=True, is_mobile=True))
    for tab in ("Illusions", "History", "Merge", "Guidance"):
        page.get_by_role("tab", name=tab).click()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.get_by_role("tab", name="Illusions").click()
    stage, recipe = page.locator("#stage").bounding_box(), page.locator(".recipe:visible").bounding_box()
    assert stage["y"] < recipe["y"]
    button = page.get_by_role("button", name="Generate").bounding_box()
    assert 0 < button["y"] < 812 - button["height"]


@pytest.mark.slow
def test_every_control_has_a_name_and_every_picture_words(visit):
    page = ready(visit())
    page.get_by_role("button", name="More").click()
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, button, select')]
          .filter((e) => e.offsetParent && e.type !== 'file')
          .filter((e) => !(e.getAttribute('aria-label') || e.innerText.trim() || e.labels?.length))
          .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("#said [role=status]").count() == 1


def test_colours_keep_their_contrast_in_light_and_dark():
    """WCAG AA: 4.5 for text on what it stands on."""
    style = (Path(__file__).parents[2] / "studio/ui/css/tokens.css").read_text(encoding="utf-8")
    for block in re.findall(r"(?::root|\.dark) \{(.*?)\n\}", style, re.DOTALL):
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))
        for text in ("ink", "ink-soft", "accent", "danger", "warn"):
            assert _contrast(colour[text], colour["ground"]) >= 4.5, text
        assert _contrast(colour["ink-soft"], colour["sunken"]) >= 4.5
        for ground in ("paper", "field", "sunken"):
            for text in ("ink", "ink-soft"):
                assert _contrast(colour[text], colour[ground]) >= 4.5, (text, ground)
        assert _contrast(colour["on-accent"], colour["accent"]) >= 4.5
        assert _contrast(colour["on-accent"], colour["accent-strong"]) >= 4.5
        assert _contrast(colour["ink"], colour["accent-tint"]) >= 4.5
        assert _contrast(colour["accent-strong"], colour["accent-tint"]) >= 4.5
        for ground in ("ground", "field"):
            assert _contrast(colour["edge"], colour[ground]) >= 3, ground
        assert _contrast(colour["ink-faint"], colour["field"]) >= 4.5  # what stands in an empty field


def _contrast(one, other):
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.slow
def test_the_browser_keeps_no_plain_text_of_the_form(visit):
    page = ready(visit())
    page.get_by_label("View 1 shows").fill("a very particular fox")
    page.wait_for_timeout(500)
    kept = page.evaluate("JSON.stringify(localStorage)")
    assert "duckrabbit.illusion" in json.loads(kept)
    assert "run-history" not in kept
