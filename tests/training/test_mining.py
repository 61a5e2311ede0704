from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.evaluation.made import make_ranking
from tiercel.errors import InputError, UsageError
from tiercel.protocols import CandidateGroup
from tiercel.training.mining import Mined, MiningOptions, mine, rankings_by_query
from tiercel.types import DocId, Document, Qrels, Query, QueryId, Ranking

TEACHER_SCORES = {"a": 5.0, "b": 4.5, "c": 1.0, "d": 6.0, "e": 0.0}


class Letters:
    """A Reranker that knows one score for each document."""

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        return [np.array([TEACHER_SCORES[d.text] for d in group.documents], np.float32) for group in groups]

    def get(self, ids: Sequence[DocId]) -> list[Document]:
        return [Document(doc_id, doc_id) for doc_id in ids]


def legs_of(**rankings: Ranking) -> dict[str, dict[QueryId, Ranking]]:
    return {name: rankings_by_query([ranking]) for name, ranking in rankings.items()}


QUERIES = [Query(QueryId("q1"), "text")]
QRELS: Qrels = {QueryId("q1"): {DocId("a"): 1, DocId("e"): 0}}
LEGS = legs_of(bm25=make_ranking("q1", "b", "a", "c"), dense=make_ranking("q1", "d", "c", "e"))


def negatives(mined: Mined) -> list[str]:
    return sorted(document.id for document in mined.groups[0].negatives)


def test_every_hit_that_is_not_relevant_can_be_a_negative_once() -> None:
    mined = mine(QUERIES, QRELS, LEGS, options=MiningOptions(negatives=9))
    (group,) = mined.groups
    assert negatives(mined) == ["b", "c", "d", "e"]
    assert group.floors == {"bm25": -2.0, "dense": -2.0}
    (positive,) = group.positives
    assert (positive.id, positive.leg, positive.rank, positive.scores) == ("a", "bm25", 2, {"bm25": -1.0})
    by_id = {document.id: document for document in group.negatives}
    assert by_id[DocId("c")].scores == {"bm25": -2.0, "dense": -1.0}
    assert (by_id[DocId("d")].leg, by_id[DocId("d")].rank) == ("dense", 1)


def test_legs_take_turns() -> None:
    for seed in range(20):
        options = MiningOptions(negatives=2, seed=seed)
        assert [d.leg for d in mine(QUERIES, QRELS, LEGS, options=options).groups[0].negatives] == ["bm25", "dense"]


def test_depth_and_skip_bound_the_ranks() -> None:
    assert negatives(mine(QUERIES, QRELS, LEGS, options=MiningOptions(depth=1))) == ["b", "d"]
    assert negatives(mine(QUERIES, QRELS, LEGS, options=MiningOptions(skip=1))) == ["c", "e"]


def test_a_querys_draw_depends_on_the_seed_and_on_no_other_query() -> None:
    letters = [chr(97 + i) for i in range(26)]
    other = make_ranking("q2", *letters)
    legs = {"bm25": rankings_by_query([make_ranking("q1", *letters), other])}
    qrels: Qrels = {**QRELS, QueryId("q2"): {DocId("b"): 1}}
    options = MiningOptions(negatives=3, seed=1)
    alone = mine(QUERIES, qrels, legs, options=options).groups[0]
    both = mine([Query(QueryId("q2"), "x"), *QUERIES], qrels, legs, options=options).groups
    assert both[1] == alone
    draws = {tuple(negatives(mine(QUERIES, qrels, legs, options=MiningOptions(negatives=3, seed=s)))) for s in range(9)}
    assert len(draws) > 5


def test_the_margin_denies_what_the_teacher_puts_near_the_lowest_positive() -> None:
    letters = Letters()
    mined = mine(QUERIES, QRELS, LEGS, options=MiningOptions(margin=1.0), teacher=letters, documents=letters)
    assert (negatives(mined), mined.denied) == (["c", "e"], 2)
    assert [document.teacher for document in mined.groups[0].positives] == [5.0]


def test_the_quantile_is_over_all_positives() -> None:
    letters = Letters()
    queries = [*QUERIES, Query(QueryId("q2"), "x")]
    qrels: Qrels = {**QRELS, QueryId("q2"): {DocId("c"): 1}}
    legs = {"bm25": rankings_by_query([make_ranking("q1", "b", "d", "e"), make_ranking("q2", "d", "b", "e")])}
    # Positives score 5 and 1: their median is 3, their lowest 1.
    options = MiningOptions(quantile=0.5)
    mined = mine(queries, qrels, legs, options=options, teacher=letters, documents=letters)
    assert [[d.id for d in group.negatives] for group in mined.groups] == [["e"], ["e"]]
    everything = mine(queries, qrels, legs, options=MiningOptions(quantile=1.0), teacher=letters, documents=letters)
    assert negatives(everything) == ["b", "e"]


def test_queries_left_without_negatives_and_without_judgments_are_counted() -> None:
    queries = [*QUERIES, Query(QueryId("q2"), "x"), Query(QueryId("q3"), "y")]
    qrels: Qrels = {**QRELS, QueryId("q2"): {DocId("c"): 1}, QueryId("q3"): {DocId("c"): 0}}
    mined = mine(queries, qrels, LEGS, options=MiningOptions())
    assert (mined.dropped, mined.unjudged, len(mined.groups)) == (["q2"], 1, 1)
    with pytest.raises(InputError, match="none of 1 queries has both a positive and a negative"):
        mine(queries[1:2], qrels, LEGS, options=MiningOptions())


def test_options_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(UsageError, match="without a teacher"):
        mine(QUERIES, QRELS, LEGS, options=MiningOptions(margin=1.0))
    for bad in ({"negatives": 0}, {"skip": 100}, {"quantile": 1.5}):
        with pytest.raises(UsageError):
            MiningOptions(**bad)
