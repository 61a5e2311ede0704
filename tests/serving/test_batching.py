"""What runs with what, who waits, and who is turned away: all by the order of events, none by the clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any

import pytest

from tiercel.serving.batching import Batch, Batcher, Item, QueueFullError


class Work:
    """Doubles numbers, batch by batch, each when it is let go; refuses what is negative."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, kind: Hashable, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.begun.release()
        assert self.go.acquire(timeout=10)
        if any(item < 0 for item in items):
            raise ValueError(f"negative among {len(items)}")
        return [2 * item for item in items]

    async def wait_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=10)

    def let(self, batches: int = 100) -> None:
        self.go.release(batches)


def tried(
    scenario: Callable[[Work, Batcher], Awaitable[Any]],
    *,
    batch_size: int = 10,
    capacity: int = 100,
    observe: Callable[[Batch], None] = lambda batch: None,
) -> Work:
    work = Work()

    async def main() -> None:
        batcher = Batcher(work, batch_size=batch_size, capacity=capacity, observe=observe)
        async with batcher:
            await scenario(work, batcher)
            assert batcher.waiting == 0

    asyncio.run(main())
    return work


def items(*numbers: int, size: int = 1) -> list[Item]:
    return [Item(number, size) for number in numbers]


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_comes_while_one_runs_runs_together() -> None:
    async def scenario(work: Work, batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.submit("a", items(1)))
        await work.wait_begun()
        rest = [asyncio.create_task(batcher.submit("a", items(number))) for number in (2, 3, 4)]
        await _settle()
        work.let()
        assert await asyncio.gather(first, *rest) == [[2], [4], [6], [8]]

    assert tried(scenario).batches == [[1], [2, 3, 4]]


def test_a_batch_has_its_size_and_kinds_do_not_mix() -> None:
    seen: list[Batch] = []

    async def scenario(work: Work, batcher: Batcher) -> None:
        waiting = [asyncio.create_task(batcher.submit("a", items(0)))]
        await work.wait_begun()
        for kind, number in [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("b", 5)]:
            waiting.append(asyncio.create_task(batcher.submit(kind, items(number, size=4))))
        await _settle()
        assert batcher.waiting == 20
        work.let()
        await asyncio.gather(*waiting)

    assert tried(scenario, observe=seen.append).batches == [[0], [1, 3], [2, 5], [4]]
    assert [(batch.kind, batch.items, batch.size) for batch in seen] == [
        ("a", 1, 1), ("a", 2, 8), ("b", 2, 8), ("a", 1, 4),
    ]  # fmt: skip


def test_a_large_caller_does_not_hold_up_small_ones() -> None:
    async def scenario(work: Work, batcher: Batcher) -> None:
        large = asyncio.create_task(batcher.submit("a", items(*range(10), size=3)))
        await work.wait_begun()
        small = [asyncio.create_task(batcher.submit("a", items(number, size=3))) for number in (100, 200)]
        await _settle()
        work.let()
        assert await asyncio.gather(large, *small) == [[2 * number for number in range(10)], [200], [400]]

    batches = tried(scenario).batches
    assert batches[:2] == [[0, 1, 2], [3, 100, 200]] or batches[:2] == [[0, 1, 2], [100, 200, 3]]


def test_an_item_larger_than_a_batch_is_one() -> None:
    async def scenario(work: Work, batcher: Batcher) -> None:
        work.let()
        assert await batcher.submit("a", items(1, 2, size=50)) == [2, 4]
        assert await batcher.submit("a", []) == []

    assert tried(scenario).batches == [[1], [2]]


def test_past_its_capacity_callers_are_turned_away_and_later_let_in() -> None:
    async def scenario(work: Work, batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.submit("a", items(1)))
        await work.wait_begun()
        huge = asyncio.create_task(batcher.submit("a", items(2, size=1000)))  # comes when nothing waits
        await _settle()
        with pytest.raises(QueueFullError, match="Try again in 1 s") as full:
            await batcher.submit("a", items(3))
        assert full.value.retry_after_s == 1
        assert batcher.waiting == 1000
        work.let()
        await asyncio.gather(running, huge)
        assert await batcher.submit("a", items(3)) == [6]

    tried(scenario)


def test_who_goes_away_takes_along_what_has_not_begun() -> None:
    async def scenario(work: Work, batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.submit("a", items(1)))
        await work.wait_begun()
        gone = asyncio.create_task(batcher.submit("a", items(2, 3)))
        stays = asyncio.create_task(batcher.submit("a", items(4)))
        await _settle()
        gone.cancel()
        await _settle()
        assert batcher.waiting == 1
        running.cancel()
        work.let()
        assert await stays == [8]

    assert tried(scenario).batches == [[1], [4]]


def test_one_bad_item_fails_its_own_caller() -> None:
    async def scenario(work: Work, batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.submit("a", items(1)))
        await work.wait_begun()
        waiting = [asyncio.create_task(batcher.submit("a", items(number))) for number in (2, -3, 4)]
        await _settle()
        work.let()
        done = await asyncio.gather(running, *waiting, return_exceptions=True)
        assert [done[0], done[1], str(done[2]), done[3]] == [[2], [4], "negative among 1", [8]]

    assert tried(scenario).batches == [[1], [2, -3, 4], [2], [-3], [4]]


def test_the_end_cancels_who_waits() -> None:
    async def main() -> None:
        work = Work()
        async with Batcher(work, batch_size=1, capacity=10) as batcher:
            running = asyncio.create_task(batcher.submit("a", items(1)))
            await work.wait_begun()
            waiting = asyncio.create_task(batcher.submit("a", items(2)))
            await _settle()
            work.let()
        done = await asyncio.gather(running, waiting, return_exceptions=True)
        assert isinstance(done[1], asyncio.CancelledError)
        assert work.batches == [[1]]

    asyncio.run(main())
