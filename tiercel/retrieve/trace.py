"""What a pipeline did, stage by stage, and the seam through which its parts tell it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from tiercel.protocols import Retriever
from tiercel.types import Query, Ranking


@dataclass(frozen=True, slots=True)
class StageTrace:
    """One query after one stage.

    Attributes:
        seconds: what the stage took for the whole batch the query was part of.
        skipped: candidates that a stage which reranks did not score, for want of time.
    """

    name: str
    ranking: Ranking
    seconds: float
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Trace:
    """One query through every stage, in the order they ran; there is at least one stage."""

    query: Query
    stages: tuple[StageTrace, ...]

    @property
    def ranking(self) -> Ranking:
        """The last stage's Ranking: what `retrieve` gives for the same query."""
        return self.stages[-1].ranking


@runtime_checkable
class TracedRetriever(Retriever, Protocol):
    """A Retriever of several stages that can show them."""

    def trace(self, queries: Sequence[Query], *, keep: int) -> list[Trace]:
        """One Trace per query, in input order, all with the same stages; the last Ranking is that of `retrieve`."""


class ReadCount(NamedTuple):
    """What a stage has read so far: tokens, and texts that were cut; None for what it does not count."""

    tokens: int | None = None
    truncated: int | None = None


NOTHING_COUNTED = ReadCount()


@runtime_checkable
class CountedRetriever(Protocol):
    """A Retriever of several stages that knows what they have read."""

    def counts(self) -> Mapping[str, ReadCount]:
        """By the name of the stage, since it was made; a stage that reads nothing is left out."""


def trace_retriever(retriever: Retriever, queries: Sequence[Query], *, keep: int) -> list[Trace]:
    """The retriever's own trace where it has one, else its Rankings as one stage, named as the Rankings are.

    One Trace per query, in input order. Raises ValueError when the retriever returns another number of Rankings.
    """
    if isinstance(retriever, TracedRetriever):
        return retriever.trace(queries, keep=keep)
    rankings, seconds = timed_retrieve(retriever, queries, keep=keep)
    return [Trace(ranking.query, (StageTrace(ranking.stage, ranking, seconds),)) for ranking in rankings]


def timed_retrieve(retriever: Retriever, queries: Sequence[Query], *, keep: int) -> tuple[list[Ranking], float]:
    """The retriever's Rankings and the seconds they took. Raises ValueError when their number is not the queries'."""
    start = time.perf_counter()
    rankings = retriever.retrieve(queries, keep=keep)
    seconds = time.perf_counter() - start
    if len(rankings) != len(queries):
        raise ValueError(f"{type(retriever).__name__} returned {len(rankings)} rankings for {len(queries)} queries")
    return rankings, seconds
