"""What passes between stages: frozen values, no I/O, standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import neg
from types import MappingProxyType
from typing import Any, NamedTuple, NewType, TypeAlias

DocId = NewType("DocId", str)
"""The caller's own name of a document: opaque, never parsed, never an array position."""

QueryId = NewType("QueryId", str)
"""The caller's own name of a query: opaque."""

Qrels: TypeAlias = Mapping[QueryId, Mapping[DocId, int]]
"""Judgments: the relevance of documents to queries; 1 and more is relevant, a document not listed is unjudged."""

_NO_METADATA: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the collection. `metadata` holds whatever JSON values the source gave beside it."""

    id: DocId
    text: str
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: _NO_METADATA)

    @property
    def full_text(self) -> str:
        """Title and text in one string: what the BM25 leg tokenises and the dense leg encodes."""
        return f"{self.title} {self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Passage:
    """A slice of a document: `text == document.text[start:end]`, offsets in characters.

    `headings` are those of the sections that the slice begins in, outermost first.
    """

    doc_id: DocId
    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked. `history` holds earlier turns, oldest first."""

    id: QueryId
    text: str
    history: tuple[str, ...] = ()


Span: TypeAlias = tuple[int, int]
"""Start and end of a passage, in characters of the document's text."""


class Hit(NamedTuple):
    """A document with its score: larger is better, comparable only within one Ranking.

    `span` is that of the passage that matched, None where documents are not cut into passages.
    """

    doc_id: DocId
    score: float
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """A hit with its document: what a program that asks is given.

    Attributes:
        document: as it was indexed, or as it was handed over to be reranked.
        score: of the last stage; larger is better, comparable only within one result.
        scores: those of all stages that ranked it, by the stage's name, first stage first.
        span: that of the passage that matched, None where documents are not cut into passages.
    """

    document: Document
    score: float
    scores: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    span: Span | None = None

    @property
    def text(self) -> str:
        """The passage that matched or, where documents are not cut, the document's text."""
        return self.document.text if self.span is None else self.document.text[slice(*self.span)]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The hits of one query after one stage: finite scores, ordered by (-score, doc_id, span), each document once.

    Where `passages` were asked for, each passage is there once, and a document as often as it has passages there. An
    empty Ranking means that nothing matched. Raises ValueError when made from hits that break the order, repeat a
    document or carry a score that is not finite: a broken stage is found where it broke.
    """

    query: Query
    hits: tuple[Hit, ...]
    stage: str
    passages: bool = False

    def __post_init__(self) -> None:
        if not self.hits:
            return
        # By whole columns, as a run of MS MARCO makes millions of hits.
        doc_ids, scores, spans = zip(*self.hits, strict=True)
        if not all(map(math.isfinite, scores)):
            broken = next(hit for hit in self.hits if not math.isfinite(hit.score))
            raise ValueError(f"stage {self.stage!r} gave document {broken.doc_id!r} the score {broken.score}")
        columns = [map(neg, scores), doc_ids, *([[span or () for span in spans]] if self.passages else ())]
        places = list(zip(*columns, strict=True))
        if places != sorted(places):
            above, below = next(pair for pair in pairwise(places) if pair[0] > pair[1])
            raise ValueError(f"stage {self.stage!r} put {above[1]!r} before {below[1]!r} out of order")
        distinct = set(zip(doc_ids, spans, strict=True)) if self.passages else set(doc_ids)
        if len(distinct) != len(self.hits):
            raise ValueError(f"stage {self.stage!r} ranked a document twice for query {self.query.id!r}")

    @classmethod
    def from_scores(  # noqa: PLR0913
        cls,
        query: Query,
        doc_ids: Sequence[DocId],
        scores: Iterable[float],
        *,
        stage: str,
        keep: int,
        spans: Sequence[Span | None] | None = None,
        passages: bool = False,
    ) -> Ranking:
        """Sort, break ties by document id and then span, ascending, and cut: the only place where that happens.

        `doc_ids`, `scores` and `spans` (None: no hit has one) are aligned, in any order, each document or, if
        `passages`, each passage once; at most `keep` hits survive.
        """
        if spans is None or not any(spans):
            order = sorted(zip(map(neg, scores), doc_ids, strict=True))
            hits = [_new_hit(Hit, (doc_id, -negated, None)) for negated, doc_id in order[:keep]]
        else:
            spanned = sorted(zip(map(neg, scores), doc_ids, spans, strict=True), key=_place)
            hits = [_new_hit(Hit, (doc_id, -negated, span)) for negated, doc_id, span in spanned[:keep]]
        return cls(query, tuple(hits), stage, passages)

    @property
    def keys(self) -> list[object]:
        """What each hit is one of, best first: its document or, in a Ranking of passages, its passage."""
        return [(hit.doc_id, hit.span) for hit in self.hits] if self.passages else [hit.doc_id for hit in self.hits]

    @property
    def doc_ids(self) -> list[DocId]:
        """Document ids, best first."""
        return [hit.doc_id for hit in self.hits]


_new_hit = tuple.__new__  # half the time of Hit(...), which is most of what a deep Ranking costs


def _place(hit: tuple[float, DocId, Span | None]) -> tuple[float, DocId, tuple[int, ...]]:
    return hit[0], hit[1], hit[2] or ()
