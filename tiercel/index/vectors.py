"""One segment's vectors: how are they stored, and how are the nearest of them found?

The only module that imports FAISS. Vectors are kept as float16; whatever finds the candidates, their scores are
computed again from those vectors, so a score never depends on the ANN, on the batch or on the segment.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from tiercel.errors import UsageError
from tiercel.index.files import damaged

FloatMatrix: TypeAlias = NDArray[np.float32]

VECTORS = "vectors.f16"
ANN = "ann.faiss"

FLAT = "flat"
HNSW = "HNSW32,SQ8"
"""What `hnsw` and, above FLAT_LIMIT, `auto` stand for. SQ8 makes the graph small; scores come from the float16."""

FLAT_LIMIT = 50_000
"""Vectors up to which exact search is the default: about 3 ms a query for 384 dimensions on one core."""

_EF_CONSTRUCTION = 200
_EF_SEARCH = 128
_N_PROBE = 32
_OVERFETCH = 2
_TIE = 1e-5  # far above what FAISS's float32 inner products of unit vectors are off by
_RECALL_SAMPLE = 200
RECALL_DEPTH = 10
_BLOCK = 16_384


def ann_factory(choice: str, vectors: int) -> str:
    """The FAISS factory string, or "flat", that `--ann CHOICE` means for so many vectors."""
    if choice == "auto":
        return FLAT if vectors <= FLAT_LIMIT else HNSW
    return {"flat": FLAT, "hnsw": HNSW}.get(choice.lower(), choice)


def check_ann(choice: str, dimension: int) -> None:
    """Raise UsageError unless `ann_factory` understands the choice."""
    factory = ann_factory(choice, 0)
    if factory == FLAT:
        return
    try:
        _empty_ann(factory, dimension)
    except RuntimeError as error:
        raise UsageError(
            f"FAISS does not understand --ann {choice!r} for {dimension} dimensions",
            expected="auto, flat, hnsw or a factory string such as HNSW32 or IVF1024,PQ64",
        ) from error


class VectorWriter:
    """Writes the vectors of one segment in the order they come, then their ANN."""

    def __init__(self, folder: Path, dimension: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._dimension = dimension
        self._file: BinaryIO = (folder / VECTORS).open("wb")
        self._count = 0

    def add(self, vectors: FloatMatrix) -> None:
        """Append rows of L2 norm 1, shape (n, dimension)."""
        self._file.write(vectors.astype("<f2").tobytes())
        self._count += len(vectors)

    def finish(self, choice: str, *, threads: int) -> tuple[str, float | None]:
        """Close the vectors and build the ANN. Returns its factory string and measured recall (None: exact)."""
        self.close()
        factory = ann_factory(choice, self._count)
        if factory == FLAT or not self._count:
            return FLAT, None
        vectors = map_vectors(self._folder, self._count, self._dimension)
        try:
            index = _build(factory, vectors, threads=threads)
        except RuntimeError as error:
            raise UsageError(
                f"FAISS cannot build --ann {choice!r} of {self._count} vectors",
                expected="auto, flat, hnsw, or a factory string with no more clusters than vectors",
            ) from error
        faiss.write_index(index, str(self._folder / ANN))
        return factory, _measured_recall(index, vectors)

    def close(self) -> None:
        """Give the file up without finishing."""
        self._file.close()


class Vectors(NamedTuple):
    """One segment's vectors: `stored`, shape (n, dimension), float16, and how candidates among them are found."""

    stored: NDArray[np.float16]
    index: Any


def map_vectors(folder: Path, count: int, dimension: int) -> NDArray[np.float16]:
    """Map the vectors into memory, shape (count, dimension). Raises IndexStoreError if the size is another."""
    path = folder / VECTORS
    found = path.stat().st_size if path.exists() else 0
    if found != count * dimension * 2:
        raise damaged(
            path, f"it holds {found} bytes, {count} vectors of {dimension} float16 are {count * dimension * 2}"
        )
    if not count:
        return np.zeros((0, dimension), dtype=np.float16)
    return np.asarray(np.memmap(path, dtype="<f2", mode="r", shape=(count, dimension)))


def open_vectors(folder: Path, count: int, dimension: int, ann: str) -> Vectors:
    """Open one segment's vectors and ANN. Raises IndexStoreError for a damaged file."""
    stored = map_vectors(folder, count, dimension)
    if ann == FLAT:
        index: Any = faiss.IndexFlatIP(dimension)
        for block in _blocks(stored):
            index.add(block)
        return Vectors(stored, index)
    path = folder / ANN
    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise damaged(path, "FAISS cannot read it") from error
    if index.ntotal != count or index.d != dimension:
        raise damaged(path, f"it holds {index.ntotal} vectors of {index.d}, expected {count} of {dimension}")
    _set_effort(index)
    return Vectors(stored, index)


def nearest(vectors: Vectors, queries: FloatMatrix, keep: int) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """For each query the `keep` nearest and all that tie with the last of them: ordinals and scores, unordered.

    Scores are float32 inner products, computed in float64 from the stored float16 rows.
    """
    count = len(vectors.stored)
    results = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]
    if not count or keep < 1:
        return results
    # More than asked for, as the ANN's order is approximate.
    fetch = min(count, max(_OVERFETCH * keep, keep + 16))
    rows = np.arange(len(queries))
    while rows.size:
        similarities, candidates = vectors.index.search(np.ascontiguousarray(queries[rows]), fetch)
        for row, candidate in zip(rows.tolist(), candidates, strict=True):
            ordinals = np.sort(candidate[candidate >= 0])
            results[row] = ordinals, _exact_scores(vectors.stored, ordinals, queries[row])
        if fetch == count:
            break
        # Equal vectors must not be cut by chance: where the last one fetched may tie with the last to keep, fetch more.
        tied = (candidates[:, -1] >= 0) & (similarities[:, keep - 1] - similarities[:, -1] <= _TIE)
        rows, fetch = rows[tied], min(count, 2 * fetch)
    return results


def _exact_scores(
    stored: NDArray[np.float16], ordinals: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    rows = stored[ordinals].astype(np.float64)
    # einsum without BLAS sums every row alike; a matrix product may round by the shape of the batch.
    scores: NDArray[np.float32] = np.einsum("ij,j->i", rows, query.astype(np.float64), optimize=False).astype(
        np.float32
    )
    return scores


def _build(factory: str, vectors: NDArray[np.float16], *, threads: int) -> Any:
    index = _empty_ann(factory, vectors.shape[1])
    with faiss_threads(threads):
        if not index.is_trained:
            index.train(_sample(vectors, 100_000))
        for block in _blocks(vectors):
            index.add(block)
    _set_effort(index)
    return index


def _empty_ann(factory: str, dimension: int) -> Any:
    index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    core = _core(index)
    if isinstance(core, faiss.IndexHNSW):
        core.hnsw.efConstruction = _EF_CONSTRUCTION
    return index


def _set_effort(index: Any) -> None:
    core = _core(index)
    if isinstance(core, faiss.IndexHNSW):
        core.hnsw.efSearch = _EF_SEARCH
    elif isinstance(core, faiss.IndexIVF):
        core.nprobe = min(_N_PROBE, core.nlist)


def _core(index: Any) -> Any:
    """The index below the transforms (`PCA64,…`, `OPQ16,…`) that a factory string may put before it."""
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index


def _measured_recall(index: Any, vectors: NDArray[np.float16]) -> float:
    """Share of the exact 10 nearest among the ANN's 10, over vectors of the collection asked as queries."""
    queries = _sample(vectors, _RECALL_SAMPLE)
    depth = min(RECALL_DEPTH, len(vectors))
    exact = faiss.ResultHeap(len(queries), depth, keep_max=True)
    for first, block in zip(range(0, len(vectors), _BLOCK), _blocks(vectors), strict=True):
        similarities, ordinals = faiss.knn(queries, block, min(depth, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        exact.add_result(similarities, ordinals + first)
    exact.finalize()
    _, found = index.search(queries, depth)
    shared = sum(np.intersect1d(a, b).size for a, b in zip(exact.I, found, strict=True))
    return shared / exact.I.size


def _sample(vectors: NDArray[np.float16], size: int) -> FloatMatrix:
    """Rows drawn evenly over the collection, the same ones every time, as float32."""
    rows = np.linspace(0, len(vectors) - 1, min(size, len(vectors))).astype(np.int64)
    return np.ascontiguousarray(vectors[rows], dtype=np.float32)


def _blocks(vectors: NDArray[np.float16]) -> Iterator[FloatMatrix]:
    for first in range(0, len(vectors), _BLOCK):
        yield np.ascontiguousarray(vectors[first : first + _BLOCK], dtype=np.float32)


@contextlib.contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """FAISS's own thread count, which is global to the process, for the duration of a block."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
