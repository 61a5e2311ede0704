"""A budget, under a clock that goes as the stages say: nothing here waits."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conformance.retriever import RetrieverConformance
from tests.retrieve.small import QUERIES, UNMATCHED, OverlapRetriever, SharedLetters, ShorterFirst, Store
from tiercel.errors import UsageError
from tiercel.protocols import CandidateGroup, Retriever
from tiercel.retrieve.budget import BudgetedCascade, StageCost
from tiercel.retrieve.cascade import Cascade, RerankStep
from tiercel.retrieve.fusion import FusionMethod
from tiercel.types import DocId, Document, Hit, Query, QueryId, Ranking

WORDS = 25
TOKENS = 4 * WORDS / 4
"""Of a document of the long list: as many words of four characters, spaces counted."""


class Time:
    """A clock that stands still until somebody takes time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class LongList:
    """Recall that takes 2 ms and finds the documents 0 to 99, the relevant one at the place that the query names."""

    def __init__(self, clock: Time, seconds: float = 0.002) -> None:
        self.clock, self.seconds = clock, seconds

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        self.clock.now += self.seconds
        return [
            Ranking(query, tuple(Hit(DocId(f"d{n:02}"), float(-n)) for n in range(min(100, keep))), "list")
            for query in queries
        ]

    def get(self, ids: Sequence[DocId]) -> list[Document]:
        return [Document(doc_id, "word" * WORDS) for doc_id in ids]


class Slow:
    """Puts the document that the query names first; takes 1 ms and 20 microseconds a token, more or less."""

    def __init__(self, clock: Time, *, noise: float = 0.0) -> None:
        self.clock, self.noise, self.calls = clock, noise, list[int]()
        self.drawn = random.Random(1)

    def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
        (group,) = groups
        self.calls.append(len(group.documents))
        tokens = sum((len(d.text) + len(group.query.text)) / 4 for d in group.documents)
        self.clock.now += (0.001 + 20e-6 * tokens) * self.drawn.lognormvariate(0, self.noise)
        wanted = group.query.text
        return [np.array([float(d.id == wanted) for d in group.documents], dtype=np.float32)]


def query(place: int = 0) -> Query:
    return Query(QueryId(f"q{place}"), f"d{place:02}")


def budgeted(milliseconds: float, *, noise: float = 0.0, stages: int = 1) -> BudgetedCascade:
    clock = Time()
    steps = [RerankStep(f"slow{n}", Slow(clock, noise=noise), 100 if n + 1 < stages else 10) for n in range(stages)]
    store = LongList(clock)
    made = BudgetedCascade(store, steps, store, budget=milliseconds / 1000, clock=clock)
    made.fit(query(), store.get([DocId(f"d{n:02}") for n in range(12)]))
    return made


# The cost of a stage


def test_a_line_is_found_again() -> None:
    cost = StageCost()
    for tokens in (100, 400, 1200):
        cost.learn(tokens, 0.002 + 1e-5 * tokens, candidates=tokens // 100)
    assert cost.line == pytest.approx((0.002, 1e-5))
    assert cost.tokens_per_candidate == pytest.approx(100)
    assert cost.seconds(3) == pytest.approx(0.005)
    assert cost.seconds(0) == 0
    # 2 ms, and 1 ms for each hundred tokens.
    assert cost.fitting([100, 100, 100], 0.0041) == 2
    assert cost.fitting([100, 100, 100], 0.001) == 0
    assert cost.fitting([100, 100, 100], 1) == 3
    assert cost.fitting([], 1) == 0


def test_calls_of_one_size_make_a_line_through_the_origin() -> None:
    cost = StageCost()
    assert (cost.line, cost.seconds(5)) == ((0, 0), 0)
    for _ in range(3):
        cost.learn(100, 0.01, candidates=1)
    assert cost.line == pytest.approx((0, 1e-4))


@pytest.mark.parametrize("seconds", [(0.01, 0.02, 0.09), (0.09, 0.05, 0.01)])
def test_no_part_of_a_line_is_negative(seconds: Sequence[float]) -> None:
    cost = StageCost()
    for tokens, value in zip((100, 200, 300), seconds, strict=True):
        cost.learn(tokens, value, candidates=1)
    overhead, rate = cost.line
    assert overhead >= 0
    assert rate > 0


def test_a_machine_that_slows_down_is_noticed() -> None:
    cost = StageCost()
    for factor in [1] * 20 + [3] * 200:
        for tokens in (100, 500):
            cost.learn(tokens, factor * 1e-5 * tokens, candidates=1)
    assert cost.line[1] == pytest.approx(3e-5, rel=0.05)


# The cascade


class TestBudgeted(RetrieverConformance):
    @pytest.fixture
    def retriever(self) -> Retriever:
        steps = [RerankStep("letters", SharedLetters(), 3, FusionMethod.RRF), RerankStep("short", ShorterFirst())]
        return BudgetedCascade(OverlapRetriever(), steps, Store(), budget=60.0, recall_keep=4)

    @pytest.fixture
    def queries(self) -> list[Query]:
        return QUERIES

    @pytest.fixture
    def unmatched(self) -> Query:
        return UNMATCHED


def test_time_enough_is_the_cascade_itself() -> None:
    steps = [RerankStep("letters", SharedLetters(), 3), RerankStep("short", ShorterFirst())]
    plain = Cascade(OverlapRetriever(), steps, Store(), recall_keep=4)
    made = BudgetedCascade(OverlapRetriever(), steps, Store(), budget=60.0, recall_keep=4)
    for ours, theirs in zip(made.trace(QUERIES, keep=2), plain.trace(QUERIES, keep=2), strict=True):
        assert [(s.name, s.ranking, s.skipped) for s in ours.stages] == [(s.name, s.ranking, 0) for s in theirs.stages]


def test_what_is_not_scored_stays_in_its_order_below() -> None:
    made = budgeted(20)
    (trace,) = made.trace([query(3)], keep=10)
    (skipped,) = made.spent[QueryId("q3")].skipped
    # 20 ms less a twentieth and 2 of recall leave 17; a document takes half a millisecond and a call 1: at most 32.
    assert 68 < skipped < 90
    assert trace.stages[-1].skipped == skipped
    assert trace.ranking.doc_ids == ["d03", "d00", "d01", "d02", *[f"d{n:02}" for n in range(4, 10)]]
    (short,) = budgeted(8).retrieve([query(3)], keep=10)
    assert len(short.hits) == 10
    (longer,) = budgeted(20).retrieve([query(3)], keep=100)
    assert len(longer.hits) == 10  # the stage keeps ten


def test_in_a_fusion_what_is_not_scored_has_its_old_share_alone() -> None:
    clock = Time()
    store = LongList(clock)
    step = RerankStep("slow", Slow(clock), 100, FusionMethod.RRF)
    made = BudgetedCascade(store, [step], store, budget=0.008, clock=clock)
    made.fit(query(), store.get([DocId(f"d{n:02}") for n in range(12)]))
    (trace,) = made.trace([query(0)], keep=100)
    scored = 100 - trace.stages[-1].skipped
    assert 0 < scored < 20
    scores = {hit.doc_id: hit.score for hit in trace.ranking.hits}
    assert scores[DocId("d00")] == pytest.approx(2 / 61)
    assert scores[DocId("d99")] == pytest.approx(1 / 160)


def test_no_time_at_all_is_recall_cut_to_what_is_kept() -> None:
    made = budgeted(1)
    (trace,) = made.trace([query(50)], keep=10)
    assert [stage.name for stage in trace.stages] == ["list", "slow0"]
    assert trace.ranking.doc_ids == [f"d{n:02}" for n in range(10)]
    assert made.spent[QueryId("q50")].skipped == (100,)
    assert made.told()[0].startswith("budget of 1 ms: 1 of 1 queries took longer, the longest 2.0 ms")


def test_stages_share_what_there_is() -> None:
    made = budgeted(30, stages=2)
    (trace,) = made.trace([query(5)], keep=10)
    first, second = made.spent[QueryId("q5")].scored
    assert first > 5
    assert second > 5
    assert trace.ranking.doc_ids[0] == "d05"
    assert made.facts(QueryId("q5")) == {
        "budget_ms": 30,
        "took_ms": pytest.approx(1000 * made.spent[QueryId("q5")].seconds),
        "skipped": [{"stage": "slow0", "candidates": 100 - first}, {"stage": "slow1", "candidates": 100 - second}],
    }


@pytest.mark.parametrize("milliseconds", [8, 20, 40, 80])
@pytest.mark.parametrize("stages", [1, 2])
def test_nearly_all_queries_end_within_a_tenth_more(milliseconds: float, stages: int) -> None:
    made = budgeted(milliseconds, noise=0.3, stages=stages)
    queries = [Query(QueryId(str(n)), f"d{n % 100:02}") for n in range(500)]
    made.retrieve(queries, keep=10)
    took = sorted(spent.seconds for spent in made.spent.values())
    assert took[474] <= 1.1 * milliseconds / 1000


def test_more_time_is_no_worse() -> None:
    queries = [query(place) for place in range(100)]
    found = []
    for milliseconds in (4, 8, 16, 32, 64, 128, 256):
        rankings = budgeted(milliseconds, noise=0.1).retrieve(queries, keep=10)
        found.append(sum(ranking.doc_ids[0] == ranking.query.text for ranking in rankings))
    assert found == sorted(found)
    assert found[0] < 10
    assert found[-1] == 100


@pytest.mark.parametrize("budget", [0.0, -1.0, float("inf"), float("nan")])
def test_a_budget_that_is_none(budget: float) -> None:
    with pytest.raises(UsageError, match="a budget of"):
        BudgetedCascade(OverlapRetriever(), [RerankStep("short", ShorterFirst())], Store(), budget=budget)


def test_nothing_to_spend_it_on() -> None:
    with pytest.raises(UsageError, match="without a stage that reranks"):
        BudgetedCascade(OverlapRetriever(), [], Store(), budget=1)
