"""Which slice of which document is a row? What both legs rank, where documents are cut into passages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiercel.data.chunking import Chunking, passages_of
from tiercel.index.files import damaged, map_array, write_array
from tiercel.index.order import IdOrder
from tiercel.parts import Read
from tiercel.types import Document, Passage, Span

PASSAGES = "passages"


class PassageTable:
    """The rows of one segment, in the order of their documents and, within one, of their starts.

    Attributes:
        documents: shape (rows,), int32, ascending: ordinal of each row's document; every document has a row.
        starts: shape (rows,), int32, where the passage begins, in characters of the document's text.
        ends: shape (rows,), int32, where it ends.
    """

    def __init__(self, documents: NDArray[np.int32], starts: NDArray[np.int32], ends: NDArray[np.int32]) -> None:
        self.documents = documents
        self.starts = starts
        self.ends = ends

    @cached_property
    def first_rows(self) -> NDArray[np.int64]:
        """Shape (documents + 1,): where each document's rows begin."""
        counts = np.bincount(self.documents)
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])

    def spread(self, documents: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The rows of the documents where this mask of shape (documents,) holds, as a mask of shape (rows,)."""
        return documents[self.documents]

    def order(self, documents: IdOrder) -> IdOrder:
        """The rows by id of their document and start: what breaks ties between rows."""
        counts = np.diff(self.first_rows)
        places = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[documents.ordinals])])[:-1]
        first_ranks = np.empty_like(places)
        first_ranks[documents.ordinals] = places
        rows = np.arange(self.documents.size)
        ranks = (first_ranks[self.documents] + rows - self.first_rows[self.documents]).astype(np.int32)
        ordinals = np.empty_like(ranks)
        ordinals[ranks] = rows
        return IdOrder(ordinals, ranks)

    def spans(self, rows: NDArray[np.integer]) -> list[tuple[int, int]]:
        """(start, end) of these rows, in the same order."""
        return list(zip(self.starts[rows].tolist(), self.ends[rows].tolist(), strict=True))


class PassageWriter:
    """Collects the rows of one segment."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._spans: list[Span] = []

    def add(self, spans: Sequence[Span]) -> None:
        """Append the rows of the next document."""
        self._counts.append(len(spans))
        self._spans += spans

    def finish(self, folder: Path) -> None:
        """Write the rows below a segment's folder."""
        spans = np.array(self._spans, dtype=np.int32).reshape(-1, 2)
        documents = np.repeat(np.arange(len(self._counts), dtype=np.int32), self._counts)
        write_passages(folder, PassageTable(documents, spans[:, 0], spans[:, 1]))


def write_passages(folder: Path, table: PassageTable) -> None:
    """Write the three arrays below a segment's folder."""
    (folder / PASSAGES).mkdir()
    for name in ("documents", "starts", "ends"):
        write_array(folder / PASSAGES / f"{name}.npy", getattr(table, name))


def merge_passages(folder: Path, parts: Sequence[tuple[PassageTable, NDArray[np.bool_] | None]]) -> None:
    """Write the rows of the documents that a part's mask keeps (None: all), the parts one after the other."""
    documents, starts, ends = [], [], []
    base = 0
    for table, kept in parts:
        count = table.first_rows.size - 1
        kept = np.ones(count, dtype=bool) if kept is None else kept
        rows = table.spread(kept)
        numbers = (base + np.cumsum(kept) - 1).astype(np.int32)
        documents.append(numbers[table.documents[rows]])
        starts.append(table.starts[rows])
        ends.append(table.ends[rows])
        base += int(kept.sum())
    write_passages(folder, PassageTable(*(np.concatenate(column) for column in (documents, starts, ends))))


def map_passages(folder: Path, documents: int, rows: int) -> PassageTable:
    """Map the rows of a segment. Raises IndexStoreError unless there are so many, of so many documents, in order."""
    table = PassageTable(*(map_array(folder / PASSAGES / f"{name}.npy") for name in ("documents", "starts", "ends")))
    numbers = table.documents
    fits = (
        numbers.shape == table.starts.shape == table.ends.shape == (rows,)
        and {numbers.dtype, table.starts.dtype, table.ends.dtype} == {np.dtype(np.int32)}
        and (rows == 0 or (numbers[0] == 0 and numbers[-1] == documents - 1))
        and bool(((steps := np.diff(numbers)) >= 0).all() and (steps <= 1).all())
        and bool((table.starts >= 0).all() and (table.starts <= table.ends).all())
    )
    if not fits:
        raise damaged(folder / PASSAGES, f"its arrays do not describe {rows} passages of {documents} documents")
    return table


def reads_of(document: Document, chunking: Chunking | None, context: Sequence[str]) -> list[Read]:
    """What both legs read of a document, row by row; at least one."""
    if chunking is None:
        text = document.full_text if "title" in context else document.text
        return [Read(text, len(text))]
    rows = []
    for passage in passages_of(document, chunking):
        text = row_text(document, passage, context)
        rows.append(Read(text, len(text), (passage.start, passage.end)))
    return rows


def row_text(document: Document, passage: Passage, context: Sequence[str]) -> str:
    """What both legs read of a passage: the document's title and the headings above it, as asked, then its text."""
    before = [document.title] if "title" in context and document.title else []
    if "headings" in context:
        # A passage that begins with its heading says it already.
        said = bool(passage.headings) and passage.text.lstrip("# \t").startswith(passage.headings[-1])
        before += passage.headings[:-1] if said else passage.headings
    return " ".join([*before, passage.text])
