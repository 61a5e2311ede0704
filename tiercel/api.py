"""What does a program call? An index that is open for search and change, reranking, encoding; each also for asyncio.

Everything here may be called from any number of threads at once. The twins whose names end in `_async` do the same in a
thread of asyncio's pool, so that the event loop goes on. Models are loaded when they are first needed and stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from tiercel import app
from tiercel.config import Settings
from tiercel.data.corpus import as_document
from tiercel.errors import UsageError
from tiercel.index_settings import IndexOptions
from tiercel.indexing import Deleted, Indexed, add_documents, delete_documents
from tiercel.protocols import CandidateGroup
from tiercel.reranking import RerankOptions, make_reranker
from tiercel.reranking import rerank as rank_candidates
from tiercel.retrieve.context import Context, context
from tiercel.retrieve.spec import PipelineSpec, parse
from tiercel.retrieve.trace import Trace
from tiercel.types import DocId, Document, FoundDocument, Query, QueryId, Span

if TYPE_CHECKING:
    from tiercel.index.store import Index
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.parts import TokenParts
    from tiercel.protocols import FloatMatrix, Reranker
    from tiercel.retrieve.cascade import Cascade

__all__ = [
    "Context",
    "SearchIndex",
    "context",
    "create",
    "encode",
    "encode_async",
    "open",
    "rerank",
    "rerank_async",
]

SomeDocument: TypeAlias = str | Document | Mapping[str, Any]
"""A Document, a record with the fields `id` and `text`, perhaps `title` and metadata, or a text alone."""

TextKind: TypeAlias = Literal["document", "query"]


class Answer(NamedTuple):
    """What a pipeline made of one query.

    Attributes:
        found: best first.
        trace: what every stage ranked.
        tokens: of each document found, how the last stage of late interaction compared it with the query; () where it
            was not asked for, or no stage does that.
    """

    found: list[FoundDocument]
    trace: Trace
    tokens: Sequence[TokenParts] = ()


_PIPELINES = 64  # wired ones that are kept for a commit; a filter is part of one


class SearchIndex:
    """An index that answers and changes. Made by `tiercel.open`.

    It answers from the commit that it was opened at, that of its own last change, or that of `refresh`; a search that
    is under way ends on the commit that it began with. A `with` block is not needed: there is nothing to close.
    """

    def __init__(
        self,
        path: Path,
        *,
        settings: Settings | None = None,
        reranking: RerankOptions | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.path = path
        self._settings = settings or Settings.from_environment()
        self._say = say
        self._change = Lock()
        models = app.Models(app.open_index(path), self._settings, reranking, say)
        self._commit = _Commit(models)

    def __len__(self) -> int:
        """Count the documents."""
        return len(self._commit.index)

    @property
    def default_pipeline(self) -> str:
        """What is asked where no pipeline is named: every leg that the index has."""
        return str(app.default_pipeline(self._commit.index))

    @property
    def commit(self) -> int:
        """Number of the commit that answers."""
        return self._commit.index.manifest.commit

    def search(
        self, query: str, k: int = 10, *, where: str = "", pipeline: str = "", history: Sequence[str] = ()
    ) -> list[FoundDocument]:
        """At most k documents, best first; nothing where none matches.

        Args:
            query: what is asked.
            k: most documents that are returned.
            where: an expression over the metadata, as in "year >= 2020 and lang = 'en'".
            pipeline: stages, as in "bm25+dense@100,cross:MODEL@10"; "" for every leg that the index has.
            history: earlier turns of a conversation, oldest first, for stages that read a history; all
                others, the recall legs among them, read the query alone.

        Raises UsageError for a pipeline or filter that cannot be, IndexStoreError and ModelError as opening a model
        does.
        """
        (found,) = self.search_batch([Query(QueryId(""), query, tuple(history))], k, where=where, pipeline=pipeline)
        return found

    def search_batch(
        self, queries: Sequence[str | Query], k: int = 10, *, where: str = "", pipeline: str = ""
    ) -> list[list[FoundDocument]]:
        """The same for several queries at once, in their order, which is faster than one by one."""
        return [answer.found for answer in self.trace(queries, k, where=where, pipeline=pipeline)]

    def trace(
        self,
        queries: Sequence[str | Query],
        k: int = 10,
        *,
        where: str = "",
        pipeline: str = "",
        tokens: bool = False,
    ) -> list[Answer]:
        """The same, each with what every stage made of the query and, if asked for, what late interaction compared."""
        commit = self._commit
        with commit.lock:
            cascade = commit.pipeline(pipeline, where)
        traces = cascade.trace(list(map(_asked, queries)), keep=k)
        answers = [Answer(*answer) for answer in zip(commit.found(traces), traces, strict=True)]
        return [answer._replace(tokens=_compared(cascade, answer)) for answer in answers] if tokens else answers

    def get(self, ids: Sequence[str]) -> list[Document]:
        """The documents of these ids, in the same order. Raises IndexStoreError for an id that is not there."""
        return self._commit.index.get([DocId(doc_id) for doc_id in ids])

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those of the ids that no document has, in the same order."""
        return list(self._commit.index.missing([DocId(doc_id) for doc_id in ids]))

    def matches(self, query: str, text: str) -> list[Span]:
        """Where the text holds terms of the query, as the index cuts and stems them: start and end in characters."""
        from tiercel.index.matches import matched_spans

        return matched_spans(self._commit.index.analyzer, query, text)

    def add(self, documents: Iterable[Document | Mapping[str, Any]]) -> Indexed:
        """Add documents in one commit; one whose id is there replaces that document. They are found at once.

        Raises InputError for a record without id or text or an id that comes twice; nothing is changed then.
        """
        with self._change:
            added = add_documents(self.path, _documents(documents), IndexOptions(), settings=self._settings)
            self._refresh()
        return added

    def delete(self, ids: Sequence[str] = (), *, where: str = "") -> Deleted:
        """Delete the documents of these ids, or those that an expression over the metadata selects, in one commit."""
        if bool(ids) == bool(where):
            raise UsageError("ids and where" if ids else "neither ids nor where", expected="one of them")
        with self._change:
            deleted = delete_documents(self.path, ids=ids, where=where, settings=self._settings)
            self._refresh()
        return deleted

    def refresh(self) -> bool:
        """Move on to the last commit; True if there was a later one. Models that it still means stay loaded."""
        with self._change:
            return self._refresh()

    def _refresh(self) -> bool:
        latest = self._commit.index.latest()
        if latest is self._commit.index:
            return False
        self._commit = _Commit(self._commit.models.at(latest))
        return True

    async def search_async(
        self, query: str, k: int = 10, *, where: str = "", pipeline: str = "", history: Sequence[str] = ()
    ) -> list[FoundDocument]:
        """`search` in a thread."""
        return await asyncio.to_thread(self.search, query, k, where=where, pipeline=pipeline, history=history)

    async def search_batch_async(
        self, queries: Sequence[str | Query], k: int = 10, *, where: str = "", pipeline: str = ""
    ) -> list[list[FoundDocument]]:
        """`search_batch` in a thread."""
        return await asyncio.to_thread(self.search_batch, queries, k, where=where, pipeline=pipeline)

    async def add_async(self, documents: Iterable[Document | Mapping[str, Any]]) -> Indexed:
        """`add` in a thread."""
        return await asyncio.to_thread(self.add, documents)

    async def delete_async(self, ids: Sequence[str] = (), *, where: str = "") -> Deleted:
        """`delete` in a thread."""
        return await asyncio.to_thread(self.delete, ids, where=where)

    async def refresh_async(self) -> bool:
        """`refresh` in a thread."""
        return await asyncio.to_thread(self.refresh)


class _Commit:
    """An index as of one commit, with the pipelines that have been wired to it. `lock` is held for `pipeline`."""

    def __init__(self, models: app.Models) -> None:
        self.models = models
        self.lock = Lock()
        self.pipeline = lru_cache(maxsize=_PIPELINES)(self._pipeline)

    @property
    def index(self) -> Index:
        return self.models.index

    def _pipeline(self, pipeline: str, where: str) -> Cascade:
        spec: PipelineSpec = parse(pipeline) if pipeline else app.default_pipeline(self.index)
        (cascade,) = app.wire(self.models, [spec], options=app.SearchOptions(where=where))
        return cascade

    def found(self, traces: Sequence[Trace]) -> list[list[FoundDocument]]:
        """What each trace ended with; a document that several queries found is fetched once."""
        ids = list(dict.fromkeys(hit.doc_id for trace in traces for hit in trace.ranking.hits))
        documents = dict(zip(ids, self.index.get(ids), strict=True))
        return [_found(trace, documents) for trace in traces]


def _found(trace: Trace, documents: Mapping[DocId, Document]) -> list[FoundDocument]:
    hits = trace.ranking.hits
    wanted = set(trace.ranking.doc_ids)
    by_stage = {
        stage.name: {hit.doc_id: hit.score for hit in stage.ranking.hits if hit.doc_id in wanted}
        for stage in trace.stages
    }
    return [
        FoundDocument(
            documents[hit.doc_id],
            hit.score,
            {name: scores[hit.doc_id] for name, scores in by_stage.items() if hit.doc_id in scores},
            hit.span,
        )
        for hit in hits
    ]


def open(path: str | Path) -> SearchIndex:
    """Open an index for search and change. Raises IndexStoreError where there is none or it cannot be used."""
    return SearchIndex(Path(path))


def create(
    path: str | Path, documents: Iterable[Document | Mapping[str, Any]], *, options: IndexOptions | None = None
) -> SearchIndex:
    """Make an index of documents, or add them to the one that is there, and open it. Raises as `SearchIndex.add`."""
    settings = Settings.from_environment()
    add_documents(Path(path), _documents(documents), options or IndexOptions(), settings=settings)
    return SearchIndex(Path(path), settings=settings)


def rerank(
    query: str, documents: Sequence[SomeDocument], *, model: str, k: int | None = None, history: Sequence[str] = ()
) -> list[FoundDocument]:
    """Documents by how well a model finds that they answer a query, best first; at most k, all by default.

    `model` is a reranker: an exported folder or a hub name. `history` holds earlier turns, oldest first, for a model
    that reads them. Texts without an id get their position as one, filled up with zeros, so that of equals the first is
    first. Raises UsageError for an id that comes twice, and ModelError where the model cannot be had.
    """
    given = _candidates(documents)
    group = CandidateGroup(Query(QueryId(""), query, tuple(history)), list(given.values()))
    (ranking,) = rank_candidates(loaded_reranker(model), [group], keep=len(given) if k is None else k)
    return [FoundDocument(given[hit.doc_id], hit.score, {ranking.stage: hit.score}, hit.span) for hit in ranking.hits]


def rank_texts(
    query: str, texts: Sequence[str], *, model: str, k: int | None = None, history: Sequence[str] = ()
) -> list[tuple[int, float]]:
    """The same for texts alone: position in `texts` and score, best first; of equals the first is first."""
    found = rerank(query, texts, model=model, k=k, history=history)
    positions = {doc_id: position for position, doc_id in enumerate(_candidates(texts))}
    return [(positions[hit.document.id], hit.score) for hit in found]


def encode(texts: Sequence[str], *, model: str = "", kind: TextKind = "document") -> FloatMatrix:
    """Vectors of texts: shape (len(texts), dimension), float32, rows of L2 norm 1, in input order.

    `model` is an exported folder or a hub name, "" for the one that indexes are made with by default; `kind` says which
    prompt it is given, where it has any. Raises ModelError where the model cannot be had.
    """
    encoder = loaded_encoder(model)
    if kind not in ("document", "query"):
        raise UsageError(f"kind {kind!r}", expected="document or query")
    return encoder.encode_documents(texts) if kind == "document" else encoder.encode_queries(texts)


async def rerank_async(
    query: str, documents: Sequence[SomeDocument], *, model: str, k: int | None = None, history: Sequence[str] = ()
) -> list[FoundDocument]:
    """`rerank` in a thread."""
    return await asyncio.to_thread(rerank, query, documents, model=model, k=k, history=history)


async def encode_async(texts: Sequence[str], *, model: str = "", kind: TextKind = "document") -> FloatMatrix:
    """`encode` in a thread."""
    return await asyncio.to_thread(encode, texts, model=model, kind=kind)


_loading = Lock()


def loaded_reranker(model: str) -> Reranker:
    """A reranker by name, loaded once in this process."""
    with _loading:
        return _reranker(model, Settings.from_environment())


def loaded_encoder(model: str) -> OnnxEncoder:
    """An encoder by name, loaded once in this process."""
    with _loading:
        return _encoder(model, Settings.from_environment())


@lru_cache(maxsize=4)
def _reranker(model: str, settings: Settings) -> Reranker:
    return make_reranker(model, settings=settings)


@lru_cache(maxsize=4)
def _encoder(model: str, settings: Settings) -> OnnxEncoder:
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.models.zoo import DEFAULT_ENCODER

    folder = app.export_model(model or DEFAULT_ENCODER, settings=settings)
    return OnnxEncoder(folder, provider=settings.provider, threads=settings.threads)


def _asked(query: str | Query) -> Query:
    return Query(QueryId(""), query) if isinstance(query, str) else query


def _compared(cascade: Cascade, answer: Answer) -> Sequence[TokenParts]:
    from tiercel.rerankers.late_interaction import LateInteraction

    late = [step.reranker for step in cascade.steps if isinstance(step.reranker, LateInteraction)]
    return late[-1].explain_all(answer.trace.query, [hit.document for hit in answer.found]) if late else ()


def _documents(documents: Iterable[Document | Mapping[str, Any]]) -> Iterable[Document]:
    return (document if isinstance(document, Document) else as_document(document) for document in documents)


def _candidates(documents: Sequence[SomeDocument]) -> dict[DocId, Document]:
    width = len(str(len(documents)))
    given: dict[DocId, Document] = {}
    for number, document in enumerate(documents):
        if isinstance(document, str):
            document = Document(DocId(f"{number:0{width}}"), document)
        elif not isinstance(document, Document):
            document = as_document(document)
        if given.setdefault(document.id, document) is not document:
            raise UsageError(f"the id {document.id!r} twice among the documents", expected="each document once")
    return given
