"""Captions by real classes with random weights, by the template, and never by anything that has to be downloaded."""

from __future__ import annotations

import inspect
import json
import shutil

import pytest
import transformers

from studio.__main__ import main
from studio.errors import Cancelled, ModelFileError, ModelNotFoundError, PolicyError, RequestError, UnknownNameError
from studio.models.store import ModelStore
from studio.policy import LOCAL, SHARED, check_caption
from studio.training import captioners, captioning
from studio.training.captioners import CAPTIONERS, find
from studio.training.captioning import CaptionRequest
from studio.training.dataset import read_dataset
from studio.training.edits import Edits, read_edits
from tests.captioners import WORDS, save_tiny_blip, save_tiny_florence
from tests.training.sets import write_set


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A models folder with both."""
    root = tmp_path_factory.mktemp("captioners")
    save_tiny_blip(root / "blip")
    save_tiny_florence(root / "florence")
    return root


@pytest.fixture(scope="module")
def store(assets, tiny):
    return ModelStore(assets, tiny, device="cpu")


@pytest.fixture
def data(tmp_path):
    """Three pictures, one of which has a caption."""
    return write_set(tmp_path / "set", {"a.png": 1, "b.png": 2, "red_fox-03.png": 3, "b.txt": "mine"})


def asked(data, **more):
    return CaptionRequest(data=str(data), **more)


# -- the table


@pytest.mark.parametrize("name", CAPTIONERS)
def test_every_captioner_says_what_it_is_and_names_classes_that_are_there(name):
    entry = CAPTIONERS[name]
    assert entry.title
    assert entry.help.endswith(".")
    assert entry.reference
    for each in filter(None, entry.classes):
        assert inspect.isclass(getattr(transformers, each))
    assert bool(entry.repository) == bool(entry.kind) == (name != "template")


@pytest.mark.parametrize("name", ["blip", "florence-2", "owner/name"])
def test_what_is_not_on_this_disk_is_refused_with_how_to_get_it_and_nothing_is_asked(name, monkeypatch, tmp_path):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *arguments: pytest.fail("somebody was asked"))
    with pytest.raises(ModelNotFoundError, match="is not downloaded unasked; get it with `hf download ") as refused:
        find(name)
    assert refused.value.field == "model"
    assert "or take template" in str(refused.value)


def test_what_was_downloaded_before_is_found_in_the_hubs_cache(tiny, monkeypatch, tmp_path):
    repository = CAPTIONERS["blip"].repository
    place = tmp_path / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    shutil.copytree(tiny / "blip", place / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find("blip") == (CAPTIONERS["blip"], place / "snapshots" / "abc")
    assert find(repository)[0] is CAPTIONERS["blip"]
    (place / "snapshots" / "abc" / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError):
        find("blip")


def test_a_folder_is_told_by_its_config_and_others_are_refused(tiny, tiny_pipeline, tmp_path):
    assert find("florence", tiny) == (CAPTIONERS["florence-2"], tiny / "florence")
    assert find(str(tiny / "blip"))[0] is CAPTIONERS["blip"]
    with pytest.raises(ModelFileError, match="is neither BLIP nor Florence-2"):
        find(str(tiny_pipeline / "text_encoder"))
    with pytest.raises(UnknownNameError, match="did you mean 'florence-2'"):
        find("florence2")
    with pytest.raises(ModelNotFoundError, match="there is no folder"):
        find(str(tmp_path / "nothing"))


def test_a_damaged_model_is_one_sentence(tiny, store, data, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny / "blip", broken)
    (broken / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelFileError, match="BLIP in broken cannot be read"):
        captioning.run(asked(data, model=str(broken)), store)


def test_no_pickle_is_read(tiny, store, data, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(tiny / "blip", old)
    (old / "model.safetensors").rename(old / "pytorch_model.bin")
    with pytest.raises(ModelFileError, match="as safetensors"):
        captioning.run(asked(data, model=str(old)), store)


# -- captions


@pytest.mark.parametrize("model", ["blip", "florence"])
def test_pictures_without_a_caption_get_one_and_the_same_one_again(tiny, store, data, model):
    steps = []
    request = asked(data, model=str(tiny / model), trigger="sks", tokens=8)
    found = captioning.run(request, store, on_step=steps.append)
    assert set(found.captions) == {"a.png", "red_fox-03.png"}
    for caption in found.captions.values():
        first, *rest = caption.split()
        assert first == "sks,"
        assert rest
        assert set(rest) <= set(WORDS)
    assert captioning.run(request, store).captions == found.captions
    assert [(step.index, step.total) for step in steps] == [(0, 2), (1, 2), (2, 2)]
    assert steps[0].note.startswith("Loading ")
    assert steps[1].note == f"a.png: {found.captions['a.png']}"
    assert steps[1].pictures()[0].size == (64, 48)
    assert found.said[0].startswith("2 of 2 pictures got a caption by")
    assert (data / "b.txt").read_text() == "mine"


def test_what_florence_is_asked_depends_on_the_detail(tiny, store, data):
    found = {
        detail: captioning.run(asked(data, model="florence", detail=detail, tokens=8), store).captions
        for detail in ("short", "long", "longest")
    }
    assert found["short"] != found["long"]


def test_the_template_fills_in_names_and_says_what_it_lacks(store, data):
    found = captioning.run(asked(data, template="a picture of {name}"), store)
    assert found.captions == {"a.png": "a picture of a", "red_fox-03.png": "a picture of red fox"}
    nothing = captioning.run(asked(data), store)
    assert nothing.captions == {}
    assert nothing.said[-1] == "The template needs a trigger word, or {name} in place of it."


def test_what_a_person_wrote_stays_unless_all_are_asked_for(store, data):
    before = Edits({"a.png": "by hand"}, frozenset({"red_fox-03.png"}))
    template = {"template": "of {name}"}
    nothing = captioning.run(asked(data, **template), store, edits=before)
    assert (nothing.captions, nothing.said) == ({}, ("Every picture has a caption already; nothing was done.",))
    every = captioning.run(asked(data, again=True, **template), store, edits=before)
    assert every.captions == {"a.png": "of a", "b.png": "of b"}
    assert every.edits == Edits({"a.png": "of a", "b.png": "of b"}, frozenset({"red_fox-03.png"}))


def test_no_model_is_loaded_where_nothing_is_to_say(store, data, monkeypatch):
    monkeypatch.setattr(captioners, "find", lambda *arguments: pytest.fail("a model was looked for"))
    (data / "a.txt").write_text("a")
    (data / "red_fox-03.txt").write_text("c")
    assert captioning.run(asked(data, model="blip"), store).captions == {}


def test_a_stop_keeps_the_captions_that_are_there(tiny, store, data):
    def at_once(step):
        raise Cancelled

    def stop(step):
        if step.index == 1:
            raise Cancelled

    with pytest.raises(Cancelled) as stopped:
        captioning.run(asked(data, template="of {name}"), store, on_step=stop)
    assert stopped.value.kept.captions == {"a.png": "of a"}
    assert stopped.value.kept.said[0] == "1 of 2 pictures got a caption by Template."
    with pytest.raises(Cancelled) as stopped:
        captioning.run(asked(data, model=str(tiny / "blip")), store, on_step=at_once)
    assert stopped.value.kept is None


# -- where they go


def test_edits_are_what_the_training_page_reads(store, data, tmp_path):
    found = captioning.run(asked(data, template="of {name}"), store)
    (tmp_path / "run").mkdir()
    summary = found.save(tmp_path / "run")
    assert summary["captions"] == {"a.png": "of a", "red_fox-03.png": "of red fox"}
    trained = read_dataset(data, edits=read_edits(tmp_path / "run"))
    assert [example.caption for example in trained.examples] == ["of a", "mine", "of red fox"]
    assert sorted(path.name for path in data.iterdir()) == ["a.png", "b.png", "b.txt", "red_fox-03.png"]


def test_text_lies_beside_the_pictures_and_what_was_there_is_kept(store, data):
    found = captioning.run(asked(data, template="of {name}", write="text", again=True), store)
    assert [path.name for path in found.write_beside()] == ["a.txt", "b.txt", "red_fox-03.txt"]
    assert [example.caption for example in read_dataset(data).examples] == ["of a", "of b", "of red fox"]
    assert (data / "b.txt.before").read_text() == "mine"


def test_no_zip_and_no_built_in_set_is_written_into(store, data, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "set"), "zip", data)
    for where in (archive, "builtin:mascot"):
        with pytest.raises(RequestError, match="write edits, or give a folder") as refused:
            captioning.run(asked(where, write="text"), store)
        assert refused.value.field == "write"
    assert captioning.run(asked(archive, template="of {name}"), store).captions["a.png"] == "of a"


@pytest.mark.parametrize(
    ("changes", "field"), [({"data": "/etc"}, "data"), ({"model": "blip"}, "model"), ({"write": "text"}, "write")]
)
def test_strangers_name_no_folder_and_no_model(changes, field):
    request = asked("builtin:mascot")
    check_caption(request, SHARED)
    with pytest.raises(PolicyError) as refused:
        check_caption(request.model_copy(update=changes), SHARED)
    assert refused.value.field == field
    check_caption(request.model_copy(update=changes), LOCAL)


def test_a_set_without_pictures_is_refused(store, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="There is no picture here"):
        captioning.run(asked(tmp_path / "empty"), store)


def test_the_command_writes_edits_or_text(data, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    options = ["--models", str(tiny), "--device", "cpu", "--offline"]
    out = tmp_path / "edits"
    assert main(["caption", str(data), "--model", "blip", "--out", str(out), *options]) == 2
    assert "get it with `hf download Salesforce/" in capsys.readouterr().err
    assert main(["caption", str(data), "--model", str(tiny / "blip"), "--out", str(out), *options]) == 0
    said = capsys.readouterr()
    assert f"{out / 'edits.json'}\n" in said.out
    assert "step 2 of 2" in said.err
    assert set(json.loads((out / "edits.json").read_text())["captions"]) == {"a.png", "red_fox-03.png"}
    assert main(["caption", str(data), "--template", "of {name}", "--write", "text", *options, "--out", str(out)]) == 0
    assert "Every picture has a caption already" in capsys.readouterr().out
    assert main(["caption", str(data), "--write", "text", "--again", "--trigger", "sks", *options]) == 0
    assert (data / "a.txt").read_text() == "a photo of sks\n"
    assert main(["caption", str(data), "--model", "florence2", "--again", *options]) == 2
    assert "did you mean 'florence-2'" in capsys.readouterr().err
