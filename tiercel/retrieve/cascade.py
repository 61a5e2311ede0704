"""Recall first, then rerankers on fewer and fewer candidates."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tiercel.errors import ModelError
from tiercel.protocols import CandidateGroup, DocumentStore, Located, Locates, Reranker, Retriever
from tiercel.retrieve.fusion import FusedPart, Fusion, FusionMethod, fuse_lists, fused_parts
from tiercel.retrieve.spec import resolve_keeps
from tiercel.retrieve.trace import ReadCount, StageTrace, Trace, trace_retriever
from tiercel.types import DocId, Document, Hit, Query, Ranking, Span

if TYPE_CHECKING:
    from tiercel.protocols import FloatVector


@dataclass(frozen=True, slots=True)
class RerankStep:
    """A reranker under its stage's name.

    Attributes:
        keep: how many survive it; None where the pipeline does not say.
        fusion: how its order is fused with that of the stage before; None: it takes that one's place.
        weight: of its own scores in the fusion, where those of the stage before have 1.
        reads: whether it reads the candidates; if not, no text is fetched for it, and its documents are ids alone.
        matched: whether it reads of a document only the passage by which it was found, where there is one.
    """

    name: str
    reranker: Reranker
    keep: int | None = None
    fusion: FusionMethod | None = None
    weight: float = 1.0
    reads: bool = True
    matched: bool = False

    def fuse(self, before: Ranking, alone: Ranking, *, keep: int) -> Ranking:
        """The reranker's own order of the first candidates, commonly all, fused with the one that all came in.

        Without a fusion it is that order itself, and those that were not scored stay below in theirs.
        """
        if self.fusion is None:
            hits = alone.hits[:keep]
            lowest = min((hit.score for hit in alone.hits), default=0.0)
            rest = before.hits[len(alone.hits) : len(alone.hits) + keep - len(hits)]
            below = tuple(hit._replace(score=lowest - place) for place, hit in enumerate(rest, 1))
            return replace(alone, hits=hits + below)
        return fuse_lists(self.fusion, [before, alone], keep=keep, weights=self._weights, stage=self.name)

    def explain(self, before: Ranking, alone: Ranking, doc_id: DocId) -> tuple[FusedPart, ...]:
        """What both add to a document's score in `fuse`; nothing where the reranker's own is the score."""
        if self.fusion is None:
            return ()
        return fused_parts(self.fusion, {before.stage: before, "its own": alone}, doc_id, weights=self._weights)

    @property
    def _weights(self) -> tuple[float, float]:
        return 1.0, self.weight


class Cascade:
    """A Retriever: recall finds candidates, each step scores what the stage before kept, and keeps the best.

    A batch of queries goes through one stage after the other, so a reranker sees all groups of the batch at once and
    every document is fetched once per batch, for the first stage that reads it. Memory therefore grows with queries
    times candidates; the caller chooses the batch.

    Args:
        recall: the first stage; a Fusion shows its legs in the trace, any other Retriever is one stage.
        stages: the rerankers in the order they run; none makes the cascade its recall.
        documents: gives the text of the candidates.
        recall_keep: how many survive recall; None where the pipeline does not say. `resolve_keeps` settles the rest.
    """

    def __init__(
        self,
        recall: Retriever,
        stages: Sequence[RerankStep],
        documents: DocumentStore,
        *,
        recall_keep: int | None = None,
    ) -> None:
        self._recall = recall
        self._stages = tuple(stages)
        self._documents = documents
        self._keeps = (recall_keep, *(step.keep for step in stages))

    @property
    def recall(self) -> Retriever:
        """The first stage."""
        return self._recall

    def keeps(self, keep: int) -> tuple[int, ...]:
        """How many survive recall and each step, where `keep` hits are asked for."""
        return resolve_keeps(self._keeps, keep)

    @property
    def steps(self) -> tuple[RerankStep, ...]:
        """The stages that rerank, in order."""
        return self._stages

    def counts(self) -> Mapping[str, ReadCount]:
        """What each leg and each step has read since its models were made."""
        legs = [(leg.name, leg.retriever) for leg in self._recall.legs] if isinstance(self._recall, Fusion) else []
        readers: list[tuple[str, object]] = [*legs, *((step.name, step.reranker) for step in self._stages)]
        return {
            name: ReadCount(getattr(reader, "tokens_read", None), getattr(reader, "truncated", None))
            for name, reader in readers
        }

    def retrieve(self, queries: Sequence[Query], *, keep: int) -> list[Ranking]:
        """The last stage's Ranking per query, in input order: at most `keep` hits, fewer where a stage keeps fewer."""
        return [trace.ranking for trace in self.trace(queries, keep=keep)]

    def trace(self, queries: Sequence[Query], *, keep: int) -> list[Trace]:
        """One Trace per query, in input order: the recall legs, their fusion where there are several, every step.

        Seconds are those of the whole batch; fetching the documents counts to the first step. Raises ModelError,
        naming the step, for scores that do not fit the candidates or are not finite, and UsageError for `keep` below 1.
        """
        recall_keep, *step_keeps = self.keeps(keep)
        if not queries:
            return []
        traces = trace_retriever(self._recall, queries, keep=recall_keep)
        documents: Mapping[DocId, Document] | None = None
        for step, step_keep in zip(self._stages, step_keeps, strict=True):
            start = time.perf_counter()
            if step.reads and documents is None:
                documents = self._fetch(traces)
            before = [trace.ranking for trace in traces]
            alone = rerank(step, before, documents=documents)
            rankings = [step.fuse(*both, keep=step_keep) for both in zip(before, alone, strict=True)]
            seconds = time.perf_counter() - start
            traces = [
                Trace(trace.query, (*trace.stages, StageTrace(step.name, ranking, seconds)))
                for trace, ranking in zip(traces, rankings, strict=True)
            ]
        return traces

    def _fetch(self, traces: Iterable[Trace]) -> dict[DocId, Document]:
        """Every candidate of the batch once; later stages only ever need fewer."""
        ids = list(dict.fromkeys(hit.doc_id for trace in traces for hit in trace.ranking.hits))
        return dict(zip(ids, self._documents.get(ids), strict=True)) if ids else {}


def rerank(
    step: RerankStep, rankings: Sequence[Ranking], *, documents: Mapping[DocId, Document] | None
) -> list[Ranking]:
    """All candidates of each Ranking by the reranker's own scores; `documents` has them where the step reads.

    Raises as `score_candidates`.
    """
    scores = score_candidates(step, rankings, documents)
    return [own_order(step, before, of_hits) for before, of_hits in zip(rankings, scores, strict=True)]


class Scored(NamedTuple):
    """What a step gave a candidate, and the span that its hit then has: where the step found it, or as it was."""

    score: float
    span: Span | None


def score_candidates(
    step: RerankStep, rankings: Sequence[Ranking], documents: Mapping[DocId, Document] | None
) -> list[list[Scored]]:
    """The step's scores of each Ranking's hits, in their order; `documents` holds those that a step that reads reads.

    Raises ModelError, naming the step, for scores that do not fit the candidates or are not finite.
    """
    groups = [_group(ranking, documents if step.reads else None, matched=step.matched) for ranking in rankings]
    found = located(step.reranker, groups)
    if len(found) != len(groups):
        raise ModelError(
            f"the reranker returned {len(found)} arrays of scores",
            expected=f"{len(groups)}, one per query",
            where=f"stage {step.name!r}",
        )
    scored = []
    for before, group, (array, spans) in zip(rankings, groups, found, strict=True):
        scores = _checked(step.name, before, array)
        # What was cut to a passage keeps the passage's span: that is what the hit is then one of.
        own = spans if spans and not group.spans else [None] * len(scores)
        kept = [span or hit.span for span, hit in zip(own, before.hits, strict=True)]
        scored.append([Scored(*both) for both in zip(scores, kept, strict=True)])
    return scored


def located(reranker: Reranker, groups: Sequence[CandidateGroup]) -> list[Located]:
    """What a reranker gives each group; without spans where it does not say where."""
    if isinstance(reranker, Locates):
        return reranker.locate(groups)
    return [Located(scores, ()) for scores in reranker.score(groups)]


def _group(ranking: Ranking, documents: Mapping[DocId, Document] | None, *, matched: bool) -> CandidateGroup:
    """The hits as candidates; without documents by their ids alone."""
    cut = matched or ranking.passages
    spans = [hit.span for hit in ranking.hits] if cut else ()
    if documents is None:
        return CandidateGroup(ranking.query, [Document(hit.doc_id, "") for hit in ranking.hits], spans)
    return CandidateGroup(
        ranking.query, [_candidate(hit, documents[hit.doc_id], cut=cut) for hit in ranking.hits], spans
    )


def _candidate(hit: Hit, document: Document, *, cut: bool) -> Document:
    """What of a hit's document is scored: all of it or, where it is to be cut, the passage."""
    if not cut or hit.span is None:
        return document
    return replace(document, text=document.text[slice(*hit.span)])


def own_order(step: RerankStep, before: Ranking, scored: Sequence[Scored]) -> Ranking:
    """The hits by what the step has `scored`: the first of them, commonly all."""
    return Ranking.from_scores(
        before.query,
        [hit.doc_id for hit in before.hits[: len(scored)]],
        [score for score, _ in scored],
        stage=step.name,
        keep=max(1, len(scored)),
        spans=[span for _, span in scored],
        passages=before.passages,
    )


def _checked(stage: str, before: Ranking, array: FloatVector) -> list[float]:
    """The scores as floats, once they are known to be one finite number per candidate."""
    where = f"stage {stage!r}, query {before.query.id!r}"
    shape = tuple(array.shape)
    if shape != (len(before.hits),):
        raise ModelError(
            f"the reranker returned scores of shape {shape}", expected=f"({len(before.hits)},)", where=where
        )
    scores: list[float] = array.tolist()
    for doc_id, score in zip(before.doc_ids, scores, strict=True):
        if not math.isfinite(score):
            raise ModelError(
                f"the reranker gave document {doc_id!r} the score {score}",
                expected="a finite number",
                next_step="A model exported in half precision can overflow; try it in full precision",
                where=where,
            )
    return scores
