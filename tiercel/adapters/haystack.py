"""Tiercel in Haystack: a retriever over an index, and a ranker. Extra `haystack`.

A serialised pipeline is loaded with `Pipeline.loads(text, allowed_modules=["tiercel.adapters.haystack"])`: Haystack
makes objects of modules that are named to it alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from tiercel.adapters.metadata import RETRIEVAL_SCORE, hit_metadata
from tiercel.api import SearchIndex, loaded_reranker, open, rank_texts
from tiercel.types import FoundDocument


@component
class TiercelRetriever:
    """Finds documents in an index: the passage that matched as content, the document's id, and the last stage's score.

    See `hit_metadata` for the metadata.

    Args:
        path: folder of the index, opened by `warm_up` or at the first query.
        top_k: most documents that are returned.
        pipeline: stages, as in "bm25+dense@100,cross:MODEL@10"; "" for every leg that the index has.
        where: an expression over the metadata; "" for all documents.
    """

    def __init__(self, path: str, top_k: int = 10, *, pipeline: str = "", where: str = "") -> None:
        self.path = path
        self.top_k = top_k
        self.pipeline = pipeline
        self.where = where

    @cached_property
    def index(self) -> SearchIndex:
        """The index; `refresh()` it to find what others have added."""
        return open(self.path)

    def warm_up(self) -> None:
        """Open the index."""
        _ = self.index

    def to_dict(self) -> dict[str, Any]:
        """What it is made of."""
        return default_to_dict(self, path=self.path, top_k=self.top_k, pipeline=self.pipeline, where=self.where)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TiercelRetriever:
        """Made again."""
        made: TiercelRetriever = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(self, query: str, top_k: int | None = None, where: str | None = None) -> dict[str, list[Document]]:
        """Answer a query; `top_k` and `where` overrule what it was made with."""
        found = self.index.search(
            query,
            self.top_k if top_k is None else top_k,
            where=self.where if where is None else where,
            pipeline=self.pipeline,
        )
        return {"documents": [_document(hit) for hit in found]}


@component
class TiercelRanker:
    """Puts documents in the order that a model finds best.

    A document's score becomes the model's; the one that it came with is `retrieval_score` of its metadata.

    Args:
        model: a cross-encoder or late-interaction model, exported folder or hub name.
        top_k: most documents that are kept; None for all.
        score_threshold: documents of a lower score are left out; None for none.
    """

    def __init__(self, model: str, top_k: int | None = None, *, score_threshold: float | None = None) -> None:
        self.model = model
        self.top_k = top_k
        self.score_threshold = score_threshold

    def warm_up(self) -> None:
        """Load the model."""
        loaded_reranker(self.model)

    def to_dict(self) -> dict[str, Any]:
        """What it is made of."""
        return default_to_dict(self, model=self.model, top_k=self.top_k, score_threshold=self.score_threshold)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TiercelRanker:
        """Made again."""
        made: TiercelRanker = default_from_dict(cls, data)
        return made

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str,
        documents: list[Document],
        top_k: int | None = None,
        score_threshold: float | None = None,
    ) -> dict[str, list[Document]]:
        """Rank the documents, as copies; `top_k` and `score_threshold` overrule what it was made with."""
        least = self.score_threshold if score_threshold is None else score_threshold
        texts = [document.content or "" for document in documents]
        ranked = rank_texts(query, texts, model=self.model, k=self.top_k if top_k is None else top_k)
        return {
            "documents": [
                _reranked(documents[position], score) for position, score in ranked if least is None or score >= least
            ]
        }


def _document(hit: FoundDocument) -> Document:
    return Document(id=hit.document.id, content=hit.text, meta=hit_metadata(hit), score=hit.score)


def _reranked(document: Document, score: float) -> Document:
    meta = document.meta if document.score is None else {**document.meta, RETRIEVAL_SCORE: document.score}
    return replace(document, meta=meta, score=score)
