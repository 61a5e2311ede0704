"""Which ANN is chosen, how is it built, and how is it asked? The only module that imports FAISS.

`vectors.py` stands before it: what an ANN finds are candidates, and their scores are computed again over there.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import faiss as _faiss
import numpy as np
from numpy.typing import NDArray

from tiercel.errors import UsageError
from tiercel.index.files import damaged

faiss: Any = _faiss  # its type stubs know neither keyword parameters nor all of its classes

FloatMatrix: TypeAlias = NDArray[np.float32]
Found: TypeAlias = tuple[FloatMatrix, NDArray[np.int64]]
"""Similarities and ordinals, both of shape (queries, fetch), the nearest first; ordinals of -1 are gaps at the end."""

ANN = "ann.faiss"

FLAT = "flat"
HNSW = "HNSW32,SQ8"
"""What `hnsw` stands for. SQ8 makes the graph small; scores come from the float16."""

FLAT_LIMIT = 50_000
"""Vectors up to which exact search is what `auto` means: about 2 ms a query for 384 dimensions on one core."""

HNSW_LIMIT = 2_000_000
"""Vectors up to which a graph is: about 650 bytes each in memory for 384 dimensions, an inverted file takes 100."""

_EF_CONSTRUCTION = 200
_EF_SEARCH = (200, 300, 400, 600, 800, 1200, 1600, 3200)
_POINTS_PER_CENTROID = 39  # below that FAISS warns on stderr that it has too few points to train
_TRAINING_SAMPLE = 100_000
_PQ_CENTROIDS = 256
_PQ_DIMENSIONS = 4  # that one byte of a product quantiser stands for
_BLOCK = 16_384
_SCAN_BLOCK = 4_096

# What a search costs, in units of one row of float16 scored where it lies (35 ns for 384 dimensions; all of these grow
# with the dimension). Measured on 100,000 clustered vectors of 384 dimensions, one query at a time on one thread.
_SCANNED_ROW = 7  # a row gathered out of the mapped file and scored
_GRAPH_STEP = 60  # one more of efSearch: dozens of neighbours, most of them a miss of the cache
_LIST = 8
_CODE = 2

_PROBES_GROW = 2 / 3
"""So much deeper as a search goes, to this power more lists are probed: the lists that hold 10 times as many of the
nearest are fewer than 10 times as many. On the vectors above, recall is then no less than it was for 100."""


def ann_factory(choice: str, vectors: int, dimension: int) -> str:
    """The FAISS factory string, or "flat", that `--ann CHOICE` means for so many vectors."""
    if choice == "auto":
        choice = "flat" if vectors <= FLAT_LIMIT else "hnsw" if vectors <= HNSW_LIMIT else "ivf"
    named = {"flat": FLAT, "hnsw": HNSW, "ivf": _inverted_file(vectors, dimension)}
    return named.get(choice.lower(), choice)


def _inverted_file(vectors: int, dimension: int) -> str:
    # Between 2 and 4 times the root of n, as FAISS advises; a power of two, so that segments of like size share one
    # factory string and so what was trained.
    lists = max(1, int(min(4 * math.sqrt(vectors), vectors / _POINTS_PER_CENTROID)))
    size = math.ceil(dimension / _PQ_DIMENSIONS)
    padding = "" if dimension % _PQ_DIMENSIONS == 0 else f"Pad{size * _PQ_DIMENSIONS},"  # zeros change no product
    return f"{padding}IVF{1 << (lists.bit_length() - 1)},PQ{size}"


def check_ann(choice: str, dimension: int) -> None:
    """Raise UsageError unless `ann_factory` understands the choice and a segment can be searched so."""
    factory = ann_factory(choice, 0, dimension)
    if factory == FLAT:
        return
    expected = "auto, flat, hnsw, ivf or a factory string such as HNSW32 or IVF1024,PQ64"
    try:
        index = _empty(factory, dimension)
    except RuntimeError as error:
        raise UsageError(
            f"FAISS does not understand --ann {choice!r} for {dimension} dimensions", expected=expected
        ) from error
    if not _usable(_core(index)):
        raise UsageError(f"no segment can be searched with --ann {choice!r}", expected=expected)


@dataclass(frozen=True, slots=True)
class Ann:
    """An index of FAISS, and how hard it is asked.

    Attributes:
        index: what is asked.
        effort: efSearch of a graph, nprobe of an inverted file, else 0.
        depth: fetching so many, the effort is enough. To fetch more takes more.
    """

    index: Any
    effort: int
    depth: int

    def search(self, queries: FloatMatrix, fetch: int) -> Found:
        """Approximately the `fetch` nearest of each query, out of all rows."""
        core = _core(self.index)
        if isinstance(core, faiss.IndexHNSW):
            # A bounded queue takes the square of a large efSearch.
            parameters = faiss.SearchParametersHNSW(efSearch=max(self.effort, fetch), bounded_queue=False)
        elif isinstance(core, faiss.IndexIVF):
            parameters = faiss.SearchParametersIVF(nprobe=self._probes(core, fetch))
        else:
            parameters = None
        similarities, ordinals = self.index.search(np.ascontiguousarray(queries), fetch, params=parameters)
        return similarities, ordinals

    def limit(self, rows: int) -> int:
        """The largest fetch for which `search` takes less time than `scan` of so many rows; 0 for none."""
        core, count, cost = _core(self.index), int(self.index.ntotal), _SCANNED_ROW * rows
        if isinstance(core, faiss.IndexHNSW):
            return cost // _GRAPH_STEP if cost >= _GRAPH_STEP * self.effort else 0
        if not isinstance(core, faiss.IndexIVF):
            return count if cost >= count else 0
        probes = cost / (_LIST + _CODE * count / core.nlist)
        if probes >= core.nlist:
            return count
        return int(self.depth * math.pow(probes / self.effort, 1 / _PROBES_GROW)) if probes >= self.effort else 0

    def _probes(self, core: Any, fetch: int) -> int:
        deeper = max(1, fetch / self.depth)
        return min(int(core.nlist), math.ceil(self.effort * math.pow(deeper, _PROBES_GROW)))


def ladder(index: Any) -> tuple[int, ...]:
    """The efforts that are worth a try, in ascending order; (0,) where nothing can be set."""
    core = _core(index)
    if isinstance(core, faiss.IndexHNSW):
        return _EF_SEARCH
    if isinstance(core, faiss.IndexIVF):
        return (*(1 << step for step in range((core.nlist - 1).bit_length())), core.nlist)
    return (0,)


def least_effort(index: Any, fetch: int) -> int:
    """The effort below which a search for `fetch` rows takes no less time."""
    return fetch if isinstance(_core(index), faiss.IndexHNSW) else 0


def exact(stored: NDArray[np.float16]) -> Any:
    """An index that holds a copy of the rows, shape (n, dimension), and compares a query with all of them."""
    # FAISS widens the float16 in registers: half the memory of float32, and twice as fast.
    index = faiss.IndexScalarQuantizer(stored.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    index.add_sa_codes(np.ascontiguousarray(stored).view(np.uint8))
    return index


def compare(index: Any, queries: FloatMatrix, fetch: int, bitmap: NDArray[np.uint8] | None) -> Found:
    """The `fetch` nearest of each query in an index of `exact`, of the rows whose bit is set (None: of all).

    The first row has the lowest bit of the first byte. `fetch` is at most the number of bits set, so there is no gap.
    """
    parameters = None if bitmap is None else faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))
    similarities, ordinals = index.search(np.ascontiguousarray(queries), fetch, params=parameters)
    return similarities, ordinals


def scan(stored: NDArray[np.float16], queries: FloatMatrix, fetch: int, rows: NDArray[np.int64] | None = None) -> Found:
    """The `fetch` nearest of each query among `rows` of the stored (None: among all), which are read for it.

    `fetch` is at most the number of rows, so there is no gap.
    """
    best = faiss.ResultHeap(len(queries), fetch, keep_max=True)
    for first in range(0, len(stored) if rows is None else len(rows), _SCAN_BLOCK):
        part = slice(first, first + _SCAN_BLOCK)
        block = exact(stored[part] if rows is None else stored[rows[part]])
        similarities, found = block.search(np.ascontiguousarray(queries), min(fetch, block.ntotal))
        best.add_result(similarities, found + first if rows is None else rows[part][found])
    best.finalize()
    return best.D, best.I


def build(factory: str, stored: NDArray[np.float16], *, threads: int, trained: Path | None) -> Any | None:
    """An index of all rows, shape (n, dimension); None where they are too few to train it.

    Args:
        factory: FAISS factory string.
        stored: the rows.
        threads: that FAISS may use.
        trained: an index file of the same factory string, whose training is used again if the file can be.

    Raises:
        RuntimeError: FAISS cannot build it.
    """
    index = _empty(factory, stored.shape[1])
    needed = _training_points(index)
    if len(stored) < needed:
        return None
    with faiss_threads(threads):
        if not index.is_trained:
            again = None if trained is None else _trained_before(trained, index)
            if again is None:
                index.train(sample(stored, max(needed, _TRAINING_SAMPLE)))
            else:
                index = again
        for first in range(0, len(stored), _BLOCK):
            index.add(np.ascontiguousarray(stored[first : first + _BLOCK], dtype=np.float32))
    return index


def read(path: Path, count: int, dimension: int) -> Any:
    """Read an index of so many vectors. Raises IndexStoreError for a damaged file."""
    try:
        index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise damaged(path, "FAISS cannot read it") from error
    if index.ntotal != count or index.d != dimension:
        raise damaged(path, f"it holds {index.ntotal} vectors of {index.d}, expected {count} of {dimension}")
    return index


def write(path: Path, index: Any) -> None:
    """Write an index. Raises OSError if the disk refuses."""
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:
        raise OSError(f"FAISS cannot write {path}: {str(error).strip().rpartition(chr(10))[2]}") from error


def sample(stored: NDArray[np.float16], size: int) -> FloatMatrix:
    """Rows drawn evenly over the collection, the same ones every time, as float32; all if they are not more."""
    rows = np.linspace(0, len(stored) - 1, min(size, len(stored))).astype(np.int64)
    return np.ascontiguousarray(stored[rows], dtype=np.float32)


@contextlib.contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """FAISS's own thread count for what this thread asks, for the duration of a block."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _empty(factory: str, dimension: int) -> Any:
    index = faiss.index_factory(dimension, factory, faiss.METRIC_INNER_PRODUCT)
    _prepare(index)
    return index


def _prepare(index: Any) -> None:
    core = _core(index)
    if isinstance(core, faiss.IndexHNSW):
        core.hnsw.efConstruction = _EF_CONSTRUCTION
    if isinstance(core, faiss.IndexIVFPQ):
        core.do_polysemous_training = False  # takes most of the time of training, for a search that is not this one


def _core(index: Any) -> Any:
    """The index below the transforms (`PCA64,…`, `OPQ16,…`) that a factory string may put before it.

    It lives as long as what is above it does.
    """
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index


def _codes(core: Any) -> Any:
    """What holds the codes of the vectors: a graph has them beside it, an inverted file is it."""
    return faiss.downcast_index(core.storage) if isinstance(core, faiss.IndexHNSW) else core


def _usable(core: Any) -> bool:
    if isinstance(core, faiss.IndexHNSW):
        # With less than 2 neighbours FAISS ends the process when it builds the graph.
        return bool(core.hnsw.cum_nneighbor_per_level.size() > 1 and core.hnsw.nb_neighbors(0) >= 4)
    # IDMap wants ids, what refines holds the vectors once more, and NSG cannot be built of few vectors.
    others = (faiss.IndexIDMap, faiss.IndexIDMap2, faiss.IndexRefine, faiss.IndexNSG)
    return not isinstance(core, others) and getattr(core, "nlist", 1) > 0


def _transforms(index: Any) -> list[Any]:
    found: list[Any] = []
    while isinstance(index, faiss.IndexPreTransform):
        found += (faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size()))
        index = faiss.downcast_index(index.index)
    return found


def _training_points(index: Any) -> int:
    """How many vectors it takes to train every part of an index; 0 where there is nothing to train."""
    if index.is_trained:
        return 0
    core = _core(index)
    centroids = [getattr(core, "nlist", 0)]
    codes = _codes(core)
    if hasattr(codes, "pq"):
        centroids.append(codes.pq.ksub)
    if hasattr(codes, "aq"):
        centroids += (1 << codes.aq.nbits.at(i) for i in range(codes.aq.nbits.size()))
    transforms = [transform for transform in _transforms(index) if not transform.is_trained]
    centroids += (_PQ_CENTROIDS for transform in transforms if isinstance(transform, faiss.OPQMatrix))
    return max(1, _POINTS_PER_CENTROID * int(max(centroids)), *(int(transform.d_in) for transform in transforms))


def _trained_before(path: Path, like: Any) -> Any | None:
    """The index of a file, emptied; None unless it can be read, has been trained, and is built as `like` is."""
    try:
        index = faiss.read_index(str(path))
    except (RuntimeError, MemoryError):
        return None
    if not index.is_trained or _structure(index) != _structure(like):
        return None
    index.reset()
    _prepare(index)
    return index


def _structure(index: Any) -> tuple[Any, ...]:
    """What two indexes of one factory string have in common."""
    core = _core(index)
    graph, codes = isinstance(core, faiss.IndexHNSW), _codes(core)
    return (
        index.d, index.metric_type, type(core), type(codes), codes.code_size,
        getattr(core, "nlist", 0), core.hnsw.nb_neighbors(0) if graph else 0,
        [(type(transform), transform.d_in, transform.d_out) for transform in _transforms(index)],
    )  # fmt: skip


def kmeans(sample: FloatMatrix, count: int, iterations: int, seed: int) -> FloatMatrix:
    """Spherical k-means: `count` centroids of norm 1, shape (count, dimension), of a sample of at least as many rows.

    The same sample and seed give the same centroids, and FAISS's thread count does not change them.
    """
    clustering = faiss.Kmeans(
        sample.shape[1], count, niter=iterations, seed=seed, spherical=True,
        # Neither draws a sample of its own nor warns on stderr of few points.
        min_points_per_centroid=1, max_points_per_centroid=len(sample),
    )  # fmt: skip
    clustering.train(np.ascontiguousarray(sample))
    return np.array(clustering.centroids, dtype=np.float32)
