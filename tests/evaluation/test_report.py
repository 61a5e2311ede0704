from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.retrieve.small import QUERIES, UNMATCHED, FrequencyRetriever, OverlapRetriever, ShorterFirst, Store
from tiercel.errors import InputError, UsageError
from tiercel.evaluation.measures import evaluate, parse_measures
from tiercel.evaluation.observing import QUERIES_PER_BATCH
from tiercel.evaluation.report import evaluate_pipeline, stage_columns, stage_rows
from tiercel.protocols import CandidateGroup
from tiercel.retrieve.cascade import Cascade, RerankStep
from tiercel.retrieve.fusion import Fusion, FusionLeg
from tiercel.retrieve.trace import ReadCount, Trace
from tiercel.types import DocId, Query, QueryId

QRELS = {
    QueryId("q1"): {DocId("d2"): 1},
    QueryId("q2"): {DocId("d3"): 2, DocId("d1"): 1},
    QueryId("q7"): {DocId("d1"): 1},
}
MEASURES = parse_measures(["RR@2", "R@2", "Judged@2"])


def pipeline() -> Cascade:
    legs = Fusion([FusionLeg("o", OverlapRetriever()), FusionLeg("f", FrequencyRetriever())])
    return Cascade(legs, [RerankStep("short", ShorterFirst(), 2)], Store(), recall_keep=4)


def test_one_row_per_stage() -> None:
    report = evaluate_pipeline(pipeline(), QUERIES, qrels=QRELS, measures=MEASURES, keep=5)
    assert [row.stage for row in report.rows] == ["o", "f", "o+f", "short"]
    assert [row.result.queries for row in report.rows] == [3, 3, 3, 3]
    assert report.unjudged_queries == 1
    # q1 "male falcon" matches d1 d2 d4 d5; q2 "pigeons in the city" matches d1 d3 d4: (4 + 3) / 2 per leg,
    # of which the fused list keeps at most four and the last stage two.
    assert [row.hits_per_query for row in report.rows] == [3.5, 3.5, 3.5, 2.0]


def test_by_hand() -> None:
    report = evaluate_pipeline(pipeline(), QUERIES, qrels=QRELS, measures=MEASURES, keep=5)
    # Overlap alone: q1 d2 first; q2 "d3" has all four words, then d1 with two: RR 1, 1; q7 is not asked: 0.
    assert report.rows[0].result.means["RR@2"] == pytest.approx(2 / 3)
    assert report.rows[0].result.means["R@2"] == pytest.approx(2 / 3)
    # The shortest of q1 are d4 (15 characters) and d5 (20): d2 is lost. Of q2: d4, then d1 (24): RR 1/2, R 1/2.
    assert report.rows[-1].result.means["RR@2"] == pytest.approx(1 / 2 / 3)
    assert report.rows[-1].result.means["R@2"] == pytest.approx(1 / 2 / 3)


def test_the_last_row_is_what_the_pipeline_retrieves() -> None:
    report = evaluate_pipeline(pipeline(), QUERIES, qrels=QRELS, measures=MEASURES, keep=5)
    alone = evaluate(pipeline().retrieve(QUERIES, keep=5), QRELS, MEASURES)
    assert report.rows[-1].result.per_query == alone.per_query
    assert report.rows[-1].result.means == alone.means


def test_the_report_as_json() -> None:
    report = evaluate_pipeline(pipeline(), [*QUERIES, UNMATCHED], qrels=QRELS, measures=MEASURES, keep=5)
    values = json.loads(json.dumps(report.to_json()))
    assert [stage["stage"] for stage in values["stages"]] == ["o", "f", "o+f", "short"]
    assert set(values["stages"][0]) == {
        "stage", "measures", "hits_per_query", "seconds", "ceiling", "queries_per_second", "latency", "tokens",
        "truncated",
    }  # fmt: skip
    assert values["stages"][0]["latency"]["count"] == 2
    assert (values["stages"][3]["tokens"], values["stages"][3]["truncated"]) == (None, None)
    assert set(values["stages"][0]["measures"]) == {"RR@2", "R@2", "Judged@2"}
    assert set(values["latency"]) == {"p50_ms", "p95_ms", "p99_ms", "count"}
    assert values["latency"]["count"] == 2
    assert values["keep"] == 5
    assert (values["queries"], values["missing_queries"], values["unjudged_queries"]) == (3, 1, 2)
    assert values["providers"] == {"RR@2": "msmarco", "R@2": "pytrec_eval", "Judged@2": "judged"}
    assert values["evaluator"].startswith("ir_measures ")


def test_latency_can_be_left_out() -> None:
    report = evaluate_pipeline(pipeline(), QUERIES, qrels=QRELS, measures=MEASURES, keep=5, latency_limit=0)
    assert report.latency is None
    assert report.to_json()["latency"] is None


def test_queries_run_in_batches_and_come_together_again() -> None:
    class Watching(Cascade):
        sizes: list[int]

        def trace(self, queries: Sequence[Query], *, keep: int) -> list[Trace]:
            self.sizes.append(len(queries))
            return super().trace(queries, keep=keep)

    watching = Watching(OverlapRetriever(), [], Store())
    watching.sizes = []
    count = QUERIES_PER_BATCH + 3
    queries = [Query(QueryId(str(n)), "male falcon") for n in range(count)]
    qrels = {query.id: {DocId("d2"): 1} for query in queries}
    report = evaluate_pipeline(watching, queries, qrels=qrels, measures=MEASURES, keep=5, latency_limit=0)
    assert watching.sizes == [QUERIES_PER_BATCH, 3]
    assert report.rows[0].result.means["RR@2"] == 1.0
    assert report.rows[0].seconds > 0


def test_the_seconds_of_a_stage_add_up_over_batches() -> None:
    class Timed(Cascade):
        def trace(self, queries: Sequence[Query], *, keep: int) -> list[Trace]:
            return [
                Trace(trace.query, tuple(replace(s, seconds=2.0**n) for n, s in enumerate(trace.stages)))
                for trace in super().trace(queries, keep=keep)
            ]

    timed = Timed(OverlapRetriever(), [RerankStep("short", ShorterFirst(), 2)], Store())
    queries = [Query(QueryId(str(n)), "male falcon") for n in range(2 * QUERIES_PER_BATCH + 1)]
    qrels = {query.id: {DocId("d2"): 1} for query in queries}
    report = evaluate_pipeline(timed, queries, qrels=qrels, measures=MEASURES, keep=5, latency_limit=0)
    # Three batches; the first stage takes 1 s for each, the second 2 s.
    assert [(row.stage, row.seconds) for row in report.rows] == [("overlap", 3.0), ("short", 6.0)]


def test_a_measure_deeper_than_the_list_is_refused() -> None:
    with pytest.raises(UsageError, match=r"R@100 looks at 100 hits, but 10 are retrieved; expected .* at least 100"):
        evaluate_pipeline(pipeline(), QUERIES, qrels=QRELS, measures=parse_measures(["R@100"]), keep=10)


def test_no_judged_query_is_an_error() -> None:
    with pytest.raises(InputError, match=r"such as 'q0'.*such as 'q1'.*no id is in both"):
        evaluate_pipeline(pipeline(), [UNMATCHED], qrels=QRELS, measures=MEASURES, keep=5)


def test_a_ceiling_is_the_recall_of_all_that_survives() -> None:
    report = evaluate_pipeline(pipeline(), QUERIES, qrels=QRELS, measures=parse_measures(["RR@1"]), keep=5)
    # q1: d2 is found and lost by the last stage. q2: d3 and d1 are found; d4, d1 are the shortest. q7 is not asked.
    assert [row.ceiling for row in report.rows] == pytest.approx([2 / 3, 2 / 3, 2 / 3, (0 + 1 / 2) / 3])
    assert [list(row.result.means) for row in report.rows] == [["RR@1"]] * 4
    graded = evaluate_pipeline(pipeline(), QUERIES, qrels=QRELS, measures=parse_measures(["RR(rel=2)@1"]), keep=5)
    # Only d3 is of grade 2, for q2.
    assert [row.ceiling for row in graded.rows] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


def test_every_stage_has_its_latency_and_its_speed() -> None:
    class Timed(Cascade):
        def trace(self, queries: Sequence[Query], *, keep: int) -> list[Trace]:
            return [
                Trace(trace.query, tuple(replace(s, seconds=0.25 * n) for n, s in enumerate(trace.stages)))
                for trace in super().trace(queries, keep=keep)
            ]

    timed = Timed(OverlapRetriever(), [RerankStep("short", ShorterFirst(), 2)], Store())
    report = evaluate_pipeline(timed, QUERIES, qrels=QRELS, measures=MEASURES, keep=5)
    latencies = [row.latency for row in report.rows]
    assert [(one.p50_ms, one.p99_ms, one.count) for one in latencies if one] == [(0, 0, 2), (250, 250, 2)]
    # Two judged queries in one batch.
    assert [row.queries_per_second for row in report.rows] == [None, 8]


def test_what_a_stage_has_read_is_counted_without_what_was_timed() -> None:
    class Reads(ShorterFirst):
        tokens_read = 100

        def score(self, groups: Sequence[CandidateGroup]) -> list[NDArray[np.float32]]:
            self.tokens_read += sum(len(group.documents) for group in groups)
            return super().score(groups)

    reading = Cascade(OverlapRetriever(), [RerankStep("reads", Reads(), 2)], Store())
    report = evaluate_pipeline(reading, QUERIES, qrels=QRELS, measures=MEASURES, keep=5)
    # q1 has 4 candidates and q2 3.
    assert [row.read for row in report.rows] == [ReadCount(), ReadCount(7, None)]


def test_rows_have_a_cell_for_every_column() -> None:
    report = evaluate_pipeline(pipeline(), QUERIES, qrels=QRELS, measures=MEASURES, keep=5, latency_limit=0)
    assert {len(row) for row in stage_rows(report)} == {len(stage_columns(MEASURES))}
    assert stage_rows(report)[0][-5:] == [""] * 5
