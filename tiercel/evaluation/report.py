"""A pipeline measured after each of its stages, in one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tiercel.errors import UsageError
from tiercel.evaluation.latency import MAX_TIMED_QUERIES, Latency
from tiercel.evaluation.measures import (
    EvaluationResult,
    Measure,
    check_overlap,
    evaluate,
    named_grade,
    of_grade,
    parse_measure,
)
from tiercel.evaluation.observing import Observed, StageColumn, observe
from tiercel.retrieve.trace import NOTHING_COUNTED, ReadCount, TracedRetriever
from tiercel.types import Qrels, Query


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage over all judged queries.

    Attributes:
        stage: the stage's name in the trace.
        result: measures of the Ranking after this stage.
        hits_per_query: mean number of hits after this stage, over the queries that were run.
        seconds: what this stage took for all of them, in batches.
        ceiling: recall of all that survives this stage, which no later stage can raise; relevant is the highest grade
            that a measure names, and up.
        run: how many queries were run.
        latency: of this stage alone, single queries; None when it was not measured.
        read: what it read for the queries that were run.
        skipped_per_query: mean number of candidates that it did not score, for want of time.
    """

    stage: str
    result: EvaluationResult
    hits_per_query: float
    seconds: float
    ceiling: float
    run: int
    latency: Latency | None = None
    read: ReadCount = NOTHING_COUNTED
    skipped_per_query: float = 0.0

    @property
    def queries_per_second(self) -> float | None:
        """Of this stage alone, in batches; None for one that took no time."""
        return self.run / self.seconds if self.seconds else None

    def to_json(self) -> dict[str, Any]:
        """Plain values: the stage, the mean of every measure by its name, its ceiling, what it cost and skipped."""
        return {
            "stage": self.stage,
            "measures": dict(self.result.means),
            "hits_per_query": self.hits_per_query,
            "ceiling": self.ceiling,
            "seconds": self.seconds,
            "queries_per_second": self.queries_per_second,
            "latency": None if self.latency is None else asdict(self.latency),
            "tokens": self.read.tokens,
            "truncated": self.read.truncated,
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


@dataclass(frozen=True, slots=True)
class SetReport:
    """Pipelines over one set of queries and judgments.

    Attributes:
        name: of the set.
        notes: in words, what was taken for granted about it.
        pipelines: by their names; at least one, all with the same measures.
    """

    name: str
    notes: tuple[str, ...]
    pipelines: Mapping[str, PipelineReport]

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON: name, notes, pipelines."""
        pipelines = {name: report.to_json() for name, report in self.pipelines.items()}
        return {"name": self.name, "notes": list(self.notes), "pipelines": pipelines}


def stage_columns(measures: Sequence[Measure]) -> list[str]:
    """What `stage_rows` has: names of columns."""
    costs = ["ceiling", "hits", "queries/s", "p50 ms", "p95 ms", "p99 ms", "tokens", "cut"]
    return ["stage", *map(str, measures), *costs]


def stage_rows(report: PipelineReport) -> list[list[str]]:
    """Every stage as cells; "" for what was not measured or is not counted."""
    return [_cells(row) for row in report.rows]


def report_notes(report: PipelineReport) -> list[str]:
    """In words, what is of the whole pipeline: queries, who computed the measures, latency, what was left out."""
    last, latency = report.rows[-1].result, report.latency
    notes = [f"{last.queries} judged queries, depth {report.keep}, computed by {last.evaluator}"]
    if latency is not None:
        notes.append(
            f"latency of one query: p50 {latency.p50_ms:.1f} ms, p95 {latency.p95_ms:.1f} ms, "
            f"p99 {latency.p99_ms:.1f} ms ({latency.count} queries, one at a time)"
        )
    if last.missing_queries:
        notes.append(f"{last.missing_queries} judged queries are not among the queries and count 0")
    if report.unjudged_queries:
        notes.append(f"{report.unjudged_queries} queries have no judgments and were left out")
    return notes


def _cells(row: StageRow) -> list[str]:
    speed = row.queries_per_second
    return [
        row.stage,
        *(f"{row.result.means[str(measure)]:.4f}" for measure in row.result.measures),
        f"{row.ceiling:.4f}",
        f"{row.hits_per_query:.1f}",
        "" if speed is None else f"{speed:,.0f}",
        *_latency_cells(row.latency),
        *("" if count is None else f"{count:,}" for count in row.read),
    ]


def _latency_cells(latency: Latency | None) -> list[str]:
    if latency is None:
        return ["", "", ""]
    return [f"{value:.2f}" for value in (latency.p50_ms, latency.p95_ms, latency.p99_ms)]


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
    `evaluate`. Latency is measured before, on at most `latency_limit` queries; 0 leaves it out. Raises InputError
    when no query is judged, and UsageError for a measure that looks deeper than `keep`.
    """
    judged = judged_queries(queries, qrels, measures=measures, keep=keep)
    observed = observe(pipeline, judged, keep=keep, latency_limit=latency_limit)
    return report_of(observed, qrels, measures=measures, keep=keep, unjudged=len(queries) - len(judged))


def judged_queries(queries: Sequence[Query], qrels: Qrels, *, measures: Sequence[Measure], keep: int) -> list[Query]:
    """The queries that an evaluation runs. Raises as `evaluate_pipeline`."""
    _check_depth(measures, keep)
    check_overlap([query.id for query in queries], [query_id for query_id, judgments in qrels.items() if judgments])
    return [query for query in queries if qrels.get(query.id)]


def report_of(
    observed: Observed, qrels: Qrels, *, measures: Sequence[Measure], keep: int, unjudged: int
) -> PipelineReport:
    """The measures of what a pipeline was seen to do with the judged queries."""
    latencies: Sequence[Latency | None] = observed.latencies or [None] * (1 + len(observed.columns))
    whole, *of_stages = latencies
    rows = [
        replace(_row(column, qrels, measures=measures), latency=latency)
        for column, latency in zip(observed.columns, of_stages, strict=True)
    ]
    return PipelineReport(rows=tuple(rows), latency=whole, keep=keep, unjudged_queries=unjudged)


def _check_depth(measures: Sequence[Measure], keep: int) -> None:
    for measure in measures:
        if measure.cutoff is not None and measure.cutoff > keep:
            raise UsageError(
                f"{measure} looks at {measure.cutoff} hits, but {keep} are retrieved",
                expected=f"to retrieve at least {measure.cutoff}",
            )


def _row(column: StageColumn, qrels: Qrels, *, measures: Sequence[Measure]) -> StageRow:
    sizes = [len(ranking.hits) for ranking in column.rankings]
    ceiling = of_grade(parse_measure(f"R@{max(1, *sizes)}"), named_grade(measures))
    result = evaluate(column.rankings, qrels, list(dict.fromkeys([*measures, ceiling])))
    names = [measure.name for measure in measures]
    return StageRow(
        stage=column.name,
        result=replace(
            result,
            measures=tuple(measures),
            per_query={name: result.per_query[name] for name in names},
            means={name: result.means[name] for name in names},
        ),
        hits_per_query=sum(sizes) / len(sizes),
        seconds=column.seconds,
        ceiling=result.means[ceiling.name],
        run=len(sizes),
        read=column.read,
        skipped_per_query=column.skipped / len(sizes),
    )
