"""`tiercel mine`, as a user gives it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Run, write_lines
from tests.models.tiny import make_cross_encoder, make_encoder
from tiercel.config import LongStrategy, Settings
from tiercel.protocols import CandidateGroup
from tiercel.reranking import RerankOptions, make_reranker
from tiercel.types import DocId, Document, Query, QueryId

TEXTS = {"d1": "the falcon hunts", "d2": "a falcon swims", "d3": "cold bread", "d4": "the bridge is far"}


@pytest.fixture
def collection(place: Path) -> Path:
    write_lines(place / "docs.jsonl", *({"_id": name, "text": text} for name, text in TEXTS.items()))
    write_lines(place / "queries.jsonl", {"_id": "q1", "text": "falcon"}, {"_id": "q2", "text": "unjudged"})
    (place / "qrels.txt").write_text("q1 0 d1 1\n")
    (place / "first.trec").write_text("q1 Q0 d2 1 3.5 t\nq1 Q0 d1 2 2.5 t\nq1 Q0 d3 3 1.5 t\n")
    return place


COMMON = ["--queries", "queries.jsonl", "--qrels", "qrels.txt", "--out", "groups.jsonl"]


def test_an_index_gives_groups_with_where_negatives_came_from(collection: Path, run: Run) -> None:
    assert run("index", "docs.tiercel", "docs.jsonl", "--encoder", "none").code == 0
    outcome = run("mine", "docs.tiercel", *COMMON)
    assert outcome.code == 0, outcome
    assert "1 groups, 1 queries without a positive" in outcome.err
    first = (collection / "groups.jsonl").read_bytes()
    (group,) = [json.loads(line) for line in first.splitlines()]
    (negative,) = group["negatives"]
    assert (negative["id"], negative["leg"], negative["scores"].keys()) == ("d2", "bm25", {"bm25"})
    assert run("mine", "docs.tiercel", *COMMON).code == 0
    assert (collection / "groups.jsonl").read_bytes() == first


def test_every_leg_of_an_index_and_their_fusion_are_asked(collection: Path, run: Run) -> None:
    make_encoder(collection / "encoder")
    assert run("index", "docs.tiercel", "docs.jsonl", "--encoder", "encoder").code == 0
    outcome = run("mine", "docs.tiercel", *COMMON)
    assert outcome.code == 0, outcome
    group = json.loads((collection / "groups.jsonl").read_text())
    assert group["floors"].keys() == {"bm25", "dense", "fused"}
    by_id = {document["id"]: document for document in group["negatives"]}
    assert by_id["d2"]["scores"].keys() == {"bm25", "dense", "fused"}
    assert by_id["d3"]["scores"].keys() == {"dense", "fused"}
    assert by_id.keys() == {"d2", "d3", "d4"}
    assert {document["leg"] for document in group["negatives"]} == {"bm25", "dense", "fused"}


def test_runs_and_a_teacher(collection: Path, run: Run) -> None:
    make_cross_encoder(collection / "teacher")
    arguments = ["--run", "first.trec", "--corpus", "docs.jsonl", "--teacher", "teacher", "--margin", "-1000"]
    outcome = run("mine", *arguments, *COMMON)
    assert outcome.code == 0, outcome
    group = json.loads((collection / "groups.jsonl").read_text())
    assert group["floors"] == {"first": 1.5}
    assert {d["id"]: d["scores"]["first"] for d in group["negatives"]} == {"d2": 3.5, "d3": 1.5}
    assert all(isinstance(d["teacher"], float) for d in [*group["positives"], *group["negatives"]])


def test_a_teacher_reads_documents_whole_where_it_is_told_to(collection: Path, run: Run) -> None:
    teacher = make_cross_encoder(collection / "teacher")
    text = " ".join([*["cold bread is sold by the bridge"] * 9, "the falcon hunts by the river"])
    write_lines(collection / "docs.jsonl", *({"_id": name, "text": text} for name in TEXTS))
    arguments = ["--run", "first.trec", "--corpus", "docs.jsonl", "--teacher", "teacher"]
    group = CandidateGroup(Query(QueryId("q1"), "falcon"), [Document(DocId("d1"), text)])
    seen = []
    strategies: list[LongStrategy] = ["first", "max"]
    for strategy in strategies:
        outcome = run("mine", *arguments, "--long", strategy, *COMMON)
        assert outcome.code == 0, outcome
        [positive] = json.loads((collection / "groups.jsonl").read_text())["positives"]
        options = RerankOptions(long=strategy)
        [[expected]] = make_reranker(str(teacher), settings=Settings.from_environment(), options=options).score([group])
        assert positive["teacher"] == pytest.approx(float(expected))
        seen.append(positive["teacher"])
    assert seen[0] < seen[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither an index nor a run"),
        (["--run", "first.trec", "--long", "max"], "--long max without a teacher"),
        (["--run", "first.trec", "--teacher", "x"], "without their texts"),
        (["--run", "first.trec", "--margin", "1"], "without a teacher"),
        (["--run", "first.trec", "--run", "./first.trec"], "each file name once"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    collection: Path, refused: Callable[..., str], arguments: list[str], message: str
) -> None:
    assert message in refused(2, "mine", *arguments, *COMMON)
