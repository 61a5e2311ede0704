from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.conftest import FeedStdin, Write
from tiercel.data.qrels import read_qrels, write_qrels
from tiercel.errors import InputError, TiercelError, UsageError
from tiercel.types import DocId, QueryId

BEIR_HEADER = "query-id\tcorpus-id\tscore\n"


def refused(source: str | Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_qrels(source)
    return caught.value


@pytest.mark.parametrize(
    ("content", "qrels"),
    [
        ("q1 0 d1 1\nq1\t0  d2\t-1\r\n\nq2 0 d1 2\n", {"q1": {"d1": 1, "d2": -1}, "q2": {"d1": 2}}),
        ("1\t0\t7\t1\n", {"1": {"7": 1}}),
        (f"{BEIR_HEADER}q 1\td 1\t2\n\nq 1\td2\t0\n", {"q 1": {"d 1": 2, "d2": 0}}),
        ("\ufeffq1\td1\nq1 d2\n", {"q1": {"d1": 1, "d2": 1}}),
        ("q1 0 d1 1\nq1 0 d1 1\n", {"q1": {"d1": 1}}),
    ],
)
def test_forms_are_told_by_the_first_line(write: Write, content: str, qrels: dict[str, dict[str, int]]) -> None:
    assert read_qrels(write("a.txt", content)) == qrels
    assert read_qrels(write("a.txt.gz", gzip.compress(content.encode()))) == qrels


def test_queries_keep_the_order_of_the_file(write: Write) -> None:
    assert list(read_qrels(write("a", "b 0 x 1\na 0 x 1\nb 0 y 1\n"))) == ["b", "a"]


def test_standard_input(feed_stdin: FeedStdin) -> None:
    feed_stdin(b"q 0 d 1\n")
    assert read_qrels("-") == {"q": {"d": 1}}


@pytest.mark.parametrize(
    ("content", "line", "found", "expected"),
    [
        ("q 0 d 1\nq 0 e 1.0\n", 2, "the grade '1.0'", "a whole number"),
        ("q 0 d x\n", 1, "the grade 'x'", "a whole number"),
        ("q 0 d 1_0\n", 1, "the grade '1_0'", "a whole number"),
        ("q 0 d ٣\n", 1, "the grade '٣'", "a whole number"),
        (f"q 0 d {'9' * 10}\n", 1, "the grade '9999999999'", "a whole number"),
        ("q 0 d 1\nq 0 d\n", 2, "3 columns: 'q 0 d'", "4: query id, 0, document id, grade"),
        ("q d\nq 0 d 1\n", 2, "4 columns: 'q 0 d 1'", "2: query id, id of a relevant document"),
        ("\nq d 1\n", 2, "3 columns: 'q d 1'", "4 (query id, 0, document id, grade), 2 (query id, id of a relevant"),
        ("q Q0 d 1 0.5 tag\n", 1, "6 columns: 'q Q0 d 1 0.5 tag'", "4 ("),
        (f"{BEIR_HEADER}q\td\n", 2, "2 columns separated by tabs: 'q\\td'", "query-id, corpus-id, score"),
        (f"{BEIR_HEADER}q\td\t1.5\n", 2, "the grade '1.5'", "a whole number"),
        (f"{BEIR_HEADER}\td\t1\n", 2, "the query id is empty", "at least one character"),
        (f"{BEIR_HEADER}q\t\t1\n", 2, "the document id is empty", "at least one character"),
        ("q 0 d 1\nr 0 d 1\nq 0 d 2\n", 3, "query 'q' and document 'd' with grade 2, before with 1", "one grade"),
    ],
)
def test_lines_that_are_refused(write: Write, content: str, line: int, found: str, expected: str) -> None:
    path = write("a.txt", content)
    error = refused(path)
    assert error.where == f"{path}:{line}"
    assert error.found == found
    assert expected in error.expected


def test_three_columns_want_a_header(write: Write) -> None:
    step = refused(write("a.tsv", "q\td\t1\n")).next_step
    assert step == "Give a file of three columns the header query-id corpus-id score, separated by tabs"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "no judgments: the file is empty"),
        ("\n\n", "no judgments: the file is empty"),
        (BEIR_HEADER, "no judgments, only a header"),
    ],
)
def test_no_judgments(write: Write, content: str, found: str) -> None:
    path = write("a.tsv", content)
    error = refused(path)
    assert (error.where, error.found, error.expected) == (str(path), found, "one judgment a line")


def beir(write: Write, *splits: str) -> None:
    for split in splits:
        write(f"qrels/{split}.tsv", f"{BEIR_HEADER}{split}\td\t1\n")


def test_the_split_of_a_beir_folder(write: Write, tmp_path: Path) -> None:
    beir(write, "train")
    assert read_qrels(tmp_path) == {"train": {"d": 1}}
    beir(write, "dev", "test")
    assert read_qrels(tmp_path) == {"test": {"d": 1}}
    assert read_qrels(tmp_path, split="dev") == {"dev": {"d": 1}}
    write("qrels/extra.tsv.gz", gzip.compress(f"{BEIR_HEADER}extra\td\t1\n".encode()))
    assert read_qrels(tmp_path, split="extra") == {"extra": {"d": 1}}


def test_a_split_that_has_to_be_chosen(write: Write, tmp_path: Path) -> None:
    beir(write, "train", "dev")
    with pytest.raises(UsageError, match=r"several splits in .*: dev, train; expected one.* Name it with --split"):
        read_qrels(tmp_path)
    with pytest.raises(UsageError, match=r"no split 'test' in .*; expected one of dev, train"):
        read_qrels(tmp_path, split="test")


def test_a_folder_without_qrels(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert (error.found, error.expected) == ("no qrels", "a folder with qrels/<split>.tsv")


def test_a_split_of_a_single_file(write: Write) -> None:
    with pytest.raises(UsageError, match=r"the split 'test' with .*, which is one file; .*Leave the split out"):
        read_qrels(write("a.tsv", "q d"), split="test")


def test_a_missing_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "a").found == "there is no such file or folder"


@settings(deadline=None)  # each example writes a file
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text("\t\r\n qd01-x", max_size=40).map(str.encode),
        st.text("\t\nqd1", max_size=20).map(lambda s: (BEIR_HEADER + s).encode()),
    )
)
def test_arbitrary_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "a"
    path.write_bytes(content)
    try:
        qrels = read_qrels(path)
    except TiercelError:
        return
    assert all(judged and all(judged) for judged in qrels.values())


def test_a_real_collection(scifact: Path) -> None:
    qrels = read_qrels(scifact)
    assert len(qrels) == 300
    assert sum(map(len, qrels.values())) == 339
    assert len(read_qrels(scifact, split="train")) == 809


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    qrels = {QueryId("q 1"): {DocId("d1"): 2, DocId("d 2"): 0}, QueryId("q2"): {DocId("d1"): 1}}
    write_qrels(qrels, tmp_path / "r.tsv")
    assert read_qrels(tmp_path / "r.tsv") == qrels


def test_an_id_that_would_break_a_line_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the id 'a\\tb'"):
        write_qrels({QueryId("q1"): {DocId("a\tb"): 1}}, tmp_path / "r.tsv")
    assert not (tmp_path / "r.tsv").exists()
