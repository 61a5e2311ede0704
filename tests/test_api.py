"""What a program calls: answers, changes, threads, asyncio."""

from __future__ import annotations

import asyncio
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tiercel
from tests.conftest import FALCONS, Models, python
from tiercel.errors import IndexStoreError, InputError, UsageError
from tiercel.indexing import Indexed
from tiercel.types import DocId, Document, Query, QueryId


@pytest.fixture
def index(place: Path) -> tiercel.SearchIndex:
    return tiercel.create(place / "docs.tiercel", FALCONS, options=tiercel.IndexOptions(encoder="none"))


def _ids(found: list[tiercel.FoundDocument]) -> list[str]:
    return [hit.document.id for hit in found]


def test_a_search_gives_documents_with_scores_and_metadata(index: tiercel.SearchIndex) -> None:
    (hit,) = tiercel.open(index.path).search("falcons in winter", 1)
    assert (hit.document.id, hit.document.title, hit.document.metadata) == ("d1", "Falcons", {"year": 2020})
    assert hit.text == "the falcon hunts in winter"
    assert hit.scores == {"bm25": hit.score}
    assert hit.score > 0


def test_a_filter_and_k_hold(index: tiercel.SearchIndex) -> None:
    assert set(_ids(index.search("falcon bread river"))) == {"d1", "d2", "d3"}
    assert set(_ids(index.search("falcon bread river", where="year >= 2021"))) == {"d2", "d3"}
    assert len(index.search("falcon bread river", 2)) == 2
    assert index.search("elephant") == []


def test_recall_reads_the_query_alone_and_hands_its_history_on(index: tiercel.SearchIndex) -> None:
    assert _ids(index.search("bread", history=["who hunts?", "a falcon"])) == ["d2"]
    assert index.search("and where?", history=["who hunts?", "a falcon"]) == []
    asked = Query(QueryId("1"), "bread", ("falcon",))
    (answer,) = index.trace([asked])
    assert (_ids(answer.found), answer.trace.ranking.query) == (["d2"], asked)


def test_what_is_added_is_found_and_what_is_deleted_is_not(index: tiercel.SearchIndex) -> None:
    other = tiercel.open(index.path)
    assert index.add([{"id": "d4", "text": "a tower"}, Document(DocId("d1"), "cold bread")]) == Indexed(2, 1, 4)
    assert _ids(index.search("tower")) == ["d4"]
    assert (_ids(index.search("falcon")), len(index)) == ([], 4)
    assert _ids(other.search("falcon")) == ["d1"]
    assert (other.refresh(), other.refresh()) == (True, False)
    assert (other.search("falcon"), other.commit) == ([], index.commit)
    deleted = index.delete(["d2", "no"])
    assert (deleted.deleted, deleted.unknown, _ids(index.search("bread"))) == (1, ("no",), ["d1"])
    assert index.delete(where="year = 2022").deleted == 1
    assert [document.id for document in index.get(["d4", "d1"])] == ["d4", "d1"]


def test_a_change_that_is_refused_changes_nothing(index: tiercel.SearchIndex) -> None:
    before = index.commit
    with pytest.raises(InputError, match="no text field"):
        index.add([{"id": "d9", "text": "fine"}, {"id": "d10"}])
    with pytest.raises(InputError, match="d9"):
        index.add([{"id": "d9", "text": "fine"}, {"id": "d9", "text": "twice"}])
    with pytest.raises(UsageError, match="neither ids nor where; expected one of them"):
        index.delete()
    assert (index.refresh(), index.commit) == (False, before)


def test_what_is_not_there_is_refused(index: tiercel.SearchIndex, place: Path) -> None:
    with pytest.raises(IndexStoreError):
        tiercel.open(place / "none")
    with pytest.raises(IndexStoreError, match="no document has the id 'no'"):
        index.get(["no"])
    with pytest.raises(UsageError, match="no recall leg called 'bm26'"):
        index.search("falcon", pipeline="bm26")


def test_a_search_under_way_ends_on_its_commit(index: tiercel.SearchIndex) -> None:
    commit = index._commit
    cascade = commit.pipeline("", "")
    index.delete(["d1"])
    (trace,) = cascade.trace([Query(QueryId(""), "falcon")], keep=3)
    assert _ids(commit.found([trace])[0]) == ["d1"]


def test_every_stage_has_its_score(models: Models, dense_index: Path) -> None:
    index = tiercel.open(dense_index)
    assert index.default_pipeline == "bm25+dense"
    pipeline = f"bm25+dense@3,cross:{models.cross}"
    found = index.search("falcon", pipeline=pipeline)
    stage = f"cross:{models.cross}"
    assert [set(hit.scores) for hit in found if hit.document.id == "d1"] == [{"bm25", "dense", "bm25+dense@3", stage}]
    assert [hit.score for hit in found] == [hit.scores[stage] for hit in found]
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


def test_a_model_is_loaded_once_for_all_filters_and_commits(models: Models, dense_index: Path, place: Path) -> None:
    shutil.copytree(dense_index, place / "copy")
    index = tiercel.open(place / "copy")
    pipeline = f"dense,cross:{models.cross}"
    index.search("falcon", pipeline=pipeline)
    before = index._commit.models
    index.add([{"id": "d9", "text": "a small tower", "year": 1}])
    index.search("tower", where="year = 1", pipeline=pipeline)
    after = index._commit.models
    assert after is not before
    assert after.encoder("") is before.encoder("")
    assert after.reranker("cross", models.cross) is before.reranker("cross", models.cross)


def test_rerank_gives_the_models_scores_best_first(models: Models) -> None:
    texts = ["the falcon hunts in winter", "bread is sold", "nobody swims"]
    found = tiercel.rerank("falcon", texts, model=models.cross)
    assert sorted(_ids(found)) == ["0", "1", "2"]
    assert [hit.text for hit in found] == [texts[int(hit.document.id)] for hit in found]
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert _ids(tiercel.rerank("falcon", texts, model=models.cross, k=2)) == _ids(found)[:2]
    alone = tiercel.rerank("falcon", [{"id": "x", "text": texts[1], "lang": "en"}], model=models.cross)
    assert [(hit.document.id, hit.document.metadata) for hit in alone] == [("x", {"lang": "en"})]
    assert alone[0].score == next(hit.score for hit in found if hit.document.id == "1")
    assert tiercel.rerank("falcon", [], model=models.cross) == []
    with pytest.raises(UsageError, match="the id 'x' twice"):
        tiercel.rerank("q", [Document(DocId("x"), "a"), Document(DocId("x"), "b")], model=models.cross)


def test_of_equals_the_first_is_first(models: Models) -> None:
    found = tiercel.rerank("falcon", ["bread"] * 11, model=models.cross)
    assert _ids(found) == [f"{number:02}" for number in range(11)]


def test_encode_gives_unit_vectors(models: Models) -> None:
    vectors = tiercel.encode(["falcon", "bread is sold"], model=models.encoder)
    assert (vectors.shape, vectors.dtype.name) == ((2, 16), "float32")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(tiercel.encode(["falcon"], model=models.encoder, kind="query")[0], vectors[0])
    assert tiercel.encode([], model=models.encoder).shape == (0, 16)
    with pytest.raises(UsageError, match="kind 'passage'; expected document or query"):
        tiercel.encode(["x"], model=models.encoder, kind="passage")  # type: ignore[arg-type]


def test_many_threads_get_what_one_gets(models: Models, dense_index: Path) -> None:
    index = tiercel.open(dense_index)
    pipeline = f"bm25+dense,cross:{models.cross}"
    queries = ["falcon", "bread", "deep river", "who hunts"] * 6
    alone = [index.search(query, pipeline=pipeline) for query in queries[:4]]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda query: index.search(query, pipeline=pipeline), queries))
    assert together == alone * 6


def test_searches_go_on_while_documents_come_and_go(index: tiercel.SearchIndex) -> None:
    stop = threading.Event()
    failed: list[str] = []

    def search() -> None:
        while not stop.is_set():
            found = _ids(index.search("bread falcon river tower"))
            if not {"d1", "d2", "d3"} <= set(found):
                failed.append(f"found {found}")

    with ThreadPoolExecutor(3) as pool:
        searching = [pool.submit(search) for _ in range(3)]
        for number in range(6):
            index.add([{"id": f"n{number}", "text": "a tower"}])
            index.delete([f"n{number}"])
        stop.set()
        for done in searching:
            done.result()
    assert failed == []


def test_the_loop_goes_on_meanwhile(models: Models, dense_index: Path) -> None:
    index = tiercel.open(dense_index)

    async def ask() -> tuple[int, list[object]]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        answers = [
            await index.search_async("falcon"),
            await index.search_batch_async(["falcon", "bread"]),
            await tiercel.rerank_async("falcon", ["falcon", "bread"], model=models.cross),
            (await tiercel.encode_async(["falcon"], model=models.encoder)).shape,
            await index.refresh_async(),
        ]
        ticking.cancel()
        return ticks, answers

    ticks, (one, two, reranked, shape, moved) = asyncio.run(ask())
    assert ticks > 10
    assert one == index.search("falcon")
    assert two == index.search_batch(["falcon", "bread"])
    assert reranked == tiercel.rerank("falcon", ["falcon", "bread"], model=models.cross)
    assert (shape, moved) == ((1, 16), False)


def test_changes_for_asyncio(index: tiercel.SearchIndex) -> None:
    async def change() -> tuple[int, int]:
        added = await index.add_async([{"id": "d4", "text": "a tower"}])
        return added.documents, (await index.delete_async(["d4"])).documents

    assert asyncio.run(change()) == (4, 3)


def test_all_names_are_there_and_others_are_not() -> None:
    for name in tiercel.__all__:
        assert getattr(tiercel, name) is not None
    with pytest.raises(AttributeError, match="module 'tiercel' has no attribute 'search'"):
        _ = tiercel.search


def test_five_lines_load_neither_torch_nor_a_model() -> None:
    script = (
        "import sys, tiercel; tiercel.open; print(*sorted({'torch', 'onnxruntime', 'faiss', 'numba'} & {*sys.modules}))"
    )
    outcome = python("-c", script)
    assert (outcome.code, outcome.out.split()) == (0, []), outcome
