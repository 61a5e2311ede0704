"""Which documents of a segment no longer count? A bitmap beside the segment, one per commit that deletes in it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tiercel.index.files import check_digests, damaged, map_array, seal, write_array
from tiercel.index.manifest import DELETES, DeletesRecord, SegmentRecord
from tiercel.index.postings import dead_frequencies
from tiercel.index.segment import Segment


class Deletes(NamedTuple):
    """What has been deleted from one segment, as of one commit.

    Attributes:
        documents: shape (documents,), bool, True for a document that no longer counts.
        terms: shape (m,), int32, ascending: the terms of the segment that deleted rows hold.
        frequencies: shape (m,), int32: how many deleted rows hold each, so that document frequencies stay exact.
    """

    documents: NDArray[np.bool_]
    terms: NDArray[np.int32]
    frequencies: NDArray[np.int32]


def write_deletes(index: Path, segment: Segment, documents: NDArray[np.bool_], commit: int) -> DeletesRecord:
    """Write that these documents, those of earlier commits included, no longer count from this commit on."""
    folder = index / DELETES / f"{segment.record.id}-{commit:08d}"
    folder.mkdir(parents=True)
    deletes, rows, length = _of_documents(segment, documents)
    write_array(folder / "documents.npy", np.packbits(documents))
    write_array(folder / "terms.npy", deletes.terms)
    write_array(folder / "frequencies.npy", deletes.frequencies)
    return DeletesRecord(folder.name, int(documents.sum()), rows, length, seal(folder, "deletes"))


def map_deletes(index: Path, record: SegmentRecord) -> Deletes | None:
    """What has been deleted from a segment; None for nothing. Raises IndexStoreError for a damaged file."""
    if record.deletes is None:
        return None
    folder = index / DELETES / record.deletes.folder
    packed, terms, frequencies = (map_array(folder / f"{name}.npy") for name in ("documents", "terms", "frequencies"))
    if packed.dtype != np.uint8 or packed.shape != (-(-record.documents // 8),) or terms.shape != frequencies.shape:
        raise damaged(folder, f"its arrays do not describe deletes among {record.documents} documents")
    documents = np.unpackbits(packed, count=record.documents).astype(bool)
    if (found := int(documents.sum())) != record.deletes.documents:
        raise damaged(folder, f"it deletes {found} documents, the manifest says {record.deletes.documents}")
    return Deletes(documents, terms, frequencies)


def verify_deletes(index: Path, segment: Segment, record: SegmentRecord) -> None:
    """Read every byte, and count again. Raises IndexStoreError for what does not fit the segment's postings."""
    if record.deletes is None:
        return
    folder = index / DELETES / record.deletes.folder
    check_digests(folder, record.deletes.files)
    stored = map_deletes(index, record)
    if stored is None:
        return
    counted, rows, length = _of_documents(segment, stored.documents)
    same = all(np.array_equal(one, other) for one, other in zip(stored, counted, strict=True))
    if not same or (rows, length) != (record.deletes.rows, record.deletes.terms):
        raise damaged(folder, "it does not count the terms of exactly the deleted rows")


def _of_documents(segment: Segment, documents: NDArray[np.bool_]) -> tuple[Deletes, int, int]:
    """The deletes of these documents, the number of their rows, and the length of these in terms."""
    rows = segment.spread(documents)
    length = int(segment.postings.lengths[rows].sum(dtype=np.int64))
    return Deletes(documents, *dead_frequencies(segment.postings, rows)), int(rows.sum()), length
