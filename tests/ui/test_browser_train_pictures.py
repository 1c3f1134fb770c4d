"""Pictures to train on in a real browser: dropped, captioned in place, left out, and all still there after a reload."""

import zipfile
from pathlib import Path

import pytest

from studio.training.edits import Edits
from tests.training.sets import write_set
from tests.ui.conftest import CHROMIUM

if not Path(CHROMIUM).exists():
    pytest.skip("chromium is not installed", allow_module_level=True)

from playwright.sync_api import expect

expect.set_options(timeout=30_000)
COUNT = "#pictures-count"
DROP = """([files]) => {
  const data = new DataTransfer();
  files.forEach(([name, bytes]) => data.items.add(new File([Uint8Array.from(bytes)], name)));
  return data;
}"""


def opened(visit, *size, **options):
    page = visit(*size, path="/?tab=train", **options)
    page.wait_for_selector("#pictures-grid .shots")
    page.wait_for_timeout(300)
    return page


def drop(page, *paths):
    """Files of this machine dropped on the page."""
    data = page.evaluate_handle(DROP, [[[path.name, list(path.read_bytes())] for path in paths]])
    page.dispatch_event("body", "dragenter", {"dataTransfer": data})
    expect(page.locator("#drop-veil")).to_contain_text("Drop pictures")
    page.dispatch_event("body", "drop", {"dataTransfer": data})


def card(page, name):
    return page.locator(".shot", has=page.locator(f'[title="{name}"]'))


def test_pictures_are_dropped_captioned_left_out_and_still_there_after_a_reload(visit, tmp_path):
    page = opened(visit)
    expect(page.locator(COUNT)).to_contain_text("24 pictures")
    write_set(tmp_path, {"a.png": 1, "b.png": 2, "c.png": 3, "a.txt": "a fox"})
    drop(page, *sorted(tmp_path.iterdir()))
    expect(page.locator(COUNT)).to_contain_text("3 pictures, 2 without caption")
    page.wait_for_function(
        "[...document.querySelectorAll('.shot img')].every((image) => image.complete && image.naturalWidth > 0)"
    )
    field = page.get_by_label("Caption of b.png")
    field.fill("an owl on a branch")
    field.press("Enter")
    expect(page.get_by_label("Caption of c.png")).to_be_focused()
    expect(card(page, "b.png").locator(".kept-said")).to_have_text("Saved")
    page.get_by_label("Trigger word").fill("sks")
    expect(card(page, "b.png")).to_contain_text("Trained as sks, an owl on a branch")
    page.get_by_role("button", name="Leave out c.png").click()
    expect(page.locator(COUNT)).to_contain_text("3 pictures, 1 left out")
    page.wait_for_timeout(800)
    page.reload()
    page.wait_for_selector("#pictures-grid .shots")
    expect(page.locator(COUNT)).to_contain_text("3 pictures, 1 left out")
    expect(page.get_by_label("Caption of b.png")).to_have_value("an owl on a branch")
    expect(card(page, "b.png")).to_contain_text("Trained as sks, an owl on a branch")
    expect(page.get_by_role("button", name="Take back c.png")).to_be_visible()
    name = visit.bench.sets("local").choices()[2][1]
    edits = visit.bench.sets("local").edits(name)
    assert edits == Edits({"b.png": "an owl on a branch"}, frozenset({"c.png"}))
    page.get_by_role("button", name="As found b.png").click()
    expect(page.get_by_label("Caption of b.png")).to_have_value("")
    (tmp_path / "more").mkdir()
    with zipfile.ZipFile(tmp_path / "more" / "more.zip", "w") as archive:
        archive.write(tmp_path / "a.png", "in/d.png")
    drop(page, tmp_path / "more" / "more.zip")
    expect(page.locator(COUNT)).to_contain_text("4 pictures, 1 left out")
    expect(page.locator(".set-remarks summary")).to_contain_text("doubled 1")


def test_what_is_typed_is_saved_by_itself_and_outlives_a_reload_that_comes_sooner(visit):
    page = opened(visit)
    field = page.get_by_label("Caption of 03-smiling.png")
    field.fill("typed in haste")
    page.reload()
    page.wait_for_selector("#pictures-grid .shots")
    expect(page.get_by_label("Caption of 03-smiling.png")).to_have_value("typed in haste")
    expect(card(page, "03-smiling.png").locator(".kept-said")).to_have_text("Saved")
    assert visit.bench.sets("local").edits("builtin:mascot").captions["03-smiling.png"] == "typed in haste"
    page.get_by_label("Caption of 03-smiling.png").fill("a smiling duckrabbit on a pink background")
    expect(page.get_by_role("button", name="As found 03-smiling.png")).to_be_hidden()
    assert visit.bench.sets("local").edits("builtin:mascot") == Edits()


def test_a_file_that_is_too_large_is_said_before_it_is_sent(visit, tmp_path):
    page = opened(visit)
    page.evaluate("document.querySelector('#train-said p').dataset.most = 1000")
    uploads = []
    page.on("request", lambda request: uploads.append(request.url) if "/upload" in request.url else None)
    (tmp_path / "large.zip").write_bytes(b"x" * 5000)
    drop(page, tmp_path / "large.zip")
    expect(page.locator("#train-said .is-error")).to_contain_text(
        "large.zip has 0.0 MB, and at most 0.0 MB can be sent"
    )
    assert uploads == []


def test_a_run_begins_only_when_every_caption_is_saved(visit):
    page = opened(visit)
    page.evaluate(
        """() => {
          const run = document.createElement("button");
          run.className = "run";
          run.textContent = "Begin";
          run.addEventListener("click", () => (document.title = "begun"));
          document.querySelector("#pictures").append(run);
        }"""
    )
    page.get_by_label("Caption of 05-sleeping.png").fill("typed a moment ago")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_function("document.title === 'begun'")
    sets = visit.bench.sets("local")
    assert sets.edits("builtin:mascot").captions["05-sleeping.png"] == "typed a moment ago"
    sets.change("builtin:mascot", lambda edits: Edits())


def test_on_a_phone_nothing_scrolls_sideways_and_every_control_has_a_name(visit):
    page = opened(visit, 375, 812, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, button, a')]
          .filter((e) => e.offsetParent && e.type !== 'file')
          .filter((e) => !(e.getAttribute('aria-label') || e.innerText.trim() || e.labels?.length))
          .map((e) => e.outerHTML.slice(0, 200))"""
    )
    assert unnamed == []


def test_what_is_being_sent_is_said_only_while_it_is(visit, tmp_path):
    page = opened(visit)
    write_set(tmp_path, {"a.png": 1, "b.png": 2})
    for name in ("a.png", "b.png"):
        drop(page, tmp_path / name)
        expect(page.locator(f'.shot [title="{name}"]').first).to_be_visible()
        expect(page.locator("#train-said")).to_contain_text("Anywhere on this tab")


def test_another_set_shows_its_own_captions_where_some_were_written_before(visit):
    page = opened(visit)
    first = page.locator("[data-caption]").first
    first.fill("written about the mascot")
    first.press("Enter")
    expect(card(page, "01-standing.png").locator(".kept-said")).to_have_text("Saved")
    for title, caption in (("Pixel", "an avocado on a pink background"), ("Mascot", "written about the mascot")):
        field = page.get_by_label("Pictures", exact=True)
        field.fill(title)
        field.press("Enter")
        expect(page.locator("#pictures-head h2")).to_have_text(title)
        expect(first).to_have_value(caption)
    visit.bench.sets("local").change("builtin:mascot", lambda edits: Edits())
