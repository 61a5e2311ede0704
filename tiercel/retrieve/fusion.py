"""One ranking out of several of the same query, and the Retriever that asks several legs and fuses them."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from tiercel.errors import UsageError
from tiercel.protocols import Retriever
from tiercel.retrieve.trace import StageTrace, Trace, timed_retrieve
from tiercel.types import DocId, Hit, Query, QueryId, Ranking

RRF_K = 60
"""The constant of reciprocal rank fusion; 60 is the value fixed in a pilot by Cormack et al. (2009)."""

LEG_DEPTH = 100
"""Hits asked of every leg at least: a document ranked 60th by two legs can beat one ranked 1st by a single leg, so a
list fused from legs cut at ten would depend on the cut."""


class FusionMethod(StrEnum):
    """How lists are fused: by rank (`rrf`, `interleave`), by scores of one scale (`minmax`) or as they are (`wsum`).

    `interleave` takes no weights.
    """

    RRF = "rrf"
    MINMAX = "minmax"
    INTERLEAVE = "interleave"
    WSUM = "wsum"


def reciprocal_rank_fusion(
    rankings: Sequence[Ranking],
    *,
    keep: int,
    weights: Sequence[float] | None = None,
    stage: str = "rrf",
    k: float = RRF_K,
) -> Ranking:
    """Sum of weight / (k + rank) over the legs that returned the document, rank counted from 1.

    `rankings` holds one Ranking per leg, all of the same query; `weights` is aligned with it, all 1 when None. A leg
    that did not return a document adds no term. At most `keep` hits; legs that are all empty give an empty Ranking;
    a hit keeps the matched passage of the first leg that gives one. Raises ValueError for no legs, legs of different
    queries, weights of another number, or a weight that is negative or not finite.

    G. V. Cormack, C. L. A. Clarke, S. Büttcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods. SIGIR 2009.
    """
    return _weighted_sum(rankings, _reciprocal_ranks(rankings, k), weights=weights, keep=keep, stage=stage)


def minmax_fusion(
    rankings: Sequence[Ranking], *, keep: int, weights: Sequence[float] | None = None, stage: str = "minmax"
) -> Ranking:
    """Sum of weight * (score - lowest) / (highest - lowest) over the legs that returned the document.

    Lowest and highest are those of the leg's own list, so its first hit counts 1 and its last 0; a leg with one hit,
    or with equal scores throughout, counts 1 for each. A leg that did not return a document adds no term. Arguments,
    result and errors are those of `reciprocal_rank_fusion`.

    E. A. Fox, J. A. Shaw: Combination of Multiple Searches (CombSUM). TREC-2, 1994; with min-max normalised scores as
    in J. H. Lee: Analyses of Multiple Evidence Combination. SIGIR 1997.
    """
    return _weighted_sum(rankings, _normalised(rankings), weights=weights, keep=keep, stage=stage)


def interleaving(
    rankings: Sequence[Ranking], *, keep: int, weights: Sequence[float] | None = None, stage: str = "interleave"
) -> Ranking:
    """The first hit of every leg in the legs' order, then the second of every leg, each document once.

    So the first n * m of m legs hold the first n of each. Scores are 1 / rank. Arguments, result and errors are those
    of `reciprocal_rank_fusion`, but weights that are not all the same raise ValueError: none has a say.

    M. Wrzalik, D. Krechel: CoRT: Complementary Rankings from Transformers. NAACL 2021.
    """
    if weights and len(set(weights)) > 1:
        raise ValueError(f"interleaving takes no weights, found {list(weights)}")
    return _weighted_sum(rankings, _interleaved(rankings), weights=None, keep=keep, stage=stage)


def weighted_sum(
    rankings: Sequence[Ranking], *, keep: int, weights: Sequence[float] | None = None, stage: str = "wsum"
) -> Ranking:
    """Sum of weight * score over the legs that returned the document: for scores that are of one scale already.

    A leg that did not return a document adds no term, which is more than a negative score. Arguments, result and
    errors are those of `reciprocal_rank_fusion`.
    """
    return _weighted_sum(rankings, _scores(rankings), weights=weights, keep=keep, stage=stage)


def fuse_runs(
    runs: Sequence[Sequence[Ranking]],
    fuse: Callable[..., Ranking],
    *,
    keep: int,
    weights: Sequence[float] | None = None,
) -> Iterator[Ranking]:
    """One Ranking for each query of any run, in the order in which they first come; `fuse` is one of METHODS.

    `weights` is aligned with the runs. A run without the query counts as one that found nothing.
    """
    by_run = [{ranking.query.id: ranking for ranking in run} for run in runs]
    queries: dict[QueryId, Query] = {}
    for run in runs:
        for ranking in run:
            if not queries.setdefault(ranking.query.id, ranking.query).text:
                queries[ranking.query.id] = ranking.query  # not every form of a run carries texts
    for query_id, query in queries.items():
        found = [replace(run[query_id], query=query) if query_id in run else Ranking(query, (), "") for run in by_run]
        yield fuse(found, keep=keep, weights=weights)


METHODS: dict[FusionMethod, Callable[..., Ranking]] = {
    FusionMethod.RRF: reciprocal_rank_fusion,
    FusionMethod.MINMAX: minmax_fusion,
    FusionMethod.INTERLEAVE: interleaving,
    FusionMethod.WSUM: weighted_sum,
}

DEFAULT_FUSION = FusionMethod.MINMAX
"""Better than RRF on every split that it was compared on: docs/PERFORMANCE.md, docs/adr/0012."""


def fuse_lists(
    method: FusionMethod, rankings: Sequence[Ranking], *, keep: int, weights: Sequence[float] | None, stage: str
) -> Ranking:
    """One list of several by the named method; arguments, result and errors as in `reciprocal_rank_fusion`."""
    return METHODS[method](rankings, keep=keep, weights=weights, stage=stage)


class FusedPart(NamedTuple):
    """What one list adds to a document's fused score: `weight` times what its rank, from 1, or its score there makes.

    A list that does not have the document has the rank and the score None, and adds 0.
    """

    name: str
    weight: float
    rank: int | None
    score: float | None
    part: float


def fused_parts(
    method: FusionMethod, rankings: Mapping[str, Ranking], doc_id: DocId, *, weights: Sequence[float]
) -> tuple[FusedPart, ...]:
    """Out of what `fuse_lists` makes the score of a document, list by list; `weights` is aligned with the names."""
    parts = []
    for (name, ranking), terms, weight in zip(
        rankings.items(), _TERMS[method](list(rankings.values())), weights, strict=True
    ):
        place = next((place for place, hit in enumerate(ranking.hits) if hit.doc_id == doc_id), None)
        if place is None:
            parts.append(FusedPart(name, weight, None, None, 0.0))
        else:
            parts.append(FusedPart(name, weight, place + 1, ranking.hits[place].score, weight * terms[place]))
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class FusionLeg:
    """A retriever under the name its stage has in a trace, with its weight (above 0)."""

    name: str
    retriever: Retriever
    weight: float = 1.0


class Fusion:
    """A Retriever that asks every leg and fuses what they return.

    Each leg is asked for max(keep, LEG_DEPTH) hits. The legs run one after the other: each already spreads a batch
    over all processors, so running them side by side would share the same processors and blur the time of each.

    Args:
        legs: at least one; names are distinct.
        method: how lists are fused.
        name: the fused stage's name in Rankings and traces; the legs' names joined by "+" when empty.

    Raises UsageError for no legs, a repeated name, or a weight that is not above 0.
    """

    def __init__(self, legs: Sequence[FusionLeg], *, method: FusionMethod = DEFAULT_FUSION, name: str = "") -> None:
        if not legs:
            raise UsageError("a fusion without legs", expected="at least one")
        names = [leg.name for leg in legs]
        if len(set(names)) != len(names):
            raise UsageError(f"legs called {', '.join(names)}", expected="each name once")
        for leg in legs:
            if not (math.isfinite(leg.weight) and leg.weight > 0):
                raise UsageError(f"leg {leg.name!r} has the weight {leg.weight:g}", expected="a number above 0")
        self._legs = tuple(legs)
        if method is FusionMethod.INTERLEAVE and len({leg.weight for leg in legs}) > 1:
            raise UsageError("interleaving with weights", expected="legs without weights")
        self._method = method
        self._name = name or "+".join(names)

    @property
    def legs(self) -> tuple[FusionLeg, ...]:
        """In the order of the trace."""
        return self._legs

    @property
    def name(self) -> str:
        """Of the fused stage."""
        return self._name

    def leg_keep(self, keep: int) -> int:
        """How many hits each leg is asked for, where `keep` are to survive."""
        return keep if len(self._legs) == 1 else max(keep, LEG_DEPTH)

    def fuse(self, rankings: Sequence[Ranking], *, keep: int) -> Ranking:
        """One Ranking of the legs' own, which are in the order of the legs."""
        weights = [leg.weight for leg in self._legs]
        return fuse_lists(self._method, rankings, keep=keep, weights=weights, stage=self._name)

    def explain(self, rankings: Sequence[Ranking], doc_id: DocId) -> tuple[FusedPart, ...]:
        """What each leg adds to a document's score in `fuse`."""
        named = {leg.name: ranking for leg, ranking in zip(self._legs, rankings, strict=True)}
        return fused_parts(self._method, named, doc_id, weights=[leg.weight for leg in self._legs])

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        """One fused Ranking of at most `keep` hits per query, in input order; no match in any leg: an empty one."""
        return [trace.ranking for trace in self.trace(queries, keep=keep)]

    def trace(self, queries: Sequence[Query], *, keep: int) -> list[Trace]:
        """One Trace per query: every leg's Ranking in the legs' order, at the depth it was asked for, then the fused.

        A single leg is asked for `keep` hits and passed on as it is, scores and all: one entry, under the leg's name.
        """
        if not queries:
            return []
        if len(self._legs) == 1:
            rankings, seconds = timed_retrieve(self._legs[0].retriever, queries, keep=keep)
            return [Trace(r.query, (StageTrace(self._legs[0].name, r, seconds),)) for r in rankings]
        by_leg: list[tuple[list[Ranking], float]] = [
            timed_retrieve(leg.retriever, queries, keep=self.leg_keep(keep)) for leg in self._legs
        ]
        start = time.perf_counter()
        fused = [self.fuse(lists, keep=keep) for lists in zip(*(rankings for rankings, _ in by_leg), strict=True)]
        seconds = time.perf_counter() - start
        return [
            self._trace_of(position, by_leg, StageTrace(self._name, r, seconds)) for position, r in enumerate(fused)
        ]

    def _trace_of(self, position: int, by_leg: Sequence[tuple[list[Ranking], float]], fused: StageTrace) -> Trace:
        legs = [
            StageTrace(leg.name, rankings[position], seconds)
            for leg, (rankings, seconds) in zip(self._legs, by_leg, strict=True)
        ]
        return Trace(fused.ranking.query, (*legs, fused))


def _reciprocal_ranks(rankings: Sequence[Ranking], k: float = RRF_K) -> list[list[float]]:
    return [[1 / (k + rank) for rank in range(1, len(ranking.hits) + 1)] for ranking in rankings]


def _normalised(rankings: Sequence[Ranking]) -> list[list[float]]:
    return [_normalised_scores([hit.score for hit in ranking.hits]) for ranking in rankings]


def _normalised_scores(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    highest, lowest = scores[0], scores[-1]
    if highest == lowest:
        return [1.0] * len(scores)
    return [(score - lowest) / (highest - lowest) for score in scores]


def _interleaved(rankings: Sequence[Ranking]) -> list[list[float]]:
    terms = [[0.0] * len(ranking.hits) for ranking in rankings]
    by_leg = [ranking.keys for ranking in rankings]
    seen: set[object] = set()
    for row in range(max(map(len, by_leg), default=0)):
        for keys, leg_terms in zip(by_leg, terms, strict=True):
            if row < len(keys) and keys[row] not in seen:
                seen.add(keys[row])
                leg_terms[row] = 1 / len(seen)
    return terms


def _scores(rankings: Sequence[Ranking]) -> list[list[float]]:
    return [[hit.score for hit in ranking.hits] for ranking in rankings]


_TERMS: dict[FusionMethod, Callable[[Sequence[Ranking]], list[list[float]]]] = {
    FusionMethod.RRF: _reciprocal_ranks,
    FusionMethod.MINMAX: _normalised,
    FusionMethod.INTERLEAVE: _interleaved,
    FusionMethod.WSUM: _scores,
}
"""What each list says of each of its hits, before weights."""


def _weighted_sum(
    rankings: Sequence[Ranking],
    terms: Sequence[Sequence[float]],
    *,
    weights: Sequence[float] | None,
    keep: int,
    stage: str,
) -> Ranking:
    """Fuse aligned lists: `terms[i][j]` is what leg i says of its hit j."""
    queries = {ranking.query.id for ranking in rankings}
    if len(queries) != 1:
        raise ValueError(f"{len(rankings)} rankings of {len(queries)} queries cannot be fused; one query is needed")
    if len({ranking.passages for ranking in rankings}) != 1:
        raise ValueError("rankings of documents and of passages cannot be fused")
    weights = [1.0] * len(rankings) if weights is None else weights
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError(f"the weights {list(weights)} are not all finite and at least 0")
    passages = rankings[0].passages
    collected: defaultdict[object, list[float]] = defaultdict(list)
    first: dict[object, Hit] = {}
    for ranking, leg_terms, weight in zip(rankings, terms, weights, strict=True):
        for key, hit, term in zip(ranking.keys, ranking.hits, leg_terms, strict=True):
            collected[key].append(weight * term)
            if first.setdefault(key, hit).span is None:
                first[key] = hit
    # fsum rounds once, so the order of the legs cannot show in the last digit and change a tie.
    scores = [math.fsum(parts) for parts in collected.values()]
    doc_ids, spans = [hit.doc_id for hit in first.values()], [hit.span for hit in first.values()]
    return Ranking.from_scores(
        rankings[0].query, doc_ids, scores, stage=stage, keep=keep, spans=spans, passages=passages
    )
