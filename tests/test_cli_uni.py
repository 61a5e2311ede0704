"""A Uni-Encoder from the shell: a stage of a pipeline, candidates on stdin, the hits of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FALCONS, Models, Run, UniModel, write_lines

Refused = Callable[..., str]

QUERY = "falcon, bread and river"
IDS = [str(document["id"]) for document in FALCONS]


@pytest.fixture
def index(run: Run, place: Path) -> str:
    assert run("index", "docs.tiercel", str(write_lines(place / "c.jsonl", *FALCONS)), "--encoder", "none").code == 0
    return "docs.tiercel"


@pytest.fixture
def one_way(uni_models: dict[str, UniModel]) -> str:
    return str(uni_models["one-way"].exported)


@pytest.fixture
def arrow(uni_models: dict[str, UniModel]) -> str:
    return str(uni_models["arrow"].exported)


def _expected(folder: str) -> dict[str, float]:
    from tiercel.data.corpus import as_document
    from tiercel.protocols import CandidateGroup
    from tiercel.rerankers.uni_encoder import OnnxUniEncoder
    from tiercel.types import Query, QueryId

    group = CandidateGroup(Query(QueryId("q"), QUERY), [as_document(record) for record in FALCONS])
    (scores,) = OnnxUniEncoder(Path(folder)).score([group])
    return dict(zip(IDS, scores.tolist(), strict=True))


def _hits(outcome_line: object) -> dict[str, float]:
    assert isinstance(outcome_line, dict)
    return {hit["doc_id"]: hit["score"] for hit in outcome_line["hits"]}


def test_a_stage_of_a_pipeline_replaces_or_is_fused(run: Run, index: str, one_way: str) -> None:
    outcome = run("search", index, QUERY, "-p", f"bm25@3,uni:{one_way}@2", "--json")
    assert outcome.code == 0, outcome
    expected = _expected(one_way)
    best = sorted(IDS, key=lambda doc_id: -expected[doc_id])[:2]
    assert _hits(outcome.json) == {doc_id: pytest.approx(expected[doc_id], abs=1e-4) for doc_id in best}
    assert outcome.json["stage"] == f"uni:{one_way}@2"
    fused = run("search", index, QUERY, "-p", f"bm25@3,minmax:0.5uni:{one_way}@3", "--json")
    assert (fused.code, len(fused.json["hits"])) == (0, 3)


def test_a_group_size_is_written_where_scores_depend_on_it(run: Run, index: str, place: Path, arrow: str) -> None:
    queries = str(write_lines(place / "q.jsonl", {"id": "q", "text": QUERY}))
    pipeline = f"bm25@3,uni:{arrow}@3"
    for name in ("r.trec", "r.jsonl"):
        assert run("search", index, "--queries", queries, "-p", pipeline, "-k", "3", "--run", name).code == 0
    assert {line.split()[-1] for line in (place / "r.trec").read_text().splitlines()} == {"tiercel[groups=5]"}
    assert json.loads((place / "r.jsonl").read_text())["stage"] == f"{pipeline.partition(',')[2]}[groups=5]"
    for name in ("n.trec", "n.jsonl"):
        arguments = ["--run", "r.trec", "--queries", queries, "--corpus", index, "--model", arrow, "--out", name]
        assert run("rerank", *arguments).code == 0
    assert {line.split()[-1] for line in (place / "n.trec").read_text().splitlines()} == {"tiercel[groups=5]"}
    assert json.loads((place / "n.jsonl").read_text())["stage"] == "rerank[groups=5]"


def test_candidates_are_scored_by_the_source_folder_too(run: Run, place: Path, uni_models: dict[str, UniModel]) -> None:
    line = {"query": QUERY, "documents": [{"id": record["id"], "text": record["text"]} for record in FALCONS]}
    source = uni_models["one-way"].source
    stdin = f"{json.dumps(line)}\n{json.dumps(line | {'history': ['bread ' * 60]})}\n".encode()
    outcome = run("rerank", "-", "--model", str(source), "--precision", "fp32", stdin=stdin)
    assert outcome.code == 0, outcome
    alone, in_conversation = (_hits(json.loads(row)) for row in outcome.out.splitlines())
    assert alone != in_conversation
    assert outcome.err.splitlines()[-1] == "tiercel: 1 queries were cut"


def test_a_stage_is_explained_where_a_score_is_a_documents_own(run: Run, index: str, one_way: str, arrow: str) -> None:
    told, untold = (
        run("explain", index, QUERY, "d1", "-p", f"bm25@3,uni:{model}@3", "--json").json for model in (one_way, arrow)
    )
    assert _parts(told) is not None
    assert _parts(untold) is None


def _parts(explained: object) -> object:
    assert isinstance(explained, dict)
    return explained["documents"][0]["stages"][-1]["parts"]


def test_what_cannot_be_meant_is_refused(
    refused: Refused, index: str, one_way: str, arrow: str, shared_models: Models
) -> None:
    search = ("search", index, QUERY, "-p")
    assert "the stage uni without a model; expected uni:MODEL" in refused(2, *search, "bm25,uni")
    message = refused(2, *search, f"bm25,uni:{one_way}", "--long", "max")
    assert "--long without a stage that heeds it; expected cross among the stages" in message
    message = refused(2, *search, f"bm25,uni:{arrow}", "--budget-ms", "50")
    assert "whose scores depend on the candidates that are read together" in message
    message = refused(5, *search, f"bm25,uni:{shared_models.cross}")
    assert "this model is exported as cross-encoder; expected uni-encoder" in message
    message = refused(2, "rerank", "-", "--model", one_way, "--long", "max", stdin=b"{}")
    assert "--long max with a model of the family uni-encoder; expected no --long, or a cross-encoder" in message
