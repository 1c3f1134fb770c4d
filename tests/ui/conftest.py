"""A page over the real workbench and the built-in model, with two presets and one example made by the engine itself."""

from __future__ import annotations

import json
import shutil
import socket
import time

import pytest
from safetensors.torch import load_file, save_file

from studio.settings import Settings
from studio.workbench import Workbench

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SECOND = "second"  # a model of the models folder that fits the built-in one
STYLE = "style.safetensors"  # a LoRA of the models folder, too
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
    from tests.models.loras import save_random

    root = tmp_path_factory.mktemp("studio")
    (root / "assets").mkdir()
    for name in ("models", "datasets"):
        (root / "assets" / name).symlink_to(assets / name)
    for slug, title, request in (("first", "Turn it over", SMALL), ("three", "Three heads", THREE)):
        path = root / "presets" / "illusion" / f"{slug}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"title": title, "description": f"{title}.", "request": request}))
    second_model(assets / "models" / "emoji", root / "models" / SECOND)
    save_random(root / "models" / STYLE, assets / "models" / "emoji", "kohya", seed=1, strength=2.0)
    bench = make(root, "example")
    done = until_over(bench, bench.submit("illusion", SMALL, ANN))
    bench.close()
    assert done.status == "done", done.reason
    shutil.copytree(done.folder, root / "assets" / "examples" / "illusion" / "first")
    return root


def second_model(first, folder):
    """A copy of a model whose U-Net is a little noisier."""
    import torch

    shutil.copytree(first, folder)
    (weights,) = (folder / "unet").glob("*.safetensors")
    draw = torch.Generator().manual_seed(0)
    held = {
        key: value * (1 + 0.05 * torch.randn(value.shape, generator=draw)).to(value.dtype) if value.ndim > 1 else value
        for key, value in load_file(weights).items()
    }
    save_file(held, weights, metadata={"format": "pt"})


def make(root, outputs, profile="local"):
    settings = Settings(
        outputs=root / "outputs" / outputs,
        assets=root / "assets",
        presets=root / "presets",
        models_dir=root / "models" if (root / "models").is_dir() else None,
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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, home):
    """Opens pages; afterwards nothing may run any more, nothing may have been fetched from elsewhere or failed."""
    bench, address = home
    contexts, trouble = [], []

    def opened(width=1440, height=900, path="/", **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: trouble.append(request.url) if _foreign(request.url, address) else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.goto(address + path)
        page.wait_for_selector("#tabs")
        return page

    opened.bench = bench
    yield opened
    for context in contexts:
        context.close()
    for job in bench.history("local"):
        bench.cancel(job.id, "local")
    while any(not job.over for job in bench.history("local")):
        time.sleep(0.05)
    assert trouble == []


def _foreign(url, address):
    return not url.startswith((address, "data:", "blob:"))
