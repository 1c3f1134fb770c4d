import json
import re

import pytest

from studio.errors import RequestError, UnknownNameError
from studio.illusions import preflight
from studio.illusions.request import IllusionRequest
from studio.policy import SHARED, check_illusion
from studio.presets import PresetFile, list_presets, load, read_preset, save, slug_of
from studio.requests import parse
from studio.settings import Settings

SHIPPED = list_presets(Settings().presets, "illusion")
THINGS = {entry["name"] for entry in json.loads((Settings().assets / "training" / "things.json").read_text())}


def write(folder, name, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"title": "T", "request": {"seed": 3}, **content}))
    return folder / f"{name}.json"


def test_there_are_presets_to_start_from():
    assert len(SHIPPED) >= 8
    assert "fox-penguin" in [preset.slug for preset in SHIPPED]


@pytest.mark.parametrize("preset", SHIPPED, ids=lambda preset: preset.slug)
def test_every_shipped_preset_can_run_and_says_what_to_expect(preset):
    request = parse(IllusionRequest, preset.request)
    check_illusion(request, SHARED, ["builtin:emoji"])
    preflight.check(request)
    assert preset.description
    assert preset.expect
    for prompt in request.prompts:
        thing = re.fullmatch(r"(?:an? )?(.+?)(?: on an? \w+ background)?", prompt)[1]
        assert thing in THINGS


def test_every_preset_file_is_one_that_is_listed():
    assert len(list((Settings().presets / "illusion").glob("*.json"))) == len(SHIPPED)


@pytest.mark.parametrize("engine", ["illusion", "merge-strip"])
def test_a_preset_is_saved_under_its_title_and_loaded_again(tmp_path, engine):
    content = PresetFile(title="Größe & Fox!", description="d", request={"seed": 3})
    saved = save(tmp_path, engine, content)
    assert (saved.engine, saved.slug, saved.request, saved.picture) == (engine, "groe-fox", {"seed": 3}, None)
    assert load(tmp_path, engine, "groe-fox") == saved
    assert list_presets(tmp_path, engine) == (saved,)


def test_a_preset_is_never_overwritten(tmp_path):
    save(tmp_path, "illusion", PresetFile(title="Fox", request={}))
    with pytest.raises(RequestError, match="there is a preset 'fox' already"):
        save(tmp_path, "illusion", PresetFile(title="FOX!", request={}))


@pytest.mark.parametrize(("engine", "title"), [("illusion", "..."), ("../x", "fox"), ("illusion", "狐")])
def test_no_text_becomes_a_path_outside(tmp_path, engine, title):
    with pytest.raises(RequestError):
        save(tmp_path, engine, PresetFile(title=title, request={}))
    assert list(tmp_path.iterdir()) == []


def test_a_slug_has_small_letters_digits_and_dashes_only():
    assert slug_of("  ../Fox & Owl -- 2  ") == "fox-owl-2"
    assert len(slug_of("x" * 200)) == 60


def test_an_unknown_preset_suggests_the_nearest(tmp_path):
    write(tmp_path / "illusion", "fox-penguin")
    with pytest.raises(UnknownNameError, match="did you mean 'fox-penguin'"):
        load(tmp_path, "illusion", "fox-pengiun")
    with pytest.raises(UnknownNameError):
        load(tmp_path, "illusion", "../illusion/fox-penguin")


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "no JSON file"), ("[]", "must be an object"), ('{"title": "T"}', "request: is needed")],
)
def test_a_damaged_preset_is_named_and_left_out_of_the_list(tmp_path, content, says, caplog):
    good = write(tmp_path / "illusion", "good")
    (tmp_path / "illusion" / "bad.json").write_text(content)
    assert [preset.slug for preset in list_presets(tmp_path, "illusion")] == [good.stem]
    assert "bad.json" in caplog.text
    with pytest.raises(RequestError, match=rf"bad\.json: .*{says}"):
        load(tmp_path, "illusion", "bad")


def test_an_unknown_key_in_a_preset_is_refused(tmp_path):
    with pytest.raises(RequestError, match="did you mean 'title'"):
        read_preset(write(tmp_path, "a", titel="x"))


def test_a_picture_lies_beside_its_preset_or_is_none(tmp_path):
    folder = tmp_path / "illusion"
    (tmp_path / "outside.png").write_bytes(b"x")
    folder.mkdir()
    (folder / "a.png").write_bytes(b"x")
    assert read_preset(write(folder, "a", picture="a.png")).picture == folder / "a.png"
    assert read_preset(write(folder, "b", picture="../outside.png")).picture is None
    assert read_preset(write(folder, "c", picture="gone.png")).picture is None


def test_no_folder_means_no_presets(tmp_path):
    assert list_presets(tmp_path / "none", "illusion") == ()
