"""How much does a pipeline do at once, and how long does each caller then wait?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from tiercel.errors import InputError, UsageError
from tiercel.evaluation.latency import WARM_UP_QUERIES, Latency, draw_evenly, percentile
from tiercel.types import Query


@dataclass(frozen=True, slots=True)
class Load:
    """What so many callers saw, each of which asks its next query when its last is answered.

    Attributes:
        callers: how many asked at once.
        per_second: queries answered in a second, by all of them together.
        latency: wall time of single queries, as a caller sees it.
    """

    callers: int
    per_second: float
    latency: Latency


def caller_counts(most: int) -> list[int]:
    """1, 2, 4 and so on, and `most` itself. Raises UsageError for less than one."""
    if most < 1:
        raise UsageError(f"{most} callers", expected="at least 1")
    return [*(2**n for n in range(most.bit_length()) if 2**n < most), most]


def measure_load(
    run_one: Callable[[Query], object],
    queries: Sequence[Query],
    *,
    callers: int,
    requests: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Load:
    """Answer so many queries, `callers` of them at a time in as many threads.

    The queries are drawn evenly from the list, or repeated where there are less; each caller takes the next one that is
    not taken yet. A few run before, untimed. Raises InputError when there are no queries, and what `run_one` raises.
    """
    if not queries:
        raise InputError("no queries to time", expected="at least one")
    asked = [query for _ in range(-(-requests // len(queries))) for query in draw_evenly(queries, requests)][:requests]
    for query in asked[:WARM_UP_QUERIES]:
        run_one(query)
    waiting, lock = iter(asked), threading.Lock()

    def call() -> list[float]:
        times_ms: list[float] = []
        while True:
            with lock:
                taken = list(islice(waiting, 1))
            if not taken:
                return times_ms
            start = clock()
            run_one(taken[0])
            times_ms.append((clock() - start) * 1000)

    start = clock()
    with ThreadPoolExecutor(callers) as pool:
        parts = [pool.submit(call) for _ in range(callers)]
        times = sorted(value for part in parts for value in part.result())
    seconds = clock() - start
    latency = Latency(percentile(times, 50), percentile(times, 95), percentile(times, 99), len(times))
    return Load(callers, len(times) / seconds, latency)
