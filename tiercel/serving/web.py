"""The server, and its routes to an index: bodies to the engine, what comes back to bodies."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from tiercel import __version__
from tiercel.errors import TiercelError
from tiercel.serving import shapes
from tiercel.serving.answers import in_words, refusal, refusal_of
from tiercel.serving.engine import Engine, NotServedError, SearchKind
from tiercel.serving.gate import Gate
from tiercel.serving.metrics import Metrics
from tiercel.serving.model_routes import model_routes
from tiercel.serving.options import ServeOptions
from tiercel.types import FoundDocument, Query, QueryId

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tiercel.api import Answer, SearchIndex
    from tiercel.parts import TokenParts
    from tiercel.retrieve.trace import Trace

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": shapes.Problem} for status in (400, 401, 404, 413, 422, 429, 503, 504)
}


_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page is one file that asks this server alone."""


def make_app(options: ServeOptions, *, say: Callable[[str], None]) -> Gate:
    """The whole server, as an ASGI application behind its gate."""
    metrics = Metrics()
    engine = Engine(options, say=say, observe=metrics.ran)
    metrics.watch(lambda: engine.waiting, lambda: len(engine.index) if engine.index else 0)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.running():
            yield

    # Its pages of documentation would fetch their scripts from elsewhere.
    app = FastAPI(
        title="Tiercel", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, responses=_PROBLEMS
    )
    app.include_router(_routes(engine, metrics))
    app.add_exception_handler(TiercelError, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(HTTPException, _refused)
    return Gate(_Counted(app, metrics), options)


def _routes(engine: Engine, metrics: Metrics) -> APIRouter:
    router = APIRouter()
    router.include_router(_search_routes(engine))
    router.include_router(model_routes(engine))
    router.include_router(_document_routes(engine))

    @router.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        text = files("tiercel.serving").joinpath("page.html").read_text(encoding="utf-8")
        return HTMLResponse(text, headers={"Content-Security-Policy": _PAGE_POLICY})

    @router.get("/health")
    async def health() -> dict[str, str]:
        """The process is there."""
        return {"status": "ok"}

    @router.get("/ready")
    async def ready() -> dict[str, str]:
        """The models are loaded."""
        engine.check_ready()
        return {"status": "ready"}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def read_metrics() -> bytes:
        """What has been done, for Prometheus."""
        return metrics.text()

    return router


def _search_routes(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.post("/search", response_model_exclude_unset=True)
    async def search(request: shapes.SearchRequest) -> shapes.SearchResponse:
        """Documents of the index that answer one query or several."""
        texts = [request.query] if isinstance(request.query, str) else request.query
        queries = [Query(QueryId(""), text, tuple(request.history)) for text in texts]
        index = engine.served_index()
        commit = index.commit
        kind = SearchKind(request.pipeline, request.where, request.k, request.explain)
        answers = await engine.search(queries, kind)
        results = [
            shapes.Found(
                query=text,
                hits=list(map(_found_hit, answer.found)),
                stages=_stages(answer.trace, request.k) if request.explain else None,
            )
            for text, answer in zip(texts, answers, strict=True)
        ]
        if request.explain:
            await asyncio.to_thread(_mark, index, results, answers)
        return shapes.SearchResponse(results=results, commit=commit)

    return router


def _document_routes(engine: Engine) -> APIRouter:
    router = APIRouter()

    @router.get("/documents/{doc_id:path}")
    async def get_document(doc_id: str) -> shapes.StoredDocument:
        """A document as it was indexed."""
        index = engine.served_index()
        if index.missing([doc_id]):
            raise NotServedError(f"no document has the id {doc_id!r}")
        (document,) = index.get([doc_id])
        return shapes.StoredDocument(
            id=document.id, text=document.text, title=document.title, metadata=dict(document.metadata)
        )

    @router.post("/documents")
    async def add_documents(request: shapes.AddRequest) -> shapes.Added:
        """Add documents, or replace those of the same ids; for servers started with --allow-changes."""
        return shapes.Added(**await engine.add([document.model_dump() for document in request.documents]))

    @router.delete("/documents")
    async def delete_documents(request: shapes.DeleteRequest) -> shapes.Deleted:
        """Delete documents by id or by their metadata; for servers started with --allow-changes."""
        return shapes.Deleted(**await engine.delete(request.ids, request.where))

    return router


def _mark(index: SearchIndex, results: Sequence[shapes.Found], answers: Sequence[Answer]) -> None:
    for found, answer in zip(results, answers, strict=True):
        for hit in found.hits:
            hit.matches = index.matches(found.query, hit.text)
        for hit, parts in zip(found.hits, answer.tokens, strict=False):
            hit.tokens = _token_pairs(parts)


def _token_pairs(parts: TokenParts) -> shapes.TokenPairs:
    pairs = [
        shapes.TokenPair(
            asked=match.asked.text,
            found=match.found.text if match.found else None,
            span=match.found[1:] if match.found and match.found.end > match.found.start else None,
            similarity=match.similarity,
        )
        for match in parts.tokens
    ]
    return shapes.TokenPairs(text=parts.read.text, end=parts.read.end, score=parts.score, pairs=pairs)


def _found_hit(hit: FoundDocument) -> shapes.FoundHit:
    document = hit.document
    return shapes.FoundHit(
        id=document.id,
        score=hit.score,
        scores=dict(hit.scores),
        title=document.title,
        text=hit.text,
        span=hit.span,
        metadata=dict(document.metadata),
    )


def _stages(trace: Trace, k: int) -> list[shapes.StageHits]:
    return [
        shapes.StageHits(
            name=stage.name, seconds=stage.seconds, hits=[(hit.doc_id, hit.score) for hit in stage.ranking.hits[:k]]
        )
        for stage in trace.stages
    ]


async def _refused(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, TiercelError):
        return refusal_of(error)
    if isinstance(error, RequestValidationError):
        return refusal(422, "validation", in_words(error.errors()))
    if isinstance(error, HTTPException):
        kind = {400: "validation", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http")
        return refusal(error.status_code, kind, str(error.detail))
    raise error


class _Counted:
    """Counts what the application answers. Starlette's own way to do so costs a quarter of a request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(path, status, time.perf_counter() - started)
