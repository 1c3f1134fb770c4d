"""The card says what was done and no more, and what goes to the Hub goes there only when it is asked to."""

from __future__ import annotations

import base64
import json
import shutil

import httpx2
import pytest
import yaml
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory

from studio import runs, training
from studio.__main__ import main
from studio.errors import RequestError, StudioError
from studio.training.card import Choices, Trained, text, write
from studio.training.publishing import files_of, push
from tests.training.asked import asked

TOKEN = "hf_" + "s" * 34


@pytest.fixture(scope="module")
def done(pictures, tiny_store, tmp_path_factory):
    """A finished run's folder, whose last step is not the best."""
    folder = tmp_path_factory.mktemp("runs") / "done"
    folder.mkdir()
    request = asked(
        pictures,
        trigger="sks",
        steps=3,
        validation_share=0.25,
        validate_every=1,
        sample_prompts=("a fox | <b>", "a penguin"),
        sample_every=1,
        sample_steps=1,
    )
    runs.keep(folder, training.run(request, tiny_store, folder=folder))
    runs.write_json(folder / "request.json", request.model_dump(mode="json"))
    return folder


@pytest.fixture
def run(done, tmp_path):
    shutil.copytree(done, tmp_path / "run")
    return Trained.read(tmp_path / "run")


def header(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


# -- the card


def test_the_header_of_a_card_is_what_the_hub_reads(run):
    found, _ = header(text(run, Choices("cc-by-4.0", "runwayml/stable-diffusion-v1-5")))
    assert found["base_model"] == "runwayml/stable-diffusion-v1-5"
    assert (found["library_name"], found["pipeline_tag"], found["license"]) == (
        "diffusers",
        "text-to-image",
        "cc-by-4.0",
    )
    assert found["instance_prompt"] == "sks"
    assert {"text-to-image", "diffusers", "lora", "template:sd-lora"} <= set(found["tags"])
    assert [sample["text"] for sample in found["widget"]] == ["a fox | <b>", "a penguin"]
    for sample in found["widget"]:
        assert (run.folder / sample["output"]["url"]).is_file()


def test_nothing_is_made_up(run):
    found, body = header(text(run))
    assert "license" not in found
    assert "base_model" not in found  # a folder of one's own is nothing on the Hub
    assert "None was chosen yet" in body


def test_the_body_holds_the_figures_of_the_run_and_no_path_of_this_machine(run):
    _, body = header(text(run))
    assert f"after step {run.result['best_step']}" in body
    assert f"{run.result['best_validation']:.5f}" in body
    assert "| pictures | 3 an epoch, repeats counted |" in body
    assert "| plan | 3 steps, 1.0 epochs of 3 pictures; 1 held out |" in body
    assert 'weight_name="sks-diffusers.safetensors"' in body
    assert run.request.data not in body
    assert "![a fox b]" in body  # no markup of a prompt's own


@pytest.mark.parametrize(
    ("model", "base"),
    [("owner/name", "owner/name"), ("builtin:emoji", None), ("/models/a.safetensors", None), ("tiny", None)],
)
def test_only_names_of_the_hub_are_linked_to(run, model, base):
    changed = Trained(run.folder, run.request.model_copy(update={"model": model}), run.result, run.notes)
    found, body = header(text(changed))
    assert found.get("base_model") == base
    assert ("huggingface.co" in body) == (base is not None)
    assert "/models" not in body


def test_a_card_that_is_there_stays_unless_it_shall_be_written_again(run):
    path = write(run)
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(RequestError, match="is there already; give --again"):
        write(run)
    assert path.read_text(encoding="utf-8") == "mine"
    write(run, again=True)
    assert path.read_text(encoding="utf-8").startswith("---\n")


@pytest.mark.parametrize(
    ("choices", "field"),
    [
        (Choices(licence="my own!"), "licence"),
        (Choices(licence="a\nb: c"), "licence"),
        (Choices("", "name"), "base_model"),
    ],
)
def test_what_the_hub_would_not_take_is_refused(run, choices, field):
    with pytest.raises(RequestError) as refused:
        write(run, choices)
    assert refused.value.field == field


def test_a_folder_without_a_training_that_is_done_is_refused(tmp_path, capsys):
    assert main(["card", str(tmp_path)]) == 2
    assert "holds no training that is done" in capsys.readouterr().err
    (tmp_path / "request.json").write_text("{}")
    (tmp_path / "result.json").write_text('{"files": []}')
    assert main(["push", str(tmp_path), "--repo", "ann/x"]) == 2


def test_the_command_writes_the_card(run, capsys):
    assert main(["card", str(run.folder), "--licence", "mit"]) == 0
    assert capsys.readouterr().out == f"{run.folder / 'README.md'}\n"
    assert header((run.folder / "README.md").read_text())[0]["license"] == "mit"


# -- the upload: the client is the real one, what it speaks to is not


class Hub:
    """What the Hub answers, and all that it was asked and sent."""

    def __init__(self, status=200):
        self.status, self.asked, self.files, self.objects = status, [], {}, {}

    def __call__(self, request):
        body = request.read()
        self.asked.append((request.method, request.url.path, request.headers.get("authorization", "")))
        if self.status != 200:
            return httpx2.Response(self.status, json={"error": f"no, {TOKEN}"})
        return self.answer(request.url.path, request.method, body)

    def answer(self, path, method, body):
        if path == "/api/repos/create":
            self.made = json.loads(body)
            return httpx2.Response(200, json={"url": "https://huggingface.co/ann/foxes"})
        if path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": self.mode(file["path"]), "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]
            return httpx2.Response(200, json={"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**found, "actions": {"upload": {"href": f"https://huggingface.co/put/{found['oid']}"}}}
                for found in json.loads(body)["objects"]
            ]
            return httpx2.Response(200, json={"transfer": "basic", "objects": objects})
        if path.startswith("/put/"):
            self.objects[path.removeprefix("/put/")] = body
            return httpx2.Response(200)
        if path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "lfsFile":
                    self.files[line["value"]["path"]] = self.objects[line["value"]["oid"]]
            commit = {"commitUrl": "https://huggingface.co/ann/foxes/commit/1", "commitOid": "1"}
            return httpx2.Response(200, json={"success": True, **commit})
        if path == "/api/validate-yaml":
            return httpx2.Response(200, json={"errors": [], "warnings": []})
        assert method == "GET", path
        return httpx2.Response(200, json={"id": "ann/foxes", "sha": "0", "siblings": []})

    @staticmethod
    def mode(path):
        return "lfs" if path.endswith((".safetensors", ".png")) else "regular"


@pytest.fixture
def hub(monkeypatch):
    """``hub(status)``: the Hub from now on, with somebody logged in."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its transport is not httpx's
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    def begin(status=200):
        found = Hub(status)
        set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(found), follow_redirects=True))
        return found

    yield begin
    set_client_factory(default_client_factory)


def test_what_goes_to_the_hub_is_the_card_the_adapters_and_the_samples_byte_for_byte(run, hub, capsys):
    found = hub()
    assert main(["push", str(run.folder), "--repo", "ann/foxes", "--private", "--licence", "mit"]) == 0
    said = capsys.readouterr()
    assert "https://huggingface.co/ann/foxes" in said.out
    assert "the name of its data folder" in said.out
    assert found.made["visibility"] == "private"
    assert sorted(found.files) == sorted(files_of(run))
    assert {"README.md", "sks.safetensors", "sks-diffusers.safetensors", "samples.png"} <= found.files.keys()
    assert not any(name.endswith(".json") or name.startswith("training") for name in found.files)
    for name, data in found.files.items():
        assert data == (run.folder / name).read_bytes()
    assert header(found.files["README.md"].decode())[0]["license"] == "mit"
    assert {token for _, path, token in found.asked if path.startswith("/api")} == {f"Bearer {TOKEN}"}
    assert TOKEN not in said.out + said.err


def test_a_card_that_a_person_has_edited_goes_as_it_is(run, hub):
    found = hub()
    write(run).write_text("---\nlicense: mit\n---\nmine", encoding="utf-8")
    push(run, "ann/foxes")
    assert found.files["README.md"].endswith(b"mine")


@pytest.mark.parametrize("status", [401, 403])
def test_who_may_not_write_is_told_how_to_log_in(run, hub, status):
    hub(status)
    with pytest.raises(RequestError, match="you may not write to ann/foxes; log in with `hf auth login`") as refused:
        push(run, "ann/foxes")
    assert TOKEN not in str(refused.value)


def test_a_hub_that_fails_is_one_sentence_without_what_it_said(run, hub):
    hub(500)
    with pytest.raises(StudioError, match="did not take it .HTTP 500.; nothing here changed") as failed:
        push(run, "ann/foxes")
    assert TOKEN not in str(failed.value)


def test_without_a_network_it_says_so(run, hub):
    def unreachable(request):
        raise httpx2.ConnectError("no route to host")

    hub()
    set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(unreachable)))
    with pytest.raises(StudioError, match="The Hub cannot be reached"):
        push(run, "ann/foxes")


def test_offline_nobody_is_asked(run, hub, capsys, monkeypatch):
    found = hub()
    with pytest.raises(RequestError, match="offline: this studio never asks the Hub"):
        push(run, "ann/foxes", offline=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    set_client_factory(default_client_factory)
    with pytest.raises(RequestError, match="HF_HUB_OFFLINE is set"):
        push(run, "ann/foxes")
    assert found.asked == []


def test_nobody_logged_in_is_said_before_anything_is_asked(run, hub, monkeypatch, tmp_path):
    found = hub()
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(RequestError, match="nobody is logged in"):
        push(run, "ann/foxes")
    assert found.asked == []


@pytest.mark.parametrize("name", ["foxes", "a/b/c", "../x", "ann/--x"])
def test_a_name_that_the_hub_cannot_have_is_refused(run, hub, name):
    found = hub()
    with pytest.raises(RequestError, match="owner/name"):
        push(run, name)
    assert found.asked == []


def test_no_token_can_be_given_as_an_argument(run, capsys):
    with pytest.raises(SystemExit):
        main(["push", str(run.folder), "--repo", "ann/foxes", "--token", TOKEN])
