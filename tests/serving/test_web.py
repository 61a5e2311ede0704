"""A real server on a loopback port, asked by official clients and by hand."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import tiercel
from tests.conftest import FALCONS, Models, UniModel, environment

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")

import httpx2

from tests.serving.served import KEY, Server, Start


def test_a_search_is_answered_as_by_the_library(server: Server, models: Models, dense_index: Path) -> None:
    found = server.post("/search", query="falcons in winter", k=2, explain=True)
    expected = tiercel.open(dense_index).search("falcons in winter", 2)
    hits = found["results"][0]["hits"]
    assert [(hit["id"], hit["score"], hit["scores"]) for hit in hits] == [
        (hit.document.id, hit.score, dict(hit.scores)) for hit in expected
    ]
    assert (hits[0]["title"], hits[0]["metadata"], hits[0]["span"]) == ("Falcons", {"year": 2020}, None)
    assert [hits[0]["text"][start:end] for start, end in hits[0]["matches"]] == ["falcon", "winter"]


def test_several_queries_a_filter_a_history_and_the_stages(server: Server, models: Models) -> None:
    found = server.post(
        "/search",
        query=["falcon", "bread"],
        where="year = 2021",
        pipeline="bm25+dense,cross:" + models.cross,
        explain=True,
    )["results"]
    assert [[hit["id"] for hit in answer["hits"]] for answer in found] == [["d2"], ["d2"]]
    assert [stage["name"] for stage in found[0]["stages"]] == ["bm25", "dense", "bm25+dense", f"cross:{models.cross}"]
    assert set(server.post("/search", query="falcon")["results"][0]) == {"query", "hits", "stages"}
    turned = server.post("/search", query="bread", pipeline="bm25", history=["the falcon"])
    assert [hit["id"] for hit in turned["results"][0]["hits"]] == ["d2"]
    refusal = server.refused(422, "POST", "/search", json={"query": "bread", "history": "the falcon"})
    assert "history" in refusal["error"]


def test_documents_are_read_by_id_but_not_changed(server: Server) -> None:
    assert server.http.get("/documents/d2").json() == {
        "id": "d2", "text": "bread is sold by the bridge", "title": "", "metadata": {"year": 2021},
    }  # fmt: skip
    assert server.refused(404, "GET", "/documents/../../etc/passwd")["error_type"] in ("not_served", "not_found")
    assert "'%2e'" not in server.refused(404, "GET", "/documents/%2e%2e%2fmanifest.json")["error"]
    message = server.refused(404, "POST", "/documents", json={"documents": [{"id": "x", "text": "y"}]})
    assert "--allow-changes" in message["error"]
    server.refused(404, "DELETE", "/documents", json={"ids": ["d1"]})


def test_ten_thousand_candidates_are_answered(server: Server) -> None:
    texts = [f"the {word}" for word in ("falcon", "bread", "river", "tower", "winter")] * 2000
    results = server.post("/rerank", query="falcon", documents=texts)["results"]
    assert sorted(result["index"] for result in results) == list(range(10_000))
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    best = [result["index"] for result in results[:2000]]
    assert best == sorted(best)  # of equals the first is first


def test_many_callers_at_once_get_their_own_answers_in_shared_batches(server: Server) -> None:
    queries = ["falcon", "bread", "river", "who hunts in winter"] * 16
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda query: server.post("/search", query=query, k=3)["results"][0], queries))
    assert [answer["query"] for answer in answers] == queries
    assert [answer["hits"] for answer in answers] == [answer["hits"] for answer in answers[:4]] * 16
    metrics = server.http.get("/metrics").text
    assert 'tiercel_requests_total{path="/search",status="200"}' in metrics
    assert "tiercel_documents 3.0" in metrics
    counts = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if line.startswith("tiercel_batch_items"))
    assert float(counts['tiercel_batch_items_sum{kind="search"}']) > float(
        counts['tiercel_batch_items_count{kind="search"}']
    )


def test_keys_and_hosts(server: Server) -> None:
    for wrong in ("", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x"):
        answer = server.refused(401, "POST", "/search", json={"query": "x"}, headers={"Authorization": wrong})
        assert answer["error_type"] == "unauthorized"
    assert server.http.get("/metrics", headers={"Authorization": "bearer another"}).status_code == 200
    for path in ("/", "/health", "/ready"):
        assert server.http.get(path, headers={"Authorization": ""}).status_code == 200
    assert server.refused(400, "GET", "/health", headers={"Host": "evil.example"})["error_type"] == "host"


def test_what_cannot_be_meant_is_refused(server: Server, models: Models) -> None:
    def search(status: int, **body: Any) -> str:
        return server.refused(status, "POST", "/search", json=body)["error"]

    assert search(422) == "query: Field required"
    assert search(422, query="x", wher="year = 1") == "wher: Extra inputs are not permitted"
    assert "less than or equal to 1000" in search(422, query="x", k=10**30)
    assert "no recall leg called 'bm26'" in search(422, query="x", pipeline="bm26")
    assert "a pipeline with the model '/etc/passwd'" in search(422, query="x", pipeline="bm25,cross:/etc/passwd")
    assert "column" in search(422, query="x", where="yaer >= 2020")
    rerank = server.refused(422, "POST", "/rerank", json={"query": "x"})
    assert rerank["error_type"] == "validation"
    window = server.refused(422, "POST", "/v2/rerank", json={"query": "x", "documents": ["y"], "max_tokens_per_doc": 3})
    assert "64 or more" in window["error"]
    tokens = server.refused(422, "POST", "/v1/embeddings", json={"input": [[1, 2]], "model": "m"})
    assert "valid string" in tokens["error"]
    assert "expected 16" in server.refused(422, "POST", "/v1/embeddings", json={"input": "x", "dimensions": 8})["error"]
    assert server.refused(404, "GET", "/nothing")["error_type"] == "not_found"
    assert server.refused(405, "GET", "/search")["error_type"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b'{"query": "\xff"}', 400),
        (b'{"query": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
        (b'{"query": "\\ud800"}', 422),
        (b'{"query": NaN}', 422),
        (b'{"query": "x", "k": 1e400}', 422),
        (b"x" * 2_000_001, 413),
        (b"", 422),
    ],
)
def test_bodies_that_are_broken(server: Server, body: bytes, status: int) -> None:
    answer = server.refused(status, "POST", "/search", content=body, headers={"Content-Type": "application/json"})
    assert len(answer["error"]) < 500


def test_a_body_without_a_length_is_measured(server: Server) -> None:
    chunks = (b"x" * 100_000 for _ in range(25))
    response = server.http.post("/search", content=chunks)
    assert response.status_code == 413


def test_openapi_describes_the_routes(server: Server) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    assert {
        "/search",
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
        "/v1/embeddings",
        "/embed",
        "/documents",
        "/ready",
    } <= set(paths)


def test_a_slow_caller_is_let_go(start: Start, dense_index: Path) -> None:
    served = start(str(dense_index), "--timeout", "0.5")
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as slow:
        slow.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        answer = slow.recv(65_536)
        while b"}" not in answer:
            answer += slow.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 504")
    assert b'"error_type":"timeout"' in answer
    assert served.stop() in (0, -signal.SIGTERM)


def test_a_full_queue_turns_callers_away_and_the_server_goes_on(start: Start, shared_models: Models) -> None:
    served = start("--reranker", shared_models.cross, "--queue", "1", "--timeout", "120")
    texts = ["the falcon hunts in winter and nobody swims in the deep river"] * 1500

    async def ask() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=served.url, timeout=120) as client:
            body = {"query": "falcon", "documents": texts}
            return list(await asyncio.gather(*(client.post("/rerank", json=body) for _ in range(6))))

    answers = asyncio.run(ask())
    assert {answer.status_code for answer in answers} == {200, 429}
    refusals = [answer for answer in answers if answer.status_code == 429]
    assert all(answer.json()["error_type"] == "overloaded" for answer in refusals)
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refusals)
    assert served.post("/rerank", query="falcon", documents=["x"])["results"][0]["index"] == 0
    assert served.refused(404, "POST", "/search", json={"query": "x"})["error_type"] == "not_served"
    assert served.stop() in (0, -signal.SIGTERM)


def test_changes_are_answered_at_once_and_those_of_others_soon(
    start: Start, models: Models, dense_index: Path, place: Path
) -> None:
    shutil.copytree(dense_index, place / "copy")
    served = start(str(place / "copy"), "--allow-changes")
    document = {"id": "a/b?", "text": "a small tower", "year": 1999}
    assert served.post("/documents", documents=[document]) == {"added": 1, "replaced": 0, "documents": 4}
    assert served.http.get("/documents/a%2Fb%3F").json()["metadata"] == {"year": 1999}
    found = served.post("/search", query="tower", pipeline="bm25")
    assert [hit["id"] for hit in found["results"][0]["hits"]] == ["a/b?"]
    gone = served.http.request("DELETE", "/documents", json={"where": "year = 1999"}).json()
    assert gone == {"deleted": 1, "documents": 3, "unknown": []}
    assert served.post("/search", query="tower", pipeline="bm25")["results"][0]["hits"] == []
    repeated = {"documents": [{"id": "x", "text": "1"}, {"id": "x", "text": "2"}]}
    assert served.refused(422, "POST", "/documents", json=repeated)["error_type"] == "input"
    served.refused(422, "DELETE", "/documents", json={})
    tiercel.open(place / "copy").add([{"id": "d9", "text": "a far bridge"}])
    for _ in range(200):
        if served.http.get("/documents/d9").status_code == 200:
            break
        signal.sigtimedwait([], 0.05)
    assert served.http.get("/documents/d9").status_code == 200
    assert served.stop() in (0, -signal.SIGTERM)
    assert len(tiercel.open(place / "copy")) == len(FALCONS) + 1


def test_what_is_under_way_is_finished_before_it_stops(start: Start, shared_models: Models) -> None:
    served = start("--reranker", shared_models.cross, "--timeout", "120")
    texts = ["the falcon hunts in winter and nobody swims in the deep river"] * 2000
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(served.post, "/rerank", query="falcon", documents=texts)
        for _ in range(200):
            if "tiercel_batch_items_count" in served.http.get("/metrics").text:
                break
        assert served.stop() in (0, -signal.SIGTERM)
        assert len(under_way.result()["results"]) == 2000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to serve; expected an index, --reranker or --encoder"),
        (["idx", "--host", "0.0.0.0"], "--host 0.0.0.0 without a key"),
        (["--reranker", "m", "--allow-changes"], "--pipeline or --allow-changes without an index"),
    ],
)
def test_what_cannot_be_served_is_refused(arguments: list[str], message: str, refused: Any) -> None:
    assert message in refused(2, "serve", *arguments)


def test_a_port_that_is_taken_is_refused(refused: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        message = refused(2, "serve", "--reranker", "m", "--port", str(taken.getsockname()[1]))
    assert "cannot be listened at" in message


def test_what_cannot_be_loaded_is_told_and_never_ready(place: Path) -> None:
    env = environment(TIERCEL_CACHE_DIR=str(place), TIERCEL_OFFLINE="1")
    command = [sys.executable, "-m", "tiercel.cli", "serve", str(place / "none"), "--port", "0"]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split(" at ")[1].strip()
        assert "none" in process.stderr.readline()
        response = httpx2.get(f"{url}/ready")
        assert (response.status_code, json.loads(response.text)["error_type"]) == (503, "not_ready")
        assert httpx2.get(f"{url}/health").status_code == 200
        os.kill(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def test_a_history_is_read_by_a_reranker_that_reads_them(start: Start, uni_models: dict[str, UniModel]) -> None:
    model = str(uni_models["one-way"].exported)
    served = start("--reranker", model)
    texts = ["the river", "a falcon hunts in winter"]
    history = ["bread is sold", "by the bridge"]
    asked = {
        turns: {hit.document.text: hit.score for hit in tiercel.rerank("falcon", texts, model=model, history=turns)}
        for turns in ((), tuple(history))
    }
    assert asked[()] != asked[tuple(history)]
    for turns, expected in asked.items():
        found = served.post("/rerank", query="falcon", texts=texts, history=list(turns), raw_scores=True)
        assert {texts[one["index"]]: one["score"] for one in found} == pytest.approx(expected)
        found = served.post("/v2/rerank", query="falcon", documents=texts, history=list(turns))["results"]
        shown = {texts[one["index"]]: one["relevance_score"] for one in found}
        assert shown == pytest.approx({text: 1 / (1 + math.exp(-score)) for text, score in expected.items()})
