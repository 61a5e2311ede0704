"""How well does a document match the words of a query? BM25 in all its variants, by one kernel.

Every variant is `weight(term) * saturation(frequency, length)`, with

    saturation = f / (f + K(length)),   K(length) = k * (1 - b + b * length / mean length)

and differs only in the weight and in k: BM25L's shifted frequency and BM25+'s lower bound reduce to that form plus a
constant per query term, which all documents share (worked out in `_scale`). So frequencies and lengths are what is
stored, and k1, b and the variant are chosen when a query is asked.

Sources: Robertson & Zaragoza 2009; Lv & Zhai 2011 (BM25L, BM25+); Kamphuis et al. 2020 for the variants side by side;
MaxScore is Turtle & Flood 1995, its windows follow Lucene's bulk scorer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from tiercel.errors import UsageError
from tiercel.index.order import IdOrder
from tiercel.index.postings import Postings

VARIANTS = ("lucene", "robertson", "atire", "bm25l", "bm25+", "rank-bm25-okapi", "rank-bm25-l")
"""`rank-bm25-okapi` and `rank-bm25-l` are that package's BM25Okapi and BM25L, which differ from the papers' formulas;
its BM25Plus is `bm25+`."""


@dataclass(frozen=True, slots=True)
class BM25:
    """Parameters of the lexical leg, chosen at query time.

    Attributes:
        k1: how soon repeating a word stops to count, at least 0.
        b: how much long documents pay, from 0 to 1.
        variant: one of VARIANTS.
        delta: the shift of bm25l and rank-bm25-l (0.5) and the lower bound of bm25+ (1.0); None is that default.
    """

    k1: float = 0.9
    b: float = 0.4
    variant: str = "lucene"
    delta: float | None = None

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise UsageError(f"unknown BM25 variant {self.variant!r}", expected=f"one of {', '.join(VARIANTS)}")
        if not (math.isfinite(self.k1) and self.k1 >= 0):
            raise UsageError(f"k1={self.k1}", expected="a number of at least 0")
        if not 0 <= self.b <= 1:
            raise UsageError(f"b={self.b}", expected="a number from 0 to 1")
        if self.delta is not None and not (math.isfinite(self.delta) and self.delta >= 0):
            raise UsageError(f"delta={self.delta}", expected="a number of at least 0")

    @property
    def shift(self) -> float:
        """Delta, or the variant's default."""
        if self.delta is not None:
            return self.delta
        return 1.0 if self.variant == "bm25+" else 0.5

    @property
    def saturation_k(self) -> float:
        """The k of K(length): k1, or k1 + delta for BM25L."""
        return self.k1 + self.shift if self.variant in {"bm25l", "rank-bm25-l"} else self.k1

    def norm(self, mean_length: float) -> tuple[float, float]:
        """(a, c) of K(length) = a + c * length."""
        return self.saturation_k * (1 - self.b), self.saturation_k * self.b / mean_length if mean_length else 0.0

    @property
    def growth(self) -> float:
        """What rank-bm25's BM25L multiplies the saturation by: f + growth * K(length). Negative: nothing."""
        if self.variant != "rank-bm25-l":
            return -1.0
        return self.shift / self.saturation_k if self.saturation_k else 0.0

    def saturation(
        self, frequencies: NDArray[np.int64], lengths: NDArray[np.int64], mean_length: float
    ) -> NDArray[np.float64]:
        """What the kernel multiplies a term's weight by, in float64: of a frequency of 0 it is 0. Shapes broadcast."""
        base, slope = self.norm(mean_length)
        norms = base + slope * lengths
        with np.errstate(invalid="ignore"):  # 0 / 0 where k1 is 0
            found = np.where(frequencies > 0, frequencies / (frequencies + norms), 0.0)
        return found * (frequencies + self.growth * norms) if self.growth >= 0 else found


@dataclass(frozen=True, slots=True)
class CollectionStatistics:
    """What BM25 needs to know of the whole collection, over all segments.

    Attributes:
        documents: number of documents, empty ones included.
        mean_length: mean number of terms of a document.
        mean_idf: mean of ln((N - df + .5) / (df + .5)) over all terms; rank-bm25's floor is a quarter of it.
    """

    documents: int
    mean_length: float
    mean_idf: float


def okapi_idf(document_frequencies: NDArray[np.int64], documents: int) -> NDArray[np.float64]:
    """Robertson and Sparck Jones' idf without smoothing, shape as given, float64; negative above N / 2."""
    frequencies = document_frequencies.astype(np.float64)
    idf: NDArray[np.float64] = np.log(documents - frequencies + 0.5) - np.log(frequencies + 0.5)
    return idf


def term_weights(
    parameters: BM25, document_frequencies: NDArray[np.int64], statistics: CollectionStatistics
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight and constant of each term, both shape (terms,), float64, at least 0; terms in no document get 0 and 0.

    A document that holds the term scores constant + weight * saturation for it, one that does not scores constant.
    """
    idf = term_idf(parameters, document_frequencies, statistics)
    scale, constant = _scale(parameters)
    return idf * scale, idf * constant


def term_idf(
    parameters: BM25, document_frequencies: NDArray[np.int64], statistics: CollectionStatistics
) -> NDArray[np.float64]:
    """Inverse document frequency of each term as the variant has it, shape (terms,), at least 0; in no document: 0."""
    n = statistics.documents
    df = document_frequencies.astype(np.float64)
    with np.errstate(divide="ignore"):
        if parameters.variant == "lucene":
            idf = np.log1p((n - df + 0.5) / (df + 0.5))
        elif parameters.variant == "robertson":
            idf = np.maximum(okapi_idf(document_frequencies, n), 0.0)
        elif parameters.variant == "rank-bm25-okapi":
            idf = okapi_idf(document_frequencies, n)
            idf = np.where(idf < 0, max(0.25 * statistics.mean_idf, 0.0), idf)
        elif parameters.variant == "atire":
            idf = np.log(n / df)
        elif parameters.variant == "bm25+":
            idf = np.log((n + 1) / df)
        else:
            idf = np.log((n + 1) / (df + 0.5))
    return np.where(df > 0, idf, 0.0)


def _scale(parameters: BM25) -> tuple[float, float]:
    """Factor of the saturation and the constant, both to be multiplied by idf.

    BM25L with c = f / L, L the length norm, is (k1 + 1)(c + d) / (k1 + c + d). Less its value at f = 0, which is
    (k1 + 1) d / (k1 + d), there remains (k1 + 1) k1 / (k1 + d) * f / (f + (k1 + d) L).
    """
    k1, d = parameters.k1, parameters.shift
    if parameters.variant in {"lucene", "robertson"}:
        return 1.0, 0.0
    if parameters.variant == "bm25+":
        return k1 + 1, d
    if parameters.variant == "bm25l":
        if k1 + d == 0:
            return 0.0, 1.0
        return (k1 + 1) * k1 / (k1 + d), (k1 + 1) * d / (k1 + d)
    return k1 + 1, 0.0


WINDOW = 4096
"""Documents scored together: their scores (16 KB) stay in the first-level cache."""

_ROUNDING = 2.0**-23
"""What a float32 operation may be off by, relatively; every comparison of a bound with a threshold allows for it."""

_LEAST_SEED = np.float32(1e-30)  # bins over a smaller range would not be finite

_SPARSE = 0.4
"""With a smaller share of documents eligible, copying their postings out is faster than dropping hits at the end."""

_SHARE_SAMPLE = 4096  # documents that are looked at to estimate that share; it decides about time alone
_NO_MASK = np.zeros(0, dtype=np.bool_)

CHUNK = 512  # postings of a lone essential term that are read before the threshold is looked at again
NEAR = 16  # postings that are walked before galloping
_LOW = 0xFFFFFFFF
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_BIT_INDEX = np.zeros(64, dtype=np.uint8)
for _bit in range(64):
    _BIT_INDEX[(int(_DE_BRUIJN) << _bit & 0xFFFFFFFFFFFFFFFF) >> 58] = _bit


class QueryBatch(NamedTuple):
    """Queries as terms of one segment, end to end; a term's weight already counts how often the query repeats it.

    Attributes:
        starts: shape (queries + 1,), int64, where each query's terms begin.
        terms: shape (t,), int32, term numbers of the segment, each once per query.
        weights: shape (t,), float32, above 0 and descending within a query, whatever the segment: scores are sums in
            that order, so a document's score does not depend on what else its segment holds.
    """

    starts: NDArray[np.int64]
    terms: NDArray[np.int32]
    weights: NDArray[np.float32]


def top_k(  # noqa: PLR0913
    postings: Postings,
    queries: QueryBatch,
    norm: tuple[float, float],
    growth: float,
    order: IdOrder,
    k: int,
    eligible: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int64]]:
    """The k best documents of each query, ties broken by `order`.

    `norm` is (a, c) of K(length) = a + c * length; `growth` is BM25.growth. Returns ordinals, shape (queries, k),
    int32; scores, same shape, float32, best first; and how many of the k are filled, shape (queries,), int64. Only
    documents that hold a query term are returned, and of these only the ones where `eligible`, shape (documents,), is
    True; None: all. Releases the interpreter lock.
    """
    count = queries.starts.size - 1
    k = min(k, postings.lengths.size)
    keys = np.zeros((count, k), dtype=np.uint64)
    sizes = np.zeros(count, dtype=np.int64)
    if k:
        if eligible is not None and _is_sparse(eligible):
            postings, queries = _eligible_postings(postings, queries, eligible)
            eligible = None
        _search(
            queries.starts, queries.terms, queries.weights, *postings[2:], np.float32(norm[0]), np.float32(norm[1]),
            np.float32(growth), order.ranks, keys, sizes, _read_only(_NO_MASK if eligible is None else eligible),
        )  # fmt: skip
    # NumPy sorts integers by vector instructions, several times faster than a compiled quicksort.
    keys.sort(axis=1)
    keys = keys[:, ::-1]
    scores = (keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
    ranks = (_LOW - (keys & np.uint64(_LOW)).astype(np.int64)) * (keys > 0)  # an unfilled place reads as rank 0
    return order.ordinals[ranks], scores, sizes


def _is_sparse(eligible: NDArray[np.bool_]) -> bool:
    sample = eligible[:: eligible.size // _SHARE_SAMPLE + 1]
    return int(np.count_nonzero(sample)) < _SPARSE * sample.size


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A contiguous view that cannot be written to, as mapped arrays are: kernels are then compiled for these only."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _eligible_postings(
    postings: Postings, queries: QueryBatch, eligible: NDArray[np.bool_]
) -> tuple[Postings, QueryBatch]:
    """What the queries' terms hold of the eligible documents, without the terms' names, and the queries on that."""
    asked = slice(queries.starts[0], queries.starts[-1])
    terms, numbers = np.unique(queries.terms[asked], return_inverse=True)
    room = int((postings.starts[terms + 1] - postings.starts[terms]).sum())
    starts = np.zeros(terms.size + 1, dtype=np.int64)
    documents = np.empty(room, dtype=np.int32)
    frequencies = np.empty(room, dtype=postings.frequencies.dtype)
    _copy_eligible(
        terms, postings.starts, postings.documents, postings.frequencies, _read_only(eligible),
        starts, documents, frequencies,
    )  # fmt: skip
    kept = Postings(
        postings.term_bytes[:0], postings.term_starts[:1], starts, documents[: starts[-1]], frequencies[: starts[-1]],
        postings.lengths, postings.max_frequencies[terms], postings.min_lengths[terms],
    )  # fmt: skip
    batch = QueryBatch(queries.starts - asked.start, numbers.astype(np.int32), queries.weights[asked])
    return Postings(*(_read_only(array) for array in kept)), batch


@njit(cache=True, nogil=True)
def _copy_eligible(  # type: ignore[no-untyped-def]  # noqa: PLR0913  # pragma: no cover
    terms, starts, documents, frequencies, eligible, kept_starts, kept_documents, kept_frequencies
):
    kept = 0
    for i in range(terms.size):
        for posting in range(starts[terms[i]], starts[terms[i] + 1]):
            document = documents[posting]
            kept_documents[kept] = document
            kept_frequencies[kept] = frequencies[posting]
            kept += eligible[document]  # no branch: it would be guessed wrong too often
        kept_starts[i + 1] = kept


@njit(cache=True, nogil=True, inline="always")
def _gain(weight, frequency, norm, growth):  # type: ignore[no-untyped-def]  # pragma: no cover
    f = np.float32(frequency)
    gain = weight * f / (f + norm)
    if growth >= 0:
        gain *= f + growth * norm
    return gain


@njit(cache=True, nogil=True)
def _seed(  # type: ignore[no-untyped-def]  # noqa: PLR0913  # pragma: no cover
    first, last, weight, documents, frequencies, lengths, norm_base, norm_slope, growth, highest, k, histogram, eligible
):  # fmt: skip
    """A score that at least k eligible documents reach by this one term; 0 if none can be named.

    It is the k-th best gain, rounded down to a bin's edge.
    """
    if highest < _LEAST_SEED:
        return np.float32(0)
    histogram[:] = 0
    masked = eligible.size > 0
    scale = np.float32(histogram.size) / highest
    for posting in range(first, last):
        document = documents[posting]
        norm = norm_base + norm_slope * np.float32(lengths[document])
        bin_ = np.int64(_gain(weight, frequencies[posting], norm, growth) * scale)
        histogram[min(bin_, histogram.size - 1)] += not masked or eligible[document]
    reached = 0
    for edge in range(histogram.size - 1, 0, -1):
        reached += histogram[edge]
        if reached >= k:
            return np.float32(edge / scale * (1 - 4 * _ROUNDING))
    return np.float32(0)


@njit(cache=True, nogil=True)
def _move_largest(keys, size, k):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Move the k largest of keys[:size] to the front, in no order (Hoare's quickselect); returns the least of them."""
    low, high = 0, size - 1
    while low < high:
        pivot = keys[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while keys[i] > pivot:
                i += 1
            while keys[j] < pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            break
    return keys[k - 1]


@njit(cache=True, nogil=True)
def _search(  # type: ignore[no-untyped-def]  # noqa: PLR0913, PLR0915  # pragma: no cover
    query_starts, query_terms, query_weights, starts, documents, frequencies, lengths, max_frequencies, min_lengths,
    norm_base, norm_slope, growth, ranks, all_keys, sizes, eligible,
):  # fmt: skip
    """MaxScore over windows of documents.

    A query's terms are tried in order of weight. `highest[i]` bounds what term i can add, `tail[i]` what terms i and up
    can add together. Once k hits are known, a document that only holds terms whose tail is below the worst of them need
    not be looked at: the terms before are "essential", their postings are read in full; the others are looked up in
    what those found. Hits are kept as one integer each, score above rank, so that order and ties are one comparison
    (scores are positive, and the bits of positive floats rise with them). One long function for the same reason as in
    tokens.py.

    Where `eligible` is not empty, it is looked at last, when a document would join the best: few get that far, so the
    test costs next to nothing, and only eligible documents raise the threshold.
    """
    k = all_keys.shape[1]
    masked = eligible.size > 0
    most = 0
    for query in range(sizes.size):
        most = max(most, query_starts[query + 1] - query_starts[query])
    cursors = np.zeros(most, dtype=np.int64)
    highest = np.zeros(most, dtype=np.float32)
    tail = np.zeros(most + 1, dtype=np.float32)
    sums = np.zeros(WINDOW, dtype=np.float32)
    touched = np.zeros(WINDOW // 64, dtype=np.uint64)
    candidates = np.zeros(WINDOW, dtype=np.int32)
    partials = np.zeros(WINDOW, dtype=np.float32)
    partial_bits = partials.view(np.uint32)
    histogram = np.zeros(256, dtype=np.int64)
    keys = np.zeros(2 * k + 32, dtype=np.uint64)
    threshold_bits = np.zeros(1, dtype=np.uint32)
    threshold_view = threshold_bits.view(np.float32)
    half = np.uint64(32)
    one = np.uint64(1)
    for query in range(sizes.size):
        first = query_starts[query]
        count = query_starts[query + 1] - first
        size = 0
        threshold = np.float32(0)
        tail[count] = 0
        for i in range(count - 1, -1, -1):
            term = query_terms[first + i]
            cursors[i] = starts[term]
            norm = norm_base + norm_slope * np.float32(min_lengths[term])
            highest[i] = _gain(query_weights[first + i], max_frequencies[term], norm, growth)
            tail[i] = tail[i + 1] + highest[i]
        for i in range(count):
            term = query_terms[first + i]
            if threshold == 0 and starts[term + 1] - starts[term] >= k:
                threshold = _seed(
                    starts[term], starts[term + 1], query_weights[first + i], documents, frequencies, lengths,
                    norm_base, norm_slope, growth, highest[i], k, histogram, eligible,
                )  # fmt: skip
        essential = count
        # A score and the bound it is held against are sums of up to `count` terms, rounded at each, in unlike orders.
        lowered = np.float32(1 - (count + 16) * _ROUNDING)
        while True:
            floor = threshold * lowered
            while essential > 0 and tail[essential - 1] < floor:
                essential -= 1
            if essential == 0:
                break
            # 1. Candidates: what the essential terms hold in the next window, unless the rest cannot lift it enough.
            found = 0
            bar = floor - tail[essential]
            if essential == 1:
                weight = query_weights[first]
                cursor = cursors[0]
                end = min(starts[query_terms[first] + 1], cursor + CHUNK)
                if cursor == end:
                    break
                while cursor < end:
                    document = documents[cursor]
                    norm = norm_base + norm_slope * np.float32(lengths[document])
                    score = _gain(weight, frequencies[cursor], norm, growth)
                    candidates[found] = document
                    partials[found] = score
                    found += score >= bar
                    cursor += 1
                cursors[0] = cursor
            else:
                begin = np.int64(lengths.size)
                for i in range(essential):
                    if cursors[i] < starts[query_terms[first + i] + 1]:
                        begin = min(begin, np.int64(documents[cursors[i]]))
                if begin == lengths.size:
                    break
                limit = begin + WINDOW
                for i in range(essential):
                    weight = query_weights[first + i]
                    cursor = cursors[i]
                    end = starts[query_terms[first + i] + 1]
                    while cursor < end and documents[cursor] < limit:
                        document = documents[cursor]
                        place = document - begin
                        norm = norm_base + norm_slope * np.float32(lengths[document])
                        sums[place] += _gain(weight, frequencies[cursor], norm, growth)
                        touched[place >> 6] |= one << np.uint64(place & 63)
                        cursor += 1
                    cursors[i] = cursor
                for word in range(touched.size):
                    bits = touched[word]
                    touched[word] = 0
                    while bits != 0:
                        lowest = bits & (~bits + one)
                        bits ^= lowest
                        place = (word << 6) + _BIT_INDEX[(lowest * _DE_BRUIJN) >> np.uint64(58)]
                        score = sums[place]
                        sums[place] = 0
                        candidates[found] = begin + place
                        partials[found] = score
                        found += score >= bar
            # 2. Look the candidates up in the other terms, heaviest first; drop them as soon as they cannot make it.
            for i in range(essential, count):
                weight = query_weights[first + i]
                end = starts[query_terms[first + i] + 1]
                cursor = cursors[i]
                bar = floor - tail[i + 1]
                left = 0
                for c in range(found):
                    document = candidates[c]
                    score = partials[c]
                    # To the first posting that is not before the document: it is mostly near, else gallop.
                    near = min(cursor + NEAR, end)
                    while cursor < near and documents[cursor] < document:
                        cursor += 1
                    if cursor < end and documents[cursor] < document:
                        step = 1
                        while cursor + step < end and documents[cursor + step] < document:
                            cursor += step
                            step *= 2
                        high = min(cursor + step, end)
                        cursor += 1
                        while cursor < high:
                            middle = (cursor + high) >> 1
                            if documents[middle] < document:
                                cursor = middle + 1
                            else:
                                high = middle
                    if cursor < end and documents[cursor] == document:
                        norm = norm_base + norm_slope * np.float32(lengths[document])
                        score += _gain(weight, frequencies[cursor], norm, growth)
                    candidates[left] = document
                    partials[left] = score
                    left += score >= bar
                cursors[i] = cursor
                found = left
            # 3. What is left joins the best so far; when the room is full, the k best stay and set the threshold.
            for c in range(found):
                if partials[c] >= threshold and (not masked or eligible[candidates[c]]):
                    keys[size] = np.uint64(partial_bits[c]) << half | np.uint64(_LOW - ranks[candidates[c]])
                    size += 1
                    if size == keys.size:
                        threshold_bits[0] = np.uint32(_move_largest(keys, size, k) >> half)
                        threshold = threshold_view[0]
                        size = k
        if size > k:
            _move_largest(keys, size, k)
            size = k
        all_keys[query, :size] = keys[:size]
        sizes[query] = size
