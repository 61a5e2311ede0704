from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss as _faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError, UsageError
from tiercel.index import ann
from tiercel.index.ann import (
    FLAT,
    FLAT_LIMIT,
    HNSW,
    HNSW_LIMIT,
    Ann,
    ann_factory,
    build,
    check_ann,
    compare,
    exact,
    faiss_threads,
    ladder,
    least_effort,
    read,
    sample,
    scan,
)

faiss: Any = _faiss


def unit_rows(count: int, dimension: int = 16, *, seed: int = 0) -> NDArray[np.float16]:
    rows = np.random.default_rng(seed).standard_normal((count, dimension))
    unit: NDArray[np.float16] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    return unit


def built(factory: str, stored: NDArray[np.float16], trained: Path | None = None) -> Any:
    return build(factory, stored, threads=1, trained=trained)


@pytest.mark.parametrize(
    ("choice", "count", "factory"),
    [
        ("auto", 0, FLAT),
        ("auto", FLAT_LIMIT, FLAT),
        ("auto", FLAT_LIMIT + 1, HNSW),
        ("auto", HNSW_LIMIT, HNSW),
        ("auto", HNSW_LIMIT + 1, "IVF4096,PQ96"),
        ("auto", 10**7, "IVF8192,PQ96"),
        ("flat", 10**9, FLAT),
        ("Flat", 1, FLAT),
        ("HNSW", 1, HNSW),
        ("ivf", 0, "IVF1,PQ96"),
        ("ivf", 10_000, "IVF256,PQ96"),
        ("ivf", 100_000, "IVF1024,PQ96"),
        ("IVF", 3_000_000, "IVF4096,PQ96"),
        ("IVF16,PQ4", 1, "IVF16,PQ4"),
    ],
)
def test_what_a_choice_of_ann_means(choice: str, count: int, factory: str) -> None:
    assert ann_factory(choice, count, 384) == factory


@pytest.mark.parametrize("dimension", [1, 3, 4, 7, 30, 384, 1023])
def test_an_inverted_file_can_be_of_any_dimension(dimension: int) -> None:
    check_ann("ivf", dimension)
    padded = -(-dimension // 4) * 4
    expected = f"IVF256,PQ{padded // 4}"
    assert ann_factory("ivf", 10_000, dimension) == (expected if padded == dimension else f"Pad{padded},{expected}")


@pytest.mark.parametrize(
    "choice", ["auto", "flat", "hnsw", "ivf", "HNSW16,Flat", "IVF64,PQ8", "IVF16_HNSW8,SQ8", "PCA8,Flat", "SQ8", "PQ8"]
)
def test_choices_that_can_be_searched_pass(choice: str) -> None:
    check_ann(choice, 16)


@pytest.mark.parametrize("choice", ["", "nonsense", "PQ5", "Auto", "HNSW32;SQ8"])
def test_choices_that_faiss_does_not_understand_are_refused(choice: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_ann(choice, 16)
    assert str(refused.value) == (
        f"FAISS does not understand --ann {choice!r} for 16 dimensions; "
        "expected auto, flat, hnsw, ivf or a factory string such as HNSW32 or IVF1024,PQ64"
    )


@pytest.mark.parametrize(
    "choice", ["IDMap,Flat", "PCA8,IDMap,HNSW8", "HNSW8,Flat,RFlat", "IVF0,Flat", "HNSW1", "NSG16"]
)
def test_choices_that_no_segment_can_be_searched_with_are_refused(choice: str) -> None:
    with pytest.raises(UsageError, match=f"^no segment can be searched with --ann '{choice}'; expected auto, flat"):
        check_ann(choice, 16)


@pytest.mark.parametrize(
    ("factory", "needed"),
    [
        ("HNSW8", 1),
        ("HNSW8,SQ8", 1),
        ("PCA8,HNSW8", 16),
        ("IVF2,Flat", 78),
        ("PCA8,IVF2,Flat", 78),
        ("PQ4x4", 624),
        ("HNSW8,PQ4x4", 624),
        ("IVF2,PQ4x4", 624),
        ("IVF20,PQ4x4", 780),
        ("IVF2,PQ4x4fs", 624),
        ("RQ2x4", 624),
    ],
)
def test_few_vectors_are_no_index_and_enough_train_without_a_word(
    factory: str, needed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    stored = unit_rows(needed)
    assert built(factory, stored[:-1]) is None or needed == 1
    index = built(factory, stored)
    assert (index.ntotal, index.is_trained) == (needed, True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("factory", ["IVF4,Flat", "PCA8,IVF4,Flat", "HNSW8,SQ8", "PCA8,HNSW8,SQ8", "IVF4,SQ8"])
def test_training_is_used_again(tmp_path: Path, factory: str) -> None:
    ann.write(tmp_path / "earlier", built(factory, unit_rows(500)))
    later = unit_rows(200, seed=1)
    again, anew = built(factory, later, tmp_path / "earlier"), built(factory, later)
    for index in (again, anew):
        assert index.ntotal == len(later)
        _, nearest = index.search(later[:1].astype(np.float32), 1)
        assert nearest.tolist() == [[0]]
    earlier = faiss.read_index(str(tmp_path / "earlier"))
    earlier.reset()
    again.reset()
    anew.reset()
    assert bytes(faiss.serialize_index(again)) == bytes(faiss.serialize_index(earlier))
    assert bytes(faiss.serialize_index(again)) != bytes(faiss.serialize_index(anew))


def test_a_graph_with_used_training_is_a_sound_graph(tmp_path: Path) -> None:
    stored = unit_rows(500)
    ann.write(tmp_path / "earlier", built(HNSW, stored))
    once, twice = built(HNSW, stored), built(HNSW, stored, tmp_path / "earlier")
    assert bytes(faiss.serialize_index(once)) == bytes(faiss.serialize_index(twice))
    assert once.hnsw.efConstruction == twice.hnsw.efConstruction == 200


@pytest.mark.parametrize(
    ("factory", "other"),
    [
        ("IVF4,Flat", "IVF5,Flat"),
        ("IVF4,Flat", "IVF4,SQ8"),
        ("IVF4,Flat", "IVF4,PQ4x4"),
        ("IVF4,Flat", "PCA8,IVF4,Flat"),
        ("PCA8,IVF4,Flat", "RR8,IVF4,Flat"),
        ("IVF4,Flat", "HNSW8"),
        ("HNSW8,SQ8", "HNSW16,SQ8"),
        ("HNSW8,SQ8", "HNSW8,SQ4"),
    ],
)
def test_training_of_something_else_is_not_used(tmp_path: Path, factory: str, other: str) -> None:
    earlier = faiss.index_factory(16, other, faiss.METRIC_INNER_PRODUCT)
    earlier.train(unit_rows(700, seed=1).astype(np.float32))
    ann.write(tmp_path / "earlier", earlier)
    stored = unit_rows(200)
    expected, index = built(factory, stored), built(factory, stored, tmp_path / "earlier")
    assert bytes(faiss.serialize_index(index)) == bytes(faiss.serialize_index(expected))


@pytest.mark.parametrize("damage", ["nonsense", "cut", "missing", "untrained"])
def test_a_file_without_training_is_not_used(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "earlier"
    if damage == "nonsense":
        path.write_bytes(b"nonsense")
    elif damage == "cut":
        ann.write(path, built("IVF4,Flat", unit_rows(200, seed=1)))
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "untrained":
        ann.write(path, faiss.index_factory(16, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT))
    stored = unit_rows(200)
    expected, index = built("IVF4,Flat", stored), built("IVF4,Flat", stored, path)
    assert bytes(faiss.serialize_index(index)) == bytes(faiss.serialize_index(expected))


def test_an_index_that_is_damaged_or_of_other_vectors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ann.faiss"
    ann.write(path, built("HNSW8", unit_rows(5)))
    assert read(path, 5, 16).ntotal == 5
    for count, dimension in ((6, 16), (5, 8)):
        with pytest.raises(
            IndexStoreError, match=f"^{path}: it holds 5 vectors of 16, expected {count} of {dimension};"
        ):
            read(path, count, dimension)
    for content in (path.read_bytes()[:-1], path.read_bytes()[:30], b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(IndexStoreError, match=f"^{path}: FAISS cannot read it"):
            read(path, 5, 16)


@pytest.mark.parametrize("count", [1, 40, 4096, 4097, 9000])
def test_a_scan_finds_what_a_comparison_finds(count: int) -> None:
    stored, queries = unit_rows(count, 8), unit_rows(5, 8, seed=1).astype(np.float32)
    eligible = np.random.default_rng(2).random(count) < 0.5
    eligible[0] = True
    rows, bitmap = np.flatnonzero(eligible), np.packbits(eligible, bitorder="little")
    products = queries.astype(np.float64) @ stored.astype(np.float64).T
    for some, bits, hidden in ((None, None, np.ones(count, np.bool_)), (rows, bitmap, eligible)):
        fetch = min(30, int(np.count_nonzero(hidden)))
        expected = np.argsort(np.where(hidden, -products, np.inf), axis=1)[:, :fetch]
        for similarities, ordinals in (
            scan(stored, queries, fetch, some),
            compare(exact(stored), queries, fetch, bits),
        ):
            assert ordinals.tolist() == expected.tolist()
            assert similarities == pytest.approx(np.take_along_axis(products, expected, axis=1), abs=1e-6)


def test_a_graph_walks_as_far_as_the_effort_or_the_fetch_says() -> None:
    stored, queries = unit_rows(3000), unit_rows(50, seed=1).astype(np.float32)
    index = built("HNSW4", stored)
    truth, _ = compare(exact(stored), queries, 400, None)

    def recall(effort: int, fetch: int, depth: int) -> float:
        found, ordinals = Ann(index, effort, 200).search(queries, fetch)
        assert (ordinals >= 0).all()
        return float((found[:, :depth] >= truth[:, depth - 1 : depth] - 1e-6).mean())

    assert recall(10, 10, 10) < recall(100, 10, 10) <= recall(10, 100, 10)
    assert recall(1, 400, 400) > 0.6


def test_more_lists_are_probed_where_more_is_fetched() -> None:
    stored, queries = unit_rows(2000), unit_rows(50, seed=1).astype(np.float32)
    index = built("IVF32,Flat", stored)
    truth, _ = compare(exact(stored), queries, 800, None)

    def recall(effort: int, fetch: int, depth: int) -> float:
        found, _ = Ann(index, effort, 200).search(queries, fetch)
        return float((found[:, :depth] >= truth[:, depth - 1 : depth] - 1e-6).mean())

    assert recall(4, 200, 100) == recall(4, 100, 100) < recall(4, 1600, 100) < 1
    assert recall(32, 100, 100) == recall(4, 2000 * 200, 100) == 1


def test_a_ladder_rises_and_ends_with_all() -> None:
    stored = unit_rows(300)
    assert ladder(built("IVF5,Flat", stored)) == (1, 2, 4, 5)
    assert ladder(built("IVF4,Flat", stored)) == (1, 2, 4)
    assert ladder(built("IVF1,Flat", stored)) == (1,)
    assert ladder(built("SQ8", stored)) == (0,)
    graph = built("PCA8,HNSW8", stored)
    assert list(ladder(graph)) == sorted(ladder(graph))
    assert (least_effort(graph, 200), least_effort(built("SQ8", stored), 200)) == (200, 0)


def test_a_scan_is_preferred_where_it_costs_less() -> None:
    stored = unit_rows(3000)
    graph, lists, codes = built("HNSW4", stored), built("IVF16,Flat", stored), built("SQ8", stored)
    assert Ann(graph, 200, 200).limit(3000) == 7 * 3000 // 60
    assert Ann(graph, 200, 200).limit(1714) == 0
    assert Ann(graph, 100, 200).limit(1714) == 7 * 1714 // 60
    assert Ann(lists, 4, 200).limit(3000) == 3000
    assert 200 <= Ann(lists, 4, 200).limit(300) < 3000
    assert Ann(lists, 4, 200).limit(30) == 0
    assert Ann(codes, 0, 200).limit(3000) == 3000
    assert Ann(codes, 0, 200).limit(300) == 0


def test_a_sample_is_drawn_evenly() -> None:
    stored = unit_rows(100)
    assert sample(stored, 3).tolist() == stored[[0, 49, 99]].astype(np.float32).tolist()
    assert sample(stored, 1000).tolist() == stored.astype(np.float32).tolist()


def test_threads_of_faiss_are_given_back() -> None:
    before = faiss.omp_get_max_threads()
    with faiss_threads(before + 1):
        assert faiss.omp_get_max_threads() == before + 1
    assert faiss.omp_get_max_threads() == before
