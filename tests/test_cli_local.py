"""Local attention from the shell: training to searching with a tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines
from tests.models.local import save_network

Refused = Callable[..., str]

NOISE = "the house is small and bread is sold by the north tower "
TEXTS = {
    "a": f"{NOISE * 6}falcons hunt in deep winter {NOISE * 6}",
    "b": f"{NOISE * 9}falcon",
    "c": "falcons swim",
}


@pytest.fixture
def corpus(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TIERCEL_THREADS", "1")
    save_network(place / "local", dimension=16)
    write_lines(place / "c.jsonl", *({"id": key, "text": text} for key, text in TEXTS.items()))
    return "c.jsonl"


def test_it_reranks_whole_documents_and_shows_the_region(run: Run, corpus: str) -> None:
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    first = run("search", "x", "falcons hunt", "-p", "bm25@9,local:local@9", "--json")
    assert first.code == 0, first
    assert "exporting local to int8 ONNX" in first.err
    hits = {hit["doc_id"]: hit for hit in first.json["hits"]}
    start, end = hits["a"]["span"]
    assert hits["a"]["text"] == TEXTS["a"][start:end]
    assert 0 < end - start < len(TEXTS["a"]) / 2
    explained = run("explain", "x", "falcons hunt", "a", "-p", "bm25@9,local:local@9")
    assert explained.code == 0, explained
    assert "Windows of the document (regions)" in explained.out


def test_stored_vectors_score_as_new_ones_and_name_the_model(run: Run, corpus: str) -> None:
    index = ["--encoder", "none", "--tokens", "fp16", "--token-model", "local"]
    assert run("index", "new", corpus, "--encoder", "none").code == 0
    assert run("index", "kept", corpus, *index).code == 0
    found = {
        name: run("search", name, "falcons hunt", "-p", f"bm25@9,{stage}@9", "--json").json["hits"]
        for name, stage in {"new": "local:local", "kept": "local"}.items()
    }
    for new, kept in zip(found["new"], found["kept"], strict=True):
        assert (new["doc_id"], new["span"]) == (kept["doc_id"], kept["span"])
        assert kept["score"] == pytest.approx(new["score"], rel=0.01, abs=0.1)
    maxsim = run("search", "kept", "falcons hunt", "-p", "bm25@9,late@9")
    assert maxsim.code == 0, maxsim


def test_documents_that_are_cut_are_read_whole(run: Run, corpus: str) -> None:
    """Whatever passage was found, by default that of --long match."""
    found = []
    for name, chunk in {"whole": [], "cut": ["--chunk", "sentences", "--chunk-size", "20"]}.items():
        assert run("index", name, corpus, "--encoder", "none", *chunk).code == 0
        hits = run("search", name, "falcons hunt", "-p", "bm25@9,local:local@9", "--json").json["hits"]
        found.append([(hit["doc_id"], hit["score"], hit["span"]) for hit in hits])
    assert found[0] == found[1]


def test_rerank_takes_the_folder(run: Run, corpus: str, place: Path) -> None:
    write_lines(place / "q.jsonl", {"id": "q1", "text": "falcons hunt"})
    (place / "run.trec").write_text("".join(f"q1 Q0 {key} {rank} {9 - rank} r\n" for rank, key in enumerate(TEXTS, 1)))
    outcome = run("rerank", "--run", "run.trec", "--queries", "q.jsonl", "--corpus", corpus, "--model", "local")
    assert outcome.code == 0, outcome
    assert len(outcome.rows) == 3


def test_what_it_cannot_do_is_refused(run: Run, refused: Refused, corpus: str) -> None:
    assert run("index", "x", corpus, "--encoder", "none").code == 0
    assert "the stage local without a model" in refused(2, "search", "x", "falcon", "-p", "bm25,local@3")
    message = refused(2, "search", "x", "falcon", "-p", "bm25,local:local@3", "--score", "sigmoid")
    assert "--score without a stage that heeds it; expected cross or uni" in message
