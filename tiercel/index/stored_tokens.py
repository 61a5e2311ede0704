"""Which stored vectors are a candidate's? From documents, or passages, to rows of all segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tiercel.errors import IndexStoreError
from tiercel.index.ann import FloatMatrix
from tiercel.index.explained import rows_of
from tiercel.index.lookup import places_of
from tiercel.index.segment import Segment
from tiercel.index.view import View
from tiercel.parts import Read
from tiercel.protocols import CandidateGroup
from tiercel.types import Document, Span

_ANY = (-1, -1)


class RowTokens(Protocol):
    """What a segment keeps of its rows: vectors of each, one after the other."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Shape (rows + 1,): where each row's vectors begin."""

    def gather(self, rows: NDArray[np.integer]) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """The vectors of these rows, in their order, and where each row's begin."""


class RowVectors:
    """A segment's dense vectors as token vectors: each row has one.

    Args:
        stored: shape (rows, dimension), float16, rows of L2 norm 1.
    """

    def __init__(self, stored: NDArray[np.float16]) -> None:
        self.offsets = np.arange(len(stored) + 1)
        self._stored = stored

    def gather(self, rows: NDArray[np.integer]) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """Float32, shape (len(rows), dimension), and a step for each."""
        return self._stored[rows].astype(np.float32), np.arange(len(rows) + 1)


def token_vectors(segment: Segment) -> RowTokens:
    """What the stage `late` compares. Raises IndexStoreError in an index without."""
    return segment.tokens


def row_vectors(segment: Segment) -> RowTokens:
    """What the stage `pair` compares. Raises IndexStoreError in an index without."""
    return RowVectors(segment.vectors.stored)


class StoredPart:
    """What one segment holds of the candidates of a group, in pieces: rows, of which a candidate has one or more.

    Attributes:
        group: number of the group.
        candidates: shape (pieces,), int64: position in the group of the candidate that each piece is of.
    """

    def __init__(self, group: int, candidates: NDArray[np.int64], tokens: RowTokens, rows: NDArray[np.int64]) -> None:
        self.group = group
        self.candidates = candidates
        self._tokens = tokens
        self._rows = rows

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Shape (pieces,): tokens of each piece."""
        sizes: NDArray[np.int64] = self._tokens.offsets[self._rows + 1] - self._tokens.offsets[self._rows]
        return sizes

    def vectors(self, first: int, last: int) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """The tokens of the pieces from `first` up to `last`, decoded, and where each piece's begin."""
        return self._tokens.gather(self._rows[first:last])


class StoredTokens:
    """The vectors of an index's rows, as rerankers ask for them. May be asked from several threads at once.

    A candidate is compared by each of its rows, unless its group says which passage is meant: then by that one.

    Args:
        views: the segments of one commit; what a filter selects does not matter.
        of: which vectors of a segment are meant.
    """

    def __init__(self, views: Sequence[View], *, of: Callable[[Segment], RowTokens] = token_vectors) -> None:
        self._views = views
        self._of = of

    def parts(self, groups: Sequence[CandidateGroup]) -> Iterator[list[StoredPart]]:
        """The candidates' rows, group by group. Raises IndexStoreError for a document or passage that is not there."""
        for number, group in enumerate(groups):
            if group.documents:
                yield list(self._of_group(number, group))

    def reads(self, document: Document) -> list[Read]:
        """What each piece of a whole document was made of, in the order of its pieces."""
        view, _ = rows_of(self._views, document.id)
        return view.segment.reads(document)

    def _of_group(self, number: int, group: CandidateGroup) -> Iterator[StoredPart]:
        places = places_of(self._views, [document.id for document in group.documents])
        if (places.views < 0).any():
            missing = group.documents[int(np.argmax(places.views < 0))].id
            raise IndexStoreError(
                f"no document has the id {missing!r}", expected="candidates of the index that keeps their token vectors"
            )
        for position, view in enumerate(self._views):
            candidates = np.flatnonzero(places.views == position)
            if candidates.size:
                rows, owners = self._rows(view, places.ordinals[candidates], group, candidates)
                yield StoredPart(number, candidates[owners], self._of(view.segment), rows)

    def _rows(
        self, view: View, ordinals: NDArray[np.int64], group: CandidateGroup, candidates: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows of these documents of a segment, and for each the position in `ordinals` of the document it is of."""
        table = view.segment.passages
        if table is None:
            return ordinals, np.arange(ordinals.size)
        starts = table.first_rows[ordinals]
        counts = table.first_rows[ordinals + 1] - starts
        owners = np.repeat(np.arange(ordinals.size), counts)
        rows = np.arange(owners.size) + np.repeat(starts - np.cumsum(counts) + counts, counts)
        if not group.spans:
            return rows, owners
        meant = np.array([group.spans[i] or _ANY for i in candidates.tolist()], dtype=np.int64)[owners]
        chosen = ((table.starts[rows] == meant[:, 0]) & (table.ends[rows] == meant[:, 1])) | (meant[:, 0] < 0)
        found = np.bincount(owners[chosen], minlength=ordinals.size)
        if (found == 0).any():
            raise _no_passage(group, int(candidates[np.argmax(found == 0)]))
        return rows[chosen], owners[chosen]


def _no_passage(group: CandidateGroup, position: int) -> IndexStoreError:
    span: Span | None = group.spans[position]
    return IndexStoreError(
        f"document {group.documents[position].id!r} has no passage {span}", expected="the passages of the index"
    )
