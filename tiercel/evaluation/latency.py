"""How long a single query takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tiercel.errors import InputError
from tiercel.types import Query

MAX_TIMED_QUERIES = 200
"""Enough for a 99th percentile that rests on two queries; more only takes longer."""

WARM_UP_QUERIES = 5
"""Untimed calls before the first timed one: compiled code, memory maps and model sessions are loaded by use."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall time of single queries in milliseconds: percentiles over `count` queries, each run alone."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    count: int

    @classmethod
    def of(cls, times_ms: Iterable[float]) -> Latency:
        """Percentiles of at least one time, in any order."""
        ascending = sorted(times_ms)
        p50, p95, p99 = (percentile(ascending, percent) for percent in (50, 95, 99))
        return cls(p50, p95, p99, len(ascending))


def measure_latency(
    run_one: Callable[[Query], object],
    queries: Sequence[Query],
    *,
    limit: int = MAX_TIMED_QUERIES,
    warm_up: int = WARM_UP_QUERIES,
    clock: Callable[[], float] = time.perf_counter,
) -> Latency:
    """Run queries one at a time and take percentiles of their wall times.

    At most `limit` queries are timed, drawn evenly from the list; the first `warm_up` of them are run once before,
    untimed. `clock` gives seconds. Raises InputError when there are no queries.
    """
    drawn = draw_evenly(queries, limit)
    if not drawn:
        raise InputError("no queries to time", expected="at least one")
    for query in drawn[:warm_up]:
        run_one(query)
    times_ms: list[float] = []
    for query in drawn:
        start = clock()
        run_one(query)
        times_ms.append((clock() - start) * 1000)
    return Latency.of(times_ms)


def draw_evenly(queries: Sequence[Query], limit: int) -> list[Query]:
    """At most `limit` queries at equal distances, the first included, in their order."""
    count = min(limit, len(queries))
    return [queries[position * len(queries) // count] for position in range(count)]


def percentile(ascending: Sequence[float], percent: float) -> float:
    """The value below which `percent` of at least one sorted value lie, linear between neighbours.

    R. J. Hyndman, Y. Fan: Sample Quantiles in Statistical Packages. The American Statistician 50, 1996, definition 7.
    """
    position = (len(ascending) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ascending) - 1)
    return ascending[below] + (ascending[above] - ascending[below]) * (position - below)
