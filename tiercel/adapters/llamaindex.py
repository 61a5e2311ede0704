"""Tiercel in LlamaIndex: a retriever over an index, and a node postprocessor that reranks. Extra `llamaindex`."""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any

from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from tiercel.adapters.metadata import OURS, RETRIEVAL_SCORE, hit_metadata
from tiercel.api import SearchIndex, open, rank_texts
from tiercel.errors import UsageError
from tiercel.types import FoundDocument


class TiercelRetriever(BaseRetriever):
    """Finds nodes in an index: the passage that matched as text, the document's id, and the last stage's score.

    See `hit_metadata` for the metadata; what of them says how a node was found is kept from prompts.

    Args:
        path: folder of the index, opened at the first query.
        similarity_top_k: most nodes that are returned.
        pipeline: stages, as in "bm25+dense@100,cross:MODEL@10"; "" for every leg that the index has.
        where: an expression over the metadata; "" for all documents.
        options: what `BaseRetriever` takes.
    """

    def __init__(
        self, path: str, similarity_top_k: int = 10, *, pipeline: str = "", where: str = "", **options: Any
    ) -> None:
        super().__init__(**options)
        self._path = path
        self._k = similarity_top_k
        self._asked = {"pipeline": pipeline, "where": where}

    @cached_property
    def index(self) -> SearchIndex:
        """The index; `refresh()` it to find what others have added."""
        return open(self._path)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(hit) for hit in self.index.search(query_bundle.query_str, self._k, **self._asked)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


class TiercelRerank(BaseNodePostprocessor):  # type: ignore[misc,unused-ignore]
    """Puts nodes in the order that a model finds best, and keeps the first.

    The node's score becomes the model's; the one that it came with is `retrieval_score` of the metadata.
    """

    model: str = Field(description="A cross-encoder or late-interaction model: exported folder or hub name.")
    top_n: int | None = Field(default=None, ge=1, description="Most nodes that are kept; None for all.")

    @classmethod
    def class_name(cls) -> str:
        """What it is called in serialised programs."""
        return "TiercelRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise UsageError("no query", expected="query_str or query_bundle, which nodes are ranked by")
        texts = [node.node.get_content(MetadataMode.NONE) for node in nodes]
        ranked = rank_texts(query_bundle.query_str, texts, model=self.model, k=self.top_n)
        return [_reranked(nodes[position], score) for position, score in ranked]


def _node(hit: FoundDocument) -> NodeWithScore:
    start, end = hit.span or (0, len(hit.document.text))
    node = TextNode(
        id_=hit.document.id,
        text=hit.text,
        metadata=hit_metadata(hit),
        start_char_idx=start,
        end_char_idx=end,
        excluded_llm_metadata_keys=list(OURS),
        excluded_embed_metadata_keys=list(OURS),
    )
    return NodeWithScore(node=node, score=hit.score)


def _reranked(found: NodeWithScore, score: float) -> NodeWithScore:
    """A copy: the caller's node stays as it was."""
    node = found.node.model_copy(update={"metadata": {**found.node.metadata, RETRIEVAL_SCORE: found.score}})
    hidden = {name: sorted({*getattr(node, name), RETRIEVAL_SCORE}) for name in _HIDDEN}
    return NodeWithScore(node=node.model_copy(update=hidden), score=score)


_HIDDEN = ("excluded_llm_metadata_keys", "excluded_embed_metadata_keys")
