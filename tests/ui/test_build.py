import re

import pytest

from studio.ui import api, blocks, theme
from tests.ui.conftest import make


@pytest.fixture(scope="module")
def page(world):
    bench = make(world, "build")
    yield blocks.build(bench)
    bench.close()


def components(page, kind):
    return [part["props"] for part in page.config["components"] if part["type"] == kind]


def test_only_the_named_calls_are_public(page):
    listeners = page.config["dependencies"]
    public = {listener["api_name"] for listener in listeners if listener["api_visibility"] == "public"}
    assert public == set(api.NAMES) == {"generate", "snapshot", "cancel"}
    private = [listener["api_name"] for listener in listeners if listener["api_visibility"] != "public"]
    assert all(name.startswith("page") for name in private)


def test_every_listener_of_the_page_answers_at_once(page):
    private = [listener for listener in page.config["dependencies"] if listener["api_visibility"] != "public"]
    assert private
    assert not [listener["id"] for listener in private if listener["queue"]]


def test_the_tabs_stand_in_their_order_and_illusions_is_open(page):
    assert [tab["id"] for tab in components(page, "tabitem")] == list(blocks.TABS)
    assert components(page, "tabs")[0]["selected"] == "illusions"


def test_a_first_visit_finds_the_example_s_settings_in_the_form(page):
    values = {box.get("elem_id"): box.get("value") for box in components(page, "textbox")}
    assert (values["prompt-0"], values["prompt-1"]) == ("a fox", "a penguin")


def test_presets_are_small_pictures_and_one_without_a_picture_has_a_plain_cover(page):
    strip = next(part["value"] for part in components(page, "html") if part.get("elem_id") == "presets")
    assert re.findall(r'data-slug="(\w+)"', strip) == ["first", "three"]
    assert strip.count('src="data:image/jpeg') == 1
    assert "Three heads" in strip


def test_what_the_browser_keeps_is_readable_after_a_restart(page):
    kept = components(page, "browserstate")
    assert {state["storage_key"] for state in kept} == {
        f"duckrabbit.{name}" for name in ("me", "illusion", "merge", "train", "guidance")
    }
    assert {state["secret"] for state in kept} == {"duckrabbit"}


def test_nothing_of_the_look_is_fetched_from_elsewhere():
    texts = [path.read_text(encoding="utf-8") for path in (*theme.STYLES, theme.OUTER_STYLE, *theme.SCRIPTS)]
    assert not [text for text in texts if "://" in text or "@import" in text]
    assert all(font.stylesheet()["url"] is None for font in (theme.TEXT_FONT, theme.CODE_FONT))
    assert all(path.is_file() for path in theme.STYLES)


def test_the_bundled_font_is_complete():
    """Of some families gradio ships a few letters only; such files are small."""
    from gradio.themes.utils.fonts import font_file_path

    for font in (theme.TEXT_FONT, theme.CODE_FONT):
        for weight in font.weights:
            assert font_file_path(font.name, weight).stat().st_size > 30_000


def test_a_page_without_examples_and_presets_still_opens(tmp_path, world):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "models").symlink_to(world / "assets" / "models")
    bench = make(tmp_path, "bare")
    page = blocks.build(bench)
    stage = next(part["value"] for part in components(page, "html") if part.get("elem_id") == "stage")
    assert "Your illusion appears here" in stage
    bench.close()
