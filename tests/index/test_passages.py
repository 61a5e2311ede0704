from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiercel.errors import IndexStoreError
from tiercel.index.order import IdOrder
from tiercel.index.passages import (
    PassageTable,
    PassageWriter,
    map_passages,
    merge_passages,
    row_text,
    write_passages,
)
from tiercel.types import DocId, Document, Passage


def table_of(*rows: tuple[int, int, int]) -> PassageTable:
    """A table of (document, start, end) rows."""
    columns = np.array(rows, dtype=np.int32).reshape(-1, 3)
    return PassageTable(columns[:, 0], columns[:, 1], columns[:, 2])


THREE = table_of((0, 0, 5), (0, 6, 9), (1, 0, 4), (2, 0, 3), (2, 2, 8), (2, 9, 12))


def rows_of(table: PassageTable) -> list[tuple[int, ...]]:
    return list(zip(table.documents.tolist(), table.starts.tolist(), table.ends.tolist(), strict=True))


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    writer = PassageWriter()
    writer.add([(0, 5), (6, 9)])
    writer.add([(0, 0)])
    writer.finish(tmp_path)
    table = map_passages(tmp_path, 2, 3)
    assert rows_of(table) == [(0, 0, 5), (0, 6, 9), (1, 0, 0)]
    assert table.first_rows.tolist() == [0, 2, 3]
    assert table.spans(np.array([2, 0])) == [(0, 0), (0, 5)]


def test_no_documents_have_no_rows(tmp_path: Path) -> None:
    PassageWriter().finish(tmp_path)
    assert rows_of(map_passages(tmp_path, 0, 0)) == []


def test_a_mask_over_documents_spreads_over_their_rows() -> None:
    assert THREE.spread(np.array([True, False, True])).tolist() == [True, True, False, True, True, True]


def test_rows_are_ordered_by_the_id_of_their_document_then_by_start() -> None:
    # Ids in ascending order: documents 2, 0, 1.
    order = THREE.order(IdOrder(np.array([2, 0, 1], np.int32), np.array([1, 2, 0], np.int32)))
    assert order.ordinals.tolist() == [3, 4, 5, 0, 1, 2]
    assert order.ranks[order.ordinals].tolist() == list(range(6))


def test_merging_keeps_what_is_kept_and_numbers_it_anew(tmp_path: Path) -> None:
    merge_passages(tmp_path, [(THREE, np.array([False, True, True])), (table_of((0, 1, 2)), None)])
    assert rows_of(map_passages(tmp_path, 3, 5)) == [(0, 0, 4), (1, 0, 3), (1, 2, 8), (1, 9, 12), (2, 1, 2)]


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 0, 5), (2, 0, 1), (2, 0, 1)],  # document 1 has no row
        [(1, 0, 5), (1, 0, 1), (2, 0, 1)],  # nor has document 0
        [(0, 0, 5), (1, 0, 1), (1, 0, 1)],  # nor the last
        [(1, 0, 5), (0, 0, 1), (2, 0, 1)],  # out of order
        [(0, 5, 4), (1, 0, 1), (2, 0, 1)],  # ends before it starts
        [(0, -1, 4), (1, 0, 1), (2, 0, 1)],
        [(0, 0, 4), (1, 0, 1)],  # one too few
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, rows: list[tuple[int, int, int]]) -> None:
    write_passages(tmp_path, table_of(*rows))
    with pytest.raises(IndexStoreError, match=r"passages: its arrays do not describe 3 passages of 3 documents"):
        map_passages(tmp_path, 3, 3)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ((), "hunts at dawn"),
        (("title",), "Falcons hunts at dawn"),
        (("headings",), "Birds Prey hunts at dawn"),
        (("title", "headings"), "Falcons Birds Prey hunts at dawn"),
    ],
)
def test_the_text_of_a_row_begins_with_its_context(context: tuple[str, ...], expected: str) -> None:
    document = Document(DocId("a"), "hunts at dawn", "Falcons")
    assert row_text(document, Passage(DocId("a"), "hunts at dawn", 0, 13, ("Birds", "Prey")), context) == expected


def test_a_heading_that_begins_the_passage_is_not_said_twice() -> None:
    text = "## Prey\n\nPigeons."
    passage = Passage(DocId("a"), text, 0, len(text), ("Birds", "Prey"))
    assert row_text(Document(DocId("a"), text), passage, ("title", "headings")) == f"Birds {text}"
