from __future__ import annotations

import shutil

import pytest

from tests.training.asked import save_set


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Four captioned pictures of 32 x 32 pixels."""
    return save_set(tmp_path_factory.mktemp("sets") / "four")


@pytest.fixture(scope="session")
def tiny_store(assets, tiny_pipeline, tmp_path_factory):
    """A store whose model "tiny" is the tiny Stable Diffusion that predicts epsilon."""
    from studio.models.store import ModelStore

    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny_pipeline, root / "tiny")
    return ModelStore(assets, root, device="cpu")
