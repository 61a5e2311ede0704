"""Which reranker is meant, and what does it rerank? Models by name; candidates from a pipeline, a run or a stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tiercel import __version__
from tiercel.config import LongStrategy, Precision, ScoreKind, Settings
from tiercel.errors import IndexStoreError, UsageError
from tiercel.retrieve.cascade import located
from tiercel.token_models import lasting_name, named_token_model, stated_family
from tiercel.types import Ranking

if TYPE_CHECKING:
    from pathlib import Path

    from tiercel.index.manifest import EncoderRecord, TokensRecord
    from tiercel.models.description import ModelFamily
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.protocols import CandidateGroup, Reranker, TokenEncoder
    from tiercel.rerankers.late_interaction import TokenSource

STAGE = "rerank"
"""What the command that reranks calls its one stage."""

_T = TypeVar("_T")

# Ways to read a document that make no windows of it.
_ONE_TEXT = ("match", "first")

# What is scored at once. Pairs of like length are looked for among so many, and so much is lost by a stop.
_GROUPS_AT_ONCE = 32
_PAIRS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class RerankOptions:
    """How candidates are scored.

    Attributes:
        precision: of the model; None for what an exported folder has, or `export --bench` found best, else int8 (on a
            GPU fp16).
        score: "logit", the model's own number, or "sigmoid", between 0 and 1.
        long: what is done with a document that is longer than the model's window. "match" reads the passage that
            matched where documents are cut, and else as "first" does: the document's beginning.
        overlap: tokens (words, marks) that a window of `long` repeats of the one before, at most.
    """

    precision: Precision | None = None
    score: ScoreKind = "logit"
    long: LongStrategy = "match"
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.overlap and self.long in (*_ONE_TEXT, "extract"):
            raise UsageError(
                f"--overlap with --long {self.long}", expected="max, sum or top3, which read a document in windows"
            )
        if self.long == "sum" and self.score == "sigmoid":
            raise UsageError("--long sum with --score sigmoid", expected="logits: the sum adds odds, not probabilities")


def told_of(options: RerankOptions, settings: Settings) -> dict[str, str]:
    """What decides scores beside the model, by what messages call it."""
    return {
        "--score": options.score,
        "--long": options.long,
        "--overlap": str(options.overlap),
        "TIERCEL_PROVIDER": settings.provider,
        "tiercel": __version__,
    }


@dataclass(frozen=True, slots=True)
class IndexTokens:
    """The token vectors of the index whose hits are reranked.

    Attributes:
        record: which model made them; None where the index has none.
        source: where they are.
        encoder: loads the model that made them, for queries.
        where: the index, for messages.
    """

    record: TokensRecord | None
    source: TokenSource
    encoder: Callable[[], TokenEncoder]
    where: str


@dataclass(frozen=True, slots=True)
class IndexVectors:
    """The dense vectors of the index whose hits are reranked.

    Attributes:
        record: which encoder made them; None where the index has none.
        source: where they are, one a row.
        encoder: loads the encoder that made them; what it is given is what the user calls it, "" for any.
    """

    record: EncoderRecord | None
    source: TokenSource
    encoder: Callable[[str], OnnxEncoder]


@dataclass(frozen=True, slots=True)
class Workshop:
    """What rerankers are made with. `tokens`, `vectors`: None where what is reranked is not of an index."""

    settings: Settings
    options: RerankOptions = RerankOptions()
    say: Callable[[str], None] = lambda line: None
    tokens: IndexTokens | None = None
    vectors: IndexVectors | None = None


def make_stage(name: str, model: str, workshop: Workshop) -> Reranker:
    """The reranker of a stage of STAGES; `model` is a name, a folder or a hub name, "" for the index's own.

    Raises UsageError where a model must be named and is not, IndexStoreError where the index lacks what the stage asks
    for, and ModelError where the model cannot be had or is of another family.
    """
    return STAGES[name](model, workshop)


def make_reranker(
    model: str,
    *,
    settings: Settings,
    options: RerankOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Reranker:
    """A model that reads candidates, exported first if need be: of the family it states, else a cross-encoder.

    Raises as `make_stage`.
    """
    options = options or RerankOptions()
    family = stated_family(model) if model else None
    name = _STAGE_OF.get(family or "cross-encoder", "cross")
    if name != "cross" and options.long not in _ONE_TEXT:
        raise UsageError(
            f"--long {options.long} with a model of the family {family}", expected="no --long, or a cross-encoder"
        )
    return make_stage(name, model, Workshop(settings, options, say))


def _cross(model: str, workshop: Workshop) -> Reranker:
    """A cross-encoder."""
    from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
    from tiercel.rerankers.long_documents import LongDocuments

    settings, options = workshop.settings, workshop.options
    if not model:
        raise UsageError("the stage cross without a model", expected="cross:MODEL, a folder or a hub name")
    folder = _prepared(model, "cross-encoder", workshop)
    reranker = OnnxCrossEncoder(folder, provider=settings.provider, threads=settings.threads, score=options.score)
    if options.long in _ONE_TEXT:  # the model cuts by its own pieces, to the last that fits
        return reranker
    tokens = reranker.tokenizer
    return LongDocuments(reranker, options.long, window=tokens.room, overlap=options.overlap, pieces=tokens.count)


def _late(model: str, workshop: Workshop) -> Reranker:
    """Late interaction: with the index's token vectors where the model made them, else with vectors made as asked."""
    from tiercel.rerankers.late_interaction import LateInteraction

    settings, options, tokens = workshop.settings, workshop.options, workshop.tokens
    _check_score(options, "late interaction")
    record = tokens.record if tokens else None
    if not model:
        if tokens is None or record is None:
            raise IndexStoreError(
                "the index has no token vectors",
                where=tokens.where if tokens else "",
                expected="an index made with --tokens for the stage 'late'",
                next_step="Name a model, as in late:MODEL, or build the index again with --tokens 2bit.",
            )
        return LateInteraction(tokens.encoder(), stored=tokens.source, threads=settings.threads)
    meant = record if record and record.name == lasting_name(model) else None
    encoder = named_token_model(
        model,
        settings=settings,
        family=meant.family if meant else None,
        precision=options.precision or (meant.precision if meant else None),
        say=workshop.say,
    ).encoder
    stored = tokens.source if tokens and record and record.fingerprint == encoder.fingerprint else None
    if stored is None and tokens is not None:
        workshop.say(
            f"late:{model}: the index has no token vectors of this model, so candidates are encoded as they come"
        )
    return LateInteraction(encoder, stored=stored, threads=settings.threads)


def _check_score(options: RerankOptions, what: str) -> None:
    if options.score == "sigmoid":
        raise UsageError(f"--score sigmoid with {what}", expected="--score logit: its scores are no logits")


def _pair(model: str, workshop: Workshop) -> Reranker:
    """A head over two vectors: over the index's own where its encoder has one, else over vectors made as asked."""
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.models.pair_head import read_head
    from tiercel.rerankers.pair_head import PairReranker

    settings, vectors = workshop.settings, workshop.vectors
    _check_score(workshop.options, "a head over two vectors")
    if not model:
        if vectors is None:
            raise UsageError("the stage pair without a model", expected="pair:MODEL, an encoder with a head")
        encoder = vectors.encoder("")
        return PairReranker(encoder, read_head(encoder.folder), stored=vectors.source)
    record = vectors.record if vectors else None
    meant = record if record and record.name == lasting_name(model) else None
    folder = _prepared(model, "encoder", workshop, precision=meant.precision if meant else None)
    encoder = OnnxEncoder(folder, provider=settings.provider, threads=settings.threads)
    stored = vectors.source if vectors and record and record.fingerprint == encoder.fingerprint else None
    if stored is None and vectors is not None:
        workshop.say(f"pair:{model}: the index's vectors are another encoder's, so candidates are encoded as they come")
    return PairReranker(encoder, read_head(folder), stored=stored)


def _uni(model: str, workshop: Workshop) -> Reranker:
    """A Uni-Encoder, which reads a query's history and the first tokens of each candidate."""
    from tiercel.rerankers.uni_encoder import OnnxUniEncoder

    settings, options = workshop.settings, workshop.options
    if not model:
        raise UsageError("the stage uni without a model", expected="uni:MODEL, a folder or a hub name")
    if options.long not in _ONE_TEXT:
        raise UsageError(f"--long {options.long} with the stage uni", expected="no --long: it reads short candidates")
    folder = _prepared(model, "uni-encoder", workshop)
    return OnnxUniEncoder(folder, provider=settings.provider, threads=settings.threads, score=options.score)


def _local(model: str, workshop: Workshop) -> Reranker:
    """Local attention over whole documents: with the index's token vectors where the model made them."""
    from tiercel.models.description import check_family
    from tiercel.models.local_attention import Geometry, head_of
    from tiercel.rerankers.local_attention import LocalAttention

    settings, options, tokens = workshop.settings, workshop.options, workshop.tokens
    _check_score(options, "local attention")
    record = tokens.record if tokens else None
    name = model or (record.name if record else "")
    if not name:
        raise UsageError("the stage local without a model", expected="local:MODEL, or an index that keeps its vectors")
    family: ModelFamily = "local-attention"
    made = named_token_model(
        name,
        settings=settings,
        family=family,
        precision=options.precision or (record.precision if record and record.name == lasting_name(name) else None),
        say=workshop.say,
    )
    check_family(made.about, family, where=name)
    stored = tokens.source if tokens and record and record.fingerprint == made.encoder.fingerprint else None
    extra = made.about.extra
    geometry, head = Geometry(**extra["geometry"]), head_of(extra["head"])
    return LocalAttention(made.encoder, geometry, head, stored=stored, threads=settings.threads)


def _prepared(model: str, family: ModelFamily, workshop: Workshop, *, precision: Precision | None = None) -> Path:
    """The folder of a model that is exported first if need be; `precision` where none is asked for."""
    from tiercel.models.forms import Wanted
    from tiercel.models.zoo import prepare_model

    settings = workshop.settings
    return prepare_model(
        model,
        family=family,
        wanted=Wanted(workshop.options.precision or precision, provider=settings.provider),
        cache_dir=settings.cache_dir,
        offline=settings.offline,
        progress=workshop.say,
    )


STAGES: Mapping[str, Callable[[str, Workshop], Reranker]] = {
    "cross": _cross,
    "late": _late,
    "local": _local,
    "pair": _pair,
    "uni": _uni,
}
"""What makes the reranker of each stage, by the stage's name."""

_STAGE_OF: Mapping[ModelFamily, str] = {
    "cross-encoder": "cross",
    "late-interaction": "late",
    "local-attention": "local",
    "uni-encoder": "uni",
}


def grouped(name: str, *rerankers: Reranker) -> str:
    """The name of a stage or run, with the group size of each reranker whose scores depend on who is read together."""
    sizes = [getattr(reranker, "group_size", 0) for reranker in rerankers]
    return name + "".join(f"[groups={size}]" for size in sizes if size)


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
    for group, (scores, spans) in zip(groups, located(reranker, groups), strict=True):
        ids = [document.id for document in group.documents]
        stage = grouped(STAGE, reranker)
        ranking = Ranking.from_scores(group.query, ids, scores.tolist(), stage=stage, keep=keep, spans=spans or None)
        rankings.append(ranking)
    return rankings


def what_was_read(reranker: Reranker) -> str:
    """In words, what a reranker has had to read and to cut so far, and whether another one would be a better deal here.

    "" where there is nothing to say.
    """
    cost, truncated = getattr(reranker, "cost", None), getattr(reranker, "truncated", 0)
    cut_queries = getattr(reranker, "truncated_queries", 0)
    read = []
    if cost is not None:
        overlap = getattr(reranker, "overlap", 0)
        shared = f" that overlap by up to {overlap}" if overlap else ""
        windows = f"{cost.pairs:,} windows{shared}, {cost.windows_per_document:.1f} a document"
        read.append(f"{cost.tokens:,} tokens in {windows}")
    if truncated:
        read.append(f"{truncated:,} {'windows' if cost else 'documents'} were cut to what the model reads")
    if cut_queries:
        read.append(f"{cut_queries:,} queries were cut")
    if advice := getattr(reranker, "advice", ""):
        read.append(advice)
    return "; ".join(read)
