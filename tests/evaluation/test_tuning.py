from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.index.made import HashedWords, asked, indexed, named, zipf_texts
from tiercel.errors import InputError
from tiercel.evaluation.latency import Latency
from tiercel.evaluation.measures import evaluate, parse_measures
from tiercel.evaluation.tuning import Gain, Search, Trial, Tuned, pareto_front, tune
from tiercel.index.bm25 import BM25
from tiercel.index.lexical import LexicalRetriever, parameters_of
from tiercel.protocols import Retriever
from tiercel.retrieve.fusion import Fusion, FusionLeg
from tiercel.retrieve.spec import PipelineSpec, parse
from tiercel.types import DocId, Hit, Qrels, Query, QueryId, Ranking

RR = parse_measures(["RR@10"])


def latency(p50: float) -> Latency:
    return Latency(p50, p50, p50, 1)


def trial(text: str, quality: float, p50: float) -> Trial:
    query = Query(QueryId("q"), "")
    hits = [DocId(f"x{n}") for n in range(round(1 / quality) - 1)] + [DocId("d")]
    ranking = Ranking.from_scores(query, hits, [-n for n in range(len(hits))], stage="s", keep=10)
    return Trial(parse(text), evaluate([ranking], {query.id: {DocId("d"): 1}}, RR), latency(p50))


class Placed:
    """Finds the one relevant document of every query at a place, and writes down who was asked."""

    def __init__(self, place: int, seen: list[QueryId]) -> None:
        self.place, self.seen = place, seen

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        self.seen += [query.id for query in queries]
        names = [f"x{n}" for n in range(self.place)] + ["d"]
        return [Ranking(query, tuple(Hit(DocId(name), -n) for n, name in enumerate(names)), "s") for query in queries]


def placed(best: str) -> tuple[list[tuple[str, list[QueryId]]], object]:
    """Wires pipelines of which one puts the relevant document first, all others second."""
    calls: list[tuple[str, list[QueryId]]] = []

    def make(specs: Sequence[PipelineSpec]) -> list[Retriever]:
        made: list[Retriever] = []
        for spec in specs:
            calls.append((str(spec), []))
            made.append(Placed(0 if str(spec) == best else 1, calls[-1][1]))
        return made

    return calls, make


def judged(count: int) -> tuple[list[Query], Qrels]:
    queries = asked(*["w"] * count)
    return queries, {query.id: {DocId("d"): 1} for query in queries}


def tuned(text: str, best: str, *, search: Search | None = None) -> tuple[Tuned, list[tuple[str, list[QueryId]]]]:
    calls, make = placed(best)
    queries, qrels = judged(20)
    found = tune(parse(text), make, queries, qrels, measures=RR, search=search or Search(10))  # type: ignore[arg-type]
    return found, calls


def test_the_front_by_hand() -> None:
    trials = [
        trial("bm25", 1 / 3, 1),
        trial("dense", 1 / 4, 2),
        trial("bm25+dense", 1 / 2, 3),
        trial("bm25,cross", 1, 9),
    ]
    slower = trial("dense,cross", 1, 10)
    assert pareto_front([slower, *reversed(trials)]) == [trials[0], trials[2], trials[3]]
    assert pareto_front([]) == []


@pytest.mark.parametrize(
    ("given", "best"),
    [
        ("bm25", "bm25:k1=1.2:b=0.6"),
        ("bm25+dense", "bm25+4dense"),
        ("bm25+dense", "dense"),
        ("bm25@100,cross@10", "bm25@20,cross@10"),
        ("bm25@100,cross@10", "bm25@100,minmax:2cross@10"),
        ("bm25+dense", "bm25+dense"),
    ],
)
def test_the_best_is_found_and_told_of_the_other_half(given: str, best: str) -> None:
    found, _ = tuned(given, best)
    assert str(found.winner.spec) == best
    assert (found.winner.quality, str(found.given.spec)) == (1.0, given)
    assert found.winner.result.queries == 10
    assert found.training_queries == 10
    assert found.is_better(None) == (best != given)
    if given == best:
        assert found.gain is None
    else:
        assert found.gain is not None
        assert found.gain.difference == pytest.approx(0.5)


def test_no_figure_is_of_a_query_that_was_tuned_on() -> None:
    found, calls = tuned("bm25", "bm25:k1=1.2:b=0.6")
    reported = set(found.winner.result.per_query["RR@10"])
    training = {query_id for _, seen in calls[: found.tried] for query_id in seen}
    assert len(training) == len(reported) == 10
    assert not training & reported
    held_out = {query_id for _, seen in calls[found.tried :] for query_id in seen}
    assert held_out == reported
    again, _ = tuned("bm25", "bm25:k1=1.2:b=0.6")
    assert set(again.winner.result.per_query["RR@10"]) == reported
    other, _ = tuned("bm25", "bm25:k1=1.2:b=0.6", search=Search(10, seed=2))
    assert set(other.winner.result.per_query["RR@10"]) != reported


def test_recall_is_tuned_without_the_stages_after_it() -> None:
    _, calls = tuned("bm25@100,cross@10", "bm25@20,cross@10")
    with_stage = [name for name, _ in calls if "cross" in name]
    assert "bm25:k1=0.6:b=0.2@100" in dict(calls)
    assert "bm25:k1=0.6:b=0.2@100,cross@10" not in with_stage


def test_a_latency_that_nothing_keeps_to_takes_the_fastest() -> None:
    found, calls = tuned("bm25", "bm25:k1=1.2:b=0.6", search=Search(10, latency_ms=1e-9))
    assert str(found.winner.spec) in dict(calls)
    assert not found.is_better(1e-9) or found.winner.quality == 1


def test_when_a_winner_is_worth_a_name() -> None:
    worse = Gain(-0.5, (-0.6, -0.4), 0.01)
    found = Tuned(trial("bm25,cross", 1, 9), trial("bm25", 1 / 2, 1), (), worse, 2, 1)
    # What was given takes 9 ms, the winner 1: worth it where it has to be 5.
    assert [found.is_better(limit) for limit in (None, 20, 5, 0.5)] == [False, False, True, False]
    assert replace(found, gain=replace(worse, difference=0.1)).is_better(None)
    assert not replace(found, gain=None).is_better(5)


def test_too_few_queries() -> None:
    queries, qrels = judged(9)
    _, make = placed("bm25")
    with pytest.raises(InputError, match="9 judged queries; expected at least 10"):
        tune(parse("bm25"), make, queries, qrels, measures=RR, search=Search(10))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no id is in both"):
        tune(parse("bm25"), make, queries, {QueryId("x"): {DocId("d"): 1}}, measures=RR, search=Search(10))  # type: ignore[arg-type]


def test_random_labels_show_no_gain(tmp_path: Path) -> None:
    encoder = HashedWords()
    index = indexed(tmp_path / "i", named(zipf_texts(200, words=100, seed=1)), encoder=encoder)

    def make(specs: Sequence[PipelineSpec]) -> list[Retriever]:
        from tiercel.index.dense import DenseRetriever

        legs = {
            leg: DenseRetriever(index.views, encoder)
            if leg.name == "dense"
            else LexicalRetriever(index.views, index.analyzer, parameters=parameters_of(leg.model, BM25()))
            for spec in specs
            for leg in spec.recall.legs
        }
        return [
            Fusion([FusionLeg(str(leg), legs[leg], leg.weight) for leg in spec.recall.legs], method=spec.recall.fusion)
            for spec in specs
        ]

    queries = asked(*zipf_texts(120, words=100, seed=2, longest=5))
    gains = []
    for seed in range(3):
        drawn = random.Random(seed)
        qrels = {query.id: {DocId(f"d{drawn.randrange(200):05}"): 1} for query in queries}
        measures = parse_measures(["R@10"])
        found = tune(parse("bm25+dense"), make, queries, qrels, measures=measures, search=Search(10, seed=seed))
        gains.append(0.0 if found.gain is None else found.gain.difference)
        if found.gain is not None:
            low, _ = found.gain.interval
            assert low <= 0.01
    assert abs(sum(gains) / 3) < 0.03
