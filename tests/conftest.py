"""Shared fixtures: the built-in model, and a tiny random pipeline of the real classes."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if "PYTEST_XDIST_WORKER" in os.environ:  # threads of two processes on two cores slow one another many times over
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def assets() -> Path:
    return ROOT / "assets"


@pytest.fixture(scope="session")
def models(assets):
    from studio.models.store import ModelStore

    return ModelStore(assets, device="cpu")


@pytest.fixture(scope="session")
def emoji(models):
    """The built-in network (no other test may hold its lease meanwhile; tests run one at a time)."""
    with models.lease("builtin:emoji") as network:
        pass
    return network


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory) -> Path:
    """A StableDiffusionPipeline folder of random weights that predicts epsilon: 32 px, factor 2, 4 latent channels."""
    from tests.tiny import save_tiny_pipeline

    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny"), prediction_type="epsilon")


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory) -> Path:
    from tests.tiny import save_tiny_sdxl

    return save_tiny_sdxl(tmp_path_factory.mktemp("tiny") / "sdxl")


@pytest.fixture(scope="session", params=["with T5", "without T5"])
def tiny_sd3(request, tmp_path_factory) -> Path:
    from tests.tiny import save_tiny_sd3

    return save_tiny_sd3(tmp_path_factory.mktemp("tiny") / "sd3", with_t5=request.param == "with T5")


@pytest.fixture(scope="session")
def tiny_prx(tmp_path_factory) -> Path:
    from tests.tiny import save_tiny_prx

    return save_tiny_prx(tmp_path_factory.mktemp("tiny") / "prx")
