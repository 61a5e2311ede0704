"""What does one reader see of a segment? The rows that count, and of these the ones that a filter selects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tiercel.index.commits import Hold
from tiercel.index.deletes import Deletes, map_deletes, verify_deletes
from tiercel.index.files import check_sizes
from tiercel.index.manifest import DELETES, SegmentRecord
from tiercel.index.segment import Segment
from tiercel.index.where import Filter
from tiercel.types import DocId

if TYPE_CHECKING:
    from tiercel.index.vectors import Selection


class View:
    """A segment as of one commit. Holding it keeps the commit's files where they are.

    `segment` may be shared with views of other commits, `record` is this commit's.
    """

    def __init__(
        self, path: Path, segment: Segment, record: SegmentRecord, hold: Hold, where: Filter | None = None
    ) -> None:
        self.segment = segment
        self.record = record
        self._path = path
        self._hold = hold
        self._where = where
        if record.deletes is not None:
            check_sizes(path / DELETES / record.deletes.folder, record.deletes.files)

    def filtered(self, where: Filter) -> View:
        """The same segment and commit, of which only the documents that the filter selects are eligible."""
        return View(self._path, self.segment, self.record, self._hold, where)

    @cached_property
    def deletes(self) -> Deletes | None:
        """What has been deleted; None for nothing."""
        return map_deletes(self._path, self.record)

    @cached_property
    def live(self) -> NDArray[np.bool_] | None:
        """Which documents count, shape (documents,); None: all."""
        return None if self.deletes is None else ~self.deletes.documents

    @cached_property
    def eligible_documents(self) -> NDArray[np.bool_] | None:
        """Which documents may be found: those that count and that the filter selects; None: all."""
        if self._where is None:
            return self.live
        selected = self._where.mask(self.segment.columns, self.record.documents)
        return selected if self.live is None else selected & self.live

    @cached_property
    def eligible(self) -> NDArray[np.bool_] | None:
        """Which rows may be found, shape (rows,); None: all."""
        return None if self.eligible_documents is None else self.segment.spread(self.eligible_documents)

    @cached_property
    def selection(self) -> Selection | None:
        """The same for the dense leg."""
        from tiercel.index.vectors import select

        return None if self.eligible is None else select(self.eligible)

    def ordinal(self, doc_id: DocId) -> int | None:
        """Ordinal of the document of this id that counts; None if there is none."""
        for ordinal in self.segment.documents.ordinals(doc_id):
            if self.live is None or self.live[ordinal]:
                return ordinal
        return None

    def some_ids(self, count: int) -> list[DocId]:
        """Ids of the first documents that count, at most so many."""
        first = np.arange(min(count, self.record.documents)) if self.live is None else np.flatnonzero(self.live)[:count]
        return self.segment.documents.ids(first)

    def verify(self) -> None:
        """Read every byte, and hold the legs against each other. Raises IndexStoreError naming what does not fit."""
        self.segment.verify()
        verify_deletes(self._path, self.segment, self.record)


def place_of(views: Sequence[View], doc_id: DocId) -> tuple[View, int] | None:
    """The view with the document of this id that counts, and its ordinal there; None if there is none."""
    for view in reversed(views):  # the newest first
        ordinal = view.ordinal(doc_id)
        if ordinal is not None:
            return view, ordinal
    return None
