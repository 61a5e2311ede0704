from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import write_lines
from tests.training.made import made_group, texts_by_id
from tiercel.errors import InputError, UsageError
from tiercel.training.groups import MinedDocument, MinedGroup
from tiercel.training.rows import GIVEN, AsOneText, Part, RowData
from tiercel.training.settings import CrossSettings
from tiercel.types import DocId, Query, QueryId


def test_rows_are_groups_whose_documents_are_called_by_their_texts(tmp_path: Path) -> None:
    row = {
        "id": "talk-1",
        "context": ["hello", "who hunts?"],
        "candidates": ["bread", {"text": "a falcon", "title": "birds", "score": 2}, "", "bread", "birds a falcon"],
        "label": 1,
    }
    path = write_lines(tmp_path / "rows.jsonl", row, {"query": "q", "documents": ["bread", "no"], "label": 0})
    ((groups, texts),) = RowData([str(path)]).read()
    # What comes twice is one document, and none of the negatives where it is right.
    right = MinedDocument(DocId("birds a falcon"), GIVEN, 2, {GIVEN: 2.0})
    wrong = [MinedDocument(DocId("bread"), GIVEN, 1), MinedDocument(DocId(""), GIVEN, 3)]
    asked = Query(QueryId("talk-1"), "who hunts?", ("hello",))
    assert groups[0] == MinedGroup(asked, [right], wrong, where=f"{path}:1")
    assert groups[1].query == Query(QueryId("2"), "q")
    assert texts == {text: text for text in ("bread", "birds a falcon", "", "no")}


def test_files_without_rows_are_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl")
    with pytest.raises(InputError, match=r"rows.jsonl: no rows; expected one \{\"context\""):
        RowData([str(path)]).read()


class Turns:
    """Two groups, of which one has a history."""

    def read(self) -> list[Part]:
        groups = [made_group(0, "falcon", ["a"], ["b"]), made_group(1, "and how?", ["a"], ["b"])]
        talk = Query(QueryId("talk"), "and how?", ("who hunts?", "the falcon"))
        groups[1] = MinedGroup(talk, groups[1].positives, groups[1].negatives)
        return [(groups, texts_by_id(groups))]

    def digests(self) -> list[str]:
        return ["turns"]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (8, "who hunts?\nthe falcon\nand how?"),
        (5, "the falcon\nand how?"),
        (4, "falcon\nand how?"),
        (1, "?"),
    ],
)
def test_a_conversation_as_one_text_loses_its_oldest_tokens(encoder_folder: Path, tokens: int, text: str) -> None:
    settings = CrossSettings(context_tokens=tokens, max_tokens=24)
    ((groups, texts),) = AsOneText(Turns(), encoder_folder, settings).read()
    assert [group.query for group in groups] == [Query(QueryId("q0"), "falcon"), Query(QueryId("talk"), text)]
    assert texts == {"a": "a", "b": "b"}


def test_a_context_that_leaves_no_room_is_refused_where_there_is_one(encoder_folder: Path) -> None:
    settings = CrossSettings(context_tokens=13, max_tokens=24)
    with pytest.raises(UsageError, match="context_tokens = 13 with max_tokens = 24 and a query that has a history"):
        AsOneText(Turns(), encoder_folder, settings).read()
