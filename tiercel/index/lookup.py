"""Which document of which segment has this id? For many ids at once.

One id is found by `View.ordinal`; a thousand of them one by one would take longer than to score their documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from tiercel.index.postings import string_buffers
from tiercel.index.view import View
from tiercel.types import DocId

_ALL = np.zeros(0, dtype=bool)


class Places(NamedTuple):
    """Where the documents of some ids are, aligned with the ids.

    Attributes:
        views: position of the segment's view, int64; -1 where no document that counts has the id.
        ordinals: of the document in its segment, int64; -1 likewise.
    """

    views: NDArray[np.int64]
    ordinals: NDArray[np.int64]


class Lookup:
    """Finds documents that count by their ids, in the segments of one commit."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views
        self._tables = [_Table(view) for view in views]

    def find(self, ids: Sequence[DocId]) -> Places:
        """The places of these ids, of which some may be the same. Where several segments have one the newest counts."""
        asked = string_buffers(pa.array(ids, pa.large_string()))
        ordinals = np.full(len(ids), -1, dtype=np.int64)
        places = Places(ordinals.copy(), ordinals)
        for position in reversed(range(len(self._views))):
            live = self._views[position].live
            _find(*asked, *self._tables[position].sorted_ids, _ALL if live is None else live, ordinals)
            places.views[(places.views < 0) & (ordinals >= 0)] = position
        return places


class _Table:
    """The ids of one segment, end to end in memory once they are asked for."""

    def __init__(self, view: View) -> None:
        self._view = view

    @cached_property
    def sorted_ids(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int32]]:
        """UTF-8 of all ids, where each begins, and the ordinals in the order of the ids."""
        documents = self._view.segment.documents
        ids: Any = documents.all_ids().cast(pa.large_string()).combine_chunks()
        return *string_buffers(ids), documents.order.ordinals


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
