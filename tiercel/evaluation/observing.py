"""A pipeline run over many queries in steps: what did each of its stages find, read and take?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from tiercel.evaluation.latency import MAX_TIMED_QUERIES, Latency, measure_latency
from tiercel.retrieve.trace import NOTHING_COUNTED, CountedRetriever, ReadCount, Trace, TracedRetriever
from tiercel.types import Query, Ranking

if TYPE_CHECKING:
    from tiercel.data.partial import PartialFile

QUERIES_PER_BATCH = 64
"""Queries in flight at once: enough to fill a reranker's batches, few enough to hold all their candidates' texts."""


@dataclass(frozen=True, slots=True)
class StageColumn:
    """One stage over several queries.

    Attributes:
        name: the stage's name in the trace.
        rankings: one per query.
        seconds: what it took for all of them, in batches.
        skipped: candidates that it did not score, for want of time.
        read: what it read for them.
    """

    name: str
    rankings: list[Ranking]
    seconds: float
    skipped: int
    read: ReadCount


@dataclass(frozen=True, slots=True)
class Observed:
    """Every stage of a pipeline over all queries, in order; and latencies, of the whole and of each, or none at all."""

    columns: list[StageColumn]
    latencies: list[Latency]


class Steps:
    """Does each step when its turn comes."""

    def time(self, measure: Callable[[], list[Latency]]) -> list[Latency]:
        """Latencies of a pipeline and of its stages."""
        return measure()

    def batch(self, run: Callable[[], list[StageColumn]]) -> list[StageColumn]:
        """A batch of queries down the pipeline."""
        return run()


class KeptSteps(Steps):
    """The same, but what a file has of these steps in their order is taken from there, and the others are kept."""

    def __init__(self, partial: PartialFile) -> None:
        self._partial = partial
        self._kept = partial.kept()

    def time(self, measure: Callable[[], list[Latency]]) -> list[Latency]:
        """Latencies, as they were measured when the step was done."""
        if (kept := next(self._kept, None)) is not None:
            return [Latency(*values) for values in kept]
        measured = measure()
        self._partial.keep([astuple(latency) for latency in measured])
        return measured

    def batch(self, run: Callable[[], list[StageColumn]]) -> list[StageColumn]:
        """A batch, with the seconds that it took when it was run."""
        if (kept := next(self._kept, None)) is not None:
            return [_column_of(record) for record in kept]
        columns = run()
        self._partial.keep([_record_of(column) for column in columns])
        return columns


def count_steps(queries: int) -> int:
    """How many steps `observe` makes of so many queries."""
    return 1 + -(-queries // QUERIES_PER_BATCH)


def observe(
    pipeline: TracedRetriever,
    queries: Sequence[Query],
    *,
    keep: int,
    latency_limit: int = MAX_TIMED_QUERIES,
    steps: Steps | None = None,
) -> Observed:
    """Run at least one query. Latency comes first, on at most `latency_limit` queries; 0 leaves it out."""
    steps = steps or Steps()
    latencies = (
        steps.time(lambda: _latencies(pipeline, queries, keep=keep, limit=latency_limit)) if latency_limit else []
    )
    batches = [
        steps.batch(lambda: _run(pipeline, batch, keep=keep))  # noqa: B023 - it is called at once
        for start in range(0, len(queries), QUERIES_PER_BATCH)
        for batch in [queries[start : start + QUERIES_PER_BATCH]]
    ]
    return Observed([_joined(parts) for parts in zip(*batches, strict=True)], latencies)


def _run(pipeline: TracedRetriever, queries: Sequence[Query], *, keep: int) -> list[StageColumn]:
    before = _counts(pipeline)
    traces = pipeline.trace(queries, keep=keep)
    after = _counts(pipeline)
    return [
        StageColumn(
            name=stage.name,
            rankings=[trace.stages[position].ranking for trace in traces],
            seconds=stage.seconds,  # every trace of a batch carries the batch's
            skipped=sum(trace.stages[position].skipped for trace in traces),
            read=_since(before.get(stage.name), after.get(stage.name)),
        )
        for position, stage in enumerate(traces[0].stages)
    ]


def _joined(parts: Sequence[StageColumn]) -> StageColumn:
    """One stage, its batches put together again."""
    return StageColumn(
        name=parts[0].name,
        rankings=[ranking for part in parts for ranking in part.rankings],
        seconds=sum(part.seconds for part in parts),
        skipped=sum(part.skipped for part in parts),
        read=ReadCount(*(_total(counts) for counts in zip(*(part.read for part in parts), strict=True))),
    )


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _latencies(pipeline: TracedRetriever, queries: Sequence[Query], *, keep: int, limit: int) -> list[Latency]:
    """Of the whole pipeline, then of each stage, over the same queries, one at a time."""
    traces: list[Trace] = []
    whole = measure_latency(lambda query: traces.extend(pipeline.trace([query], keep=keep)), queries, limit=limit)
    timed = traces[-whole.count :]  # what came before was to warm up
    by_stage = zip(*(trace.stages for trace in timed), strict=True)
    return [whole, *(Latency.of(1000 * stage.seconds for stage in stages) for stages in by_stage)]


def _counts(pipeline: TracedRetriever) -> Mapping[str, ReadCount]:
    return pipeline.counts() if isinstance(pipeline, CountedRetriever) else {}


def _since(before: ReadCount | None, after: ReadCount | None) -> ReadCount:
    pairs = zip(before or NOTHING_COUNTED, after or NOTHING_COUNTED, strict=True)
    return ReadCount(*(None if old is None or new is None else new - old for old, new in pairs))


def _record_of(column: StageColumn) -> dict[str, Any]:
    from tiercel.data.runs import record_of

    return {
        "name": column.name,
        "rankings": [record_of(ranking) for ranking in column.rankings],
        "seconds": column.seconds,
        "skipped": column.skipped,
        "read": list(column.read),
    }


def _column_of(record: Mapping[str, Any]) -> StageColumn:
    from tiercel.data.runs import ranking_of

    rankings = [ranking_of(ranking) for ranking in record["rankings"]]
    return StageColumn(record["name"], rankings, record["seconds"], record["skipped"], ReadCount(*record["read"]))
