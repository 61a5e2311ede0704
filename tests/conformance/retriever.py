"""What every Retriever promises. Inherit `RetrieverConformance` in a test class and override its fixtures."""

from __future__ import annotations

import pytest

from tiercel.protocols import Retriever
from tiercel.types import Query, Ranking


class RetrieverConformance:
    """Override `retriever`, `queries` and, for a retriever that can find nothing, `unmatched`.

    `score_tolerance` is how far scores may differ between a batch and a query alone; 0 asks for equal Rankings. With
    a tolerance, documents may swap places only where their scores are that close.
    """

    score_tolerance = 0.0

    @pytest.fixture
    def retriever(self) -> Retriever:
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def queries(self) -> list[Query]:
        """At least three queries with different ids, each matching at least two documents."""
        raise NotImplementedError("override this fixture")

    @pytest.fixture
    def unmatched(self) -> Query | None:
        """A query that matches no document; None for a retriever that ranks every document for every query."""
        return None

    def test_no_queries_give_no_rankings(self, retriever: Retriever) -> None:
        assert retriever.retrieve([], keep=10) == []

    def test_one_ranking_per_query_in_input_order(self, retriever: Retriever, queries: list[Query]) -> None:
        assert [r.query for r in retriever.retrieve(queries, keep=10)] == queries
        assert [r.query for r in retriever.retrieve(queries[::-1], keep=10)] == queries[::-1]

    def test_queries_match(self, retriever: Retriever, queries: list[Query]) -> None:
        assert len(queries) >= 3
        assert all(len(ranking.hits) >= 2 for ranking in retriever.retrieve(queries, keep=10))

    def test_no_match_is_an_empty_ranking(
        self, retriever: Retriever, queries: list[Query], unmatched: Query | None
    ) -> None:
        if unmatched is None:
            pytest.skip("this retriever ranks every document")
        before, empty, after = retriever.retrieve([queries[0], unmatched, queries[1]], keep=10)
        assert (empty.query, empty.hits) == (unmatched, ())
        assert before.hits
        assert after.hits

    @pytest.mark.parametrize("keep", [1, 2, 1000])
    def test_keep_is_respected(self, retriever: Retriever, queries: list[Query], keep: int) -> None:
        for ranking in retriever.retrieve(queries, keep=keep):
            assert 1 <= len(ranking.hits) <= keep

    def test_hits_are_in_order_and_each_document_once(self, retriever: Retriever, queries: list[Query]) -> None:
        for ranking in retriever.retrieve(queries, keep=1000):
            keys = [(-hit.score, hit.doc_id) for hit in ranking.hits]
            assert keys == sorted(keys)
            assert len(set(ranking.doc_ids)) == len(ranking.hits)

    def test_stage_has_a_name(self, retriever: Retriever, queries: list[Query]) -> None:
        assert all(ranking.stage for ranking in retriever.retrieve(queries, keep=2))

    def test_same_query_twice_gives_the_same(self, retriever: Retriever, queries: list[Query]) -> None:
        for first, second in zip(
            retriever.retrieve(queries, keep=10), retriever.retrieve(queries, keep=10), strict=True
        ):
            self.check_same(first, second)

    def test_batch_equals_alone(self, retriever: Retriever, queries: list[Query]) -> None:
        for query, ranking in zip(queries, retriever.retrieve(queries, keep=10), strict=True):
            (alone,) = retriever.retrieve([query], keep=10)
            self.check_same(alone, ranking)

    def test_batch_order_does_not_matter(self, retriever: Retriever, queries: list[Query]) -> None:
        forward = retriever.retrieve(queries, keep=10)
        backward = retriever.retrieve(queries[::-1], keep=10)
        for first, second in zip(forward, backward[::-1], strict=True):
            self.check_same(first, second)

    def check_same(self, first: Ranking, second: Ranking) -> None:
        if self.score_tolerance == 0:
            assert first == second
            return
        assert first.query == second.query
        # Rank by rank the scores agree; a document that changed place did so among scores within the tolerance.
        assert [hit.score for hit in first.hits] == pytest.approx(
            [hit.score for hit in second.hits], abs=self.score_tolerance
        )
        scores = {hit.doc_id: hit.score for hit in second.hits}
        for hit in first.hits:
            if hit.doc_id in scores:
                assert hit.score == pytest.approx(scores[hit.doc_id], abs=self.score_tolerance)
            else:
                assert hit.score == pytest.approx(second.hits[-1].score, abs=self.score_tolerance)
