from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conformance.encoder import EncoderConformance
from tests.conformance.retriever import RetrieverConformance
from tests.index.made import FALCONS, HashedWords, asked, indexed, named, zipf_texts
from tiercel.index import build, merge
from tiercel.index.dense import DenseRetriever
from tiercel.types import DocId, Document, Query

ENCODER = HashedWords()


class TestHashedWords(EncoderConformance):
    """The encoder of these tests is one."""

    @pytest.fixture
    def encoder(self) -> HashedWords:
        return ENCODER


class TestDenseRetriever(RetrieverConformance):
    ann = "flat"

    @pytest.fixture
    def retriever(self, tmp_path: Path) -> DenseRetriever:
        index = indexed(tmp_path / "x", FALCONS, encoder=ENCODER, ann=self.ann)
        return DenseRetriever(index.views, ENCODER)

    @pytest.fixture
    def queries(self) -> list[Query]:
        return asked("male falcon", "pigeons in the city", "the falcon")

    @pytest.fixture
    def unmatched(self) -> Query:
        return asked(" \n")[0]


class TestDenseRetrieverByGraph(TestDenseRetriever):
    ann = "hnsw"


class TestDenseRetrieverOfThreeSegments(TestDenseRetriever):
    @pytest.fixture(autouse=True)
    def small_segments(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 2)
        monkeypatch.setattr(build, "_SEGMENT_ROWS", 2)
        monkeypatch.setattr(merge, "MERGED_ROWS", 0)  # they are to stay apart


def test_scores_are_cosines_of_the_stored_vectors(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", FALCONS, encoder=ENCODER)
    (ranking,) = DenseRetriever(index.views, ENCODER).retrieve(asked("male falcon"), keep=10)
    rows = ENCODER.encode_documents([document.full_text for document in FALCONS]).astype(np.float16)
    query = ENCODER.encode_queries(["male falcon"])[0].astype(np.float64)
    scores = rows.astype(np.float64) @ query
    assert ranking.stage == "dense"
    assert ranking.doc_ids == [FALCONS[i].id for i in np.argsort(-scores)]
    assert [hit.score for hit in ranking.hits] == pytest.approx(sorted(scores, reverse=True), abs=1e-6)


@pytest.mark.parametrize("keep", [1, 3, 40, 99, 1000])
def test_identical_documents_are_cut_by_id(tmp_path: Path, keep: int) -> None:
    ids = [f"{i * 37 % 100:02d}" for i in range(100)]
    index = indexed(tmp_path / "x", [Document(DocId(name), "a falcon") for name in ids], encoder=ENCODER)
    (ranking,) = DenseRetriever(index.views, ENCODER).retrieve(asked("falcon"), keep=keep)
    assert ranking.doc_ids == sorted(ids)[:keep]
    assert len({hit.score for hit in ranking.hits}) == 1


def test_segments_rank_as_if_they_were_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = named(zipf_texts(300, words=20, seed=1, longest=3))[::-1]  # most texts come many times
    one = indexed(tmp_path / "one", documents, encoder=ENCODER)
    monkeypatch.setattr(build, "_BATCH_DOCUMENTS", 7)
    monkeypatch.setattr(build, "_SEGMENT_ROWS", 50)
    monkeypatch.setattr(merge, "MERGED_ROWS", 0)  # they are to stay apart
    many = indexed(tmp_path / "many", documents, encoder=ENCODER)
    assert (len(one.views), len(many.views)) == (1, 6)
    queries = asked("w0", "w1 w2", "w3 w0", "w19", "unknown")
    for keep in (1, 5, 30, 300):
        expected = DenseRetriever(one.views, ENCODER).retrieve(queries, keep=keep)
        assert DenseRetriever(many.views, ENCODER).retrieve(queries, keep=keep) == expected


def test_a_query_alone_scores_as_in_any_batch(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", named(zipf_texts(200, words=50, seed=2)), encoder=ENCODER)
    queries = asked(*zipf_texts(80, words=60, seed=3))
    retriever = DenseRetriever(index.views, ENCODER, threads=2)
    together = retriever.retrieve(queries, keep=5)
    assert together == [ranking for query in queries for ranking in retriever.retrieve([query], keep=5)]
    assert [bool(ranking.hits) for ranking in together] == [bool(query.text) for query in queries]


def test_an_empty_document_has_its_place(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x", named(["falcon", ""]), encoder=ENCODER)
    (ranking,) = DenseRetriever(index.views, ENCODER).retrieve(asked("falcon"), keep=5)
    assert ranking.doc_ids == ["d00000", "d00001"]
