from __future__ import annotations

import os
from pathlib import Path

import pytest

import tiercel
from tests.conftest import Models

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
pytest.importorskip("haystack", reason="the extra haystack is not installed")

from haystack import Document, Pipeline

from tiercel.adapters.haystack import TiercelRanker, TiercelRetriever


def test_ids_metadata_and_scores_are_kept(models: Models, dense_index: Path) -> None:
    (found,) = TiercelRetriever(str(dense_index), 1).run("falcon")["documents"]
    (hit,) = tiercel.open(dense_index).search("falcon", 1)
    assert (found.id, found.content, found.score) == ("d1", hit.text, hit.score)
    assert found.meta == {
        "year": 2020, "title": "Falcons", "retrieval_score": hit.score, "stage_scores": dict(hit.scores),
    }  # fmt: skip


def test_what_a_run_asks_for_overrules(models: Models, dense_index: Path) -> None:
    retriever = TiercelRetriever(str(dense_index), where="year = 2021", pipeline="bm25")
    retriever.warm_up()
    ids = [[document.id for document in retriever.run("falcon bread", **asked)["documents"]]
           for asked in ({}, {"where": ""}, {"where": "", "top_k": 1})]  # fmt: skip
    assert ids == [["d2"], ["d1", "d2"], ["d1"]]


def test_a_pipeline_of_both_survives_serialisation(models: Models, dense_index: Path) -> None:
    pipeline = Pipeline()
    pipeline.add_component("retriever", TiercelRetriever(str(dense_index), pipeline="bm25+dense"))
    pipeline.add_component("ranker", TiercelRanker(models.cross, 2))
    pipeline.connect("retriever.documents", "ranker.documents")
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["tiercel.adapters.haystack"])
    asked = {"retriever": {"query": "falcon"}, "ranker": {"query": "falcon"}}
    found = again.run(asked)["ranker"]["documents"]
    assert found == pipeline.run(asked)["ranker"]["documents"]
    texts = ["the falcon hunts in winter", "bread is sold by the bridge", "nobody swims in the deep river"]
    scores = {hit.text: hit.score for hit in tiercel.rerank("falcon", texts, model=models.cross)}
    assert [document.score for document in found] == sorted(scores.values(), reverse=True)[:2]
    assert all(document.score == scores[document.content] for document in found)
    retrieved = {hit.document.id: hit.score for hit in tiercel.open(dense_index).search("falcon")}
    assert all(document.meta["retrieval_score"] == retrieved[document.id] for document in found)


def test_a_ranker_leaves_out_what_is_below_its_threshold(models: Models) -> None:
    documents = [Document(content="falcon"), Document(content="bread"), Document(content=None)]
    ranker = TiercelRanker(models.cross)
    ranker.warm_up()
    ranked = ranker.run("falcon", documents)["documents"]
    assert len(ranked) == 3
    assert ranker.run("falcon", documents, score_threshold=ranked[1].score)["documents"] == ranked[:2]
    assert ranker.run("falcon", documents, top_k=1)["documents"] == ranked[:1]
    assert [document.score for document in documents] == [None] * 3
