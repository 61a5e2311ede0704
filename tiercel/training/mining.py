"""Which documents should a model learn to tell from the right ones? Hard negatives from what the first stages ranked.

Negatives near the top of a list teach most, and are the most likely to be answers that nobody has judged. A teacher
finds those: RocketQA (Qu et al., NAACL 2021) removes what a cross-encoder is sure of, NV-Retriever (Moreira et al.,
2024) what it scores near a positive. Knows no network: the teacher is any Reranker.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from tiercel.errors import InputError, UsageError
from tiercel.protocols import CandidateGroup, DocumentStore, Reranker
from tiercel.training.groups import MinedDocument, MinedGroup
from tiercel.types import DocId, Qrels, Query, QueryId, Ranking

Legs = Mapping[str, Mapping[QueryId, Ranking]]
"""What each leg ranked, by its name and the query's id."""

_POOL = 2  # with a teacher, so many times the negatives are drawn, as some will be denied
_GROUPS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class MiningOptions:
    """How negatives are chosen.

    Attributes:
        negatives: most of them for each query.
        depth: how far down a leg's list they may stand.
        skip: how many at the top of each list are left alone, as they are the most likely to be unjudged answers.
        seed: two minings with the same seed and input give the same groups; a query's draw depends on no other query.
        margin: a negative must have a teacher score at least so much below that of the query's lowest positive.
        quantile: a negative must score below this quantile of all positives' teacher scores, 0 to 1.
    """

    negatives: int = 7
    depth: int = 100
    skip: int = 0
    seed: int = 0
    margin: float | None = None
    quantile: float | None = None

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise UsageError(f"{self.negatives} negatives", expected="at least 1")
        if not 0 <= self.skip < self.depth:
            raise UsageError(f"skip {self.skip} of depth {self.depth}", expected="0 or more, and less than the depth")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise UsageError(f"the quantile {self.quantile:g}", expected="a number between 0 and 1")


class Mined(NamedTuple):
    """What was mined.

    Attributes:
        groups: one for each query that has a positive and a negative, in the order of the queries.
        denied: how many negatives the teacher took for answers.
        dropped: ids of judged queries that were left without negatives.
        unjudged: how many queries have no positive.
    """

    groups: list[MinedGroup]
    denied: int
    dropped: list[QueryId]
    unjudged: int


def mine(
    queries: Sequence[Query],
    qrels: Qrels,
    legs: Legs,
    *,
    options: MiningOptions,
    teacher: Reranker | None = None,
    documents: DocumentStore | None = None,
) -> Mined:
    """Groups of the queries that have a relevant document (grade 1 or more).

    Legs take turns: each draws at random one of its hits that are not relevant and not drawn yet. With a `teacher`, all
    documents are scored, from the texts that `documents` gives, and twice as many are drawn as are kept. Without
    `margin` and `quantile` the teacher denies nothing and its scores are only written.

    Raises UsageError for a rule without a teacher, and InputError where no query has both a positive and a negative.
    """
    if teacher is None and not (options.margin is None and options.quantile is None):
        raise UsageError("a margin or quantile without a teacher", expected="a cross-encoder: --teacher MODEL")
    found = [_drawn(query, qrels, legs, options, has_teacher=teacher is not None) for query in queries]
    groups = [group for group in found if group is not None]
    unjudged = len(found) - len(groups)
    if teacher is not None:
        if documents is None:
            raise UsageError("a teacher without documents", expected="the texts that it is to read")
        groups = list(_taught(groups, teacher, documents))
    kept, denied = _denoised(groups, options)
    dropped = [group.query.id for group in kept if not group.negatives]
    kept = [group for group in kept if group.negatives]
    if not kept:
        raise InputError(
            f"none of {len(queries)} queries has both a positive and a negative ({unjudged} have no positive)",
            expected="queries with judgments, and rankings that hold other documents than the relevant",
            next_step="Check that queries, qrels and rankings are of one collection, or deny less",
        )
    return Mined(kept, denied, dropped, unjudged)


def rankings_by_query(rankings: Sequence[Ranking]) -> dict[QueryId, Ranking]:
    """Rankings by the ids of their queries."""
    return {ranking.query.id: ranking for ranking in rankings}


def _drawn(query: Query, qrels: Qrels, legs: Legs, options: MiningOptions, *, has_teacher: bool) -> MinedGroup | None:
    relevant = sorted(doc_id for doc_id, grade in qrels.get(query.id, {}).items() if grade > 0)
    if not relevant:
        return None
    places: dict[str, dict[DocId, tuple[int, float]]] = {}
    floors = {}
    for leg, by_query in legs.items():
        hits = by_query[query.id].hits[: options.depth] if query.id in by_query else ()
        places[leg] = {hit.doc_id: (rank, hit.score) for rank, hit in enumerate(hits, 1)}
        if hits:
            floors[leg] = hits[-1].score
    count = options.negatives * (_POOL if has_teacher else 1)
    drawn = islice(_take_turns(places, set(relevant), options, f"{options.seed}:{query.id}"), count)
    return MinedGroup(
        query,
        [_document(doc_id, _best_leg(doc_id, places), places) for doc_id in relevant],
        [_document(doc_id, leg, places) for leg, doc_id in drawn],
        floors,
    )


def _take_turns(
    places: Mapping[str, Mapping[DocId, tuple[int, float]]], relevant: set[DocId], options: MiningOptions, seed: str
) -> Iterator[tuple[str, DocId]]:
    """Leg and document, each document once, in the order in which they are drawn."""
    chance = random.Random(seed)  # of a string: the same on every machine, whatever the hash seed
    waiting = {}
    for leg, found in places.items():
        waiting[leg] = [doc_id for doc_id, (rank, _) in found.items() if rank > options.skip and doc_id not in relevant]
        chance.shuffle(waiting[leg])
    taken: set[DocId] = set()
    while any(waiting.values()):
        for leg, doc_ids in waiting.items():
            while doc_ids:
                doc_id = doc_ids.pop()
                if doc_id not in taken:
                    taken.add(doc_id)
                    yield leg, doc_id
                    break


def _best_leg(doc_id: DocId, places: Mapping[str, Mapping[DocId, tuple[int, float]]]) -> str | None:
    ranked = [(found[doc_id][0], position) for position, found in enumerate(places.values()) if doc_id in found]
    return list(places)[min(ranked)[1]] if ranked else None


def _document(doc_id: DocId, leg: str | None, places: Mapping[str, Mapping[DocId, tuple[int, float]]]) -> MinedDocument:
    scores = {name: found[doc_id][1] for name, found in places.items() if doc_id in found}
    return MinedDocument(doc_id, leg, None if leg is None else places[leg][doc_id][0], scores)


def _taught(groups: Sequence[MinedGroup], teacher: Reranker, documents: DocumentStore) -> Iterator[MinedGroup]:
    for start in range(0, len(groups), _GROUPS_AT_ONCE):
        part = groups[start : start + _GROUPS_AT_ONCE]
        candidates = [CandidateGroup(g.query, documents.get([d.id for d in g.documents])) for g in part]
        for group, scores in zip(part, teacher.score(candidates), strict=True):
            scored = [replace(d, teacher=float(s)) for d, s in zip(group.documents, scores, strict=True)]
            positives = len(group.positives)
            yield replace(group, positives=scored[:positives], negatives=scored[positives:])


def _denoised(groups: Sequence[MinedGroup], options: MiningOptions) -> tuple[list[MinedGroup], int]:
    ceiling = _ceiling(groups, options)
    kept, denied = [], 0
    for group in groups:
        passes = _rule(group, options, ceiling)
        negatives = [document for document in group.negatives if passes(document)]
        denied += len(group.negatives) - len(negatives)
        kept.append(replace(group, negatives=negatives[: options.negatives]))
    return kept, denied


def _ceiling(groups: Sequence[MinedGroup], options: MiningOptions) -> float:
    scores = [d.teacher for group in groups for d in group.positives if d.teacher is not None]
    if options.quantile is None or not scores:
        return float("inf")
    return float(np.quantile(np.array(scores), options.quantile))


def _rule(group: MinedGroup, options: MiningOptions, ceiling: float) -> Callable[[MinedDocument], bool]:
    lowest = min((d.teacher for d in group.positives if d.teacher is not None), default=float("inf"))
    below = float("inf") if options.margin is None else lowest - options.margin

    def passes(document: MinedDocument) -> bool:
        score = document.teacher
        return score is None or (score <= below and score < ceiling)

    return passes
