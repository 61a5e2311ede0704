"""What passes between stages: frozen values, no I/O, standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    """A slice of a document: `text == document.text[start:end]`, offsets in characters."""

    doc_id: DocId
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked. `history` holds earlier turns, oldest first."""

    id: QueryId
    text: str
    history: tuple[str, ...] = ()


class Hit(NamedTuple):
    """A document with its score: larger is better, comparable only within one Ranking.

    `span` is the (start, end) of the passage that matched, in characters of the document's text.
    """

    doc_id: DocId
    score: float
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Ranking:
    """The hits of one query after one stage: finite scores, ordered by (-score, doc_id), each document once.

    An empty Ranking means that nothing matched. Raises ValueError when made from hits that break the order,
    repeat a document or carry a score that is not finite: a broken stage is found where it broke.
    """

    query: Query
    hits: tuple[Hit, ...]
    stage: str

    def __post_init__(self) -> None:
        seen: set[DocId] = set()
        previous: Hit | None = None
        for hit in self.hits:
            if not math.isfinite(hit.score):
                raise ValueError(f"stage {self.stage!r} gave document {hit.doc_id!r} the score {hit.score}")
            if previous is not None and (-previous.score, previous.doc_id) > (-hit.score, hit.doc_id):
                raise ValueError(f"stage {self.stage!r} put {previous.doc_id!r} before {hit.doc_id!r} out of order")
            previous = hit
            seen.add(hit.doc_id)
        if len(seen) != len(self.hits):
            raise ValueError(f"stage {self.stage!r} ranked a document twice for query {self.query.id!r}")

    @classmethod
    def from_scores(
        cls, query: Query, doc_ids: Sequence[DocId], scores: Iterable[float], *, stage: str, keep: int
    ) -> Ranking:
        """Sort, break ties by document id ascending, and cut: the only place where that happens.

        `doc_ids` and `scores` are aligned, in any order, each document once; at most `keep` hits survive.
        """
        order = sorted(zip((-score for score in scores), doc_ids, strict=True))
        return cls(query, tuple([Hit(doc_id, -negated) for negated, doc_id in order[:keep]]), stage)

    @property
    def doc_ids(self) -> list[DocId]:
        """Document ids, best first."""
        return [hit.doc_id for hit in self.hits]
