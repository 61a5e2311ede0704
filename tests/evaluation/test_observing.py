from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.retrieve.small import OverlapRetriever, ShorterFirst, Store
from tiercel.data.partial import PartialFile
from tiercel.evaluation.latency import Latency
from tiercel.evaluation.observing import QUERIES_PER_BATCH, KeptSteps, Observed, count_steps, observe
from tiercel.retrieve.cascade import Cascade, RerankStep
from tiercel.retrieve.trace import ReadCount, Trace
from tiercel.types import Query, QueryId

QUERIES = [Query(QueryId(str(n)), "male falcon", ("before",)) for n in range(2 * QUERIES_PER_BATCH + 1)]
ASKED = {"what": "this"}


class Reading(Cascade):
    """Counts a token for each query, skips one candidate of each, takes a second a call, and stops when it is told."""

    def __init__(self, calls: int = 99) -> None:
        super().__init__(OverlapRetriever(), [RerankStep("short", ShorterFirst(), 2)], Store())
        self.calls = calls
        self.read = 0

    def trace(self, queries: Sequence[Query], *, keep: int) -> list[Trace]:
        if not self.calls:
            raise KeyboardInterrupt
        self.calls -= 1
        self.read += len(queries)
        return [
            Trace(trace.query, tuple(replace(stage, seconds=1.0, skipped=1) for stage in trace.stages))
            for trace in super().trace(queries, keep=keep)
        ]

    def counts(self) -> Mapping[str, ReadCount]:
        return {"short": ReadCount(self.read, None)}


def kept(path: Path, pipeline: Cascade, *, latency_limit: int = 0) -> Observed:
    with PartialFile(path, ASKED) as partial:
        return observe(pipeline, QUERIES, keep=5, latency_limit=latency_limit, steps=KeptSteps(partial))


def test_batches_come_together_again() -> None:
    overlap, short = observe(Reading(), QUERIES, keep=5, latency_limit=0).columns
    assert [ranking.query for ranking in short.rankings] == QUERIES
    assert (short.seconds, short.skipped, short.read) == (3.0, len(QUERIES), ReadCount(len(QUERIES), None))
    assert overlap.read == ReadCount(None, None)


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_what_was_kept_is_as_if_it_had_not_been_stopped(tmp_path: Path, calls: int) -> None:
    path = tmp_path / "kept"
    whole = observe(Reading(), QUERIES, keep=5, latency_limit=0)
    if calls < 3:
        with pytest.raises(KeyboardInterrupt):
            kept(path, Reading(calls))
    else:
        kept(path, Reading(calls))
    last = Reading(3 - calls)
    assert kept(path, last) == whole  # rankings, seconds, and what was skipped and read
    assert last.calls == 0
    assert kept(path, Reading(0)) == whole


def test_times_are_those_of_the_step_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    timed = 5 + 7  # to warm up, and the others
    with pytest.raises(KeyboardInterrupt):
        kept(path, Reading(timed + 1), latency_limit=7)
    found = kept(path, Reading(2), latency_limit=7)
    assert found.latencies[1:] == [Latency(1000.0, 1000.0, 1000.0, 7)] * 2
    assert kept(path, Reading(0), latency_limit=7) == found


def test_steps_are_the_times_and_the_batches() -> None:
    assert [count_steps(n) for n in (1, QUERIES_PER_BATCH, QUERIES_PER_BATCH + 1)] == [2, 2, 3]
