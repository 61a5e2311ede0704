"""Which reranker is meant, and what does it rerank? Models by name; candidates from a pipeline, a run or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from tiercel.config import LongStrategy, Precision, ScoreKind, Settings
from tiercel.errors import UsageError
from tiercel.types import Ranking

if TYPE_CHECKING:
    from tiercel.protocols import CandidateGroup, Reranker

STAGE = "cross"
STAGES = (STAGE,)
"""Names of the stages that rerank."""

_GROUPS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """How candidates are scored.

    Attributes:
        precision: of the model; None for what an exported folder has, or `export --bench` found best, else int8 (on a
            GPU fp16).
        score: "logit", the model's own number, or "sigmoid", between 0 and 1.
        long: what is done with a document that is longer than the model's window; "first" reads its beginning.
    """

    precision: Precision | None = None
    score: ScoreKind = "logit"
    long: LongStrategy = "first"

    def __post_init__(self) -> None:
        if self.long == "sum" and self.score == "sigmoid":
            raise UsageError("--long sum with --score sigmoid", expected="logits: the sum adds odds, not probabilities")


def make_reranker(
    model: str,
    *,
    settings: Settings,
    options: RerankOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Reranker:
    """A cross-encoder by name, folder or hub name, exported first if need be.

    Raises UsageError where no model is named and ModelError where it cannot be had or is none.
    """
    from tiercel.models.forms import Wanted
    from tiercel.models.zoo import prepare_model
    from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
    from tiercel.rerankers.long_documents import LongDocuments

    options = options or RerankOptions()
    if not model:
        raise UsageError(f"the stage {STAGE} without a model", expected=f"{STAGE}:MODEL, a folder or a hub name")
    folder = prepare_model(
        model,
        family="cross-encoder",
        wanted=Wanted(options.precision, provider=settings.provider),
        cache_dir=settings.cache_dir,
        offline=settings.offline,
        progress=say,
    )
    reranker = OnnxCrossEncoder(folder, provider=settings.provider, threads=settings.threads, score=options.score)
    if options.long == "first":  # the model cuts by its own pieces, to the last that fits
        return reranker
    return LongDocuments(reranker, options.long, window=reranker.tokenizer.room, pieces=reranker.tokenizer.count)


def rerank(reranker: Reranker, groups: Iterable[CandidateGroup], *, keep: int) -> Iterator[Ranking]:
    """Score the candidates of every group; one Ranking each, in order. Groups are scored many at a time."""
    waiting = iter(groups)
    while batch := list(islice(waiting, _GROUPS_AT_ONCE)):
        for group, scores in zip(batch, reranker.score(batch), strict=True):
            ids = [document.id for document in group.documents]
            yield Ranking.from_scores(group.query, ids, scores.tolist(), stage=STAGE, keep=keep)


def what_was_read(reranker: Reranker) -> str:
    """In words, what a reranker has had to read and to cut so far; "" where it does not count."""
    cost, truncated = getattr(reranker, "cost", None), getattr(reranker, "truncated", 0)
    read = []
    if cost is not None:
        read.append(f"{cost.tokens:,} tokens in {cost.pairs:,} windows, {cost.windows_per_document:.1f} a document")
    if truncated:
        read.append(f"{truncated:,} {'windows' if cost else 'documents'} were cut to what the model reads")
    return "; ".join(read)
