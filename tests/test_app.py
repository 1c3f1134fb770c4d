import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def app(*arguments):
    command = [sys.executable, "app.py", *map(str, arguments)]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has told its children to ignore Ctrl+C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def page(port, process):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            time.sleep(0.1)
    raise AssertionError(process.communicate()[1])


def test_a_public_link_without_a_login_is_refused_at_once():
    process = app("--share")
    out, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "--share makes a public link, so it needs --auth" in error
    assert "Traceback" not in error
    assert out == ""


@pytest.mark.slow
def test_the_app_serves_its_page_until_ctrl_c(tmp_path):
    port = free_port()
    process = app("--port", port, "--outputs", tmp_path, "--offline", "--device", "cpu")
    try:
        assert "Duckrabbit" in page(port, process)
        time.sleep(0.5)  # it serves before it waits
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = app("--port", taken.getsockname()[1], "--outputs", tmp_path, "--offline")
        _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: the page cannot be served at 127.0.0.1" in error
    assert "Traceback" not in error
