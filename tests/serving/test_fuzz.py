"""What the server answers to whatever its OpenAPI document allows, and to what it does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.conftest import Models

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from tests.serving.served import Server

pytest.importorskip("schemathesis", reason="the extra dev is not installed")

OPERATIONS = [
    ("GET", "/health"), ("GET", "/ready"), ("GET", "/metrics"), ("GET", "/documents/{doc_id}"), ("POST", "/documents"),
    ("DELETE", "/documents"), ("POST", "/search"), ("POST", "/rerank"), ("POST", "/v1/rerank"), ("POST", "/v2/rerank"),
    ("POST", "/v1/embeddings"), ("POST", "/embed"),
]  # fmt: skip
WITH_BODY = [(method, path) for method, path in OPERATIONS if method != "GET"]
"""Others take nothing that could be against the document."""


@pytest.fixture(scope="module")
def fuzzed(shared_models: Models, dense_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with everything that can be asked for, of an index of its own."""
    path = tmp_path_factory.mktemp("fuzzed") / "copy"
    shutil.copytree(dense_index, path)
    served = Server(
        shared_models.cache, str(path), "--allow-changes", "--reranker", shared_models.cross,
        "--encoder", shared_models.encoder,
    )  # fmt: skip
    yield served
    assert served.process.poll() is None
    served.stop()


@pytest.fixture(scope="module")
def described(fuzzed: Server) -> Any:
    openapi = pytest.importorskip("schemathesis.openapi")

    return openapi.from_dict(fuzzed.http.get("/openapi.json").json())


def test_every_operation_is_fuzzed(described: Any) -> None:
    found = [operation.ok() for operation in described.get_all_operations()]
    assert {(operation.method.upper(), operation.path) for operation in found} == set(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_what_the_document_allows_breaks_nothing(fuzzed: Server, described: Any, method: str, path: str) -> None:
    mode = pytest.importorskip("schemathesis").GenerationMode.POSITIVE
    try_cases(fuzzed, described[path][method].as_strategy(generation_mode=mode))


@pytest.mark.parametrize(("method", "path"), WITH_BODY)
def test_what_the_document_forbids_breaks_nothing(fuzzed: Server, described: Any, method: str, path: str) -> None:
    mode = pytest.importorskip("schemathesis").GenerationMode.NEGATIVE
    try_cases(fuzzed, described[path][method].as_strategy(generation_mode=mode))


def try_cases(fuzzed: Server, cases: SearchStrategy[Any]) -> None:
    """Send some of them: each is answered, or refused in the form of every refusal."""
    requests = pytest.importorskip("requests")

    @settings(max_examples=10, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(cases)
    def try_case(case: Any) -> None:
        response = case.call(base_url=fuzzed.url, session=session)
        assert response.status_code < 500, (case.as_curl_command(), response.text)
        if response.status_code != 200:
            assert set(response.json()) == {"error", "error_type"}

    with requests.Session() as session:
        try_case()
