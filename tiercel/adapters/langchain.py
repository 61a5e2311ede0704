"""Tiercel in LangChain: a retriever over an index, and a document compressor that reranks. Extra `langchain`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
    Callbacks,
)
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from tiercel.adapters.metadata import hit_metadata
from tiercel.api import SearchIndex, open, rank_texts
from tiercel.types import FoundDocument


class TiercelRetriever(BaseRetriever):
    """Finds documents in an index. `invoke(query, k=3, where="year >= 2020")` overrules what it was made with.

    A document's page content is the passage that matched, its id the document's; see `hit_metadata` for the rest.

    Attributes:
        path: folder of the index, opened at the first query.
        k: most documents that are returned.
        pipeline: stages, as in "bm25+dense@100,cross:MODEL@10"; "" for every leg that the index has.
        where: an expression over the metadata; "" for all documents.
    """

    path: str
    k: int = Field(default=10, ge=1)
    pipeline: str = ""
    where: str = ""

    model_config = ConfigDict(extra="forbid", ignored_types=(cached_property,))

    @cached_property
    def index(self) -> SearchIndex:
        """The index; `refresh()` it to find what others have added."""
        return open(self.path)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        where: str | None = None,
    ) -> list[Document]:
        found = self.index.search(query, *self._asked(k), **self._filter(where))
        return [_document(hit) for hit in found]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        where: str | None = None,
    ) -> list[Document]:
        index = await asyncio.to_thread(lambda: self.index)
        found = await index.search_async(query, *self._asked(k), **self._filter(where))
        return [_document(hit) for hit in found]

    def _asked(self, k: int | None) -> tuple[int]:
        return (self.k if k is None else k,)

    def _filter(self, where: str | None) -> dict[str, Any]:
        return {"where": self.where if where is None else where, "pipeline": self.pipeline}


class TiercelRerank(BaseDocumentCompressor):
    """Puts documents in the order that a model finds best, and keeps the first.

    The model's score is `relevance_score` of the metadata; those of the retriever stay beside it.

    Attributes:
        model: a cross-encoder or late-interaction model, exported folder or hub name.
        top_n: most documents that are kept; None for all.
    """

    model: str
    top_n: int | None = Field(default=None, ge=1)

    model_config = ConfigDict(extra="forbid")

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """The best of the documents, best first, as copies."""
        texts = [document.page_content for document in documents]
        return [
            Document(
                id=documents[position].id,
                page_content=documents[position].page_content,
                metadata={**documents[position].metadata, "relevance_score": score},
            )
            for position, score in rank_texts(query, texts, model=self.model, k=self.top_n)
        ]


def _document(hit: FoundDocument) -> Document:
    return Document(id=hit.document.id, page_content=hit.text, metadata=hit_metadata(hit))
