"""What does the work behind the server? The index, the reranker and the encoder, fed by one queue."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tiercel.api import Answer, SearchIndex, loaded_encoder, loaded_reranker
from tiercel.errors import TiercelError, UsageError
from tiercel.protocols import CandidateGroup
from tiercel.retrieve.spec import parse, resolve_keeps
from tiercel.serving.batching import Batch, Batcher, Item
from tiercel.serving.options import ServeOptions
from tiercel.types import DocId, Document, Query

if TYPE_CHECKING:
    from tiercel.models.encoder import OnnxEncoder
    from tiercel.protocols import FloatVector, Reranker

_Part = TypeVar("_Part")

MOST_HITS = 1000

# Sizes are characters, which is what texts cost. A query costs what analysing and encoding it and reading the index
# take, a candidate of a pipeline about a passage.
_USUAL_SIZE = 2_000
_CANDIDATE_SIZE = 1_000
_PAIRS_AT_ONCE = 32

_NEW_OBJECTS = 10_000  # that are looked through for cycles at a time: a batch makes more, and hardly any cycle

_STEEP = 500.0  # below this a sigmoid is its exponential, which does not overflow


class NotServedError(TiercelError):
    """An index, a model or a right to change that this server does not have."""


class NotReadyError(TiercelError):
    """Models are being loaded, or could not be."""


class SearchKind(NamedTuple):
    """What searches share that run together."""

    pipeline: str
    where: str
    k: int
    explain: bool = False


class EncodeKind(NamedTuple):
    """The same for texts that are encoded: which prompt they are given, and whether long ones are cut or refused."""

    is_query: bool
    may_cut: bool = True


class RerankKind(NamedTuple):
    """The same for candidates: all of them."""


class Engine:
    """The models and the index of a server, between `running()`'s begin and end.

    Raises NotReadyError while they are being loaded, NotServedError for what the server was not started with, and
    QueueFullError as `Batcher.submit`.
    """

    def __init__(
        self,
        options: ServeOptions,
        *,
        say: Callable[[str], None],
        observe: Callable[[Batch], None] = lambda batch: None,
    ) -> None:
        self.options = options
        self.index: SearchIndex | None = None
        self._reranker: Reranker | None = None
        self._encoder: OnnxEncoder | None = None
        self._say = say
        self._failed: TiercelError | None = None
        self._ready = False
        self._changing = asyncio.Lock()
        self._batcher = Batcher(
            self._run, batch_size=options.batch * _USUAL_SIZE, capacity=options.queue * _USUAL_SIZE, observe=observe
        )

    @property
    def waiting(self) -> int:
        """Size of what waits, in characters."""
        return self._batcher.waiting

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Load what is served and do what comes in."""
        async with self._batcher:
            background = asyncio.create_task(self._load_and_follow())
            try:
                yield
            finally:
                background.cancel()
                await asyncio.wait([background])

    def check_ready(self) -> None:
        """Raise NotReadyError unless everything is loaded."""
        if self._failed is not None:
            raise NotReadyError(f"it could not be loaded: {self._failed}")
        if not self._ready:
            raise NotReadyError("models are being loaded", next_step="Try again in a second")

    async def search(self, queries: Sequence[Query], kind: SearchKind) -> list[Answer]:
        """The answer to each query; with the tokens that late interaction compared, where it is to be explained."""
        index = self.served_index()
        pipeline = kind.pipeline or self.options.pipeline or index.default_pipeline
        spec = parse(pipeline)
        models = [leg.model for leg in spec.recall.legs] + [stage.model for stage in spec.reranks]
        named = set(models) - {"", self.options.reranker}
        if named and pipeline != self.options.pipeline:
            raise UsageError(
                f"a pipeline with the model {min(named)!r}",
                expected=f"the server's own, {self.options.reranker!r}" if self.options.reranker else "none named",
            )
        # Stages without a model compare vectors that the index keeps, which costs about what recall does.
        reads = any(stage.model for stage in spec.reranks)
        candidates = (resolve_keeps(spec.keeps, kind.k)[0] if reads else 0) + (kind.k if kind.explain else 0)
        size = _USUAL_SIZE + candidates * _CANDIDATE_SIZE
        items = [Item(query, size + len(query.text) + sum(map(len, query.history))) for query in queries]
        return await self._batcher.submit(kind._replace(pipeline=pipeline), items)

    async def score(self, query: Query, texts: Sequence[str]) -> list[float]:
        """The reranker's own score of each text; larger is better."""
        # Candidates whose scores depend on who is read together are one group.
        step = max(1, len(texts)) if getattr(self.served_reranker(), "group_size", 0) else _PAIRS_AT_ONCE
        groups = [
            CandidateGroup(
                query,
                [Document(DocId(str(start + row)), text) for row, text in enumerate(texts[start : start + step])],
            )
            for start in range(0, len(texts), step)
        ]
        asked = len(query.text) + sum(map(len, query.history))
        items = [Item(group, sum(asked + len(document.text) for document in group.documents) + 1) for group in groups]
        scores = await self._batcher.submit(RerankKind(), items)
        return [score for array in scores for score in array.tolist()]

    def shown_score(self, score: float) -> float:
        """A logit, of a cross-encoder or Uni-Encoder, between 0 and 1; another model's score as it is."""
        from tiercel.rerankers.cross_encoder import OnnxCrossEncoder
        from tiercel.rerankers.uni_encoder import OnnxUniEncoder

        if not isinstance(self._reranker, (OnnxCrossEncoder, OnnxUniEncoder)):
            return score
        return math.exp(-math.log1p(math.exp(-score))) if score > -_STEEP else math.exp(score)

    async def encode(self, texts: Sequence[str], kind: EncodeKind) -> list[FloatVector]:
        """A vector of each text. Raises UsageError for one that is too long where none may be cut."""
        self.served_encoder()
        return await self._batcher.submit(kind, [Item(text, len(text) + 1) for text in texts])

    async def add(self, documents: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Add documents in one commit, and answer from it."""
        index = self._changed_index()
        async with self._changing:
            added = await index.add_async(documents)
        return {"added": added.added, "replaced": added.replaced, "documents": added.documents}

    async def delete(self, ids: Sequence[str], where: str) -> dict[str, Any]:
        """Delete documents in one commit, and answer from it."""
        index = self._changed_index()
        async with self._changing:
            deleted = await index.delete_async(ids, where=where)
        return {"deleted": deleted.deleted, "documents": deleted.documents, "unknown": list(deleted.unknown)}

    def served_index(self) -> SearchIndex:
        """The index."""
        return _there(self, self.index, "an index")

    def served_reranker(self) -> Reranker:
        """The model of /rerank."""
        return _there(self, self._reranker, "a reranker")

    def served_encoder(self) -> OnnxEncoder:
        """The model of /v1/embeddings and /embed."""
        return _there(self, self._encoder, "an encoder")

    def _changed_index(self) -> SearchIndex:
        if not self.options.changes:
            raise NotServedError("this server's index does not change", next_step="Start it with --allow-changes")
        return self.served_index()

    async def _load_and_follow(self) -> None:
        try:
            await asyncio.to_thread(self._load)
        except TiercelError as error:
            self._failed = error
            self._say(str(error))
            return
        # What is loaded stays: the collector need not go through it again for every few queries.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_NEW_OBJECTS)
        self._ready = True
        while self.index is not None:
            await asyncio.sleep(self.options.refresh_s)
            try:
                if await self.index.refresh_async():
                    self._say(f"answering from commit {self.index.commit}")
            except TiercelError as error:  # the commit that is open answers on
                self._say(str(error))

    def _load(self) -> None:
        options = self.options
        if options.reranker:
            self._reranker = loaded_reranker(options.reranker)
        if options.encoder:
            self._encoder = loaded_encoder(options.encoder)
        if options.index is not None:
            self.index = SearchIndex(options.index, say=self._say)
            self.index.search("falcon", 1, pipeline=options.pipeline)  # loads what a first query loads

    def _run(self, kind: Any, items: Sequence[Any]) -> Sequence[Any]:
        if isinstance(kind, SearchKind):
            index = self.served_index()
            return index.trace(items, kind.k, where=kind.where, pipeline=kind.pipeline, tokens=kind.explain)
        if isinstance(kind, RerankKind):
            return self.served_reranker().score(items)
        encoder = self.served_encoder()
        if not kind.may_cut:
            _check_whole(encoder, items, is_query=kind.is_query)
        return list(encoder.encode_queries(items) if kind.is_query else encoder.encode_documents(items))


def _check_whole(encoder: OnnxEncoder, texts: Sequence[str], *, is_query: bool) -> None:
    for text, reading in zip(texts, encoder.readings(texts, query=is_query), strict=True):
        if reading.end < len(text):
            raise UsageError(
                f"a text of {len(text)} characters, of which the model reads {reading.end}",
                expected=f"at most {encoder.max_tokens} tokens",
                next_step="Shorten it, or ask for truncate",
            )


def _there(engine: Engine, part: _Part | None, name: str) -> _Part:
    engine.check_ready()
    if part is None:
        raise NotServedError(f"this server was started without {name}")
    return part
