"""What runs next, and with what else? One bounded queue for all callers, one worker that takes as much as fits a batch.

Nothing is waited for to fill a batch: it is what came while the one before ran. So an idle server answers at once, and
a busy one in batches that grow with its load until they are full; past that the queue grows, and past its bound callers
are turned away.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

from tiercel.errors import TiercelError

Run: TypeAlias = Callable[[Any, Sequence[Any]], Sequence[Any]]
"""Does the items of one kind and returns a result for each, in their order; called in the worker's thread."""

_LONGEST_WAIT_S = 60


class QueueFullError(TiercelError):
    """More is waiting than the queue holds. `retry_after_s`: when what waits now is likely done."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("the queue is full", next_step=f"Try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Item(NamedTuple):
    """A piece of work, and how much of a batch it takes."""

    work: Any
    size: int


class Batch(NamedTuple):
    """What one run did, for those who count."""

    kind: Hashable
    items: int
    size: int
    seconds: float


class _Job:
    """The items of one caller, of which some may have been done."""

    def __init__(self, kind: Hashable, items: Sequence[Item]) -> None:
        self.kind = kind
        self.todo = deque(enumerate(items))
        self.results: list[Any] = [None] * len(items)
        self.left = len(items)
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def finish(self, position: int, result: Any) -> None:
        self.results[position] = result
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(self.results)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Piece(NamedTuple):
    job: _Job
    position: int
    item: Item


class Batcher:
    """Items of one kind, of all callers, run together; kinds and callers take turns.

    A caller with many items gets one into a batch for each that every other caller gets, so that a large request does
    not hold up small ones. A caller who goes away takes along what has not begun.

    Args:
        run: does a batch.
        batch_size: that a batch has at most, unless it is of one item.
        capacity: size of all that may wait; a caller who comes when nothing waits is let in whatever it brings.
        observe: is told of every batch.
    """

    def __init__(
        self, run: Run, *, batch_size: int, capacity: int, observe: Callable[[Batch], None] = lambda batch: None
    ) -> None:
        self._run = run
        self._batch_size = batch_size
        self._capacity = capacity
        self._observe = observe
        self._waiting: deque[_Job] = deque()
        self._size = 0
        self._seconds_per_size = 0.0
        self._more = asyncio.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tiercel-batch")
        self._stopping = False
        self._working: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Size of what has been let in and not begun."""
        return self._size

    async def __aenter__(self) -> Batcher:
        """Begin to work."""
        self._working = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop: the batch that runs is finished, and who still waits is cancelled."""
        self._stopping = True
        self._more.set()
        if self._working is not None:
            await self._working
        for job in self._waiting:
            job.done.cancel()
        await asyncio.to_thread(self._pool.shutdown)

    async def submit(self, kind: Hashable, items: Sequence[Item]) -> list[Any]:
        """The results of the items, in order. Raises QueueFullError at once, and whatever their run raises."""
        if not items:
            return []
        size = sum(item.size for item in items)
        if self._waiting and self._size + size > self._capacity:
            raise QueueFullError(self._wait_s())
        job = _Job(kind, items)
        self._waiting.append(job)
        self._size += size
        self._more.set()
        try:
            return await job.done
        finally:
            self._forget(job)

    def _wait_s(self) -> int:
        return min(_LONGEST_WAIT_S, max(1, math.ceil(self._size * self._seconds_per_size)))

    def _forget(self, job: _Job) -> None:
        self._size -= sum(item.size for _, item in job.todo)
        job.todo.clear()
        with contextlib.suppress(ValueError):
            self._waiting.remove(job)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._more.wait()
            if self._stopping:
                return
            pieces = self._take()
            if not pieces:
                self._more.clear()
                continue
            kind = pieces[0].job.kind
            started = time.perf_counter()
            running = loop.run_in_executor(self._pool, self._run, kind, [piece.item.work for piece in pieces])
            await asyncio.wait([running])
            self._note(kind, pieces, time.perf_counter() - started)
            await self._deliver(kind, pieces, running)

    def _take(self) -> list[_Piece]:
        """One item of each caller of the kind whose turn it is, again and again until the batch is full."""
        pieces: list[_Piece] = []
        size = 0
        kind = next((job.kind for job in self._waiting if not job.done.done()), None)
        turn = deque(job for job in self._waiting if job.kind == kind and not job.done.done())
        while turn and (not pieces or size + turn[0].todo[0][1].size <= self._batch_size):
            job = turn.popleft()
            position, item = job.todo.popleft()
            pieces.append(_Piece(job, position, item))
            size += item.size
            if job.todo:
                turn.append(job)
        self._size -= size
        taken_from = {id(piece.job) for piece in pieces}
        rest = [job for job in self._waiting if id(job) not in taken_from]
        self._waiting = deque([*rest, *(job for job in self._waiting if id(job) in taken_from and job.todo)])
        return pieces

    def _note(self, kind: Hashable, pieces: Sequence[_Piece], seconds: float) -> None:
        size = sum(piece.item.size for piece in pieces)
        latest = seconds / max(1, size)
        self._seconds_per_size = 0.8 * self._seconds_per_size + 0.2 * latest if self._seconds_per_size else latest
        self._observe(Batch(kind, len(pieces), size, seconds))

    async def _deliver(self, kind: Hashable, pieces: Sequence[_Piece], ran: asyncio.Future[Sequence[Any]]) -> None:
        error = ran.exception()
        if error is None:
            for piece, result in zip(pieces, ran.result(), strict=True):
                piece.job.finish(piece.position, result)
        elif len({id(piece.job) for piece in pieces}) == 1:
            pieces[0].job.fail(error)
        else:  # one of them is at fault, and the others should not pay for it
            for piece in pieces:
                if piece.job.done.done():
                    continue
                alone = asyncio.get_running_loop().run_in_executor(self._pool, self._run, kind, [piece.item.work])
                await asyncio.wait([alone])
                await self._deliver(kind, [piece], alone)
