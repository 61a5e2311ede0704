from __future__ import annotations

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiercel.errors import InputError
from tiercel.evaluation.latency import draw_evenly, measure_latency, percentile
from tiercel.types import Query, QueryId


def some(count: int) -> list[Query]:
    return [Query(QueryId(str(n)), "") for n in range(count)]


class Clock:
    """Moves only when a query runs: query n takes n + 1 milliseconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.ran: list[str] = []

    def __call__(self) -> float:
        return self.seconds

    def run(self, query: Query) -> None:
        self.ran.append(query.id)
        self.seconds += (int(query.id) + 1) / 1000


def test_by_hand() -> None:
    clock = Clock()
    latency = measure_latency(clock.run, some(5), warm_up=2, clock=clock)
    # 1, 2, 3, 4, 5 ms. 95 %: position 4 * 0.95 = 3.8, so 4 + 0.8; 99 %: 3.96.
    assert astuple(latency) == pytest.approx((3, 4.8, 4.96, 5))
    assert clock.ran == ["0", "1", "0", "1", "2", "3", "4"]


def test_at_most_the_limit_is_timed() -> None:
    clock = Clock()
    latency = measure_latency(clock.run, some(1000), limit=4, warm_up=1, clock=clock)
    assert latency.count == 4
    assert clock.ran == ["0", "0", "250", "500", "750"]


def test_by_default_two_hundred() -> None:
    clock = Clock()
    assert measure_latency(clock.run, some(1000), clock=clock).count == 200
    assert len(clock.ran) == 205


def test_the_real_clock_gives_milliseconds() -> None:
    latency = measure_latency(lambda query: sum(range(1000)), some(20))
    assert 0 < latency.p50_ms <= latency.p95_ms <= latency.p99_ms < 10_000


def test_no_queries() -> None:
    with pytest.raises(InputError, match="no queries to time; expected at least one"):
        measure_latency(lambda query: None, [])


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(1, 250))
def test_drawn_queries_are_spread_and_in_order(count: int, limit: int) -> None:
    positions = [int(query.id) for query in draw_evenly(some(count), limit)]
    assert len(positions) == min(count, limit)
    gaps = {after - before for before, after in pairwise(positions)}
    assert max(gaps, default=1) - min(gaps, default=1) <= 1
    assert not positions or positions[0] == 0


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0, 100))
def test_percentile_equals_numpy(values: list[float], percent: float) -> None:
    values.sort()
    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)), rel=1e-9, abs=1e-9)
