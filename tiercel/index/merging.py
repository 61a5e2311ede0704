"""How do the postings of several segments become those of one, without the texts?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from tiercel.index.files import write_array
from tiercel.index.postings import Postings, map_postings, smallest_lengths, string_buffers

_BLOCK = 4_000_000
"""Postings that are put together in memory before they are written; a term is not divided."""


class _Survivors(NamedTuple):
    """What of one segment goes on: v terms of which m still have postings.

    Attributes:
        postings: the segment's.
        rows: shape (documents,), int32, ordinal of each document in the whole; -1 if it is dropped.
        terms: shape (m,), the terms that still have postings, ascending.
        counts: shape (m,), int64, how many each has.
        max_frequencies: shape (m,), int32, over these.
        min_lengths: shape (m,), int32, over these.
    """

    postings: Postings
    rows: NDArray[np.int32]
    terms: NDArray[np.int64]
    counts: NDArray[np.int64]
    max_frequencies: NDArray[np.int32]
    min_lengths: NDArray[np.int32]


def merge_postings(folder: Path, parts: Sequence[tuple[Postings, NDArray[np.bool_] | None]]) -> Postings:
    """Write the postings of the parts' documents, in order, to a new folder, and map them.

    Each part has a mask, shape (documents,), True for a document that stays; None: all. The files are byte for byte
    what the texts that stay would give if they were added to one PostingsBuilder. Holds the vocabularies in memory, and
    of the postings one block.
    """
    folder.mkdir()
    survivors: list[_Survivors] = []
    lengths = [np.zeros(0, dtype=np.uint16)]
    for postings, stays in parts:
        survivors.append(_survivors(postings, stays, sum(map(len, lengths))))
        lengths.append(postings.lengths if stays is None else postings.lengths[stays])
    numbers, term_bytes, term_starts = _merge_terms(survivors)
    terms = term_starts.size - 1
    starts = np.zeros(terms + 1, dtype=np.int64)
    max_frequencies = np.zeros(terms, dtype=np.int32)
    min_lengths = np.full(terms, np.iinfo(np.int32).max, dtype=np.int32)
    for part, number in zip(survivors, numbers, strict=True):
        starts[1:][number] += part.counts
        max_frequencies[number] = np.maximum(max_frequencies[number], part.max_frequencies)
        min_lengths[number] = np.minimum(min_lengths[number], part.min_lengths)
    np.cumsum(starts, out=starts)
    small: dict[str, NDArray[Any]] = {
        "term_bytes": term_bytes,
        "term_starts": term_starts,
        "starts": starts,
        "lengths": smallest_lengths(np.concatenate(lengths)),
        "max_frequencies": max_frequencies,
        "min_lengths": min_lengths,
    }
    for name, array in small.items():
        write_array(folder / f"{name}.npy", array)
    _write_pairs(folder, survivors, numbers, starts, np.min_scalar_type(int(max_frequencies.max(initial=1))))
    return map_postings(folder, small["lengths"].size)


def _survivors(postings: Postings, stays: NDArray[np.bool_] | None, first: int) -> _Survivors:
    """What stays of a segment whose documents become those from number `first` on."""
    terms = postings.starts.size - 1
    if stays is None:
        rows = np.arange(first, first + postings.lengths.size, dtype=np.int32)
        counts = np.diff(postings.starts)
        return _Survivors(
            postings, rows, np.arange(terms), counts, postings.max_frequencies, postings.min_lengths
        )  # fmt: skip
    rows = np.where(stays, first - 1 + np.cumsum(stays), -1).astype(np.int32)
    counts = np.zeros(terms, dtype=np.int64)
    max_frequencies = np.zeros(terms, dtype=np.int32)
    min_lengths = np.zeros(terms, dtype=np.int32)
    _measure(
        postings.starts, postings.documents, postings.frequencies, postings.lengths, rows,
        counts, max_frequencies, min_lengths,
    )  # fmt: skip
    kept = np.flatnonzero(counts)
    return _Survivors(postings, rows, kept, counts[kept], max_frequencies[kept], min_lengths[kept])


def _merge_terms(
    parts: Sequence[_Survivors],
) -> tuple[list[NDArray[np.int32]], NDArray[np.uint8], NDArray[np.int64]]:
    """The number of each part's surviving terms in the whole, and the whole's `term_bytes` and `term_starts`."""
    columns = [pa.array([], pa.large_string())]
    for part in parts:
        starts, data = part.postings.term_starts, part.postings.term_bytes
        names = pa.LargeStringArray.from_buffers(starts.size - 1, pa.py_buffer(starts), pa.py_buffer(data))
        columns.append(names.take(pa.array(part.terms)))
    encoded = pa.concat_arrays(columns).dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(order.size, dtype=np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    numbers = rank[encoded.indices.to_numpy()]
    ends = np.cumsum([0, *(part.terms.size for part in parts)]).tolist()
    return [numbers[start:end] for start, end in pairwise(ends)], *string_buffers(encoded.dictionary.take(order))


def _write_pairs(
    folder: Path,
    parts: Sequence[_Survivors],
    numbers: Sequence[NDArray[np.int32]],
    starts: NDArray[np.int64],
    frequency_type: np.dtype[Any],
) -> None:
    """Write documents.npy and frequencies.npy, block after block of terms.

    Not through a map of the file: on a full disk that ends the process by a signal, a write raises OSError.
    """
    cursors = starts[:-1].copy()
    with (folder / "documents.npy").open("wb") as document_file, (folder / "frequencies.npy").open("wb") as other_file:
        _begin_array(document_file, np.dtype(np.int32), int(starts[-1]))
        _begin_array(other_file, frequency_type, int(starts[-1]))
        for low, high in _blocks(starts):
            documents = np.empty(starts[high] - starts[low], dtype=np.int32)
            frequencies = np.empty(documents.size, dtype=frequency_type)
            for part, number in zip(parts, numbers, strict=True):
                begin, end = np.searchsorted(number, [low, high])
                _move(
                    part.terms[begin:end], number[begin:end], part.postings.starts, part.postings.documents,
                    part.postings.frequencies, part.rows, cursors, starts[low], documents, frequencies,
                )  # fmt: skip
            document_file.write(documents.data)
            other_file.write(frequencies.data)


def _blocks(starts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Runs of terms, as the first and the one after the last, of _BLOCK postings and up to one term more."""
    edges = np.searchsorted(starts, np.arange(0, starts[-1], _BLOCK))
    return pairwise(np.unique(np.append(edges, starts.size - 1)).tolist())


def _begin_array(file: BinaryIO, dtype: np.dtype[Any], size: int) -> None:
    """Write what stands before the elements in a file of `write_array`."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, header)


@njit(cache=True, nogil=True)
def _measure(  # type: ignore[no-untyped-def]  # noqa: PLR0913  # pragma: no cover
    starts, documents, frequencies, lengths, rows, counts, max_frequencies, min_lengths
):
    """Number, largest frequency and least length of the documents that stay, for each term."""
    for term in range(counts.size):
        count = 0
        largest = np.int64(0)
        least = np.int64(np.iinfo(np.int32).max)
        for posting in range(starts[term], starts[term + 1]):
            document = documents[posting]
            if rows[document] >= 0:
                count += 1
                largest = max(largest, np.int64(frequencies[posting]))
                least = min(least, np.int64(lengths[document]))
        counts[term] = count
        max_frequencies[term] = largest
        min_lengths[term] = least


@njit(cache=True, nogil=True)
def _move(  # type: ignore[no-untyped-def]  # noqa: PLR0913  # pragma: no cover
    terms, numbers, starts, documents, frequencies, rows, cursors, first, all_documents, all_frequencies
):
    """Append a part's postings to those of the whole from number `first` on; `cursors` says how far each term is."""
    for i in range(terms.size):
        place = cursors[numbers[i]] - first
        for posting in range(starts[terms[i]], starts[terms[i] + 1]):
            row = rows[documents[posting]]
            if row >= 0:
                all_documents[place] = row
                all_frequencies[place] = frequencies[posting]
                place += 1
        cursors[numbers[i]] = place + first
