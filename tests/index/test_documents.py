from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tiercel.errors import IndexStoreError, InputError
from tiercel.index.documents import DOCUMENTS, ID_ORDER, DocumentWriter, StoredDocuments
from tiercel.index.files import write_array
from tiercel.types import DocId, Document

STRANGE_IDS = [
    "b",
    "a",
    "",
    "a\n",
    'a"b',
    "a'b",
    "a\tb",
    "A",
    "é",
    "e\u0301",
    "10",
    "9",
    "東",
    "𠀀",
    "\ue000",
    "\0",
    "x" * 5000,
]


def stored(folder: Path, *batches: list[Document]) -> StoredDocuments:
    writer = DocumentWriter(folder)
    for batch in batches:
        writer.add(batch)
    writer.finish()
    return StoredDocuments(folder)


def test_documents_come_back_as_they_were(tmp_path: Path) -> None:
    first = Document(DocId("a"), "a text\nof two lines \0 and 東京 😀", "A title", {"n": 1})
    second = Document(DocId("b"), "")
    documents = stored(tmp_path, [first], [second, Document(DocId("c"), "x" * 5_000_000)])
    assert len(documents) == 3
    assert documents.documents(np.arange(2)) == [first, second]
    assert documents.documents(np.array([2]))[0].text == "x" * 5_000_000


def test_metadata_keeps_its_types(tmp_path: Path) -> None:
    metadata: dict[str, Any] = {
        "z": None, "text": "é\"\n", "whole": 2**63 - 1, "negative": -(2**63), "real": 0.1, "yes": True, "no": False,
        "list": [1, 2.0, "3", None, [], {}], "deep": {"b": {"a": [True]}}, "": "empty", "東": 1e300,
    }  # fmt: skip
    document = Document(DocId("a"), "text", metadata=MappingProxyType(metadata))
    again = stored(tmp_path, [document]).documents(np.zeros(1, np.int64))[0].metadata
    assert again == metadata
    assert {key: type(value) for key, value in again.items()} == {key: type(value) for key, value in metadata.items()}


def test_no_metadata_is_an_empty_mapping(tmp_path: Path) -> None:
    assert stored(tmp_path, [Document(DocId("a"), "text")]).documents(np.zeros(1, np.int64))[0].metadata == {}


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", 2**64, "\ud800"])
def test_metadata_that_is_no_json_is_refused_with_the_id(tmp_path: Path, value: object) -> None:
    writer = DocumentWriter(tmp_path)
    try:
        with pytest.raises(InputError, match=r"^the metadata of document 'a' cannot be kept: .*; expected JSON values"):
            writer.add([Document(DocId("a"), "text", metadata={"key": value})])
    finally:
        writer.close()


def test_every_id_is_found_and_no_other(tmp_path: Path) -> None:
    batches = [[Document(DocId(name), f"text of {name}") for name in STRANGE_IDS[i : i + 5]] for i in range(0, 17, 5)]
    documents = stored(tmp_path, *batches)
    for ordinal, name in enumerate(STRANGE_IDS):
        assert documents.ordinals(DocId(name)) == [ordinal]
        assert documents.ids(np.array([ordinal])) == [name]
    for absent in ["c", "aa", "\n", "a\n\n", "B", "8", "\U0010ffff", "\ud800", "x" * 4999]:
        assert documents.ordinals(DocId(absent)) == []


def test_documents_of_one_id_are_all_found(tmp_path: Path) -> None:
    documents = stored(tmp_path, [Document(DocId(name), "") for name in "bab"], [Document(DocId("b"), "")])
    assert sorted(documents.ordinals(DocId("b"))) == [0, 2, 3]
    assert documents.ordinals(DocId("a")) == [1]
    assert documents.among(pa.array(["b", "c"], pa.string())).tolist() == [True, False, True, True]
    assert documents.among(pa.array([], pa.string())).tolist() == [False] * 4


def test_batches_leave_out_what_is_not_kept(tmp_path: Path) -> None:
    documents = stored(tmp_path, *([Document(DocId(name), "") for name in names] for names in ("ab", "c", "de")))
    kept = np.array([False, True, False, True, True])
    assert [batch.column(0).to_pylist() for batch in documents.batches(kept)] == [["b"], ["d", "e"]]
    assert [batch.num_rows for batch in documents.batches()] == [2, 1, 2]


def test_ids_of_ordinals_come_in_their_order(tmp_path: Path) -> None:
    documents = stored(tmp_path, *([Document(DocId(name), "")] for name in "cab"), [])
    assert documents.ids(np.array([2, 0, 0, 1])) == ["b", "c", "c", "a"]
    assert documents.ids(np.array([], dtype=np.int32)) == []


def test_the_order_of_ids_is_that_of_python(tmp_path: Path) -> None:
    documents = stored(tmp_path, [Document(DocId(name), "") for name in STRANGE_IDS])
    ordinals, ranks = documents.order
    assert [STRANGE_IDS[i] for i in ordinals] == sorted(STRANGE_IDS)
    assert ranks[ordinals].tolist() == list(range(len(STRANGE_IDS)))
    assert ordinals.dtype == ranks.dtype == np.int32


def test_no_documents_are_stored_too(tmp_path: Path) -> None:
    documents = stored(tmp_path)
    assert len(documents) == 0
    assert documents.ordinals(DocId("a")) == []
    assert documents.order.ordinals.size == 0


def test_closing_again_is_fine(tmp_path: Path) -> None:
    writer = DocumentWriter(tmp_path)
    writer.add([Document(DocId("a"), "")])
    writer.close()
    writer.close()


@pytest.mark.parametrize("content", [b"", b"not arrow", b"ARROW1\0\0" + b"\0" * 100])
def test_what_is_no_arrow_file_is_refused(tmp_path: Path, content: bytes) -> None:
    stored(tmp_path, [Document(DocId("a"), "")])
    (tmp_path / DOCUMENTS).write_bytes(content)
    with pytest.raises(IndexStoreError, match=f"^{tmp_path / DOCUMENTS}: "):
        StoredDocuments(tmp_path)


@pytest.mark.parametrize("order", [[0], [0, 1, 2], [0, 0], [0, 2], [-1, 0]])
def test_an_order_that_does_not_fit_the_documents_is_refused(tmp_path: Path, order: list[int]) -> None:
    stored(tmp_path, [Document(DocId("a"), ""), Document(DocId("b"), "")])
    write_array(tmp_path / ID_ORDER, np.array(order, dtype=np.int32))
    with pytest.raises(IndexStoreError, match=f"^{tmp_path / ID_ORDER}: it orders"):
        StoredDocuments(tmp_path)
