from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError, UsageError
from tiercel.index import ann
from tiercel.index.ann import HNSW, Ann
from tiercel.index.manifest import AnnRecord
from tiercel.index.vectors import (
    ANN,
    FLAT,
    VECTORS,
    Vectors,
    VectorWriter,
    map_vectors,
    nearest,
    open_vectors,
    select,
    similarities,
)

FloatMatrix = NDArray[np.float32]
EXACT = AnnRecord(FLAT)


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(st.floats(-1, 1, width=16), min_size=15, max_size=15),
    st.lists(st.floats(-1, 1, width=32), min_size=5, max_size=5),
    st.lists(st.integers(0, 2), max_size=6),
)
def test_similarities_are_inner_products_in_float64(values: list[float], query: list[float], rows: list[int]) -> None:
    stored = np.array(values, dtype=np.float16).reshape(3, 5)
    asked = np.array(query, dtype=np.float32)

    found = similarities(stored, np.array(rows, dtype=np.int64), asked)

    expected = [math.fsum(float(a) * float(b) for a, b in zip(stored[row], asked, strict=True)) for row in rows]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-14)


def unit(rows: NDArray[np.float64]) -> FloatMatrix:
    normed: FloatMatrix = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return normed


def unit_rows(count: int, dimension: int = 16, *, seed: int = 0) -> FloatMatrix:
    return unit(np.random.default_rng(seed).standard_normal((count, dimension)))


def clusters(count: int, dimension: int = 16, *, seed: int = 0) -> FloatMatrix:
    """Rows around 50 centres, in random order."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((50, dimension))
    return unit(centres[draw.integers(50, size=count)] + 0.6 * draw.standard_normal((count, dimension)))


def written(
    folder: Path, rows: FloatMatrix, choice: str = "flat", *, recall: float = 0.98
) -> tuple[Vectors, AnnRecord]:
    writer = VectorWriter(folder, rows.shape[1])
    for first in range(0, len(rows), 100):
        writer.add_stored((rows[first : first + 100]).astype(np.float16))
    record = writer.finish(choice, recall=recall, threads=1)
    return open_vectors(folder, len(rows), rows.shape[1], record), record


def in_memory(rows: FloatMatrix, factory: str = FLAT, *, effort: int = 0, overfetch: int = 2) -> Vectors:
    stored = rows.astype(np.float16)
    if factory == FLAT:
        return Vectors(stored, None, ann.exact(stored), overfetch)
    index = ann.build(factory, stored, threads=1, trained=None)
    return Vectors(stored, Ann(index, effort, 100 * overfetch), None, overfetch)


@cache
def clustered(factory: str, effort: int) -> Vectors:
    """An index of `clusters(6000)`."""
    return in_memory(clusters(6000), factory, effort=effort)


def best(ordinals: NDArray[np.int64], scores: NDArray[np.float32], keep: int) -> list[tuple[int, float]]:
    order = np.lexsort((ordinals, -scores))[:keep]
    return list(zip(ordinals[order].tolist(), scores[order].tolist(), strict=True))


def brute_force(
    rows: FloatMatrix, query: FloatMatrix, keep: int, eligible: NDArray[np.bool_] | None = None
) -> list[tuple[int, float]]:
    """Inner products in float64 of the rows as float16, as float32; ties by ordinal."""
    stored = rows.astype(np.float16).astype(np.float64)
    scores = np.einsum("ij,j->i", stored, query.astype(np.float64)).astype(np.float32)
    ordinals = np.arange(len(rows)) if eligible is None else np.flatnonzero(eligible)
    return best(ordinals, scores[ordinals], keep)


def recalls(
    vectors: Vectors, rows: FloatMatrix, queries: FloatMatrix, keep: int, eligible: NDArray[np.bool_]
) -> list[float]:
    """Share of the exact `keep` best of the eligible that `nearest` finds, by query."""
    shares = []
    for query, found in zip(queries, nearest(vectors, queries, keep, select(eligible)), strict=True):
        assert eligible[found[0]].all()
        exact = brute_force(rows, query, keep, eligible)
        shares.append(len(set(exact) & set(best(*found, keep))) / len(exact))
    return shares


def test_scores_by_hand(tmp_path: Path) -> None:
    rows = np.array([[1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    vectors, record = written(tmp_path / "dense", rows)
    assert record == EXACT
    ((ordinals, scores),) = nearest(vectors, np.array([[0.8, 0.6]], dtype=np.float32), 3)
    assert ordinals.tolist() == [0, 1, 2]
    assert scores.tolist() == pytest.approx([0.8, 0.6, 0.96], abs=1e-3)
    assert scores.dtype == np.float32


def test_vectors_are_kept_as_float16_row_by_row(tmp_path: Path) -> None:
    rows = unit_rows(250)
    vectors, _ = written(tmp_path / "dense", rows)
    assert (tmp_path / "dense" / VECTORS).read_bytes() == rows.astype("<f2").tobytes()
    assert vectors.stored.tolist() == rows.astype(np.float16).tolist()
    assert not vectors.stored.flags.writeable


@pytest.mark.parametrize("keep", [1, 2, 10, 150, 200, 1000])
def test_exact_search_equals_brute_force(tmp_path: Path, keep: int) -> None:
    rows = unit_rows(200)
    vectors, _ = written(tmp_path / "dense", rows)
    queries = unit_rows(30, seed=1)
    for query, (ordinals, scores) in zip(queries, nearest(vectors, queries, keep), strict=True):
        assert len(ordinals) >= min(keep, 200)
        assert [ordinal for ordinal, _ in best(ordinals, scores, keep)] == [
            ordinal for ordinal, _ in brute_force(rows, query, keep)
        ]
        assert [score for _, score in best(ordinals, scores, keep)] == pytest.approx(
            [score for _, score in brute_force(rows, query, keep)], rel=1e-6
        )


@pytest.mark.parametrize("choice", ["flat", "SQfp16", "hnsw"])
@pytest.mark.parametrize("keep", [1, 5, 60])
def test_all_that_tie_with_the_last_come_along(tmp_path: Path, choice: str, keep: int) -> None:
    """Copies far more than are fetched beyond what is asked for. SQfp16 is asked as an ANN is, but compares all."""
    kinds = unit_rows(4, seed=2)
    rows = kinds[np.arange(480) % 4]
    vectors, _ = written(tmp_path / "dense", rows, choice)
    eligible = np.arange(480) % 5 > 0
    for kind in range(4):
        copies = np.arange(kind, 480, 4)
        ((ordinals, _),) = nearest(vectors, kinds[kind : kind + 1], keep)
        assert set(copies) <= set(ordinals)
        ((ordinals, _),) = nearest(vectors, kinds[kind : kind + 1], keep, select(eligible))
        assert set(copies[eligible[copies]]) <= set(ordinals)


@pytest.mark.parametrize("choice", ["flat", "hnsw", "IVF4,Flat"])
def test_a_query_alone_scores_as_in_a_batch(tmp_path: Path, choice: str) -> None:
    rows = np.concatenate([unit_rows(300), unit_rows(50), unit_rows(50)])  # the last ones are copies of the first
    vectors, _ = written(tmp_path / "dense", rows, choice)
    queries = np.concatenate([unit_rows(60, seed=3), rows[:3]])
    for row, (ordinals, scores) in enumerate(nearest(vectors, queries, 7)):
        ((alone, same_scores),) = nearest(vectors, queries[row : row + 1], 7)
        assert best(alone, same_scores, 7) == best(ordinals, scores, 7)


def test_hnsw_finds_what_exact_search_finds_in_a_small_set(tmp_path: Path) -> None:
    rows = unit_rows(500)
    exact, _ = written(tmp_path / "flat", rows)
    graph, record = written(tmp_path / "hnsw", rows, "hnsw")
    assert record == AnnRecord(HNSW, 200, 2, 1.0)
    queries = unit_rows(20, seed=4)
    for one, other in zip(nearest(exact, queries, 10), nearest(graph, queries, 10), strict=True):
        assert best(*one, 10) == best(*other, 10)


def test_recall_is_measured_and_not_assumed(tmp_path: Path) -> None:
    _, record = written(tmp_path / "dense", unit_rows(3000, 32), "PQ1x4")
    assert (record.factory, record.effort, record.overfetch) == ("PQ1x4", 0, 8)
    assert record.recall is not None
    assert 0.3 < record.recall < 0.8


@pytest.mark.parametrize("choice", ["IVF16,Flat", "IVF16,PQ4x4", "PCA8,IVF16,Flat", "HNSW2", "PCA4,HNSW4,SQ8"])
def test_effort_is_raised_until_the_recall_is_met(tmp_path: Path, choice: str) -> None:
    rows = clusters(3000)
    records = [written(tmp_path / str(recall), rows, choice, recall=recall)[1] for recall in (0.1, 0.7, 0.9, 0.97)]
    for record, recall in zip(records, (0.1, 0.7, 0.9, 0.97), strict=True):
        assert record.factory == choice
        assert record.recall is not None
        assert record.recall >= recall
    costs = [(record.effort, record.overfetch) for record in records]
    assert costs == sorted(costs)
    assert costs[0] == (200 if "HNSW" in choice else 1, 2)
    assert costs[-1] > costs[0]


def test_what_is_recorded_is_what_a_search_finds(tmp_path: Path) -> None:
    rows = clusters(3000)
    vectors, record = written(tmp_path / "dense", rows, "IVF16,PQ4x4", recall=0.9)
    queries = rows[np.linspace(0, 2999, 200).astype(np.int64)].astype(np.float16).astype(np.float32)
    assert record.recall is not None
    assert np.mean(recalls(vectors, rows, queries, 100, np.ones(3000, np.bool_))) == pytest.approx(
        record.recall, abs=0.01
    )


def test_more_is_fetched_where_codes_limit_the_recall(tmp_path: Path) -> None:
    rows = clusters(3000)
    fetched = [written(tmp_path / str(r), rows, "PQ4x4", recall=r)[1].overfetch for r in (0.3, 0.85, 1.0)]
    assert fetched == sorted(fetched)
    assert (fetched[0], fetched[-1]) == (2, 8)
    assert len(set(fetched)) > 1


def test_of_equal_vectors_any_counts_as_found(tmp_path: Path) -> None:
    rows = unit_rows(8)[np.arange(4000) % 8]
    _, record = written(tmp_path / "dense", rows, "SQfp16")
    assert record == AnnRecord("SQfp16", 0, 2, 1.0)


def test_effort_that_gains_next_to_nothing_is_not_spent(tmp_path: Path) -> None:
    rows = clusters(3000)
    _, record = written(tmp_path / "dense", rows, "IVF64,PQ4x4", recall=1.0)
    assert record.recall is not None
    assert 0.9 < record.recall < 1
    assert 4 <= record.effort < 64


@pytest.mark.parametrize("choice", ["IVF1024,PQ4", "PQ4", "ivf", "PCA8,IVF64,Flat", "OPQ4,IVF4,PQ4x4"])
def test_vectors_too_few_to_train_are_searched_exactly(
    tmp_path: Path, choice: str, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = unit_rows(500)
    vectors, record = written(tmp_path / "dense", rows, choice)
    assert record == EXACT
    assert not (tmp_path / "dense" / ANN).exists()
    assert best(*nearest(vectors, rows[:1], 5)[0], 5) == brute_force(rows, rows[0], 5)
    assert capfd.readouterr() == ("", "")


def test_an_inverted_file_from_end_to_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rows = clusters(10_000, 7)
    vectors, record = written(tmp_path / "dense", rows, "ivf", recall=0.9)
    assert record.factory == "Pad8,IVF256,PQ2"
    assert record.recall is not None
    assert record.recall >= 0.9
    queries = clusters(20, 7, seed=1)
    assert np.mean(recalls(vectors, rows, queries, 100, np.ones(10_000, np.bool_))) > 0.88
    assert np.mean(recalls(vectors, rows, queries, 100, np.random.default_rng(1).random(10_000) < 0.3)) > 0.88
    assert capfd.readouterr() == ("", "")


def test_what_was_trained_for_one_segment_serves_the_next(tmp_path: Path) -> None:
    written(tmp_path / "first", clusters(500), "IVF4,Flat")
    writer = VectorWriter(tmp_path / "second", 16)
    writer.add_stored((clusters(500, seed=1)).astype(np.float16))
    record = writer.finish("IVF4,Flat", recall=0.98, threads=1, trained=tmp_path / "first" / ANN)
    assert record.factory == "IVF4,Flat"
    first, second = (ann.read(tmp_path / name / ANN, 500, 16) for name in ("first", "second"))
    assert first.quantizer.reconstruct_n(0, 4).tolist() == second.quantizer.reconstruct_n(0, 4).tolist()


@pytest.mark.parametrize("choice", ["nonsense", "HNSW1", "PCA32,Flat"])
def test_an_ann_that_cannot_be_built_is_refused(tmp_path: Path, choice: str) -> None:
    with pytest.raises(UsageError, match=f"--ann '{choice}'"):
        written(tmp_path / "dense", unit_rows(40), choice)


@pytest.mark.parametrize("choice", ["flat", "hnsw", "auto"])
def test_no_vectors_are_an_exact_index_of_none(tmp_path: Path, choice: str) -> None:
    vectors, record = written(tmp_path / "dense", np.zeros((0, 16), np.float32), choice)
    assert record == EXACT
    assert [part.size for part in nearest(vectors, unit_rows(1), 5)[0]] == [0, 0]


def test_no_queries_have_nothing_near(tmp_path: Path) -> None:
    vectors, _ = written(tmp_path / "dense", unit_rows(5))
    assert nearest(vectors, np.zeros((0, 16), np.float32), 5) == []


def test_one_vector(tmp_path: Path) -> None:
    for choice in ("flat", "hnsw"):
        vectors, record = written(tmp_path / choice, unit_rows(1), choice)
        assert record.recall in {None, 1.0}
        ((ordinals, scores),) = nearest(vectors, unit_rows(1), 10)
        assert ordinals.tolist() == [0]
        assert scores.tolist() == pytest.approx([1.0], abs=1e-3)


def test_vectors_of_another_size_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "dense", unit_rows(5))
    with pytest.raises(IndexStoreError, match="it holds 160 bytes, 6 vectors of 16 float16 are 192; expected the file"):
        map_vectors(tmp_path / "dense", 6, 16)
    (tmp_path / "dense" / VECTORS).unlink()
    with pytest.raises(IndexStoreError, match=f"^{tmp_path / 'dense' / VECTORS}: it holds 0 bytes"):
        open_vectors(tmp_path / "dense", 5, 16, EXACT)


def test_an_ann_that_is_damaged_or_missing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dense" / ANN
    _, record = written(tmp_path / "dense", unit_rows(5), "hnsw")
    for content in (path.read_bytes()[:-1], b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(IndexStoreError, match=f"^{path}: FAISS cannot read it"):
            open_vectors(tmp_path / "dense", 5, 16, record)
    path.unlink()
    with pytest.raises(IndexStoreError, match=f"^{path}: FAISS cannot read it"):
        open_vectors(tmp_path / "dense", 5, 16, record)


def test_the_same_vectors_give_the_same_graph_on_one_thread(tmp_path: Path) -> None:
    for name in ("one", "other"):
        written(tmp_path / name, unit_rows(300), "hnsw")
    assert (tmp_path / "one" / ANN).read_bytes() == (tmp_path / "other" / ANN).read_bytes()


def test_stored_rows_are_copied_as_they_are(tmp_path: Path) -> None:
    vectors, _ = written(tmp_path / "dense", unit_rows(250))
    writer = VectorWriter(tmp_path / "copy", 16)
    writer.add_stored(vectors.stored[:100])
    writer.add_stored(vectors.stored[100:][np.ones(150, np.bool_)])
    assert writer.finish("flat", recall=0.98, threads=1) == EXACT
    assert (tmp_path / "copy" / VECTORS).read_bytes() == (tmp_path / "dense" / VECTORS).read_bytes()


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 120),
    kinds=st.integers(1, 120),
    share=st.sampled_from([0.0, 0.02, 0.2, 0.5, 0.9, 1.0]),
    keep=st.integers(0, 130),
    factory=st.sampled_from([FLAT, "SQfp16", "HNSW4"]),
)
def test_search_without_approximation_equals_brute_force(
    seed: int, count: int, kinds: int, share: float, keep: int, factory: str
) -> None:
    """SQfp16 is asked as an ANN is and compares all; so few vectors of a graph are scanned. Many rows are equal."""
    draw = np.random.default_rng(seed)
    rows = unit_rows(kinds, 8, seed=seed)[draw.integers(kinds, size=count)]
    eligible = draw.random(count) < share
    vectors = in_memory(rows, factory, effort=200 if factory == "HNSW4" else 0)
    queries = np.concatenate([unit_rows(2, 8, seed=seed + 1), rows[:2]])
    for query, found in zip(queries, nearest(vectors, queries, keep, select(eligible)), strict=True):
        assert len(found[0]) >= min(keep, eligible.sum())
        assert best(*found, keep) == brute_force(rows, query, keep, eligible)


@pytest.mark.parametrize("factory", [FLAT, "SQfp16", "IVF4,Flat", "HNSW8"])
def test_every_row_is_eligible_without_a_selection(factory: str) -> None:
    rows, queries = clusters(3000), clusters(20, seed=1)
    vectors = in_memory(rows, factory, effort=4 if "IVF" in factory else 200)
    for with_all, without in zip(
        nearest(vectors, queries, 30, select(np.ones(3000, np.bool_))), nearest(vectors, queries, 30), strict=True
    ):
        assert with_all[0].tolist() == without[0].tolist()
        assert with_all[1].tolist() == without[1].tolist()


@pytest.mark.parametrize("factory", [FLAT, "SQfp16", "IVF4,Flat", "HNSW8"])
def test_nothing_is_found_where_no_row_is_eligible(factory: str) -> None:
    vectors = in_memory(clusters(3000), factory, effort=4 if "IVF" in factory else 200)
    for ordinals, scores in nearest(vectors, clusters(3), 5, select(np.zeros(3000, np.bool_))):
        assert (ordinals.size, scores.size) == (0, 0)


@pytest.mark.parametrize(("factory", "effort"), [("HNSW32,SQ8", 100), ("IVF32,Flat", 12)])
@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.05, 0.005])
def test_recall_stays_high_under_a_filter(factory: str, effort: int, share: float) -> None:
    rows, queries = clusters(6000), clusters(60, seed=1)
    vectors = clustered(factory, effort)
    plain = recalls(vectors, rows, queries, 20, np.ones(6000, np.bool_))
    found = recalls(vectors, rows, queries, 20, np.random.default_rng(7).random(6000) < share)
    assert np.mean(found) > min(0.99, float(np.mean(plain)) - 0.01)


@pytest.mark.parametrize(("factory", "effort"), [("HNSW32,SQ8", 100), ("IVF32,Flat", 12)])
@pytest.mark.parametrize("share", [0.9, 0.6, 0.3])
def test_a_filter_may_leave_nothing_around_a_query(factory: str, effort: int, share: float) -> None:
    """The rows nearest to one direction are hidden, and that is where half of the queries are."""
    rows, queries = clusters(6000), clusters(60, seed=1)
    towards = rows @ rows[0]
    eligible = towards < np.quantile(towards, share)
    queries = queries[np.argsort(-queries @ rows[0])[:30]]
    vectors = clustered(factory, effort)
    found = recalls(vectors, rows, queries, 20, eligible)
    assert np.mean(found) > 0.97
    assert min(found) > 0.7


def test_a_graph_is_asked_for_more_before_all_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, queries = clusters(6000), clusters(60, seed=1)
    vectors = clustered("HNSW16", 50)
    scanned, asked = [], []
    scan, search = ann.scan, Ann.search

    def count_scanned(stored: NDArray[np.float16], some: FloatMatrix, *rest: object) -> ann.Found:
        scanned.append(len(some))
        return scan(stored, some, *rest)  # type: ignore[arg-type]

    def count_asked(self: Ann, some: FloatMatrix, fetch: int) -> ann.Found:
        asked.append((len(some), fetch))
        return search(self, some, fetch)

    monkeypatch.setattr(ann, "scan", count_scanned)
    monkeypatch.setattr(Ann, "search", count_asked)
    nearest(vectors, queries, 20, select(np.random.default_rng(7).random(6000) < 0.9))
    assert asked == [(60, 45)]
    assert not scanned
    asked.clear()
    towards = rows @ rows[0]
    nearest(vectors, queries, 20, select(towards < np.quantile(towards, 0.9)))
    assert asked[0] == (60, 45)
    assert 0 < asked[1][0] < 30
    assert asked[1][1] == 90
    assert sum(scanned) < 30
    asked.clear()
    scanned.clear()
    nearest(vectors, rows[:1], 20, select(towards < np.quantile(towards, 0.9)))
    assert asked == [(1, 45)]  # it finds nothing, so more of it would take longer than a scan
    assert scanned == [1]
    asked.clear()
    nearest(vectors, queries, 20, select(np.arange(6000) < 60))
    assert not asked


@pytest.mark.parametrize("factory", [FLAT, "HNSW16", "IVF32,PQ4x4"])
@pytest.mark.parametrize("share", [0.7, 0.05])
def test_a_filtered_query_alone_finds_what_it_finds_in_a_batch(factory: str, share: float) -> None:
    rows = np.concatenate([clusters(3000), clusters(500)])
    eligible = np.random.default_rng(5).random(3500) < share
    vectors = in_memory(rows, factory, effort=60 if "HNSW" in factory else 8)
    queries = clusters(40, seed=1)
    for row, together in enumerate(nearest(vectors, queries, 7, select(eligible))):
        (alone,) = nearest(vectors, queries[row : row + 1], 7, select(eligible))
        assert alone[0].tolist() == together[0].tolist()
        assert alone[1].tolist() == together[1].tolist()


@pytest.mark.parametrize("choice", ["hnsw", "HNSW8", "IVF4,Flat", "SQ8"])
def test_scores_are_those_of_exact_search_whatever_finds_them(choice: str) -> None:
    rows, queries = clusters(3000), clusters(20, seed=1)
    exact = nearest(in_memory(rows), queries, 3000)
    factory = HNSW if choice == "hnsw" else choice
    for (ordinals, scores), (everything, expected) in zip(
        nearest(in_memory(rows, factory, effort=2 if "IVF" in choice else 100), queries, 30), exact, strict=True
    ):
        assert everything.tolist() == list(range(3000))
        assert scores.tolist() == expected[ordinals].tolist()
