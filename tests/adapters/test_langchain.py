from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import tiercel
from tests.conftest import Models

pytest.importorskip("langchain_core", reason="the extra langchain is not installed")
pytest.importorskip("langchain_tests", reason="LangChain's standard tests are not installed")

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests

from tiercel.adapters.langchain import TiercelRerank, TiercelRetriever


@pytest.mark.anyio
class TestStandard(RetrieversIntegrationTests):
    """LangChain's own."""

    @pytest.fixture(autouse=True)
    def _index(self, models: Models, dense_index: Path) -> None:
        self.path = str(dense_index)

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return TiercelRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"path": self.path}

    @property
    def retriever_query_example(self) -> str:
        return "falcon"


def test_ids_metadata_and_the_scores_of_every_stage_are_kept(models: Models, dense_index: Path) -> None:
    found = TiercelRetriever(path=str(dense_index)).invoke("falcon", k=1)
    (hit,) = tiercel.open(dense_index).search("falcon", 1)
    assert found == [
        Document(
            id="d1",
            page_content="the falcon hunts in winter",
            metadata={
                "year": 2020, "title": "Falcons", "retrieval_score": hit.score, "stage_scores": dict(hit.scores),
            },
        )
    ]  # fmt: skip
    assert set(hit.scores) == {"bm25", "dense", "bm25+dense"}


def test_a_filter_and_a_pipeline_hold(models: Models, dense_index: Path) -> None:
    retriever = TiercelRetriever(path=str(dense_index), where="year = 2021", pipeline="bm25")
    assert [document.id for document in retriever.invoke("falcon bread")] == ["d2"]
    assert [document.id for document in retriever.invoke("falcon bread", where="year = 2020")] == ["d1"]
    assert [document.id for document in asyncio.run(retriever.ainvoke("falcon bread", k=3, where=""))] == ["d1", "d2"]


def test_reranking_keeps_the_retrievers_scores_apart(models: Models, dense_index: Path) -> None:
    found = TiercelRetriever(path=str(dense_index)).invoke("falcon")
    before = [document.model_copy(deep=True) for document in found]
    reranked = TiercelRerank(model=models.cross, top_n=2).compress_documents(found, "falcon")
    expected = tiercel.rerank("falcon", [document.page_content for document in found], model=models.cross, k=2)
    assert [document.metadata["relevance_score"] for document in reranked] == [hit.score for hit in expected]
    assert [document.page_content for document in reranked] == [hit.text for hit in expected]
    scores = {document.id: document.metadata["retrieval_score"] for document in found}
    assert {document.id: document.metadata["retrieval_score"] for document in reranked}.items() <= scores.items()
    assert found == before
    assert asyncio.run(TiercelRerank(model=models.cross).acompress_documents([], "falcon")) == []


def test_what_is_misspelt_is_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        TiercelRetriever(path="x", top_k=3)  # type: ignore[call-arg]
