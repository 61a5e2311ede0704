from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.tiny import make_cross_encoder, make_encoder


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("training") / "encoder", prompts=True)


@pytest.fixture(scope="session")
def cross_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cross_encoder(tmp_path_factory.mktemp("training") / "cross")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Products this small wait for each other's threads far longer than they take."""
    torch.set_num_threads(1)
