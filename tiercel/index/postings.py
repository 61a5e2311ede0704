"""From tokens to postings: which documents hold a term, and how often?

Texts come in batches; what is kept of a batch is one (term, frequency) pair per distinct term of each document.
`finish` turns the pairs round, from by document to by term, with one counting sort.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from tiercel.index.analysis import Analyzer
from tiercel.index.files import damaged, map_array, write_array
from tiercel.index.tokens import TokenTable

_UINT16_MAX = np.iinfo(np.uint16).max


class Postings(NamedTuple):
    """Everything BM25 needs of one segment: n documents, v terms, p (term, document) pairs.

    Attributes:
        term_bytes: shape (bytes,), uint8, UTF-8 of all terms end to end, in ascending order of their bytes.
        term_starts: shape (v + 1,), int64, where each term begins in `term_bytes`.
        starts: shape (v + 1,), int64, where each term's postings begin.
        documents: shape (p,), int32, ordinals, ascending within a term.
        frequencies: shape (p,), the smallest of uint8, uint16 and uint32 that holds them all, at least 1.
        lengths: shape (n,), terms of each document, dropped tokens not counted; uint16 or, if one is longer, uint32:
            a query reads them at random places, so they should fit the cache.
        max_frequencies: shape (v,), int32, largest frequency of each term.
        min_lengths: shape (v,), int32, length of the shortest document that holds the term.
    """

    term_bytes: NDArray[np.uint8]
    term_starts: NDArray[np.int64]
    starts: NDArray[np.int64]
    documents: NDArray[np.int32]
    frequencies: NDArray[np.unsignedinteger[Any]]
    lengths: NDArray[np.unsignedinteger[Any]]
    max_frequencies: NDArray[np.int32]
    min_lengths: NDArray[np.int32]


class PostingsBuilder:
    """Collects the texts of one segment."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._table = TokenTable(cjk_bigrams=analyzer.cjk_bigrams)
        self._term_of_token: NDArray[np.int32] = np.zeros(0, dtype=np.int32)
        self._terms: dict[str, int] = {}
        self._pair_terms: list[NDArray[np.int32]] = []
        self._pair_frequencies: list[NDArray[np.int32]] = []
        self._pair_counts: list[NDArray[np.int32]] = []
        self._lengths: list[NDArray[np.int32]] = []

    def add(self, texts: Sequence[str]) -> None:
        """Append the texts as the next documents, in order."""
        tokens, ends = self._table.tokenize(texts)
        self._learn_new_tokens()
        slots = np.full(len(self._terms), -1, dtype=np.int64)
        terms = np.empty(tokens.size, dtype=np.int32)
        frequencies = np.empty(tokens.size, dtype=np.int32)
        counts = np.empty(ends.size, dtype=np.int32)
        lengths = np.empty(ends.size, dtype=np.int32)
        pairs = _count_terms(tokens, ends, self._term_of_token, slots, terms, frequencies, counts, lengths)
        # Copies, so that the oversized work arrays are freed.
        self._pair_terms.append(terms[:pairs].copy())
        self._pair_frequencies.append(frequencies[:pairs].copy())
        self._pair_counts.append(counts)
        self._lengths.append(lengths)

    def finish(self) -> Postings:
        """Turn everything added into postings."""
        terms = pa.array(list(self._terms), pa.large_string())
        order = pc.sort_indices(terms).to_numpy()
        rank = np.empty(len(terms), dtype=np.int32)
        rank[order] = np.arange(len(terms), dtype=np.int32)
        starts = np.zeros(len(terms) + 1, dtype=np.int64)
        for batch in self._pair_terms:
            starts[1:] += np.bincount(rank[batch], minlength=len(terms))
        np.cumsum(starts, out=starts)
        largest = max((int(batch.max()) for batch in self._pair_frequencies if batch.size), default=1)
        lengths = _joined(self._lengths)
        documents = np.empty(starts[-1], dtype=np.int32)
        frequencies = np.empty(starts[-1], dtype=np.min_scalar_type(largest))
        max_frequencies = np.zeros(len(terms), dtype=np.int32)
        min_lengths = np.full(len(terms), np.iinfo(np.int32).max, dtype=np.int32)
        cursors = starts[:-1].copy()
        first = 0
        for batch_terms, batch_frequencies, counts in zip(
            self._pair_terms, self._pair_frequencies, self._pair_counts, strict=True
        ):
            _scatter(
                batch_terms, batch_frequencies, counts, first, rank, cursors,
                lengths, documents, frequencies, max_frequencies, min_lengths,
            )  # fmt: skip
            first += counts.size
        term_bytes, term_starts = string_buffers(terms.take(order))
        return Postings(
            term_bytes, term_starts, starts, documents, frequencies, smallest_lengths(lengths),
            max_frequencies, min_lengths,
        )  # fmt: skip

    def _learn_new_tokens(self) -> None:
        """Give every token not met before its term: the number of an old or new term, or -1 if it is dropped."""
        known = self._term_of_token.size
        if self._table.count == known:
            return
        terms = self._terms
        new = self._analyzer.terms(self._table.strings(known))
        numbers = [-1 if term is None else terms.setdefault(term, len(terms)) for term in new]
        self._term_of_token = np.concatenate([self._term_of_token, np.array(numbers, dtype=np.int32)])


def smallest_lengths(lengths: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Lengths as `Postings` keeps them: uint16 if all of them fit, else uint32."""
    return lengths.astype(np.uint16 if lengths.max(initial=0) <= _UINT16_MAX else np.uint32)


def string_buffers(strings: Any) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Bytes of an Arrow large_string or large_binary array, and where each value begins, with one more at the end."""
    _, starts, data = strings.buffers()
    term_starts = np.frombuffer(starts, dtype=np.int64)[: len(strings) + 1] if len(strings) else np.zeros(1, np.int64)
    term_bytes = np.frombuffer(data, dtype=np.uint8)[: term_starts[-1]] if data else np.zeros(0, np.uint8)
    return term_bytes, term_starts


def _joined(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)


def write_postings(folder: Path, postings: Postings) -> None:
    """Write each array to a file of its name."""
    folder.mkdir()
    for name, array in postings._asdict().items():
        write_array(folder / f"{name}.npy", array)


def map_postings(folder: Path, documents: int) -> Postings:
    """Map the postings of a segment of so many documents. Raises IndexStoreError if a file is damaged."""
    postings = Postings(*(map_array(folder / f"{name}.npy") for name in Postings._fields))
    terms = postings.starts.size - 1
    sizes_fit = (
        postings.lengths.size == documents
        and postings.term_starts.size == terms + 1
        and postings.max_frequencies.size == postings.min_lengths.size == terms
        and postings.documents.size == postings.frequencies.size == postings.starts[-1]
        and postings.term_bytes.size == postings.term_starts[-1]
    )
    if not sizes_fit:
        raise damaged(folder, "the sizes of its arrays do not fit together")
    return postings


@njit(cache=True, nogil=True)
def _count_terms(  # type: ignore[no-untyped-def]  # noqa: PLR0913  # pragma: no cover
    tokens, ends, term_of_token, slots, terms, frequencies, counts, lengths
):
    """One (term, frequency) pair per distinct term of each document; returns how many. `slots`: all -1, one a term."""
    pairs = 0
    position = 0
    for document in range(ends.size):
        first_pair = pairs
        length = 0
        while position < ends[document]:
            term = term_of_token[tokens[position]]
            position += 1
            if term < 0:
                continue
            length += 1
            slot = slots[term]
            if slot >= first_pair:  # a slot of an earlier document lies below
                frequencies[slot] += 1
            else:
                slots[term] = pairs
                terms[pairs] = term
                frequencies[pairs] = 1
                pairs += 1
        counts[document] = pairs - first_pair
        lengths[document] = length
    return pairs


@njit(cache=True, nogil=True)
def _scatter(  # type: ignore[no-untyped-def]  # noqa: PLR0913  # pragma: no cover
    terms, pair_frequencies, counts, first, rank, cursors,
    lengths, documents, frequencies, max_frequencies, min_lengths,
):  # fmt: skip
    """Move a batch's pairs to where their terms' postings are being filled; `cursors` says how far each is."""
    pair = 0
    for i in range(counts.size):
        document = first + i
        length = lengths[document]
        for _ in range(counts[i]):
            term = rank[terms[pair]]
            frequency = pair_frequencies[pair]
            place = cursors[term]
            documents[place] = document
            frequencies[place] = frequency
            cursors[term] = place + 1
            max_frequencies[term] = max(max_frequencies[term], frequency)
            min_lengths[term] = min(min_lengths[term], length)
            pair += 1


def dead_frequencies(postings: Postings, dead: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The terms that dead rows hold, ascending, and in how many of them each is; both int32, of one shape.

    `dead` is a mask of shape (rows,).
    """
    counts = np.zeros(postings.starts.size - 1, dtype=np.int32)
    _count_dead(postings.starts, postings.documents, dead, counts)
    terms = np.flatnonzero(counts).astype(np.int32)
    return terms, counts[terms]


@njit(cache=True, nogil=True)
def _count_dead(starts, documents, dead, counts):  # type: ignore[no-untyped-def]  # pragma: no cover
    for term in range(counts.size):
        count = 0
        for posting in range(starts[term], starts[term + 1]):
            count += dead[documents[posting]]
        counts[term] = count


def find_terms(postings: Postings, terms: Sequence[bytes]) -> NDArray[np.int32]:
    """Numbers of these UTF-8 terms in the segment's vocabulary, shape (len(terms),), int32; -1 where absent."""
    data = np.frombuffer(b"".join(terms), dtype=np.uint8)
    starts = np.zeros(len(terms) + 1, dtype=np.int64)
    np.cumsum([len(term) for term in terms], out=starts[1:])
    found = np.empty(len(terms), dtype=np.int32)
    _find_terms(data, starts, postings.term_bytes, postings.term_starts, found)
    return found


@njit(cache=True, nogil=True)
def _find_terms(data, starts, term_bytes, term_starts, found):  # type: ignore[no-untyped-def]  # pragma: no cover
    for wanted in range(found.size):
        low = 0
        high = term_starts.size - 1
        found[wanted] = -1
        while low < high:
            middle = (low + high) >> 1
            i = starts[wanted]
            j = term_starts[middle]
            while i < starts[wanted + 1] and j < term_starts[middle + 1] and data[i] == term_bytes[j]:
                i += 1
                j += 1
            ended = i == starts[wanted + 1]
            if ended and j == term_starts[middle + 1]:
                found[wanted] = middle
                break
            if not ended and (j == term_starts[middle + 1] or data[i] > term_bytes[j]):
                low = middle + 1
            else:
                high = middle
