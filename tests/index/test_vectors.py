from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError, UsageError
from tiercel.index.vectors import (
    ANN,
    FLAT,
    FLAT_LIMIT,
    HNSW,
    VECTORS,
    Vectors,
    VectorWriter,
    ann_factory,
    check_ann,
    faiss_threads,
    map_vectors,
    nearest,
    open_vectors,
)

FloatMatrix = NDArray[np.float32]


def unit_rows(count: int, dimension: int = 16, *, seed: int = 0) -> FloatMatrix:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    unit: FloatMatrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def written(folder: Path, rows: FloatMatrix, choice: str = "flat") -> tuple[Vectors, str, float | None]:
    writer = VectorWriter(folder, rows.shape[1])
    for first in range(0, len(rows), 100):
        writer.add(rows[first : first + 100])
    factory, recall = writer.finish(choice, threads=1)
    return open_vectors(folder, len(rows), rows.shape[1], factory), factory, recall


def best(ordinals: NDArray[np.int64], scores: NDArray[np.float32], keep: int) -> list[tuple[int, float]]:
    order = np.lexsort((ordinals, -scores))[:keep]
    return list(zip(ordinals[order].tolist(), scores[order].tolist(), strict=True))


def brute_force(rows: FloatMatrix, query: FloatMatrix, keep: int) -> list[tuple[int, float]]:
    """Inner products in float64 of the rows as float16, as float32; ties by ordinal."""
    products = rows.astype(np.float16).astype(np.float64) * query.astype(np.float64)
    scores = products.sum(axis=1).astype(np.float32)
    return best(np.arange(len(rows)), scores, keep)


def test_scores_by_hand(tmp_path: Path) -> None:
    rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    vectors, factory, recall = written(tmp_path / "dense", rows)
    assert (factory, recall) == (FLAT, None)
    ((ordinals, scores),) = nearest(vectors, np.array([[0.8, 0.6]], dtype=np.float32), 3)
    assert ordinals.tolist() == [0, 1, 2]
    assert scores.tolist() == pytest.approx([0.8, 0.6, 0.96], abs=1e-3)
    assert scores.dtype == np.float32


def test_vectors_are_kept_as_float16_row_by_row(tmp_path: Path) -> None:
    rows = unit_rows(250)
    vectors, _, _ = written(tmp_path / "dense", rows)
    assert (tmp_path / "dense" / VECTORS).read_bytes() == rows.astype("<f2").tobytes()
    assert vectors.stored.tolist() == rows.astype(np.float16).tolist()
    assert not vectors.stored.flags.writeable


@pytest.mark.parametrize("keep", [1, 2, 10, 150, 200, 1000])
def test_exact_search_equals_brute_force(tmp_path: Path, keep: int) -> None:
    rows = unit_rows(200)
    vectors, _, _ = written(tmp_path / "dense", rows)
    queries = unit_rows(30, seed=1)
    for query, (ordinals, scores) in zip(queries, nearest(vectors, queries, keep), strict=True):
        assert len(ordinals) >= min(keep, 200)
        assert [ordinal for ordinal, _ in best(ordinals, scores, keep)] == [
            ordinal for ordinal, _ in brute_force(rows, query, keep)
        ]
        assert [score for _, score in best(ordinals, scores, keep)] == pytest.approx(
            [score for _, score in brute_force(rows, query, keep)], rel=1e-6
        )


@pytest.mark.parametrize("choice", ["flat", "hnsw"])
@pytest.mark.parametrize("keep", [1, 5, 60])
def test_all_that_tie_with_the_last_come_along(tmp_path: Path, choice: str, keep: int) -> None:
    """Copies far more than are fetched beyond what is asked for."""
    kinds = unit_rows(4, seed=2)
    rows = kinds[np.arange(480) % 4]
    vectors, _, _ = written(tmp_path / "dense", rows, choice)
    for kind in range(4):
        ((ordinals, scores),) = nearest(vectors, kinds[kind : kind + 1], keep)
        copies = set(range(kind, 480, 4))
        if choice == "flat":
            assert copies <= set(ordinals.tolist())
        assert [ordinal for ordinal, _ in best(ordinals, scores, keep)][: 1 if choice == "hnsw" else keep] == sorted(
            copies & set(ordinals.tolist())
        )[: 1 if choice == "hnsw" else keep]


@pytest.mark.parametrize("choice", ["flat", "hnsw", "IVF4,Flat"])
def test_a_query_alone_scores_as_in_a_batch(tmp_path: Path, choice: str) -> None:
    rows = np.concatenate([unit_rows(300), unit_rows(50), unit_rows(50)])  # the last ones are copies of the first
    vectors, _, _ = written(tmp_path / "dense", rows, choice)
    queries = np.concatenate([unit_rows(60, seed=3), rows[:3]])
    for row, (ordinals, scores) in enumerate(nearest(vectors, queries, 7)):
        ((alone, same_scores),) = nearest(vectors, queries[row : row + 1], 7)
        assert best(alone, same_scores, 7) == best(ordinals, scores, 7)


def test_hnsw_finds_what_exact_search_finds_in_a_small_set(tmp_path: Path) -> None:
    rows = unit_rows(500)
    exact, _, _ = written(tmp_path / "flat", rows)
    graph, factory, recall = written(tmp_path / "hnsw", rows, "hnsw")
    assert factory == HNSW
    assert recall is not None
    assert 0.95 <= recall <= 1
    queries = unit_rows(20, seed=4)
    for one, other in zip(nearest(exact, queries, 10), nearest(graph, queries, 10), strict=True):
        assert best(*one, 10) == best(*other, 10)


def test_recall_is_measured_and_not_assumed(tmp_path: Path) -> None:
    _, _, recall = written(tmp_path / "dense", unit_rows(1000, 32), "PQ1x4")
    assert recall is not None
    assert 0 < recall < 0.6


@pytest.mark.parametrize(
    ("choice", "count", "factory"),
    [
        ("auto", 0, FLAT),
        ("auto", FLAT_LIMIT, FLAT),
        ("auto", FLAT_LIMIT + 1, HNSW),
        ("flat", 10**9, FLAT),
        ("Flat", 1, FLAT),
        ("HNSW", 1, HNSW),
        ("IVF16,PQ4", 1, "IVF16,PQ4"),
    ],
)
def test_what_a_choice_of_ann_means(choice: str, count: int, factory: str) -> None:
    assert ann_factory(choice, count) == factory


@pytest.mark.parametrize("choice", ["auto", "flat", "hnsw", "HNSW16,Flat", "IVF64,PQ8", "PCA8,Flat", "SQ8"])
def test_choices_that_faiss_understands_pass(choice: str) -> None:
    check_ann(choice, 16)


@pytest.mark.parametrize("choice", ["", "nonsense", "PQ5", "Auto", "HNSW32;SQ8"])
def test_choices_that_faiss_does_not_understand_are_refused(choice: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_ann(choice, 16)
    assert str(refused.value) == (
        f"FAISS does not understand --ann {choice!r} for 16 dimensions; "
        "expected auto, flat, hnsw or a factory string such as HNSW32 or IVF1024,PQ64"
    )


@pytest.mark.parametrize("choice", ["IVF1024,Flat", "IDMap,Flat"])
def test_an_ann_that_cannot_be_built_of_these_vectors_is_refused(tmp_path: Path, choice: str) -> None:
    check_ann(choice, 16)
    with pytest.raises(UsageError, match=f"^FAISS cannot build --ann '{choice}' of 20 vectors; expected"):
        written(tmp_path / "dense", unit_rows(20), choice)


@pytest.mark.parametrize("choice", ["flat", "hnsw", "auto"])
def test_no_vectors_are_an_exact_index_of_none(tmp_path: Path, choice: str) -> None:
    vectors, factory, recall = written(tmp_path / "dense", np.zeros((0, 16), np.float32), choice)
    assert (factory, recall) == (FLAT, None)
    assert [part.size for part in nearest(vectors, unit_rows(1), 5)[0]] == [0, 0]


def test_no_queries_have_nothing_near(tmp_path: Path) -> None:
    vectors, _, _ = written(tmp_path / "dense", unit_rows(5))
    assert nearest(vectors, np.zeros((0, 16), np.float32), 5) == []


def test_one_vector(tmp_path: Path) -> None:
    for choice in ("flat", "hnsw"):
        vectors, _, recall = written(tmp_path / choice, unit_rows(1), choice)
        assert recall in {None, 1.0}
        ((ordinals, scores),) = nearest(vectors, unit_rows(1), 10)
        assert ordinals.tolist() == [0]
        assert scores.tolist() == pytest.approx([1.0], abs=1e-3)


def test_vectors_of_another_size_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "dense", unit_rows(5))
    with pytest.raises(IndexStoreError, match="it holds 160 bytes, 6 vectors of 16 float16 are 192; expected the file"):
        map_vectors(tmp_path / "dense", 6, 16)
    (tmp_path / "dense" / VECTORS).unlink()
    with pytest.raises(IndexStoreError, match=f"^{tmp_path / 'dense' / VECTORS}: it holds 0 bytes"):
        open_vectors(tmp_path / "dense", 5, 16, FLAT)


def test_an_ann_that_is_damaged_or_of_other_vectors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dense" / ANN
    _, factory, _ = written(tmp_path / "dense", unit_rows(5), "hnsw")
    faiss.write_index(faiss.index_factory(16, "HNSW8", faiss.METRIC_INNER_PRODUCT), str(path))
    with pytest.raises(IndexStoreError, match=f"^{path}: it holds 0 vectors of 16, expected 5 of 16"):
        open_vectors(tmp_path / "dense", 5, 16, factory)
    for content in (b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(IndexStoreError, match=f"^{path}: FAISS cannot read it"):
            open_vectors(tmp_path / "dense", 5, 16, factory)


def test_the_same_vectors_give_the_same_graph_on_one_thread(tmp_path: Path) -> None:
    for name in ("one", "other"):
        written(tmp_path / name, unit_rows(300), "hnsw")
    assert (tmp_path / "one" / ANN).read_bytes() == (tmp_path / "other" / ANN).read_bytes()


def test_threads_of_faiss_are_given_back() -> None:
    before = faiss.omp_get_max_threads()
    with faiss_threads(before + 1):
        assert faiss.omp_get_max_threads() == before + 1
    assert faiss.omp_get_max_threads() == before


@pytest.mark.parametrize("choice", ["PCA8,IVF4,Flat", "PCA8,HNSW8", "IVF4,Flat"])
def test_the_search_effort_reaches_an_index_behind_a_transform(tmp_path: Path, choice: str) -> None:
    vectors, _, _ = written(tmp_path / "dense", unit_rows(400), choice)
    core = vectors.index
    while isinstance(core, faiss.IndexPreTransform):
        core = faiss.downcast_index(core.index)
    assert (core.hnsw.efSearch if "HNSW" in choice else core.nprobe) == (128 if "HNSW" in choice else 4)
