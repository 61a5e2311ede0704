"""One segment's vectors: how are they stored, and how are the nearest of them found?

Vectors are kept as float16; whatever finds the candidates, their scores are computed again from those vectors, so a
score never depends on the ANN, on the batch or on the segment. What others need of `ann.py` they find here.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tiercel.errors import UsageError
from tiercel.index import ann
from tiercel.index.ann import ANN, FLAT, Ann, FloatMatrix, ann_factory, check_ann, faiss_threads
from tiercel.index.files import damaged
from tiercel.index.manifest import AnnRecord

__all__ = [
    "ANN", "FLAT", "VECTORS", "FloatMatrix", "Selection", "VectorWriter", "Vectors", "ann_factory", "check_ann",
    "faiss_threads", "map_vectors", "nearest", "open_vectors", "select", "similarities",
]  # fmt: skip

VECTORS = "vectors.f16"

RECALL_DEPTH = 100
_RECALL_SAMPLE = 200
_OVERFETCH = (2, 4, 8)
_ENOUGH = 0.75  # of what is wanted: a random filter leaves hardly ever less
_NEGLIGIBLE = 0.001  # of recall: what is not worth another doubling of the effort
_TIE = 1e-5
"""Equal vectors must not be cut by chance: where the last one fetched may tie with the last to keep, more are fetched.
Two may tie up to this difference, which is far above what FAISS's float32 inner products of unit vectors are off by."""


class VectorWriter:
    """Writes the vectors of one segment in the order they come, then their ANN."""

    def __init__(self, folder: Path, dimension: int) -> None:
        folder.mkdir()
        self._folder = folder
        self._dimension = dimension
        self._file: BinaryIO = (folder / VECTORS).open("wb")
        self._count = 0

    def add_stored(self, vectors: NDArray[np.float16]) -> None:
        """Append rows of L2 norm 1 as they are stored, shape (n, dimension)."""
        self._file.write(vectors.astype("<f2", copy=False).tobytes())
        self._count += len(vectors)

    def finish(self, choice: str, *, recall: float, threads: int, trained: Path | None = None) -> AnnRecord:
        """Close the vectors, build the ANN and find out how hard it must be asked.

        Args:
            choice: as `ann_factory` takes it. Vectors too few to train what it names are searched exactly.
            recall: share of the exact 100 nearest that a search shall find; the record says what it does find, which
                is less where no effort is enough.
            threads: that FAISS may use.
            trained: ANN file of a segment with the same factory string, whose training is used again if it can be.
        """
        self.close()
        factory = ann_factory(choice, self._count, self._dimension)
        if factory == FLAT or not self._count:
            return AnnRecord(FLAT)
        check_ann(choice, self._dimension)
        stored = map_vectors(self._folder, self._count, self._dimension)
        try:
            index = ann.build(factory, stored, threads=threads, trained=trained)
        except RuntimeError as error:
            raise UsageError(
                f"FAISS cannot build --ann {choice!r} of {self._count} vectors",
                expected="auto, flat, hnsw, ivf or another factory string",
            ) from error
        if index is None:
            return AnnRecord(FLAT)
        ann.write(self._folder / ANN, index)
        with faiss_threads(threads):
            return _tuned(factory, index, stored, recall)

    def close(self) -> None:
        """Give the file up without finishing."""
        self._file.close()


class Vectors(NamedTuple):
    """One segment's vectors, and how the nearest of them are found.

    Attributes:
        stored: the vectors, shape (n, dimension), float16.
        ann: what proposes candidates; None where search is exact.
        exact: for exact search, what holds a copy of the vectors in memory.
        overfetch: how many times the wanted number of candidates is fetched.
    """

    stored: NDArray[np.float16]
    ann: Ann | None
    exact: Any
    overfetch: int


class Selection:
    """The rows of a segment that a search may find, in the forms that searches want. Made once for many searches.

    `eligible` is what `select` was given, `count` the number of these rows.
    """

    def __init__(self, eligible: NDArray[np.bool_]) -> None:
        self.eligible = eligible
        self.count = int(np.count_nonzero(eligible))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Their ordinals, in ascending order."""
        return np.flatnonzero(self.eligible)

    @cached_property
    def bitmap(self) -> NDArray[np.uint8]:
        """One bit a row, the first row in the lowest bit of the first byte."""
        return np.packbits(self.eligible, bitorder="little")


def select(eligible: NDArray[np.bool_]) -> Selection:
    """Select rows of a segment for `nearest`: shape (n,), True for those that it may find."""
    return Selection(eligible)


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


def open_vectors(folder: Path, count: int, dimension: int, record: AnnRecord) -> Vectors:
    """Open one segment's vectors and ANN. Raises IndexStoreError for a damaged file."""
    stored = map_vectors(folder, count, dimension)
    if record.factory == FLAT:
        return Vectors(stored, None, ann.exact(stored), record.overfetch)
    index = ann.read(folder / ANN, count, dimension)
    return Vectors(stored, Ann(index, record.effort, record.overfetch * RECALL_DEPTH), None, record.overfetch)


def nearest(
    vectors: Vectors, queries: FloatMatrix, keep: int, selection: Selection | None = None
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """For each query the `keep` nearest and all that tie with the last of them: ordinals and scores, unordered.

    Only rows of the selection are found (None: all rows), and fewer than `keep` only where it holds fewer. Scores are
    float32 inner products, computed in float64 from the stored float16 rows.
    """
    if selection is not None and selection.count == len(vectors.stored):
        selection = None
    search = _Search(vectors, queries, keep, selection)
    rows = np.arange(len(queries) if search.eligible and keep > 0 else 0)
    if vectors.ann is not None:
        rows = search.ask(vectors.ann, rows)
    search.compare(rows)
    return search.results


class _Search:
    """One call of `nearest`: what is wanted, and what has been found. Rows are those of the queries.

    What is done for a query does not depend on the others, so neither does what is found.
    """

    def __init__(self, vectors: Vectors, queries: FloatMatrix, keep: int, selection: Selection | None) -> None:
        self._vectors = vectors
        self._queries = queries
        self._keep = keep
        self._selection = selection
        self.eligible = len(vectors.stored) if selection is None else selection.count
        # More than asked for, as the ANN's order is approximate.
        self._wanted = min(self.eligible, max(vectors.overfetch * keep, keep + 16))
        self.results = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in queries]

    def ask(self, index: Ann, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Find what the ANN can find in less time than a comparison with all rows takes; returns what it cannot.

        It is asked for so many that the wanted number of eligible ones is among them. Asked for eligible ones only, it
        gives as many, but not the nearest where a filter leaves few rows around a query.
        """
        count = len(self._vectors.stored)
        fetch = min(count, math.ceil(self._wanted * count / max(1, self.eligible)))
        limit = min(count, index.limit(self.eligible))
        left = []
        while rows.size and fetch <= limit:
            similarities, candidates = index.search(self._queries[rows], fetch)
            eligible = candidates >= 0
            if self._selection is not None:
                eligible &= self._selection.eligible[candidates]
            found = np.count_nonzero(eligible, axis=1)
            short = found < min(self.eligible, math.ceil(_ENOUGH * self._wanted))
            unsettled = short | self._tied(similarities, eligible, found)
            for i in np.flatnonzero(~unsettled).tolist():
                self._score(int(rows[i]), candidates[i][eligible[i]])
            far = unsettled & (fetch * self._wanted > limit * np.maximum(found, 1))
            left.append(rows[far])
            rows, fetch = rows[unsettled & ~far], 2 * fetch
        return np.concatenate([*left, rows])

    def _tied(
        self, similarities: FloatMatrix, eligible: NDArray[np.bool_], found: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        last = (eligible.cumsum(axis=1) >= self._keep).argmax(axis=1)
        close: NDArray[np.bool_] = similarities[np.arange(len(last)), last] - similarities[:, -1] <= _TIE
        return close & (found < self.eligible)

    def compare(self, rows: NDArray[np.int64]) -> None:
        """Find the nearest by comparison with all eligible rows."""
        vectors, selection, fetch = self._vectors, self._selection, self._wanted
        while rows.size:
            queries = self._queries[rows]
            if vectors.exact is None:
                found = ann.scan(vectors.stored, queries, fetch, None if selection is None else selection.rows)
            else:
                found = ann.compare(vectors.exact, queries, fetch, None if selection is None else selection.bitmap)
            similarities, candidates = found
            for row, ordinals in zip(rows.tolist(), candidates, strict=True):
                self._score(row, ordinals)
            if fetch == self.eligible:
                break
            rows = rows[similarities[:, self._keep - 1] - similarities[:, -1] <= _TIE]
            fetch = min(self.eligible, 2 * fetch)

    def _score(self, row: int, candidates: NDArray[np.int64]) -> None:
        ordinals = np.sort(candidates)
        scores = similarities(self._vectors.stored, ordinals, self._queries[row])
        if ordinals.size > self._keep:
            best = scores >= np.partition(scores, -self._keep)[-self._keep]
            ordinals, scores = ordinals[best], scores[best]
        self.results[row] = ordinals, scores


def similarities(
    stored: NDArray[np.float16], ordinals: NDArray[np.int64], query: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Inner product of the query's vector, shape (dimension,), with each of these rows: shape (ordinals,), float32."""
    scores = np.empty(ordinals.size, np.float32)
    _inner_products(stored.view(np.uint16), ordinals, query.astype(np.float64), scores)
    return scores


# A row's products are added in whatever order is fast, but in the same one for every row, whatever the batch.
@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _inner_products(halves, ordinals, query, scores):  # type: ignore[no-untyped-def]  # pragma: no cover
    """float16 is read as in `residual.py`: sign and digits moved to their places, the bias made good at the end."""
    for i in range(ordinals.size):
        row = halves[ordinals[i]]
        total = 0.0
        for j in range(query.size):
            half = np.int32(row[j])
            bits = np.int32((half & 0x8000) << 16 | (half & 0x7FFF) << 13)
            total += np.float64(bits.view(np.float32)) * query[j]
        scores[i] = total * 2.0**112


def _tuned(factory: str, index: Any, stored: NDArray[np.float16], target: float) -> AnnRecord:
    """The cheapest way to ask an index that finds `target` of the nearest, or nearly the most that can be found."""
    queries = ann.sample(stored, _RECALL_SAMPLE)
    depth = min(RECALL_DEPTH, len(stored))
    _, truth = ann.scan(stored, queries, depth)
    worst = [similarities(stored, *pair).min() for pair in zip(truth, queries, strict=True)]

    def record(effort: int, overfetch: int) -> AnnRecord:
        asked = Ann(index, effort, overfetch * RECALL_DEPTH)
        fetch = min(len(stored), max(overfetch * depth, depth + 16))
        if fetch > asked.limit(len(stored)):
            return AnnRecord(factory, effort, overfetch, 1.0)  # a search with this effort compares with all rows
        found = 0
        for query, candidates, limit in zip(queries, asked.search(queries, fetch)[1], worst, strict=True):
            # By score, not by ordinal: of equal vectors any will do.
            scores = similarities(stored, candidates[candidates >= 0], query)
            found += min(depth, int(np.count_nonzero(scores >= limit)))
        return AnnRecord(factory, effort, overfetch, found / (depth * len(queries)))

    tried = []
    for effort in ann.ladder(index):
        # Fetching more makes a graph's walk longer, which is for a later step of the ladder to try.
        *less, most = [o for o in _OVERFETCH if ann.least_effort(index, o * RECALL_DEPTH) <= effort]
        tried.append(record(effort, most))
        if (tried[-1].recall or 0) >= target:
            cheaper = (record(effort, overfetch) for overfetch in less)
            return next((one for one in cheaper if (one.recall or 0) >= target), tried[-1])
    best = max(one.recall or 0 for one in tried)
    return next(one for one in tried if (one.recall or 0) >= best - _NEGLIGIBLE)
