"""Which reranker is meant, and what does it rerank? Models by name; candidates from a pipeline, a run or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tiercel.config import LongStrategy, Precision, ScoreKind, Settings
from tiercel.errors import UsageError
from tiercel.types import Ranking

if TYPE_CHECKING:
    from tiercel.protocols import CandidateGroup, Reranker

STAGE = "cross"
STAGES = (STAGE,)
"""Names of the stages that rerank."""

_T = TypeVar("_T")

# What is scored at once. Pairs of like length are looked for among so many, and so much is lost by a stop.
_GROUPS_AT_ONCE = 32
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """How candidates are scored.

    Attributes:
        precision: of the model; None for int8 (on a GPU fp32), or what an exported folder has.
        score: "logit", the model's own number, or "sigmoid", between 0 and 1.
        long: what is done with a document that is longer than the model's window; "first" reads its beginning.
        overlap: tokens (words, marks) that a window of `long` repeats of the one before, at most.
    """

    precision: Precision | None = None
    score: ScoreKind = "logit"
    long: LongStrategy = "first"
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.overlap and self.long in ("first", "extract"):
            raise UsageError(
                f"--overlap with --long {self.long}", expected="max, sum or top3, which read a document in windows"
            )
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
    from tiercel.models.zoo import prepare_model
    from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
    from tiercel.rerankers.long_documents import LongDocuments

    options = options or RerankOptions()
    if not model:
        raise UsageError(f"the stage {STAGE} without a model", expected=f"{STAGE}:MODEL, a folder or a hub name")
    folder = prepare_model(
        model,
        family="cross-encoder",
        cache_dir=settings.cache_dir,
        precision=options.precision or (None if settings.provider == "cpu" else "fp32"),
        offline=settings.offline,
        progress=say,
    )
    reranker = OnnxCrossEncoder(folder, provider=settings.provider, threads=settings.threads, score=options.score)
    if options.long == "first":  # the model cuts by its own pieces, to the last that fits
        return reranker
    tokens = reranker.tokenizer
    return LongDocuments(reranker, options.long, window=tokens.room, overlap=options.overlap, pieces=tokens.count)


def in_batches(items: Iterable[_T], pairs_of: Callable[[_T], int]) -> Iterator[list[_T]]:
    """The items in order, as many together as are well scored at once; `pairs_of` tells the pairs of one.

    Where the batches begin follows from the items alone: those behind a place do not move what is before it.
    """
    batch: list[_T] = []
    pairs = 0
    for item in items:
        count = pairs_of(item)
        if batch and (len(batch) == _GROUPS_AT_ONCE or pairs + count > _PAIRS_AT_ONCE):
            yield batch
            batch, pairs = [], 0
        batch.append(item)
        pairs += count
    if batch:
        yield batch


def rerank(reranker: Reranker, groups: Sequence[CandidateGroup], *, keep: int) -> list[Ranking]:
    """Score the candidates of all groups at once; one Ranking each, in order."""
    rankings = []
    for group, scores in zip(groups, reranker.score(groups), strict=True):
        ids = [document.id for document in group.documents]
        rankings.append(Ranking.from_scores(group.query, ids, scores.tolist(), stage=STAGE, keep=keep))
    return rankings


def what_was_read(reranker: Reranker) -> str:
    """In words, what a reranker has had to read and to cut so far; "" where it does not count."""
    cost, truncated = getattr(reranker, "cost", None), getattr(reranker, "truncated", 0)
    read = []
    if cost is not None:
        overlap = getattr(reranker, "overlap", 0)
        shared = f" that overlap by up to {overlap}" if overlap else ""
        windows = f"{cost.pairs:,} windows{shared}, {cost.windows_per_document:.1f} a document"
        read.append(f"{cost.tokens:,} tokens in {windows}")
    if truncated:
        read.append(f"{truncated:,} {'windows' if cost else 'documents'} were cut to what the model reads")
    return "; ".join(read)
