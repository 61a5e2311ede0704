"""What does a language model call? search, get_document and rerank over the Model Context Protocol, on stdio."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from tiercel import __version__
from tiercel.api import SearchIndex, rank_texts
from tiercel.errors import TiercelError
from tiercel.serving.engine import MOST_HITS
from tiercel.types import FoundDocument

_EXCERPT_CHARACTERS = 1200  # of a hit, which is what a model reads of ten; the rest is got by id

Count = Annotated[int, Field(ge=1, le=MOST_HITS)]

Turns = Annotated[
    list[str], Field(description="Earlier turns of the conversation, oldest first, for models that read them.")
]


def run(index: Path, *, pipeline: str = "", reranker: str = "") -> None:
    """Answer on standard input and output until the client goes. Raises IndexStoreError as opening does."""
    make_server(SearchIndex(index), pipeline=pipeline, reranker=reranker).run("stdio")


def make_server(index: SearchIndex, *, pipeline: str, reranker: str) -> MCPServer[Any]:
    """The tools over an index; `rerank` only where there is a model."""
    server: MCPServer[Any] = MCPServer(
        "tiercel",
        version=__version__,
        instructions=f"Searches the collection {index.path.name} of {len(index)} documents. Cite them by id.",
        log_level="WARNING",
    )

    @server.tool()
    async def search(
        query: str,
        k: Count = 10,
        where: Annotated[
            str, Field(description="A filter over the metadata, as in: year >= 2020 and lang = 'en'. Empty for none.")
        ] = "",
        history: Turns = [],  # noqa: B006
    ) -> list[dict[str, Any]]:
        """Find documents, best first. Long passages are shortened: get_document gives the whole text."""
        try:
            await index.refresh_async()
            found = await index.search_async(query, k, where=where, pipeline=pipeline, history=history)
            return [_hit(hit) for hit in found]
        except TiercelError as error:
            raise ToolError(str(error)) from error

    @server.tool()
    async def get_document(doc_id: str) -> dict[str, Any]:
        """The whole text, title and metadata of a document, by the id that search gave."""
        try:
            (document,) = index.get([doc_id])
        except TiercelError as error:
            raise ToolError(str(error)) from error
        return {
            "id": document.id,
            "title": document.title,
            "text": document.text,
            "metadata": dict(document.metadata),
        }

    if reranker:

        @server.tool()
        async def rerank(query: str, texts: list[str], history: Turns = []) -> list[dict[str, Any]]:  # noqa: B006
            """Order texts by how well they answer a query, best first; `index` is the position in `texts`."""
            try:
                ranked = await asyncio.to_thread(rank_texts, query, texts, model=reranker, history=history)
            except TiercelError as error:
                raise ToolError(str(error)) from error
            return [{"index": position, "score": score} for position, score in ranked]

    return server


def _hit(hit: FoundDocument) -> dict[str, Any]:
    shown = hit.text[:_EXCERPT_CHARACTERS]
    return {
        "id": hit.document.id,
        "score": hit.score,
        "title": hit.document.title,
        "text": shown if shown == hit.text else f"{shown} …",
        "metadata": dict(hit.document.metadata),
    }
