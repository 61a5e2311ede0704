"""Three judged queries, and rankings written as document ids."""

from __future__ import annotations

from tiercel.types import DocId, Query, QueryId, Ranking

QRELS = {
    QueryId("q1"): {DocId("a"): 1, DocId("b"): 1},
    QueryId("q2"): {DocId("a"): 2, DocId("b"): 1, DocId("c"): 0},
    QueryId("q3"): {DocId("a"): 1},
}


def make_ranking(query_id: str, *doc_ids: str) -> Ranking:
    """These documents in this order."""
    query = Query(QueryId(query_id), f"text of {query_id}")
    scores = [-float(rank) for rank in range(len(doc_ids))]
    return Ranking.from_scores(query, [DocId(d) for d in doc_ids], scores, stage="made", keep=len(doc_ids))
