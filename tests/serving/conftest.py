from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Models
from tests.serving.served import KEY, Server, Start


@pytest.fixture
def start(shared_models: Models) -> Iterator[Start]:
    """Start servers; those that a test has not stopped are killed after it."""
    started: list[Server] = []

    def started_server(*arguments: str, **variables: str) -> Server:
        started.append(Server(shared_models.cache, *arguments, **variables))
        return started[-1]

    yield started_server
    for server in started:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(shared_models: Models, dense_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that change nothing of it."""
    served = Server(
        shared_models.cache, str(dense_index), "--reranker", shared_models.cross, "--encoder", shared_models.encoder,
        "--max-body", "2", "--timeout", "120", TIERCEL_SERVE_KEY=f"{KEY} another",
    )  # fmt: skip
    yield served
    assert served.stop() in (0, -signal.SIGTERM)
