from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import tiercel
from tests.conftest import Models
from tiercel.errors import UsageError

pytest.importorskip("llama_index.core", reason="the extra llamaindex is not installed")

from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode

from tiercel.adapters.llamaindex import TiercelRerank, TiercelRetriever


def test_ids_metadata_and_scores_are_kept(models: Models, dense_index: Path) -> None:
    (found,) = TiercelRetriever(str(dense_index), 1).retrieve("falcon")
    (hit,) = tiercel.open(dense_index).search("falcon", 1)
    assert (found.node.node_id, found.score, found.node.get_content()) == ("d1", hit.score, hit.text)
    assert found.node.metadata == {
        "year": 2020, "title": "Falcons", "retrieval_score": hit.score, "stage_scores": dict(hit.scores),
    }  # fmt: skip
    prompt = found.node.get_content(MetadataMode.LLM)
    assert "Falcons" in prompt
    assert "score" not in prompt


def test_a_filter_and_a_pipeline_hold(models: Models, dense_index: Path) -> None:
    retriever = TiercelRetriever(str(dense_index), where="year >= 2021", pipeline="bm25")
    found = retriever.retrieve("falcon bread")
    assert [node.node.node_id for node in found] == ["d2"]
    assert [node.node.node_id for node in asyncio.run(retriever.aretrieve("falcon bread"))] == ["d2"]


def test_a_passage_says_where_it_stands(place: Path) -> None:
    from tiercel.data.chunking import Chunking

    options = tiercel.IndexOptions(encoder="none", chunking=Chunking("sentences", 4))
    text = "It was cold. Bread is sold. Nobody swims."
    index = tiercel.create(place / "cut", [{"id": "d1", "text": text}], options=options)
    (found,) = TiercelRetriever(str(index.path)).retrieve("bread")
    assert isinstance(found.node, TextNode)
    assert found.node.text == text[found.node.start_char_idx : found.node.end_char_idx] == "Bread is sold."


def test_reranking_keeps_the_retrievers_score_apart(models: Models, dense_index: Path) -> None:
    found = TiercelRetriever(str(dense_index)).retrieve("falcon")
    before = [node.model_copy(deep=True) for node in found]
    reranked = TiercelRerank(model=models.cross, top_n=2).postprocess_nodes(found, query_str="falcon")
    expected = tiercel.rerank("falcon", [node.node.get_content() for node in found], model=models.cross, k=2)
    assert [node.score for node in reranked] == [hit.score for hit in expected]
    scores = {node.node.node_id: node.score for node in found}
    assert all(node.node.metadata["retrieval_score"] == scores[node.node.node_id] for node in reranked)
    assert "score" not in reranked[0].node.get_content(MetadataMode.LLM)
    assert found == before
    alone = [NodeWithScore(node=TextNode(text="bread"), score=None)]
    rerank = TiercelRerank(model=models.cross)
    assert len(asyncio.run(rerank.apostprocess_nodes(alone, query_str="falcon"))) == 1
    with pytest.raises(UsageError, match="no query"):
        rerank.postprocess_nodes(alone)
    again = TiercelRerank.from_json(rerank.to_json())
    assert (again.model, again.top_n) == (models.cross, None)
