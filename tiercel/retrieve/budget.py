"""A cascade that has so long for a query: how deep can each stage go, and what was left out?

What a stage costs is learnt on this machine: a line of seconds over tokens, fitted before the first query and with
every call since. Time is shared among the stages in proportion to what each would take for all its candidates, and
spent in slices, best candidates first, of which none is planned to take more than half of what is left: a slice may
take twice its time and the deadline still holds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tiercel.errors import UsageError
from tiercel.protocols import DocumentStore, Retriever
from tiercel.retrieve.cascade import Cascade, RerankStep, Scored, own_order, score_candidates
from tiercel.retrieve.spec import resolve_keeps
from tiercel.retrieve.trace import StageTrace, Trace, trace_retriever
from tiercel.types import Document, Hit, Query, QueryId, Ranking

Clock = Callable[[], float]

_FORGETTING = 0.98  # of what was measured before, at each new measurement: a line rests on some fifty calls
_FIRST_DEPTHS = (1, 4, 12)
_CHARACTERS_PER_TOKEN = 4
_SHARE_OF_A_SLICE = 0.5
_LEAST_SHARE_LEFT = 0.05  # of the budget; what follows a stage takes some time too


@dataclass(frozen=True, slots=True)
class Spent:
    """What one query took.

    Attributes:
        seconds: from its start to its last stage's Ranking.
        scored: candidates that each stage that reranks scored, in order.
        skipped: candidates that it did not.
    """

    seconds: float
    scored: tuple[int, ...]
    skipped: tuple[int, ...]


class StageCost:
    """Seconds of a call as `overhead + rate * tokens`, by weighted least squares over the calls so far."""

    def __init__(self) -> None:
        self._calls = self._tokens = self._squares = self._seconds = self._products = 0.0
        self._candidates = 0.0
        self._lock = threading.Lock()

    def learn(self, tokens: float, seconds: float, *, candidates: int) -> None:
        """A call with so many candidates of so many tokens together took so long."""
        values = {"calls": 1.0, "tokens": tokens, "squares": tokens * tokens, "seconds": seconds}
        values |= {"products": tokens * seconds, "candidates": candidates}
        with self._lock:  # several callers may share a pipeline
            for name, value in values.items():
                setattr(self, f"_{name}", _FORGETTING * getattr(self, f"_{name}") + value)

    @property
    def line(self) -> tuple[float, float]:
        """Overhead in seconds and seconds a token, neither negative; both 0 before the first call."""
        if not self._squares:
            return 0.0, 0.0
        spread = self._calls * self._squares - self._tokens**2
        rate = (self._calls * self._products - self._tokens * self._seconds) / spread if spread > 1e-9 else 0.0
        overhead = (self._seconds - rate * self._tokens) / self._calls
        if rate <= 0 or overhead < 0:  # a line through the origin, where the calls are too much alike for another
            return 0.0, self._products / self._squares
        return overhead, rate

    @property
    def tokens_per_candidate(self) -> float:
        """Mean over the calls so far; 1 before the first."""
        return self._tokens / self._candidates if self._candidates else 1.0

    def seconds(self, candidates: int) -> float:
        """What a call with so many candidates is expected to take; 0 for none."""
        overhead, rate = self.line
        return overhead + rate * candidates * self.tokens_per_candidate if candidates else 0.0

    def fitting(self, sizes: Sequence[float], seconds: float) -> int:
        """How many candidates of these sizes in tokens, from the first on, are expected to take no longer."""
        left, rate = self.line
        left = seconds - left
        for count, size in enumerate(sizes):
            left -= rate * size
            if left < 0:
                return count
        return len(sizes)


class BudgetedCascade(Cascade):
    """A Cascade that answers each query within a time, as far as its recall leaves any.

    Queries run one at a time. Recall always runs; a stage for which there is no time hands on what it was given, cut to
    what it keeps. Which candidates are scored depends on the machine and on what else it does. `spent` tells of
    every query since this was made, the last time for an id that comes again.

    Args:
        recall: as the Cascade's, as are `stages`, `documents` and `recall_keep`.
        budget: seconds for a query, above 0. There must be a stage that reranks.
        clock: gives seconds.
    """

    def __init__(
        self,
        recall: Retriever,
        stages: Sequence[RerankStep],
        documents: DocumentStore,
        *,
        budget: float,
        recall_keep: int | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        super().__init__(recall, stages, documents, recall_keep=recall_keep)
        if not 0 < budget < float("inf"):
            raise UsageError(f"a budget of {1000 * budget:g} ms", expected="a number above 0")
        if not stages:
            raise UsageError(
                "a budget for a pipeline without a stage that reranks", expected="one, as in bm25@100,cross:MODEL@10"
            )
        if listwise := next((step.name for step in stages if getattr(step.reranker, "group_size", 0)), ""):
            raise UsageError(
                f"a budget for the stage {listwise!r}, whose scores depend on the candidates that are read together",
                expected="a stage that scores each candidate by itself: a budget decides how many are read",
            )
        self.budget = budget
        self.spent: dict[QueryId, Spent] = {}
        self._costs = [StageCost() for _ in self._stages]
        self._clock = clock

    def fit(self, query: Query, sample: Sequence[Document]) -> None:
        """Learn what the stages cost, on documents of the collection; at least one. Recall is warmed up."""
        trace_retriever(self._recall, [query], keep=1)
        for step, cost in zip(self._stages, self._costs, strict=True):
            for call, depth in enumerate((1, *_FIRST_DEPTHS)):
                some = sample[:depth]
                ranking = Ranking.from_scores(query, [d.id for d in some], [0.0] * len(some), stage="", keep=len(some))
                start = self._clock()
                score_candidates(step, [ranking], {document.id: document for document in some})
                if call:  # the first compiles and opens what all later ones use
                    cost.learn(
                        sum(_sizes(step, ranking, ranking.hits, some)), self._clock() - start, candidates=len(some)
                    )

    def told(self) -> list[str]:
        """In words, what the queries so far took and what was left out; nothing before the first."""
        took = sorted(spent.seconds for spent in self.spent.values())
        if not took:
            return []
        over = sum(seconds > self.budget for seconds in took)
        lines = [
            f"budget of {1000 * self.budget:g} ms: {over:,} of {len(took):,} queries took longer, "
            f"the longest {1000 * took[-1]:.1f} ms"
        ]
        for position, step in enumerate(self._stages):
            scored = sum(spent.scored[position] for spent in self.spent.values())
            skipped = sum(spent.skipped[position] for spent in self.spent.values())
            lines.append(f"{step.name}: {scored:,} candidates scored, {skipped:,} skipped for want of time")
        return lines

    def facts(self, query_id: QueryId) -> dict[str, Any]:
        """Plain values of one query: budget_ms, took_ms, and by stage how many candidates were skipped."""
        spent = self.spent[query_id]
        skipped = [
            {"stage": step.name, "candidates": count} for step, count in zip(self._stages, spent.skipped, strict=True)
        ]
        return {"budget_ms": 1000 * self.budget, "took_ms": 1000 * spent.seconds, "skipped": skipped}

    def trace(self, queries: Sequence[Query], *, keep: int) -> list[Trace]:
        """As the Cascade's; a stage's `skipped` are the candidates that it had no time for."""
        traces = [self._trace_one(query, keep) for query in queries]
        totals = [sum(stage.seconds for stage in column) for column in zip(*(t.stages for t in traces), strict=True)]
        return [
            Trace(
                trace.query,
                tuple(replace(stage, seconds=total) for stage, total in zip(trace.stages, totals, strict=True)),
            )
            for trace in traces
        ]

    def _trace_one(self, query: Query, keep: int) -> Trace:
        recall_keep, *step_keeps = resolve_keeps(self._keeps, keep)
        start = now = self._clock()
        (trace,) = trace_retriever(self._recall, [query], keep=recall_keep)
        stages = list(trace.stages)
        scored: list[int] = []
        for position, (step, step_keep) in enumerate(zip(self._stages, step_keeps, strict=True)):
            before = stages[-1].ranking
            now = self._clock()
            scores = self._score(position, before, until=now + self._share(position, before, start, step_keeps))
            ranking = step.fuse(before, own_order(step, before, scores), keep=step_keep)
            scored.append(len(scores))
            stages.append(StageTrace(step.name, ranking, self._clock() - now, len(before.hits) - len(scores)))
        skipped = tuple(stage.skipped for stage in stages[-len(scored) :])
        self.spent[query.id] = Spent(self._clock() - start, tuple(scored), skipped)
        return Trace(query, tuple(stages))

    def _share(self, position: int, before: Ranking, start: float, keeps: Sequence[int]) -> float:
        """Seconds for a stage, of what the budget has left, by what it and those after it would take for all."""
        left = self.budget * (1 - _LEAST_SHARE_LEFT) - (self._clock() - start)
        coming = [len(before.hits)]
        for keep in keeps[position:-1]:
            coming.append(min(coming[-1], keep))
        wanted = [cost.seconds(count) for cost, count in zip(self._costs[position:], coming, strict=True)]
        return left * wanted[0] / sum(wanted) if sum(wanted) else left

    def _score(self, position: int, before: Ranking, *, until: float) -> list[Scored]:
        """Scores of the first hits: of as many as there is time for."""
        step, cost = self._stages[position], self._costs[position]
        scores: list[Scored] = []
        while len(scores) < len(before.hits):
            start = self._clock()
            hits = before.hits[len(scores) :]
            hits = hits[: _slice(cost, [cost.tokens_per_candidate] * len(hits), until - start)]
            documents = self._documents.get([hit.doc_id for hit in hits]) if step.reads else []
            sizes = _sizes(step, before, hits, documents)
            count = _slice(cost, sizes, until - start)
            if not count:
                break
            found = {document.id: document for document in documents[:count]}
            (some,) = score_candidates(step, [replace(before, hits=hits[:count])], found)
            cost.learn(sum(sizes[:count]), self._clock() - start, candidates=count)
            scores += some
        return scores


def _slice(cost: StageCost, sizes: Sequence[float], left: float) -> int:
    """How many candidates of these sizes go into the next call: half the time that is left, or one that just fits."""
    return cost.fitting(sizes, _SHARE_OF_A_SLICE * left) or cost.fitting(sizes[:1], left)


def _sizes(step: RerankStep, ranking: Ranking, hits: Sequence[Hit], documents: Sequence[Document]) -> list[float]:
    """Tokens that a stage reads of these hits of a Ranking, by their characters; 1 each where it reads none.

    `documents` are those of the hits, none where the stage does not read.
    """
    if not step.reads:
        return [1.0] * len(hits)
    most = getattr(step.reranker, "max_tokens", float("inf"))
    lengths = [
        len(document.title) + (hit.span[1] - hit.span[0] if ranking.passages and hit.span else len(document.text))
        for hit, document in zip(hits, documents, strict=True)
    ]
    return [min(most, (len(ranking.query.text) + length) / _CHARACTERS_PER_TOKEN) for length in lengths]
