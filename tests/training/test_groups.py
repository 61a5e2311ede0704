from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import write_lines
from tiercel.errors import InputError
from tiercel.training.groups import MinedDocument, MinedGroup, read_groups, texts_of, write_groups
from tiercel.types import DocId, Document, Query, QueryId

A, B, C = (DocId(name) for name in "abc")
GROUP = MinedGroup(
    Query(QueryId("q1"), "wer jagt?", ("hallo",)),
    [MinedDocument(A, "bm25", 2, {"bm25": 3.5}, 1.0)],
    [MinedDocument(B, "dense", 1, {"dense": 0.5}, -1.0), MinedDocument(C)],
    {"bm25": 1.0, "dense": 0.25},
)
GOOD = {"query_id": "q", "query": "x", "positives": [{"id": "a"}], "negatives": [{"id": "b"}]}


def test_groups_come_back_as_they_were_written(tmp_path: Path) -> None:
    write_groups([GROUP], tmp_path / "g.jsonl")
    (back,) = read_groups(tmp_path / "g.jsonl")
    assert back.where == f"{tmp_path / 'g.jsonl'}:1"
    assert (back.query, back.documents, back.floors) == (GROUP.query, GROUP.documents, GROUP.floors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": 3}, "as 'query'"),
        ({"history": "x"}, "the string 'x' as 'history'"),
        ({"query_id": None}, "as 'query_id'"),
        ({"negatives": [], "positives": []}, "no documents for query 'q'; expected at least two"),
        ({"negatives": []}, "1 document for query 'q'; expected at least two"),
        ({"negatives": [{"id": "a"}]}, "document 'a' a second time"),
        ({"negatives": ["b"]}, "as 'negatives'; expected a list of objects"),
        ({"negatives": [{"id": "b", "rank": 0}]}, "expected a whole number from 1"),
        ({"negatives": [{"id": "b", "teacher": "high"}]}, "the teacher's score of 'b'; expected a finite number"),
        ({"negatives": [{"id": "b", "scores": {"bm25": True}}]}, "expected a finite number"),
    ],
)
def test_a_bad_line_names_its_place(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_lines(tmp_path / "g.jsonl", GOOD, GOOD | change)
    with pytest.raises(InputError) as caught:
        read_groups(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)


def test_no_groups_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no groups"):
        read_groups(write_lines(tmp_path / "g.jsonl"))


def test_unknown_documents_are_refused_with_the_groups_place(tmp_path: Path) -> None:
    groups = read_groups(write_lines(tmp_path / "g.jsonl", GOOD))
    with pytest.raises(InputError, match=r"g.jsonl:1: the document id 'b' of query 'q' is not in the corpus"):
        texts_of(groups, [Document(A, "text")])
    assert texts_of(groups, [Document(A, "x", "t"), Document(B, "y"), Document(C, "z")]) == {A: "t x", B: "y"}


def test_a_leg_can_be_the_teacher_and_its_floor_stands_for_what_it_did_not_find() -> None:
    assert GROUP.teacher_scores("bm25") == [3.5, 1.0, 1.0]
    assert GROUP.teacher_scores("dense") == [0.25, 0.5, 0.25]


def test_missing_and_equal_teacher_scores_are_refused() -> None:
    with pytest.raises(InputError, match="no score of 'teacher' for document 'c'"):
        GROUP.teacher_scores()
    equal = MinedGroup(GROUP.query, [MinedDocument(A, teacher=2.0)], [MinedDocument(B, teacher=2.0)])
    with pytest.raises(InputError, match="all 2 scores of 'teacher' for query 'q1' are 2"):
        equal.teacher_scores()


def test_labels_need_both_sides() -> None:
    with pytest.raises(InputError, match="no positives for query 'q1'"):
        MinedGroup(GROUP.query, [], GROUP.negatives).check_labels()
