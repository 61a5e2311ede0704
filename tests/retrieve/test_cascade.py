from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conformance.reranker import RerankerConformance
from tests.conformance.retriever import RetrieverConformance
from tests.retrieve.small import (
    DOCUMENTS,
    QUERIES,
    UNMATCHED,
    FrequencyRetriever,
    OverlapRetriever,
    SharedLetters,
    ShorterFirst,
    Store,
)
from tiercel.errors import ModelError, UsageError
from tiercel.protocols import CandidateGroup, Located, Locates, Reranker, Retriever
from tiercel.retrieve.cascade import Cascade, RerankStep
from tiercel.retrieve.fusion import Fusion, FusionLeg, FusionMethod
from tiercel.types import DocId, Hit, Query, QueryId, Ranking


def two_legs() -> Fusion:
    return Fusion([FusionLeg("o", OverlapRetriever()), FusionLeg("f", FrequencyRetriever())])


def small_cascade(store: Store | None = None) -> Cascade:
    stages = [RerankStep("letters", SharedLetters(), 3, FusionMethod.RRF), RerankStep("short", ShorterFirst())]
    return Cascade(two_legs(), stages, store or Store(), recall_keep=4)


class TestSharedLetters(RerankerConformance):
    @pytest.fixture(params=[SharedLetters, ShorterFirst])
    def reranker(self, request: pytest.FixtureRequest) -> Reranker:
        made: Reranker = request.param()
        return made

    @pytest.fixture
    def groups(self) -> list[CandidateGroup]:
        return [CandidateGroup(query, DOCUMENTS[: position + 1]) for position, query in enumerate(QUERIES)]


class TestRecallOnly(RetrieverConformance):
    @pytest.fixture(params=[OverlapRetriever, FrequencyRetriever, lambda: Cascade(OverlapRetriever(), [], Store())])
    def retriever(self, request: pytest.FixtureRequest) -> Retriever:
        made: Retriever = request.param()
        return made

    @pytest.fixture
    def queries(self) -> list[Query]:
        return QUERIES

    @pytest.fixture
    def unmatched(self) -> Query:
        return UNMATCHED


class TestCascade(RetrieverConformance):
    @pytest.fixture
    def retriever(self) -> Retriever:
        return small_cascade()

    @pytest.fixture
    def queries(self) -> list[Query]:
        return QUERIES

    @pytest.fixture
    def unmatched(self) -> Query:
        return UNMATCHED


def test_by_hand() -> None:
    cascade = Cascade(OverlapRetriever(), [RerankStep("short", ShorterFirst(), 2)], Store(), recall_keep=3)
    (trace,) = cascade.trace([QUERIES[0]], keep=10)
    # "male falcon": d2 has both words; d1, d4, d5 have one, of which d1 and d4 come first by id.
    assert trace.stages[0].ranking.hits == (Hit(DocId("d2"), 2.0), Hit(DocId("d1"), 1.0), Hit(DocId("d4"), 1.0))
    # Lengths: d2 26, d1 24, d4 15 characters; the shortest two stay.
    assert trace.ranking.hits == (Hit(DocId("d4"), -15.0), Hit(DocId("d1"), -24.0))
    assert [stage.name for stage in trace.stages] == ["overlap", "short"]
    assert trace.ranking.stage == "short"


def test_a_fused_step_by_hand() -> None:
    def hits(weight: float) -> tuple[Hit, ...]:
        step = RerankStep("short", ShorterFirst(), 2, FusionMethod.MINMAX, weight)
        (trace,) = Cascade(OverlapRetriever(), [step], Store(), recall_keep=3).trace([QUERIES[0]], keep=10)
        assert trace.ranking.stage == "short"
        return trace.ranking.hits

    # Before it: d2 2, d1 1, d4 1, that is 1, 0, 0. Its own: d2 -26, d1 -24, d4 -15, that is 0, 2/11, 1.
    assert hits(1.0) == (Hit(DocId("d2"), 1.0), Hit(DocId("d4"), 1.0))
    assert hits(2.0) == (Hit(DocId("d4"), 2.0), Hit(DocId("d2"), 1.0))


def test_the_trace_shows_every_stage() -> None:
    for trace in small_cascade().trace(QUERIES, keep=2):
        assert [stage.name for stage in trace.stages] == ["o", "f", "o+f", "letters", "short"]
        assert all(len(stage.ranking.hits) <= n for stage, n in zip(trace.stages, [100, 100, 4, 3, 2], strict=True))
        survivors = [set(stage.ranking.doc_ids) for stage in trace.stages[2:]]
        assert survivors[0] >= survivors[1] >= survivors[2]
        assert all(stage.seconds >= 0 for stage in trace.stages)


def test_seconds_are_those_of_the_batch() -> None:
    traces = small_cascade().trace(QUERIES, keep=2)
    assert len({tuple(stage.seconds for stage in trace.stages) for trace in traces}) == 1


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["falcon", "male", "the", "city", "zeppelin"]), min_size=1, max_size=4), st.integers(1, 6)
)
def test_retrieve_is_the_end_of_the_trace_and_a_batch_is_its_queries(words: list[str], keep: int) -> None:
    queries = [Query(QueryId(str(n)), " ".join(words[n:])) for n in range(len(words))]
    cascade = small_cascade()
    together = cascade.retrieve(queries, keep=keep)
    assert together == [trace.ranking for trace in cascade.trace(queries, keep=keep)]
    assert together == [cascade.retrieve([query], keep=keep)[0] for query in queries]


def test_documents_are_fetched_once_for_the_whole_batch() -> None:
    store = Store()
    traces = small_cascade(store).trace([*QUERIES, UNMATCHED], keep=2)
    (asked,) = store.asked
    assert len(asked) == len(set(asked))
    assert set(asked) == {doc_id for trace in traces for doc_id in trace.stages[2].ranking.doc_ids}


def test_nothing_is_fetched_where_nothing_is_reranked() -> None:
    store = Store()
    Cascade(OverlapRetriever(), [], store).retrieve(QUERIES, keep=2)
    small_cascade(store).retrieve([], keep=2)
    small_cascade(store).retrieve([UNMATCHED], keep=2)
    assert store.asked == []


def test_a_reranker_sees_the_whole_batch_at_once() -> None:
    class Watching(SharedLetters):
        def __init__(self) -> None:
            self.calls: list[list[Query]] = []

        def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
            self.calls.append([group.query for group in groups])
            return super().score(groups)

    watching = Watching()
    Cascade(OverlapRetriever(), [RerankStep("w", watching)], Store()).retrieve(QUERIES, keep=2)
    assert watching.calls == [QUERIES]


def test_a_cascade_can_be_the_recall_of_another() -> None:
    outer = Cascade(small_cascade(), [RerankStep("again", SharedLetters())], Store(), recall_keep=2)
    (trace,) = outer.trace([QUERIES[0]], keep=2)
    assert [stage.name for stage in trace.stages] == ["o", "f", "o+f", "letters", "short", "again"]


def test_fewer_hits_come_back_where_a_stage_keeps_fewer() -> None:
    cascade = Cascade(OverlapRetriever(), [RerankStep("short", ShorterFirst(), 1)], Store())
    assert [len(r.hits) for r in cascade.retrieve(QUERIES, keep=5)] == [1, 1, 1]


def test_the_matched_passage_survives_reranking() -> None:
    class Passages(OverlapRetriever):
        def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
            return [
                Ranking(r.query, tuple(hit._replace(span=(0, 3)) for hit in r.hits), r.stage)
                for r in super().retrieve(queries, keep=keep)
            ]

    cascade = Cascade(Passages(), [RerankStep("short", ShorterFirst())], Store())
    (ranking,) = cascade.retrieve([QUERIES[0]], keep=2)
    assert [hit.span for hit in ranking.hits] == [(0, 3), (0, 3)]


@pytest.mark.parametrize(("matched", "read"), [(True, "the"), (False, DOCUMENTS[0].text)])
def test_a_step_reads_the_passage_that_matched_or_the_document(matched: bool, read: str) -> None:
    class Spans(OverlapRetriever):
        def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
            hits = (Hit(DOCUMENTS[0].id, 1.0, span=(0, 3)),)
            return [Ranking(query, hits, "spans") for query in queries]

    seen: list[str] = []

    class Watching(ShorterFirst):
        def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
            seen.extend(document.text for group in groups for document in group.documents)
            return super().score(groups)

    step = RerankStep("w", Watching(), matched=matched)
    (ranking,) = Cascade(Spans(), [step], Store()).retrieve(QUERIES[:1], keep=1)
    assert (seen, ranking.hits[0].span) == ([read], (0, 3))


@pytest.mark.parametrize(("passages", "spans"), [(False, [(3, 5), (0, 3)]), (True, [(0, 3), (0, 3)])])
def test_where_a_reranker_found_it_is_the_span_unless_passages_are_ranked(
    passages: bool, spans: list[tuple[int, int]]
) -> None:
    """It finds nothing in the second document, whose hit stays as it was."""

    class Passages(OverlapRetriever):
        def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
            rankings = super().retrieve(queries, keep=keep)
            return [
                Ranking(r.query, tuple(hit._replace(span=(0, 3)) for hit in r.hits[:2]), r.stage, passages)
                for r in rankings
            ]

    class Finding(ShorterFirst):
        def locate(self, groups: Sequence[CandidateGroup]) -> list[Located]:
            return [Located(np.array([2.0, 1.0], np.float32), [(3, 5), None]) for _ in groups]

    finding = Finding()
    assert isinstance(finding, Locates)
    cascade = Cascade(Passages(), [RerankStep("finding", finding)], Store())
    (ranking,) = cascade.retrieve(QUERIES[:1], keep=2)
    assert [hit.score for hit in ranking.hits] == [2, 1]
    assert [hit.span for hit in ranking.hits] == spans


def test_asking_for_no_hits_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        small_cascade().retrieve(QUERIES, keep=0)


class Broken:
    """Gives back whatever arrays it was made with."""

    def __init__(self, *arrays: list[float]) -> None:
        self.arrays = [np.array(values, dtype=np.float32) for values in arrays]

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        return self.arrays


@pytest.mark.parametrize(
    ("reranker", "says"),
    [
        (Broken(), r"stage 'cross': the reranker returned 0 arrays of scores; expected 1, one per query"),
        (Broken([1.0]), r"stage 'cross', query 'q1': the reranker returned scores of shape \(1,\); expected \(2,\)"),
        (Broken([1.0, float("nan")]), r"stage 'cross', query 'q1': .* document 'd1' the score nan; expected a finite"),
        (Broken([float("inf"), 1.0]), r"document 'd2' the score inf"),
    ],
)
def test_a_broken_reranker_is_named(reranker: Broken, says: str) -> None:
    cascade = Cascade(OverlapRetriever(), [RerankStep("cross", reranker)], Store(), recall_keep=2)
    with pytest.raises(ModelError, match=says):
        cascade.retrieve([QUERIES[0]], keep=2)


def test_a_recall_that_loses_a_query_is_found_out() -> None:
    class Forgetful(OverlapRetriever):
        def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
            return []

    with pytest.raises(ValueError, match="Forgetful returned 0 rankings for 3 queries"):
        Cascade(Forgetful(), [], Store()).retrieve(QUERIES, keep=2)
