from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.index.made import asked, indexed, named, zipf_texts
from tiercel.errors import InputError, UsageError
from tiercel.evaluation.load import caller_counts, measure_load
from tiercel.index.lexical import LexicalRetriever
from tiercel.types import Query, Ranking


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_numbers_of_callers(most: int, expected: list[int]) -> None:
    assert caller_counts(most) == expected


def test_no_callers() -> None:
    with pytest.raises(UsageError, match="0 callers"):
        caller_counts(0)


def test_by_hand() -> None:
    now = [0.0]
    seconds = {"a": 0.001, "b": 0.002, "c": 0.003}

    def answer(query: Query) -> None:
        now[0] += seconds[query.text]

    load = measure_load(answer, asked("a", "b", "c"), callers=1, requests=6, clock=lambda: now[0])
    # Six requests of 12 ms together, two of each kind.
    assert load.per_second == pytest.approx(6 / 0.012)
    assert load.latency.p50_ms == pytest.approx(2)
    assert (load.callers, load.latency.count) == (1, 6)


def test_so_many_at_once_and_never_more() -> None:
    together = threading.Barrier(3)
    running, most, lock = [0], [0], threading.Lock()
    warm = [5]

    def answer(query: Query) -> None:
        if warm[0]:
            warm[0] -= 1
            return
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait(timeout=30)  # passes when three are here
        with lock:
            running[0] -= 1

    load = measure_load(answer, asked(*"abcde"), callers=3, requests=9)
    assert (load.latency.count, most[0]) == (9, 3)


def test_what_goes_wrong_is_raised() -> None:
    calls = [0]

    def answer(query: Query) -> None:
        calls[0] += 1
        if calls[0] == 8:
            raise InputError("the eighth")

    with pytest.raises(InputError, match="the eighth"):
        measure_load(answer, asked("a"), callers=2, requests=10)
    with pytest.raises(InputError, match="no queries to time"):
        measure_load(answer, [], callers=1, requests=10)


def test_callers_get_what_one_alone_gets(tmp_path: Path) -> None:
    index = indexed(tmp_path / "i", named(zipf_texts(300, words=200, seed=3)))
    leg = LexicalRetriever(index.views, index.analyzer, threads=2)
    queries = asked(*zipf_texts(40, words=200, seed=4, longest=6))
    found: dict[str, list[Ranking]] = {query.id: [] for query in queries}

    def answer(query: Query) -> None:
        found[query.id] += leg.retrieve([query], keep=10)

    measure_load(answer, queries, callers=8, requests=80)
    for query, alone in zip(queries, leg.retrieve(queries, keep=10), strict=True):
        assert len(found[query.id]) >= 2
        assert all(ranking == alone for ranking in found[query.id])
