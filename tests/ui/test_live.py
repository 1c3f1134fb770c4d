"""The served page, spoken to as programs and as strangers would."""

import http.client
import json
import time
import urllib.error
import urllib.request
import uuid
from urllib.parse import urlsplit

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.ui.conftest import ANN, EVE, SMALL, until_over

LONG = {**SMALL, "steps": 100}


def get(address, path, host=None):
    """(status, headers, body) of a plain GET."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def post(address, path, data):
    body = json.dumps(data).encode()
    request = urllib.request.Request(address + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def listener(address, elem_id, event):
    """The number of the listener of one component, as anybody can read it from the page's config."""
    config = json.loads(get(address, "/config")[2])
    (part,) = [part["id"] for part in config["components"] if part["props"].get("elem_id") == elem_id]
    listeners = [d for d in config["dependencies"] if d["backend_fn"]]
    return next(d["id"] for d in listeners if [part, event] in [list(t) for t in d["targets"]])


def act(address, elem_id, event, me, changes, event_data=None, *, session=None):
    """An event without the page: the form's values as the page's config gives them, some changed by their labels."""
    config = json.loads(get(address, "/config")[2])
    parts = {part["id"]: part["props"] for part in config["components"]}
    number = listener(address, elem_id, event)
    inputs = next(d["inputs"] for d in config["dependencies"] if d["id"] == number)
    data = [changes.get(parts[i].get("label"), parts[i].get("value")) for i in inputs]
    data = [{"owner": me} if "storage_key" in parts[i] else value for i, value in zip(inputs, data, strict=True)]
    call = {"fn_index": number, "data": data, "event_data": event_data}
    return post(address, "/gradio_api/run/predict", call | {"session_hash": session or uuid.uuid4().hex})


def press(address, elem_id, me, data):
    """A press in the page's own markup, forged without the page."""
    return act(address, elem_id, "press", me, {}, data)


@pytest.fixture(scope="module")
def client(home):
    return Client(home[1], download_files=False, analytics_enabled=False, verbose=False)


@pytest.fixture(scope="module")
def visitor(shared):
    return Client(shared[1], download_files=False, analytics_enabled=False, verbose=False)


@pytest.fixture(scope="module")
def ann_s_job(shared):
    bench, _ = shared
    job = bench.submit("illusion", SMALL, ANN)
    assert until_over(bench, job).status == "done"
    return job


def test_a_program_makes_an_illusion_and_fetches_its_files(home, client):
    job = client.predict(SMALL, api_name="/generate")
    until_over(home[0], job)
    done = client.predict(job, api_name="/snapshot")
    assert (done["status"], done["step"], done["result"]["prompts"]) == ("done", 2, SMALL["prompts"])
    best = done["result"]["candidates"][0]
    status, headers, body = get(home[1], "/" + done["files"][best["image"]])
    assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, "image/png", "nosniff")
    assert body == (home[0].snapshot(job, ANN).folder / best["image"]).read_bytes()
    assert {name.rpartition(".")[2] for name in done["files"]} == {"png", "webp", "gif"}


def test_a_program_stops_its_job(home, client):
    job = client.predict(LONG, api_name="/generate")
    assert client.predict(job, api_name="/cancel") is True
    assert until_over(home[0], job).status == "cancelled"
    assert client.predict(job, api_name="/cancel") is False


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 0}, "steps: must be at least 1, got 0."),
        ({"views": ["identity", "rotate_18"]}, "did you mean 'rotate_180'?"),
        ({"prompts": ["a fox", "a cat", "an owl"]}, "3 prompts for 2 views"),
        ({"prompts": ["a" * 10_000, "a cat"]}, "at most 400 characters"),
        ({"stepz": 3}, "did you mean 'steps'?"),
    ],
)
def test_a_program_s_mistakes_come_back_as_sentences(client, changes, sentence):
    with pytest.raises(AppError) as raised:
        client.predict({**SMALL, **changes}, api_name="/generate")
    assert sentence in str(raised.value)


def test_a_raw_call_meets_the_limits_of_a_shared_studio(visitor):
    with pytest.raises(AppError) as raised:
        visitor.predict({**SMALL, "steps": 101, "model": "/etc"}, ANN, api_name="/generate")
    assert "steps: at most 100 are allowed here" in str(raised.value)
    assert "this studio does not offer '/etc'" in str(raised.value)


def test_where_strangers_visit_a_call_needs_a_key(visitor):
    for key in ("", "short", "x" * 65, "with spaces and more"):
        with pytest.raises(AppError, match="key: choose a secret"):
            visitor.predict(SMALL, key, api_name="/generate")


def test_a_stranger_sees_and_stops_no_job_of_another(shared, visitor, ann_s_job):
    bench, address = shared
    with pytest.raises(AppError, match="you have no job of this name"):
        visitor.predict(ann_s_job, EVE, api_name="/snapshot")
    running = bench.submit("illusion", LONG, ANN)
    assert visitor.predict(running, EVE, api_name="/cancel") is False
    press(address, "pill", EVE, {"act": "stop", "job": running})
    assert bench.snapshot(running, ANN).status in ("queued", "running")
    press(address, "pill", ANN, {"act": "stop", "job": running})
    assert until_over(bench, running).status == "cancelled"


def test_a_stranger_s_history_is_empty(shared, ann_s_job):
    _, address = shared
    number = listener(address, "history-text", "change")
    call = {"fn_index": number, "data": [{"owner": EVE}, "", "", 0], "session_hash": uuid.uuid4().hex}
    assert "Nothing here" in post(address, "/gradio_api/run/predict", call)["data"][0]
    call["data"][0] = {"owner": ANN}
    assert ann_s_job in post(address, "/gradio_api/run/predict", call)["data"][0]


def test_a_stranger_compares_and_deletes_no_result_of_another(shared, ann_s_job):
    bench, address = shared
    number = listener(address, "history", "press")
    for act in ("compare", "delete", "show", "restore", "undo"):
        call = {"fn_index": number, "data": [{"owner": EVE}, "", "", 0, None, None], "session_hash": uuid.uuid4().hex}
        answer = post(address, "/gradio_api/run/predict", {**call, "event_data": {"act": act, "job": ann_s_job}})
        assert ann_s_job not in json.dumps(answer)
    assert bench.snapshot(ann_s_job, ANN).status == "done"


@pytest.mark.parametrize("data", [[None, ""], [{"a": 1}, 7], [["x"], ANN], [5, None]])
@pytest.mark.parametrize(("name", "sentence"), [("generate", "A request must be"), ("snapshot", "you have no job")])
def test_raw_calls_with_values_of_any_kind_get_a_sentence(home, name, sentence, data):
    _, address = home
    if name == "generate" and data and isinstance(data[0], dict):
        sentence = "a: there is no such setting"
    event = post(address, f"/gradio_api/call/{name}", {"data": data})["event_id"]
    assert sentence in get(address, f"/gradio_api/call/{name}/{event}")[2].decode()


def test_files_are_served_to_the_holder_of_their_address_only(shared, visitor, ann_s_job):
    bench, address = shared
    files = visitor.predict(ann_s_job, ANN, api_name="/snapshot")["files"]
    name, path = next(item for item in files.items() if item[0].endswith(".png"))
    assert get(address, "/" + path)[0] == 200
    for wrong in (path.replace("outputs/", "outputs/0"), f"outputs/{ann_s_job}/{name}", f"outputs//{name}"):
        assert get(address, "/" + wrong)[0] == 404
    folder = "/" + path.rpartition("/")[0]
    for other in ("request.json", "job.json", "result.json", "..%2f..%2fapp.py", "%2e%2e/job.json", ".partial"):
        assert get(address, f"{folder}/{other}")[0] == 404
    assert get(address, f"/gradio_api/file={bench.snapshot(ann_s_job, ANN).folder / name}")[0] in (403, 404)


def test_a_deleted_job_s_files_are_gone(shared, visitor):
    bench, address = shared
    job = bench.submit("illusion", SMALL, ANN)
    until_over(bench, job)
    path = next(iter(visitor.predict(job, ANN, api_name="/snapshot")["files"].values()))
    assert get(address, "/" + path)[0] == 200
    bench.delete(job, ANN)
    assert get(address, "/" + path)[0] == 404


def test_thumbnails_are_small_and_of_fixed_sizes(shared, visitor, ann_s_job):
    _, address = shared
    files = visitor.predict(ann_s_job, ANN, api_name="/snapshot")["files"]
    path = "/" + next(path for name, path in files.items() if name.endswith(".png"))
    _, headers, small = get(address, path + "?w=128")
    assert headers["Content-Type"] == "image/jpeg"
    assert len(small) < 15_000
    assert get(address, path + "?w=9999")[1]["Content-Type"] == "image/png"


def test_the_example_s_files_are_there_for_everybody(shared):
    assert get(shared[1], "/examples/first/candidate-0.png")[0] == 200
    assert get(shared[1], "/examples/first/job.json")[0] == 404
    assert get(shared[1], "/examples/nothing/candidate-0.png")[0] == 404


def test_another_name_for_this_machine_is_not_answered(home):
    port = urlsplit(home[1]).port
    assert get(home[1], "/", host=f"localhost:{port}")[0] == 200
    assert get(home[1], "/", host=f"evil.example:{port}")[0] == 400


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://evil.example:7860"])
def test_another_site_s_page_cannot_upload(home, origin):
    request = urllib.request.Request(
        f"{home[1]}/gradio_api/upload",
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nx\r\n--b--\r\n',
        {"Content-Type": "multipart/form-data; boundary=b", "Origin": origin},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 403
    request.add_header("Origin", home[1])
    assert urllib.request.urlopen(request, timeout=30).status == 200


@pytest.mark.parametrize("path", ["/openapi.json", "/docs", "/redoc", "/gradio_api/runs", "/monitoring/summary"])
def test_nothing_beyond_the_page_is_served(home, path):
    status, _, body = get(home[1], path)
    assert status in (403, 404) or b"Duckrabbit" in body


def test_an_upload_beyond_the_limit_is_refused(shared):
    bench, address = shared
    big = b"x" * (bench.limits.max_file_bytes + 1024)
    head = b'--b\r\nContent-Disposition: form-data; name="files"; filename="big.png"\r\n\r\n'
    request = urllib.request.Request(
        f"{address}/gradio_api/upload",
        head + big + b"\r\n--b--\r\n",
        {"Content-Type": "multipart/form-data; boundary=b"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 413


def test_following_a_job_costs_no_temporary_files(home, client):
    import gradio.utils

    cache = gradio.utils.get_upload_folder()
    job = client.predict({**SMALL, "steps": 20}, api_name="/generate")
    before = _count(cache)
    until_over(home[0], job)
    assert _count(cache) == before


def test_a_poll_that_brings_nothing_new_sends_nothing(home):
    """The same tick twice in one session: the second answer only skips."""
    _, address = home
    config = json.loads(get(address, "/config")[2])
    timer, *_ = [part["id"] for part in config["components"] if part["type"] == "timer"]
    tick = next(d for d in config["dependencies"] if [timer, "tick"] in [list(t) for t in d["targets"]])
    data = [{"owner": ANN}, *[None] * (len(tick["inputs"]) - 1)]
    call = {"fn_index": tick["id"], "data": data, "session_hash": uuid.uuid4().hex}
    post(address, "/gradio_api/run/predict", call)
    time.sleep(0.1)
    second = post(address, "/gradio_api/run/predict", call)["data"]
    nothing = ({"__type__": "update"}, {"__type__": "update", "props": {"__type__": "update"}}, None)
    assert all(value in nothing for value in second)


def _count(folder):
    from pathlib import Path

    return sum(1 for _ in Path(folder).rglob("*")) if Path(folder).exists() else 0


def forged_click(address, me, changes):
    """Generate pressed without the page."""
    return json.dumps(act(address, "generate", "click", me, changes)["data"])


def test_a_forged_click_meets_the_same_rules(shared):
    bench, address = shared
    assert "Must be at least 1, got 0." in forged_click(address, EVE, {"Steps": 0})
    assert "At most 100 are allowed here, got 150." in forged_click(address, EVE, {"Steps": 150})
    assert bench.history(EVE) == ()


def test_a_full_queue_is_said_by_the_button(shared):
    bench, address = shared
    guest = "guest-" + "0" * 20
    for _ in range(bench.limits.max_queue_per_owner):
        assert 'data-state=\\"failed' not in forged_click(address, guest, {"Steps": 100})
    assert "You have 4 jobs waiting or running" in forged_click(address, guest, {"Steps": 100})
    for job in bench.history(guest):
        bench.cancel(job.id, guest)
    for job in bench.history(guest):
        until_over(bench, job.id, guest)
