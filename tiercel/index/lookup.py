"""Which document of which segment has this id? For many ids at once.

A thousand of them found one by one would take longer than to score their documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from tiercel.index.postings import string_buffers
from tiercel.index.view import View
from tiercel.types import DocId

_ALL = np.zeros(0, dtype=bool)

# So many are found one by one, in about 0.2 ms each: the first use of the kernel in a process costs more than that.
_FEW = 50


class Places(NamedTuple):
    """Where the documents of some ids are, aligned with the ids.

    Attributes:
        views: position of the segment's view, int64; -1 where no document that counts has the id.
        ordinals: of the document in its segment, int64; -1 likewise.
    """

    views: NDArray[np.int64]
    ordinals: NDArray[np.int64]


def places_of(views: Sequence[View], ids: Sequence[DocId]) -> Places:
    """The places in a commit's segments of these ids, of which some may be the same.

    Only documents that count are found. Where several segments have one the newest counts.
    """
    ordinals = np.full(len(ids), -1, dtype=np.int64)
    places = Places(ordinals.copy(), ordinals)
    if len(ids) <= _FEW:
        for number, doc_id in enumerate(ids):
            for position in reversed(range(len(views))):
                if (ordinal := views[position].ordinal(doc_id)) is not None:
                    places.views[number], places.ordinals[number] = position, ordinal
                    break
        return places
    # Half a surrogate pair becomes bytes that are no UTF-8, so that nothing has such an id.
    asked = string_buffers(pa.array([doc_id.encode("utf-8", "surrogatepass") for doc_id in ids], pa.large_binary()))
    for position in reversed(range(len(views))):
        live, documents = views[position].live, views[position].segment.documents
        _find(*asked, *documents.joined_ids, documents.order.ordinals, _ALL if live is None else live, ordinals)
        places.views[(places.views < 0) & (ordinals >= 0)] = position
    return places


@njit(cache=True, nogil=True)
def _compare(first, start, end, second, other_start, other_end):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Below, at or above 0 as the first slice of bytes is below, at or above the second."""
    common = min(end - start, other_end - other_start)
    for i in range(common):
        a, b = first[start + i], second[other_start + i]
        if a != b:
            return -1 if a < b else 1
    return (end - start) - (other_end - other_start)


@njit(cache=True, nogil=True)
def _find(  # type: ignore[no-untyped-def]  # noqa: PLR0913  # pragma: no cover
    asked, asked_starts, ids, starts, order, live, found
):
    """Set `found`, where it is below 0, to the ordinal of the document that has the id and counts, if there is one."""
    for n in range(found.size):
        if found[n] >= 0:
            continue
        begin, end = asked_starts[n], asked_starts[n + 1]
        low, high = 0, order.size
        while low < high:
            middle = (low + high) // 2
            ordinal = order[middle]
            if _compare(ids, starts[ordinal], starts[ordinal + 1], asked, begin, end) < 0:
                low = middle + 1
            else:
                high = middle
        while low < order.size:
            ordinal = order[low]
            if _compare(ids, starts[ordinal], starts[ordinal + 1], asked, begin, end) != 0:
                break
            if live.size == 0 or live[ordinal]:
                found[n] = ordinal
                break
            low += 1
