"""Why is a document where it is? Every stage of a pipeline, what it made of the document, and which one dropped it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from tiercel.errors import UsageError
from tiercel.index.view import place_of
from tiercel.protocols import Explains
from tiercel.retrieve.cascade import rerank
from tiercel.retrieve.fusion import Fusion

if TYPE_CHECKING:
    from tiercel.index.store import Index
    from tiercel.parts import Parts
    from tiercel.protocols import Retriever
    from tiercel.retrieve.cascade import Cascade
    from tiercel.retrieve.fusion import FusedPart
    from tiercel.types import DocId, Document, Hit, Query, Ranking

_DEEPER = 8
"""How many times more hits a leg is asked for, again and again, until a document that it dropped is among them."""


@dataclass(frozen=True, slots=True)
class StageExplanation:
    """One stage, and one document there.

    Attributes:
        stage: its name in a trace.
        is_leg: one of several lists that are fused, each of which may lack a document that the others have.
        reached: whether it was given the document; a leg looks at all of its collection.
        rank: from 1, in all that it ranked, also below what it keeps; None for a document that it does not rank.
        score: what it is ranked by; None likewise.
        keep: how many survive.
        kept: whether the document is one of them.
        last: the last one that survives; None where there is none.
        fusion: what each of the fused lists adds to the score; () where nothing is fused.
        parts: out of what its own score is made, also for a document that did not reach it; None where it does not
            tell, or the query asks it for nothing.
    """

    stage: str
    is_leg: bool
    reached: bool
    rank: int | None
    score: float | None
    keep: int
    kept: bool
    last: Hit | None
    fusion: tuple[FusedPart, ...]
    parts: Parts | None

    @property
    def margin(self) -> float | None:
        """By how much the score is above that of the last one that survives: below 0 for a document that is dropped."""
        return None if self.score is None or self.last is None else self.score - self.last.score


@dataclass(frozen=True, slots=True)
class Explanation:
    """One document for one query.

    Attributes:
        eligible: whether the filter selects the document; one that it does not is in no list.
        stages: in the order of the trace.
    """

    query: Query
    document: Document
    eligible: bool
    stages: tuple[StageExplanation, ...]

    @property
    def dropped_by(self) -> StageExplanation | None:
        """The stage after which the document is gone; None for a document that is in the result."""
        return next((stage for stage in self.stages if not stage.kept and not stage.is_leg), None)

    @property
    def rank(self) -> int | None:
        """In the result; None where it is not in it."""
        return self.stages[-1].rank if self.stages[-1].kept else None


def explain(
    index: Index, pipeline: Cascade, query: Query, doc_ids: Sequence[DocId], *, keep: int, where: str = ""
) -> list[Explanation]:
    """One Explanation per document, in the order given; the pipeline is run once for all of them.

    Args:
        index: the one that the pipeline was made of, as `app.make_pipeline` does.
        pipeline: ranks documents, not passages.
        query: what it is asked.
        doc_ids: which documents are explained, found or not.
        keep: how many hits are asked for.
        where: the filter that the pipeline was made with.

    Raises UsageError for no document, one that is given twice or one that the index does not hold.
    """
    _check(index, doc_ids)
    documents = index.get(doc_ids)
    stages = list(_run(index, pipeline, query, doc_ids, keep=keep))
    return [
        Explanation(
            query,
            document,
            _is_eligible(index, document.id, where),
            tuple(stage.explained(query, document) for stage in stages),
        )
        for document in documents
    ]


def _check(index: Index, doc_ids: Sequence[DocId]) -> None:
    if not doc_ids:
        raise UsageError("no document to explain", expected="the id of at least one")
    twice = [doc_id for place, doc_id in enumerate(doc_ids) if doc_id in doc_ids[:place]]
    if twice:
        raise UsageError(f"the document {twice[0]!r} twice", expected="each id once")
    missing = index.missing(doc_ids)
    if missing:
        some = [doc_id for view in index.views for doc_id in view.some_ids(1000)]
        near = difflib.get_close_matches(missing[0], some, n=1) or some[:1]
        raise UsageError(
            f"no document has the id {missing[0]!r}",
            expected=f"an id of the index, such as {near[0]!r}" if near else "an index with documents",
            where=str(index.path),
        )


def _is_eligible(index: Index, doc_id: DocId, where: str) -> bool:
    place = place_of(index.filtered(where), doc_id)
    if place is None:
        return False
    view, ordinal = place
    return view.eligible_documents is None or bool(view.eligible_documents[ordinal])


def _no_fusion(doc_id: DocId) -> tuple[FusedPart, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage that has been run.

    Attributes:
        whole: all that it ranked or, of a leg, as much as has the documents that are asked about.
        kept: what survives of it.
        given: what it reranks; None for a stage that looks at the whole collection.
        source: what may explain its own scores.
        fusion: the parts of a document's fused score.
    """

    name: str
    keep: int
    whole: Ranking
    kept: Ranking
    given: Ranking | None = None
    is_leg: bool = False
    source: object = None
    fusion: Callable[[DocId], tuple[FusedPart, ...]] = _no_fusion

    def explained(self, query: Query, document: Document) -> StageExplanation:
        """What it made of a document."""
        ranks = {doc_id: rank for rank, doc_id in enumerate(self.whole.doc_ids, start=1)}
        rank = ranks.get(document.id)
        return StageExplanation(
            stage=self.name,
            is_leg=self.is_leg,
            reached=self.given is None or document.id in self.given.doc_ids,
            rank=rank,
            score=None if rank is None else self.whole.hits[rank - 1].score,
            keep=self.keep,
            kept=document.id in self.kept.doc_ids,
            last=self.kept.hits[-1] if self.kept.hits else None,
            fusion=self.fusion(document.id) if rank is not None else (),
            parts=self.source.explain(query, document) if isinstance(self.source, Explains) else None,
        )


def _run(index: Index, pipeline: Cascade, query: Query, doc_ids: Sequence[DocId], *, keep: int) -> Iterator[_Stage]:
    """Every stage as `Cascade.trace` runs it, but with what it ranked below the cut."""
    recall_keep, *step_keeps = pipeline.keeps(keep)
    stages = list(_recalled(index, pipeline.recall, query, doc_ids, keep=recall_keep))
    yield from stages
    given = stages[-1].kept
    documents: dict[DocId, Document] | None = None
    for step, step_keep in zip(pipeline.steps, step_keeps, strict=True):
        if step.reads and documents is None:
            documents = dict(zip(given.doc_ids, index.get(given.doc_ids), strict=True))
        (alone,) = rerank(step, [given], documents=documents)
        whole = step.fuse(given, alone, keep=len(given.hits))
        kept = step.fuse(given, alone, keep=step_keep)
        fusion = partial(step.explain, given, alone)
        yield _Stage(step.name, step_keep, whole, kept, given, source=step.reranker, fusion=fusion)
        given = kept


def _recalled(
    index: Index, recall: Retriever, query: Query, doc_ids: Sequence[DocId], *, keep: int
) -> Iterator[_Stage]:
    """Each leg and, where there are several, their fusion."""
    if not isinstance(recall, Fusion):
        yield _leg(index, recall, query, doc_ids, keep=keep)
        return
    legs = [
        replace(_leg(index, leg.retriever, query, doc_ids, keep=recall.leg_keep(keep)), name=leg.name)
        for leg in recall.legs
    ]
    if len(legs) == 1:
        yield from legs
        return
    yield from (replace(leg, is_leg=True) for leg in legs)
    lists = [leg.kept for leg in legs]
    whole = recall.fuse(lists, keep=sum(len(ranking.hits) for ranking in lists))
    yield _Stage(recall.name, keep, whole, recall.fuse(lists, keep=keep), fusion=partial(recall.explain, lists))


def _leg(index: Index, leg: Retriever, query: Query, doc_ids: Sequence[DocId], *, keep: int) -> _Stage:
    """What a leg finds, and so much more that the documents are there, where it can find them at all."""
    (kept,) = leg.retrieve([query], keep=keep)
    whole, depth = kept, keep
    while len(whole.hits) == depth < len(index) and not set(doc_ids) <= set(whole.doc_ids):
        depth = min(len(index), _DEEPER * depth)
        (whole,) = leg.retrieve([query], keep=depth)
    return _Stage(kept.stage, keep, whole, kept, source=leg)
