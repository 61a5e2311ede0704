"""A small collection with real, countable stages: words in common, and two ways to rerank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError
from tiercel.protocols import CandidateGroup
from tiercel.types import DocId, Document, Hit, Query, QueryId, Ranking

DOCUMENTS = [
    Document(DocId("d1"), "the falcon hunts pigeons"),
    Document(DocId("d2"), "a tiercel is a male falcon"),
    Document(DocId("d3"), "pigeons live in the city and in the city they breed"),
    Document(DocId("d4"), "the male pigeon"),
    Document(DocId("d5"), "falcon falcon falcon"),
    Document(DocId("d6"), "nothing to see"),
]

QUERIES = [
    Query(QueryId("q1"), "male falcon"),
    Query(QueryId("q2"), "pigeons in the city"),
    Query(QueryId("q3"), "the falcon"),
]

UNMATCHED = Query(QueryId("q0"), "zeppelin")


def ranking(query: Query, *pairs: tuple[str, float], stage: str = "given") -> Ranking:
    """A Ranking from (document id, score) pairs, already in order."""
    return Ranking(query, tuple(Hit(DocId(name), score) for name, score in pairs), stage)


class OverlapRetriever:
    """Scores a document by the number of different query words in it; none in common is no match."""

    stage = "overlap"

    def score(self, query: Query, document: Document) -> float:
        return len(set(query.text.split()) & set(document.text.split()))

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        rankings = []
        for query in queries:
            scored = [(document.id, self.score(query, document)) for document in DOCUMENTS]
            found = [(doc_id, score) for doc_id, score in scored if score > 0]
            ids = [doc_id for doc_id, _ in found]
            scores = [score for _, score in found]
            rankings.append(Ranking.from_scores(query, ids, scores, stage=self.stage, keep=keep))
        return rankings


class FrequencyRetriever(OverlapRetriever):
    """Scores a document by the share of its words that are query words."""

    stage = "frequency"

    def score(self, query: Query, document: Document) -> float:
        words = document.text.split()
        return sum(word in query.text.split() for word in words) / len(words)


class ShorterFirst:
    """Reranks by length, the shortest text first; the query does not matter."""

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        return [np.array([-len(d.text) for d in group.documents], dtype=np.float32) for group in groups]


class SharedLetters:
    """Reranks by the number of different letters shared with the query."""

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        return [
            np.array([len(set(d.text) & set(group.query.text)) for d in group.documents], dtype=np.float32)
            for group in groups
        ]


class Store:
    """The documents by id; counts its calls and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[list[DocId]] = []

    def get(self, ids: Sequence[DocId]) -> list[Document]:
        self.asked.append(list(ids))
        by_id = {document.id: document for document in DOCUMENTS}
        if unknown := [doc_id for doc_id in ids if doc_id not in by_id]:
            raise IndexStoreError(f"no document {unknown[0]!r}")
        return [by_id[doc_id] for doc_id in ids]
