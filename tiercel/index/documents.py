"""What was indexed? Ids, titles, texts and metadata of one segment, as an Arrow file that is mapped, not read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tiercel.errors import InputError
from tiercel.index.files import damaged, map_array, write_array
from tiercel.index.order import IdOrder
from tiercel.index.postings import string_buffers
from tiercel.types import DocId, Document

DOCUMENTS = "documents.arrow"
ID_ORDER = "id_order.npy"

_SCHEMA = pa.schema(
    [("id", pa.string()), ("title", pa.string()), ("text", pa.string()), ("metadata", pa.string())]
)  # metadata: one JSON object, "" for none


class DocumentWriter:
    """Writes the documents of one segment, batch by batch, in the order they come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sink = pa.OSFile(str(folder / DOCUMENTS), "wb")
        self._file = pa.ipc.new_file(self._sink, _SCHEMA)
        self._ids: list[Any] = []

    def add(self, documents: Sequence[Document]) -> None:
        """Append a batch. Raises InputError for a document that UTF-8 or JSON cannot hold."""
        try:
            columns = [
                pa.array([document.id for document in documents], pa.string()),
                pa.array([document.title for document in documents], pa.string()),
                pa.array([document.text for document in documents], pa.string()),
                pa.array([_metadata_json(document) for document in documents], pa.string()),
            ]
        except UnicodeEncodeError as error:
            raise _half_a_pair(documents) from error
        self.add_batch(pa.record_batch(columns, schema=_SCHEMA))

    def add_batch(self, batch: Any) -> None:
        """Append a batch as it is stored: an Arrow RecordBatch of `StoredDocuments.batches`."""
        self._ids.append(batch.column(0))
        self._file.write_batch(batch)

    def finish(self) -> None:
        """Close the file and write the order of the ids."""
        self.close()
        order = pc.sort_indices(pa.chunked_array(self._ids, pa.string())).to_numpy().astype(np.int32)
        write_array(self._folder / ID_ORDER, order)

    def close(self) -> None:
        """Give the file up without finishing; again is fine."""
        if not self._sink.closed:
            self._file.close()
            self._sink.close()


class StoredDocuments:
    """The documents of one segment, addressed by ordinal inside the index and by id outside."""

    def __init__(self, folder: Path) -> None:
        self._path = path = folder / DOCUMENTS
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            self._batches = [reader.get_batch(i) for i in range(reader.num_record_batches)]
            for batch in self._batches:
                batch.validate()
        except (OSError, pa.ArrowInvalid) as error:
            raise damaged(path, str(error)) from error
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        self.order = _map_order(folder / ID_ORDER, len(self))

    def __len__(self) -> int:
        """Count the documents."""
        return self._starts[-1]

    def ids(self, ordinals: NDArray[np.integer[Any]]) -> list[DocId]:
        """Ids of these ordinals, in the same order."""
        (names,) = self._values(ordinals, [0])
        return names

    def among(self, ids: Any) -> NDArray[np.bool_]:
        """Which documents have one of these ids, an Arrow array of strings; shape (documents,)."""
        found: NDArray[np.bool_] = pc.is_in(self.all_ids(), value_set=ids).to_numpy().astype(bool)
        return found

    def all_ids(self) -> Any:
        """The ids of all documents, as an Arrow ChunkedArray of strings."""
        return pa.chunked_array([batch.column(0) for batch in self._batches], pa.string())

    @cached_property
    def joined_ids(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """UTF-8 of all ids end to end, and where each begins, with one more at the end; kept in memory once asked."""
        ids: Any = self.all_ids().cast(pa.large_string()).combine_chunks()
        return string_buffers(ids)

    def ordinals(self, doc_id: DocId) -> list[int]:
        """Ordinals of the documents of this id: none, one, or more where all but one are deleted."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._id(int(self.order.ordinals[middle])) < doc_id:
                low = middle + 1
            else:
                high = middle
        found = []
        while low < len(self) and self._id(ordinal := int(self.order.ordinals[low])) == doc_id:
            found.append(ordinal)
            low += 1
        return found

    def batches(self, kept: NDArray[np.bool_] | None = None) -> Iterator[Any]:
        """Arrow RecordBatches of the documents that the mask keeps, None: all; empty ones are left out."""
        for start, batch in zip(self._starts, self._batches, strict=False):
            rows = batch if kept is None else batch.filter(pa.array(kept[start : start + batch.num_rows]))
            if rows.num_rows:
                yield rows

    def check(self) -> None:
        """Read everything. Raises IndexStoreError for text that is not UTF-8, or ids that are not in their order."""
        try:
            for batch in self._batches:
                batch.validate(full=True)
        except pa.ArrowInvalid as error:
            raise damaged(self._path, str(error)) from error
        ordered = self.all_ids().take(pa.array(self.order.ordinals))
        if len(ordered) > 1 and not pc.all(pc.less_equal(ordered.slice(0, len(ordered) - 1), ordered.slice(1))).as_py():
            raise damaged(self._path.parent / ID_ORDER, "the ids are not in their order")

    def documents(self, ordinals: NDArray[np.integer[Any]]) -> list[Document]:
        """The documents at these ordinals, in the same order."""
        return [
            Document(DocId(doc_id), text, title, orjson.loads(metadata) if metadata else {})
            for doc_id, title, text, metadata in zip(*self._values(ordinals, range(len(_SCHEMA))), strict=True)
        ]

    def _values(self, ordinals: NDArray[np.integer[Any]], columns: Sequence[int]) -> list[list[Any]]:
        """For each of the columns, by number, its values at these ordinals."""
        distinct, inverse = np.unique(ordinals, return_inverse=True)
        numbers = np.searchsorted(self._starts, distinct, side="right") - 1
        values: list[list[Any]] = [[] for _ in columns]
        for number in np.unique(numbers).tolist():  # only the batches that hold some of them
            rows = pa.array(distinct[numbers == number] - self._starts[number])
            for column, found in zip(columns, values, strict=True):
                found.extend(self._batches[number].column(column).take(rows).to_pylist())
        order = inverse.tolist()
        return [list(map(found.__getitem__, order)) for found in values]

    def _id(self, ordinal: int) -> str:
        batch, row = self._locate(ordinal)
        return str(batch.column(0)[row].as_py())

    def _locate(self, ordinal: int) -> tuple[Any, int]:
        number = bisect_right(self._starts, ordinal) - 1
        return self._batches[number], ordinal - self._starts[number]


def _map_order(path: Path, count: int) -> IdOrder:
    """Map the order of so many ids. Raises IndexStoreError if it does not hold each ordinal once."""
    ordinals = map_array(path)
    ranks = np.full(count, -1, dtype=np.int32)
    if ordinals.shape == ranks.shape and ordinals.dtype == ranks.dtype:
        inside = ordinals[(ordinals >= 0) & (ordinals < count)]
        ranks[inside] = np.arange(inside.size, dtype=np.int32)
    if (ranks < 0).any() or ordinals.size != count:
        raise damaged(path, f"it orders other documents than the {count} there are")
    ranks.setflags(write=False)
    return IdOrder(ordinals, ranks)


def _half_a_pair(documents: Sequence[Document]) -> InputError:
    """The error for the first text that UTF-8 cannot hold."""
    parts = ((document, part) for document in documents for part in ("id", "title", "text"))
    document, part = next(
        (document, part) for document, part in parts if any("\ud800" <= c <= "\udfff" for c in getattr(document, part))
    )
    return InputError(
        f"document {document.id!r}: half a surrogate pair in its {part}",
        expected="text that UTF-8 can hold",
        next_step="Correct its source. Nothing was indexed.",
    )


def _metadata_json(document: Document) -> str:
    if not document.metadata:
        return ""
    try:
        return orjson.dumps(dict(document.metadata), option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise InputError(
            f"the metadata of document {document.id!r} cannot be kept: {error}",
            expected="JSON values, whole numbers of up to 64 bits",
            next_step="Change or remove it. Nothing was indexed.",
        ) from error
