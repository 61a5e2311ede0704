from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.retriever import RetrieverConformance
from tests.retrieve.small import QUERIES, UNMATCHED, FrequencyRetriever, OverlapRetriever, ranking
from tiercel.errors import UsageError
from tiercel.protocols import Retriever
from tiercel.retrieve.fusion import (
    LEG_DEPTH,
    Fusion,
    FusionLeg,
    FusionMethod,
    fuse_runs,
    interleaving,
    minmax_fusion,
    reciprocal_rank_fusion,
    weighted_sum,
)
from tiercel.types import DocId, Hit, Query, QueryId, Ranking

Q = Query(QueryId("q"), "anything")

Fuse = Callable[..., Ranking]


@st.composite
def rankings(draw: st.DrawFn) -> Ranking:
    scores = draw(st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-1e6, 1e6), max_size=8))
    ids = [DocId(name) for name in scores]
    return Ranking.from_scores(Q, ids, scores.values(), stage="leg", keep=8)


def as_dict(fused: Ranking) -> dict[str, float]:
    return {str(hit.doc_id): hit.score for hit in fused.hits}


def test_rrf_by_hand() -> None:
    one = ranking(Q, ("a", 9.0), ("b", 8.0))
    two = ranking(Q, ("b", 0.5), ("c", 0.1))
    fused = reciprocal_rank_fusion([one, two], keep=10)
    # b: 1/62 + 1/61 = 0.0325; a: 1/61 = 0.0164; c: 1/62 = 0.0161. The scores of the legs do not matter.
    assert fused.doc_ids == ["b", "a", "c"]
    assert as_dict(fused) == pytest.approx({"a": 1 / 61, "b": 1 / 61 + 1 / 62, "c": 1 / 62}, rel=1e-15)
    assert fused.stage == "rrf"


def test_rrf_weights_multiply_the_terms() -> None:
    one = ranking(Q, ("a", 9.0), ("b", 8.0))
    two = ranking(Q, ("b", 0.5), ("c", 0.1))
    fused = reciprocal_rank_fusion([one, two], weights=[2, 0.5], keep=2, stage="bm25+dense")
    # b: 2/62 + 0.5/61 = 0.0405; a: 2/61 = 0.0328; c: 0.5/62 = 0.0081, cut.
    assert as_dict(fused) == pytest.approx({"b": 2 / 62 + 0.5 / 61, "a": 2 / 61}, rel=1e-15)
    assert fused.stage == "bm25+dense"


def test_minmax_by_hand() -> None:
    one = ranking(Q, ("a", 12.0), ("b", 6.0), ("c", 2.0))
    two = ranking(Q, ("b", -1.0), ("d", -3.0))
    fused = minmax_fusion([one, two], weights=[0.3, 0.7], keep=10)
    # one: a 1, b (6-2)/10 = 0.4, c 0; two: b 1, d 0.
    # a 0.3; b 0.3 * 0.4 + 0.7 = 0.82; c 0; d 0: the tie goes to c, whose id is smaller.
    assert fused.doc_ids == ["b", "a", "c", "d"]
    assert as_dict(fused) == pytest.approx({"a": 0.3, "b": 0.82, "c": 0, "d": 0})


def test_minmax_of_one_hit_and_of_equal_scores_is_one() -> None:
    one = ranking(Q, ("a", 5.0))
    two = ranking(Q, ("b", -2.0), ("c", -2.0))
    assert as_dict(minmax_fusion([one, two], keep=10)) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_another_constant_of_rrf() -> None:
    one, two = ranking(Q, ("a", 9.0), ("b", 8.0)), ranking(Q, ("b", 0.5))
    assert as_dict(reciprocal_rank_fusion([one, two], keep=10, k=1)) == pytest.approx({"a": 1 / 2, "b": 1 / 3 + 1 / 2})


def test_a_weighted_sum_by_hand() -> None:
    one, two = ranking(Q, ("a", 3.0), ("b", 1.0)), ranking(Q, ("c", 2.0), ("b", -1.0))
    fused = weighted_sum([one, two], weights=[0.5, 2], keep=10)
    assert fused.hits == (Hit(DocId("c"), 4.0), Hit(DocId("a"), 1.5), Hit(DocId("b"), -1.5))


def test_interleaving_by_hand() -> None:
    one = ranking(Q, ("c", 3.0), ("b", 2.0), ("a", 1.0))
    two = ranking(Q, ("b", 9.0), ("d", 8.0))
    # c; b; b again, d; a.
    fused = interleaving([one, two], keep=10)
    assert fused.hits == (Hit(DocId("c"), 1), Hit(DocId("b"), 1 / 2), Hit(DocId("d"), 1 / 3), Hit(DocId("a"), 1 / 4))
    assert interleaving([two, one], keep=2).doc_ids == ["b", "c"]
    with pytest.raises(ValueError, match="interleaving takes no weights"):
        interleaving([one, two], weights=[1, 2], keep=10)
    with pytest.raises(UsageError, match="interleaving with weights"):
        Fusion(
            [FusionLeg("a", OverlapRetriever(), 2), FusionLeg("b", OverlapRetriever())], method=FusionMethod.INTERLEAVE
        )


@settings(deadline=None)
@given(one=rankings(), two=rankings(), top=st.integers(0, 8))
def test_twice_as_many_interleaved_hold_the_first_of_both(one: Ranking, two: Ranking, top: int) -> None:
    merged = interleaving([one, two], keep=100).doc_ids
    assert set(one.doc_ids[:top]) | set(two.doc_ids[:top]) <= set(merged[: 2 * top])
    assert len(merged) == len(set(one.doc_ids) | set(two.doc_ids))
    assert interleaving([one, one], keep=100).doc_ids == one.doc_ids


def test_runs_are_fused_query_by_query() -> None:
    other = Query(QueryId("r"), "other")
    one = [ranking(Query(Q.id, ""), ("a", 2.0)), ranking(other, ("x", 1.0))]
    two = [ranking(Q, ("b", 2.0), ("a", 1.0))]
    fused = list(fuse_runs([one, two], weighted_sum, keep=10, weights=[1, 3]))
    assert [r.query for r in fused] == [Q, other]
    assert [as_dict(r) for r in fused] == [{"b": 6, "a": 5}, {"x": 1}]


@pytest.mark.parametrize("fuse", [reciprocal_rank_fusion, minmax_fusion, weighted_sum])
class TestBothMethods:
    def test_empty_legs_add_nothing(self, fuse: Fuse) -> None:
        empty = ranking(Q)
        full = ranking(Q, ("a", 2.0), ("b", 1.0))
        assert fuse([empty, full, empty], keep=10) == fuse([full], keep=10)
        assert fuse([empty, empty], keep=10).hits == ()

    @settings(deadline=None)
    @given(legs=st.lists(rankings(), min_size=1, max_size=5), dice=st.randoms(use_true_random=False))
    def test_the_order_of_the_legs_does_not_show(self, fuse: Fuse, legs: list[Ranking], dice: random.Random) -> None:
        weighted = [(leg, 0.1 * (position + 1)) for position, leg in enumerate(legs)]
        shuffled = weighted[:]
        dice.shuffle(shuffled)
        first = fuse([leg for leg, _ in weighted], weights=[w for _, w in weighted], keep=5)
        second = fuse([leg for leg, _ in shuffled], weights=[w for _, w in shuffled], keep=5)
        assert first == second

    @settings(deadline=None)
    @given(legs=st.lists(rankings(), min_size=2, max_size=4))
    def test_a_leg_of_weight_nothing_changes_no_score(self, fuse: Fuse, legs: list[Ranking]) -> None:
        weights = [1.0] * (len(legs) - 1)
        without = as_dict(fuse(legs[:-1], weights=weights, keep=100))
        fused = as_dict(fuse(legs, weights=[*weights, 0.0], keep=100))
        assert {name: fused[name] for name in without} == without
        assert all(score == 0 for name, score in fused.items() if name not in without)

    @settings(deadline=None)
    @given(legs=st.lists(rankings(), min_size=1, max_size=4), keep=st.integers(1, 8))
    def test_a_smaller_keep_is_a_prefix(self, fuse: Fuse, legs: list[Ranking], keep: int) -> None:
        assert fuse(legs, keep=keep).hits == fuse(legs, keep=100).hits[:keep]

    def test_no_legs_and_mixed_queries_are_refused(self, fuse: Fuse) -> None:
        with pytest.raises(ValueError, match="0 rankings of 0 queries"):
            fuse([], keep=10)
        with pytest.raises(ValueError, match="2 rankings of 2 queries"):
            fuse([ranking(QUERIES[0]), ranking(QUERIES[1])], keep=10)
        with pytest.raises(ValueError, match="shorter"):
            fuse([ranking(Q), ranking(Q)], weights=[1.0], keep=10)

    @pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
    def test_weights_that_are_no_weights_are_refused(self, fuse: Fuse, weight: float) -> None:
        with pytest.raises(ValueError, match=f"the weights \\[1.0, {weight}\\] are not all finite and at least 0"):
            fuse([ranking(Q), ranking(Q)], weights=[1.0, weight], keep=10)

    def test_the_first_passage_found_is_kept(self, fuse: Fuse) -> None:
        one = Ranking(Q, (Hit(DocId("a"), 2.0), Hit(DocId("b"), 1.0, (5, 9))), "bm25")
        two = Ranking(Q, (Hit(DocId("b"), 2.0, (0, 3)), Hit(DocId("c"), 1.0, (1, 2))), "dense")
        spans = {hit.doc_id: hit.span for hit in fuse([one, two], keep=10).hits}
        assert spans == {"a": None, "b": (5, 9), "c": (1, 2)}


@settings(deadline=None)
@given(legs=st.lists(rankings(), min_size=1, max_size=4))
def test_rrf_equals_the_naive_sum(legs: list[Ranking]) -> None:
    naive: dict[str, Fraction] = {}
    for leg in legs:
        for position, doc_id in enumerate(leg.doc_ids):
            naive[doc_id] = naive.get(doc_id, Fraction(0)) + Fraction(1, 60 + position + 1)
    fused = as_dict(reciprocal_rank_fusion(legs, keep=100))
    assert fused.keys() == naive.keys()
    for name, score in fused.items():
        assert math.isclose(score, naive[name], rel_tol=1e-15)


class CountingLeg(OverlapRetriever):
    """Remembers how deep it was asked."""

    def __init__(self) -> None:
        self.depths: list[int] = []

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        self.depths.append(keep)
        return super().retrieve(queries, keep=keep)


class TestFusion(RetrieverConformance):
    @pytest.fixture(params=FusionMethod)
    def retriever(self, request: pytest.FixtureRequest) -> Retriever:
        weights = (1, 1) if request.param is FusionMethod.INTERLEAVE else (0.3, 0.7)
        pairs = zip(("overlap", "frequency"), (OverlapRetriever(), FrequencyRetriever()), weights, strict=True)
        return Fusion([FusionLeg(*pair) for pair in pairs], method=request.param)

    @pytest.fixture
    def queries(self) -> list[Query]:
        return QUERIES

    @pytest.fixture
    def unmatched(self) -> Query:
        return UNMATCHED


class TestFusionOfOneLeg(RetrieverConformance):
    @pytest.fixture
    def retriever(self) -> Retriever:
        return Fusion([FusionLeg("only", OverlapRetriever())])

    @pytest.fixture
    def queries(self) -> list[Query]:
        return QUERIES

    @pytest.fixture
    def unmatched(self) -> Query:
        return UNMATCHED


def test_a_fusion_fuses_what_its_legs_return() -> None:
    overlap, frequency = OverlapRetriever(), FrequencyRetriever()
    fusion = Fusion([FusionLeg("o", overlap, 2.0), FusionLeg("f", frequency)], name="both")
    for query, fused in zip(QUERIES, fusion.retrieve(QUERIES, keep=3), strict=True):
        lists = [leg.retrieve([query], keep=100)[0] for leg in (overlap, frequency)]
        assert fused == minmax_fusion(lists, weights=[2.0, 1.0], keep=3, stage="both")


def test_legs_are_asked_deeper_than_what_is_kept() -> None:
    one, two = CountingLeg(), CountingLeg()
    fusion = Fusion([FusionLeg("one", one), FusionLeg("two", two)])
    fusion.retrieve(QUERIES, keep=10)
    fusion.retrieve(QUERIES, keep=LEG_DEPTH + 50)
    assert one.depths == two.depths == [100, 150]


def test_the_trace_shows_every_leg_and_then_the_fused_list() -> None:
    fusion = Fusion([FusionLeg("o", OverlapRetriever()), FusionLeg("f", FrequencyRetriever())])
    traces = fusion.trace(QUERIES, keep=2)
    for query, trace in zip(QUERIES, traces, strict=True):
        assert trace.query == query
        assert [stage.name for stage in trace.stages] == ["o", "f", "o+f"]
        assert trace.stages[0].ranking == OverlapRetriever().retrieve([query], keep=100)[0]
        assert all(stage.seconds >= 0 for stage in trace.stages)
    assert [trace.ranking for trace in traces] == fusion.retrieve(QUERIES, keep=2)


def test_a_single_leg_is_passed_on_as_it_is() -> None:
    leg = CountingLeg()
    traces = Fusion([FusionLeg("only", leg)]).trace(QUERIES, keep=2)
    assert [[stage.name for stage in trace.stages] for trace in traces] == [["only"]] * 3
    assert [trace.ranking for trace in traces] == OverlapRetriever().retrieve(QUERIES, keep=2)
    assert leg.depths == [2]


def test_legs_that_cannot_be_meant_are_refused() -> None:
    leg = OverlapRetriever()
    with pytest.raises(UsageError, match="a fusion without legs"):
        Fusion([])
    with pytest.raises(UsageError, match="legs called a, a; expected each name once"):
        Fusion([FusionLeg("a", leg), FusionLeg("a", leg)])
    with pytest.raises(UsageError, match="leg 'a' has the weight 0; expected a number above 0"):
        Fusion([FusionLeg("a", leg, 0), FusionLeg("b", leg)])


def test_a_leg_that_loses_a_query_is_found_out() -> None:
    class Forgetful(OverlapRetriever):
        def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
            return super().retrieve(queries, keep=keep)[1:]

    fusion = Fusion([FusionLeg("a", OverlapRetriever()), FusionLeg("b", Forgetful())])
    with pytest.raises(ValueError, match="Forgetful returned 2 rankings for 3 queries"):
        fusion.retrieve(QUERIES, keep=3)
