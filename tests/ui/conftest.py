"""A page over the real workbench and the built-in model, with two presets and one example made by the engine itself."""

from __future__ import annotations

import json
import shutil
import socket
import time

import pytest

from studio.settings import Settings
from studio.workbench import Workbench

ANN, EVE = "ann-" + "0" * 20, "eve-" + "0" * 20
SMALL = {"steps": 2, "seed": 5, "prompts": ["a fox", "a penguin"], "views": ["identity", "rotate_180"]}
THREE = {"steps": 2, "seed": 9, "prompts": ["a cat", "an owl", "a bear"], "views": ["identity", "negate", "rotate_180"]}


def until_over(bench, job_id, owner=ANN):
    deadline = time.monotonic() + 120
    while not (snapshot := bench.snapshot(job_id, owner)).over:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return snapshot


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def world(assets, tmp_path_factory):
    """Folders of a small studio: the built-in models, presets "first" and "three", an example of "first"."""
    root = tmp_path_factory.mktemp("studio")
    (root / "assets").mkdir()
    (root / "assets" / "models").symlink_to(assets / "models")
    for slug, title, request in (("first", "Turn it over", SMALL), ("three", "Three heads", THREE)):
        path = root / "presets" / "illusion" / f"{slug}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"title": title, "description": f"{title}.", "request": request}))
    bench = make(root, "example")
    done = until_over(bench, bench.submit("illusion", SMALL, ANN))
    bench.close()
    assert done.status == "done", done.reason
    shutil.copytree(done.folder, root / "assets" / "examples" / "illusion" / "first")
    return root


def make(root, outputs, profile="local"):
    settings = Settings(
        outputs=root / "outputs" / outputs,
        assets=root / "assets",
        presets=root / "presets",
        device="cpu",
        offline=True,
        port=None,
        profile=profile,
    )
    return Workbench(settings)


def serve(bench):
    """Serve a page over ``bench``; returns (blocks, address)."""
    from studio.ui.blocks import build, launch

    page = build(bench)
    _, address, _ = launch(page, bench, prevent_thread_lock=True, quiet=True, server_port=free_port())
    return page, address.rstrip("/")


@pytest.fixture(scope="module")
def home(world, request):
    """(workbench, address) of a studio for one person, as `python app.py` opens it."""
    bench = make(world, request.module.__name__)
    page, address = serve(bench)
    yield bench, address
    page.close()
    bench.close()


@pytest.fixture(scope="module")
def shared(world, request):
    """(workbench, address) of a studio that strangers share."""
    bench = make(world, f"{request.module.__name__}-shared", "shared")
    page, address = serve(bench)
    yield bench, address
    page.close()
    bench.close()
