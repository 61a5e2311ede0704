"""The routes that ask a model alone, in the shapes of others: candidates to scores, texts to vectors."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from tiercel.data.chunking import count_tokens
from tiercel.errors import UsageError
from tiercel.serving import shapes
from tiercel.serving.engine import EncodeKind, Engine, NotServedError
from tiercel.types import Query, QueryId, Ranking

if TYPE_CHECKING:
    from tiercel.protocols import FloatVector


def model_routes(engine: Engine) -> APIRouter:
    """Those of the reranker and of the encoder."""
    router = APIRouter()
    router.include_router(_rerank_routes(engine))
    router.include_router(_embedding_routes(engine))
    return router


def _rerank_routes(engine: Engine) -> APIRouter:
    router = APIRouter()

    async def rerank(request: shapes.RerankRequest) -> shapes.RerankResponse:
        """Candidates by relevance, in the shape of Cohere and Jina; a cross-encoder's score is between 0 and 1."""
        model = _served_model(request.model, engine.options.reranker, "a reranker")
        window = getattr(engine.served_reranker(), "max_tokens", None)
        if request.max_tokens_per_doc is not None and window and request.max_tokens_per_doc < window:
            raise UsageError(
                f"max_tokens_per_doc {request.max_tokens_per_doc}",
                expected=f"{window} or more: the model reads so much of query and document",
            )
        texts = [document if isinstance(document, str) else document.text for document in request.documents]
        results = [
            shapes.RerankResult(
                index=index,
                relevance_score=score,
                document=_as_object(request.documents[index]) if request.return_documents else None,
            )
            for index, score in await _ranked(engine, _asked(request), texts, keep=request.top_n, raw=False)
        ]
        meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 0}}
        return shapes.RerankResponse(id=str(uuid.uuid4()), model=model, results=results, meta=meta)

    async def tei_rerank(request: shapes.TeiRerankRequest) -> list[shapes.TeiRank]:
        ranked = await _ranked(engine, _asked(request), request.texts, keep=None, raw=request.raw_scores)
        texts = request.texts if request.return_text else None
        return [
            shapes.TeiRank(index=index, score=score, text=texts[index] if texts else None) for index, score in ranked
        ]

    @router.post("/rerank", response_model_exclude_none=True)
    async def rerank_in_either_shape(
        request: shapes.RerankRequest | shapes.TeiRerankRequest,
    ) -> shapes.RerankResponse | list[shapes.TeiRank]:
        """The same; with `texts` in place of `documents`, in the shape of Text Embeddings Inference."""
        return await (tei_rerank(request) if isinstance(request, shapes.TeiRerankRequest) else rerank(request))

    router.post("/v1/rerank", response_model_exclude_none=True)(rerank)
    router.post("/v2/rerank", response_model_exclude_none=True)(rerank)
    return router


def _embedding_routes(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/embeddings")
    async def embeddings(request: shapes.EmbeddingsRequest) -> shapes.EmbeddingsResponse:
        """Vectors of texts, in OpenAI's shape."""
        model = _served_model(request.model, engine.options.encoder, "an encoder")
        texts = _as_list(request.input)
        vectors = await _encoded(engine, texts, EncodeKind(request.input_type == "query"), request.dimensions)
        data = [
            shapes.Embedding(
                index=index,
                embedding=vector.tolist()
                if request.encoding_format == "float"
                else base64.b64encode(vector.astype("<f4").tobytes()).decode(),
            )
            for index, vector in enumerate(vectors)
        ]
        tokens = sum(map(count_tokens, texts))
        return shapes.EmbeddingsResponse(
            data=data, model=model, usage={"prompt_tokens": tokens, "total_tokens": tokens}
        )

    @router.post("/embed")
    async def embed(request: shapes.TeiEmbedRequest) -> list[list[float]]:
        """The same in the shape of Text Embeddings Inference."""
        if not request.normalize:
            raise UsageError("normalize false", expected="true: the model's vectors have the length 1")
        kind = EncodeKind(request.prompt_name == "query", may_cut=request.truncate is not False)
        vectors = await _encoded(engine, _as_list(request.inputs), kind, request.dimensions)
        return [vector.tolist() for vector in vectors]

    return router


async def _encoded(engine: Engine, texts: Sequence[str], kind: EncodeKind, dimensions: int | None) -> list[FloatVector]:
    """A vector of each text. Raises UsageError for a dimension that the model does not have."""
    dimension = engine.served_encoder().dimension
    if dimensions not in (None, dimension):
        raise UsageError(f"dimensions {dimensions}", expected=f"{dimension}, which the model has")
    return await engine.encode(texts, kind)


def _asked(request: shapes.RerankRequest | shapes.TeiRerankRequest) -> Query:
    return Query(QueryId(""), request.query, tuple(request.history))


async def _ranked(
    engine: Engine, query: Query, texts: Sequence[str], *, keep: int | None, raw: bool
) -> list[tuple[int, float]]:
    """Position and score, best first; of equals the first is first."""
    scores = await engine.score(query, texts)
    width = len(str(len(texts)))
    positions = {f"{position:0{width}}": position for position in range(len(texts))}
    most = len(texts) if keep is None else keep
    ranking = Ranking.from_scores(query, list(positions), scores, stage="rerank", keep=most)  # type: ignore[arg-type]
    shown = (lambda score: score) if raw else engine.shown_score
    return [(positions[hit.doc_id], shown(hit.score)) for hit in ranking.hits]


def _served_model(asked: str | None, served: str, what: str) -> str:
    """The name to answer with. A client that must name a model may name any: there is one of each kind."""
    if not served:
        raise NotServedError(f"this server was started without {what}")
    return asked or served


def _as_list(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


def _as_object(document: str | shapes.RerankDocument) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document.model_dump()
