"""From a stream of documents to segments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel.config import OnDuplicate
from tiercel.errors import InputError
from tiercel.index.analysis import analyzer
from tiercel.index.manifest import SEGMENTS, SegmentRecord
from tiercel.index.segment import Plan, SegmentWriter
from tiercel.types import DocId, Document

_BATCH_DOCUMENTS = 1_000
_BATCH_CHARACTERS = 4_000_000
_SEGMENT_ROWS = 1_000_000
_SEGMENT_CHARACTERS = 1_500_000_000
"""A segment ends at whichever comes first, which bounds the memory that a build takes however large the source is."""


class RepeatedId(InputError):
    """Two documents of one source have the same id."""

    def __init__(self, doc_id: DocId, places: Sequence[str] = ()) -> None:
        self.doc_id = doc_id
        super().__init__(
            f"the id {doc_id!r} comes twice" + (f": {' and '.join(places)}" if places else ""),
            expected="each document once",
            next_step="Rename or remove one of them, or add --on-duplicate last. Nothing was indexed.",
        )


class Intake:
    """The documents that are added at once, numbered in the order they come.

    `superseded` holds the numbers of those whose id came again later.
    """

    def __init__(self, documents: Iterable[Document], on_duplicate: OnDuplicate) -> None:
        self._documents = documents
        self._on_duplicate = on_duplicate
        self.superseded: list[int] = []

    def __iter__(self) -> Iterator[Document]:
        """Each document. Raises RepeatedId, unless the last of an id is to count."""
        numbers: dict[DocId, int] = {}
        for number, document in enumerate(self._documents):
            earlier = numbers.setdefault(document.id, number)
            if earlier != number:
                if self._on_duplicate == "refuse":
                    raise RepeatedId(document.id)
                self.superseded.append(earlier)
                numbers[document.id] = number
            yield document

    def superseded_in(self, records: Sequence[SegmentRecord]) -> list[NDArray[np.bool_]]:
        """For each of the segments that these documents became, which of its documents are superseded."""
        all_of_them = np.zeros(sum(record.documents for record in records), dtype=bool)
        all_of_them[self.superseded] = True
        ends = np.cumsum([record.documents for record in records])
        return np.split(all_of_them, ends[:-1])


def write_segments(
    path: Path, documents: Iterable[Document], plan: Plan, *, first: int, progress: Callable[[int], None]
) -> list[SegmentRecord]:
    """Write the documents into new segments below an index, numbered from `first`; none for no documents.

    `progress` is told how many documents are in each time some have been added.
    """
    records: list[SegmentRecord] = []
    batches = _batches(documents)
    for batch in batches:
        done = sum(record.documents for record in records)
        folder = path / SEGMENTS / f"{first + len(records):08d}"
        writer = SegmentWriter(folder, analyzer(plan.settings.analyzer), plan)
        try:
            writer.add(batch)
            while not _is_full(writer) and (more := next(batches, None)):
                progress(done + writer.count)
                writer.add(more)
            progress(done + writer.count)
            records.append(writer.finish())
        finally:
            writer.close()
    return records


def _is_full(writer: SegmentWriter) -> bool:
    return writer.rows >= _SEGMENT_ROWS or writer.characters >= _SEGMENT_CHARACTERS


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Batches bounded in documents and in characters, so that a few huge texts do not come all at once."""
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text) + len(document.title)
        if len(batch) >= _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
