"""The composition root: names and settings in, wired objects out. The one module that knows every concrete class."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiercel.config import Backend, Precision, Settings
from tiercel.errors import IndexStoreError, UsageError
from tiercel.protocols import Locates
from tiercel.reranking import (
    STAGES,
    IndexTokens,
    IndexVectors,
    RerankOptions,
    Workshop,
    grouped,
    make_stage,
)
from tiercel.reranking import what_was_read as told
from tiercel.retrieve.spec import Leg, PipelineSpec, RerankStage, check_names, parse
from tiercel.token_models import made_tokens, stored_token_model
from tiercel.types import Query, QueryId

if TYPE_CHECKING:
    from tiercel.index.bm25 import BM25
    from tiercel.index.manifest import EncoderRecord
    from tiercel.index.store import Index
    from tiercel.index.view import View
    from tiercel.models.description import ModelFamily
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.protocols import Reranker, Retriever, TokenEncoder
    from tiercel.retrieve.cascade import Cascade, RerankStep

RECALL_LEGS = ("bm25", "dense")

# What a budget's costs are first measured on: documents, and words of a query.
_SAMPLED, _WORDS_OF_A_QUERY = 12, 8


def _silent(line: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """What is asked of every leg of a pipeline.

    Attributes:
        where: an expression over the metadata, for the documents that may be found; "" for all.
        passages: rank passages, not documents by their best passage.
        parameters: BM25's; None for the defaults.
        reranking: how the stages that rerank score; None for the defaults.
        say: is told in a line what takes time.
        budget_ms: most milliseconds for a query; None for what it takes. See `tiercel.retrieve.budget`.
    """

    where: str = ""
    passages: bool = False
    parameters: BM25 | None = None
    reranking: RerankOptions | None = None
    say: Callable[[str], None] = _silent
    budget_ms: float | None = None


ANYTHING = SearchOptions()


def open_index(path: Path) -> Index:
    """Open the last commit of an index. Raises IndexStoreError where there is none or it cannot be used."""
    from tiercel.index.store import Index

    return Index(path)


def default_pipeline(index: Index) -> PipelineSpec:
    """Every leg that the index has, then late interaction where it keeps token vectors, fused with what it reranks."""
    settings = index.manifest.settings
    stages = ["bm25+dense" if settings.encoder else "bm25", *(["minmax:late"] if settings.tokens else [])]
    return parse(",".join(stages))


def find_pipeline(index: Path, text: str) -> PipelineSpec:
    """The pipeline that the index at this path calls so, or else the one that the string spells.

    Raises UsageError for a string that spells none, and IndexStoreError for named ones that cannot be read.
    """
    from tiercel.index.pipelines import read_pipelines

    return parse(read_pipelines(index).get(text, text))


def make_pipeline(
    index: Index, spec: PipelineSpec, *, settings: Settings, options: SearchOptions = ANYTHING
) -> Cascade:
    """Wire the stages of a pipeline to an index, loading the models they need.

    Raises UsageError for a stage that is not known or a filter that does not fit, IndexStoreError for a leg or a stage
    that asks for what the index lacks, or whose encoder is not the one that made the vectors.
    """
    (pipeline,) = make_pipelines(index, [spec], settings=settings, options=options)
    return pipeline


def make_pipelines(
    index: Index, specs: Sequence[PipelineSpec], *, settings: Settings, options: SearchOptions = ANYTHING
) -> list[Cascade]:
    """The same for several pipelines; a model that several of them use is loaded once. All names are checked first."""
    return wire(Models(index, settings, options.reranking, options.say), specs, options=options)


def wire(models: Models, specs: Sequence[PipelineSpec], *, options: SearchOptions = ANYTHING) -> list[Cascade]:
    """The same with models that may be loaded already: what reranks, and what it says, are theirs."""
    from tiercel.retrieve.cascade import Cascade
    from tiercel.retrieve.fusion import Fusion, FusionLeg

    index = models.index
    for spec in specs:
        check_names(spec, recall=RECALL_LEGS, rerank=STAGES)
    if options.passages and index.manifest.settings.chunking is None:
        raise UsageError(
            "--passages of an index whose documents are whole",
            expected="one that was made with --chunk",
            next_step="Leave it out, or build the index anew with --chunk sentences.",
        )
    views = index.filtered(options.where)
    used = {(leg.name, leg.model) for spec in specs for leg in spec.recall.legs}
    retrievers = {
        (name, model): _retriever(models, views, name, model, options=options) for name, model in sorted(used)
    }
    rerankers = {
        (name, model): models.reranker(name, model)
        for name, model in sorted({(stage.name, stage.model) for spec in specs for stage in spec.reranks})
    }
    pipelines: list[Cascade] = []
    for spec in specs:
        legs = [FusionLeg(_leg_name(leg), retrievers[leg.name, leg.model], leg.weight) for leg in spec.recall.legs]
        recall = Fusion(legs, method=spec.recall.fusion, name=str(spec.recall))
        steps = [_step(stage, rerankers[stage.name, stage.model], matched=models.matched) for stage in spec.reranks]
        if options.budget_ms is None:
            pipelines.append(Cascade(recall, steps, index, recall_keep=spec.recall.keep))
        else:
            pipelines.append(_budgeted(recall, steps, index, spec, options.budget_ms))
    return pipelines


def _budgeted(
    recall: Retriever, steps: Sequence[RerankStep], index: Index, spec: PipelineSpec, budget_ms: float
) -> Cascade:
    """The cascade that keeps to a budget, once it has measured what its stages cost."""
    from tiercel.retrieve.budget import BudgetedCascade

    made = BudgetedCascade(recall, steps, index, budget=budget_ms / 1000, recall_keep=spec.recall.keep)
    sample = index.get([doc_id for view in index.views for doc_id in view.some_ids(_SAMPLED)][:_SAMPLED])
    if sample:
        made.fit(Query(QueryId(""), " ".join(sample[0].full_text.split()[:_WORDS_OF_A_QUERY])), sample)
    return made


def what_was_read(pipeline: Cascade) -> Iterator[str]:
    """In words, what each stage that reranks has had to read and to cut so far; nothing where there is no such."""
    for step in pipeline.steps:
        if read := told(step.reranker):
            yield f"{step.name}: {read}"


def run_tag(tag: str, pipeline: Cascade) -> str:
    """The name of a run, with the group size of each stage whose scores depend on who is read together."""
    return grouped(tag, *(step.reranker for step in pipeline.steps))


def what_was_skipped(pipeline: Cascade) -> list[str]:
    """In words, how a pipeline has kept to its budget and what it skipped; nothing where it has none."""
    from tiercel.retrieve.budget import BudgetedCascade

    return pipeline.told() if isinstance(pipeline, BudgetedCascade) else []


def budget_facts(pipeline: Cascade) -> Callable[[QueryId], Mapping[str, Any]]:
    """What a pipeline with a budget tells of a query that it has answered; of one without there is nothing to tell."""
    from tiercel.retrieve.budget import BudgetedCascade

    return pipeline.facts if isinstance(pipeline, BudgetedCascade) else lambda query_id: {}


def why_empty(index: Index, text: str, where: str = "") -> str:
    """In words, why a query finds nothing by its terms."""
    from tiercel.index.lexical import analyze_queries

    if not text.strip():
        return "the query is empty"
    if not len(index):
        return "the index holds no document"
    if where and not any(_has_eligible(view) for view in index.filtered(where)):
        return "no document fits --where"
    if not analyze_queries(index.analyzer, [text]).terms:
        return f"the query holds nothing but stop words or punctuation (analyzer {index.analyzer.name})"
    found = "no document that fits --where holds" if where else "no document holds"
    return f"{found} a term of the query, or all that do weigh nothing in this BM25 variant"


def _has_eligible(view: View) -> bool:
    return view.eligible_documents is None or bool(view.eligible_documents.any())


def export_model(
    name: str,
    *,
    settings: Settings,
    family: ModelFamily = "encoder",
    precision: Precision | None = None,
    backend: Backend | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Export a model into the user's cache, unless it is there; returns its folder."""
    from tiercel.models.forms import Wanted
    from tiercel.models.zoo import prepare_model

    return prepare_model(
        name,
        family=family,
        wanted=Wanted(precision, backend, settings.provider),
        cache_dir=settings.cache_dir,
        offline=settings.offline,
        progress=say,
    )


def _leg_name(leg: Leg) -> str:
    return f"{leg.name}:{leg.model}" if leg.model else leg.name


class Models:
    """The models that an index and pipelines over it name, each loaded once, when it is first asked for.

    Args:
        index: as of one commit.
        settings: of the environment.
        reranking: how the stages that rerank score; None for the defaults.
        say: is told in a line what takes time.
    """

    def __init__(
        self,
        index: Index,
        settings: Settings,
        reranking: RerankOptions | None = None,
        say: Callable[[str], None] = _silent,
    ) -> None:
        self.index = index
        self.settings = settings
        self.encoder = cache(self._encoder)
        self._reranking = reranking or RerankOptions()
        self._say = say
        self._token_encoder = cache(self._load_token_encoder)
        self._rerankers: dict[tuple[str, str], Reranker] = {}

    def reranker(self, name: str, model: str) -> Reranker:
        """The reranker of a stage; see `tiercel.reranking.make_stage`."""
        if (name, model) not in self._rerankers:
            from tiercel.index.stored_tokens import StoredTokens, row_vectors

            kept, views = self.index.manifest.settings, self.index.views
            tokens = IndexTokens(
                kept.tokens,
                StoredTokens(views),
                self._token_encoder,
                str(self.index.path),
            )
            vectors = IndexVectors(kept.encoder, StoredTokens(views, of=row_vectors), self.encoder)
            workshop = Workshop(self.settings, self._reranking, self._say, tokens, vectors)
            self._rerankers[name, model] = make_stage(name, model, workshop)
        return self._rerankers[name, model]

    @property
    def matched(self) -> bool:
        """Whether stages that rerank read of a document only the passage that matched."""
        return self._reranking.long == "match"

    def at(self, later: Index) -> Models:
        """The same for a later commit of the index. What has been loaded stays, where the index still means it."""
        models = Models(later, self.settings, self._reranking, self._say)
        if later.manifest.settings == self.index.manifest.settings:
            models.encoder, models._token_encoder = self.encoder, self._token_encoder
            # One over stored vectors looks its candidates up in the commit that it was made for.
            kept = {key: reranker for key, reranker in self._rerankers.items() if not _is_stored(reranker)}
            models._rerankers.update(kept)
        return models

    def _encoder(self, model: str) -> OnnxEncoder:
        record = self.index.manifest.settings.encoder
        if record is None:
            raise IndexStoreError(
                "the index has no vectors",
                where=str(self.index.path),
                expected="an index built with an encoder for the stage 'dense'",
                next_step="Use --pipeline bm25, or build the index again without --encoder none.",
            )
        return query_encoder(self.index.path, record, model, settings=self.settings)

    def _load_token_encoder(self) -> TokenEncoder:
        record = self.index.manifest.settings.tokens
        if record is None:
            raise IndexStoreError("the index has no token vectors", where=str(self.index.path))
        if record.of_encoder:
            return made_tokens(self.index.path, record, self.encoder("").tokens)
        return stored_token_model(self.index.path, record, settings=self.settings)


def _step(stage: RerankStage, reranker: Reranker, *, matched: bool) -> RerankStep:
    from tiercel.retrieve.cascade import RerankStep

    # What finds the place in a document itself is given all of it.
    matched = matched and not isinstance(reranker, Locates)
    name = grouped(str(stage), reranker)
    return RerankStep(name, reranker, stage.keep, stage.fusion, stage.weight, reads=_reads(reranker), matched=matched)


def _is_stored(reranker: Reranker) -> bool:
    return bool(getattr(reranker, "is_stored", not _reads(reranker)))


def _reads(reranker: Reranker) -> bool:
    return bool(getattr(reranker, "reads", True))


def _retriever(models: Models, views: Sequence[View], name: str, model: str, *, options: SearchOptions) -> Retriever:
    threads = models.settings.threads
    if name == "bm25":
        from tiercel.index.bm25 import BM25
        from tiercel.index.lexical import LexicalRetriever, parameters_of

        parameters = parameters_of(model, options.parameters or BM25())
        return LexicalRetriever(
            views, models.index.analyzer, parameters=parameters, passages=options.passages, threads=threads
        )
    from tiercel.index.dense import DenseRetriever

    return DenseRetriever(views, models.encoder(model), passages=options.passages, threads=threads)


def query_encoder(path: Path, record: EncoderRecord, model: str, *, settings: Settings) -> OnnxEncoder:
    """The encoder that made the vectors of the index at this path; `model` is what the user calls it, "" for any.

    Raises IndexStoreError for a model that did not make them.
    """
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.models.zoo import find_exported

    folder = None if model else find_exported(record.fingerprint, cache_dir=settings.cache_dir)
    if folder is None:
        folder = export_model(model or record.name, settings=settings, precision=record.precision)
    encoder = OnnxEncoder(folder, provider=settings.provider, threads=settings.threads)
    if encoder.fingerprint != record.fingerprint:
        raise IndexStoreError(
            f"encoder {model or record.name!r} has the fingerprint {encoder.fingerprint}",
            where=str(path),
            expected=f"{record.fingerprint}, of the encoder that made its vectors ({record.name}, {record.precision})",
            next_step="Vectors of two encoders cannot be compared: build the index again, or name the first encoder.",
        )
    return encoder
