"""A pipeline measured after each of its stages, in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tiercel.errors import UsageError
from tiercel.evaluation.latency import MAX_TIMED_QUERIES, Latency, measure_latency
from tiercel.evaluation.measures import EvaluationResult, Measure, check_overlap, evaluate
from tiercel.retrieve.trace import TracedRetriever
from tiercel.types import Qrels, Query, Ranking

QUERIES_PER_BATCH = 64
"""Queries in flight at once: enough to fill a reranker's batches, few enough to hold all their candidates' texts."""


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage over all judged queries.

    Attributes:
        stage: the stage's name in the trace.
        result: measures of the Ranking after this stage.
        hits_per_query: mean number of hits after this stage, over the queries that were run.
        seconds: what this stage took for all of them, in batches.
        skipped_per_query: mean number of candidates that it did not score, for want of time.
    """

    stage: str
    result: EvaluationResult
    hits_per_query: float
    seconds: float
    skipped_per_query: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values: the stage, the mean of every measure by its name, hits per query, seconds, what was skipped."""
        return {
            "stage": self.stage,
            "measures": dict(self.result.means),
            "hits_per_query": self.hits_per_query,
            "seconds": self.seconds,
            **({"skipped_per_query": self.skipped_per_query} if self.skipped_per_query else {}),
        }


@dataclass(frozen=True, slots=True)
class PipelineReport:
    """Every stage of a pipeline in the order it ran, and the latency of the whole.

    Attributes:
        rows: one per stage; the last is the pipeline's result.
        latency: single queries through the whole pipeline; None when it was not measured.
        keep: how many hits were asked for.
        unjudged_queries: queries without judgments; they were not run.
    """

    rows: tuple[StageRow, ...]
    latency: Latency | None
    keep: int
    unjudged_queries: int

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: stages, latency in milliseconds, counts of queries, and who computed each measure."""
        last = self.rows[-1].result
        return {
            "stages": [row.to_json() for row in self.rows],
            "latency": None if self.latency is None else asdict(self.latency),
            "keep": self.keep,
            "queries": last.queries,
            "missing_queries": last.missing_queries,
            "unjudged_queries": self.unjudged_queries,
            "providers": {measure.name: measure.provider for measure in last.measures},
            "evaluator": last.evaluator,
        }


def evaluate_pipeline(
    pipeline: TracedRetriever,
    queries: Sequence[Query],
    *,
    qrels: Qrels,
    measures: Sequence[Measure],
    keep: int,
    latency_limit: int = MAX_TIMED_QUERIES,
) -> PipelineReport:
    """Run the judged queries once, and measure the Ranking after every stage.

    Queries without judgments are counted and not run; judged queries that are not among `queries` count 0, as in
    `evaluate`. Latency is measured afterwards, on at most `latency_limit` queries; 0 leaves it out. Raises InputError
    when no query is judged, and UsageError for a measure that looks deeper than `keep`.
    """
    _check_depth(measures, keep)
    check_overlap([query.id for query in queries], [query_id for query_id, judgments in qrels.items() if judgments])
    judged = [query for query in queries if qrels.get(query.id)]
    columns = _run_stages(pipeline, judged, keep=keep)
    latency = None
    if latency_limit:
        latency = measure_latency(lambda query: pipeline.retrieve([query], keep=keep), judged, limit=latency_limit)
    return PipelineReport(
        rows=tuple(_row(column, qrels, measures=measures) for column in columns),
        latency=latency,
        keep=keep,
        unjudged_queries=len(queries) - len(judged),
    )


def _check_depth(measures: Sequence[Measure], keep: int) -> None:
    for measure in measures:
        if measure.cutoff is not None and measure.cutoff > keep:
            raise UsageError(
                f"{measure} looks at {measure.cutoff} hits, but {keep} are retrieved",
                expected=f"to retrieve at least {measure.cutoff}",
            )


@dataclass(frozen=True, slots=True)
class _StageColumn:
    """One stage over all queries, in batches put together again."""

    name: str
    rankings: list[Ranking]
    seconds: float
    skipped: int


def _run_stages(pipeline: TracedRetriever, queries: Sequence[Query], *, keep: int) -> list[_StageColumn]:
    batches = [
        pipeline.trace(queries[start : start + QUERIES_PER_BATCH], keep=keep)
        for start in range(0, len(queries), QUERIES_PER_BATCH)
    ]
    return [
        _StageColumn(
            name=stage.name,
            rankings=[trace.stages[position].ranking for batch in batches for trace in batch],
            # Every trace of a batch carries the batch's seconds.
            seconds=sum(batch[0].stages[position].seconds for batch in batches),
            skipped=sum(trace.stages[position].skipped for batch in batches for trace in batch),
        )
        for position, stage in enumerate(batches[0][0].stages)
    ]


def _row(column: _StageColumn, qrels: Qrels, *, measures: Sequence[Measure]) -> StageRow:
    return StageRow(
        stage=column.name,
        result=evaluate(column.rankings, qrels, measures),
        hits_per_query=sum(len(ranking.hits) for ranking in column.rankings) / len(column.rankings),
        seconds=column.seconds,
        skipped_per_query=column.skipped / len(column.rankings),
    )
