from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.conftest import FeedStdin, Write
from tiercel.data.queries import QUERY_FORMATS, read_queries, write_queries
from tiercel.data.records import FieldNames
from tiercel.errors import InputError, TiercelError, UsageError
from tiercel.types import Query, QueryId


def query(query_id: str, text: str, *history: str) -> Query:
    return Query(QueryId(query_id), text, history)


def refused(source: str | Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_queries(source)
    return caught.value


def test_jsonl(write: Write) -> None:
    path = write(
        "q.jsonl",
        '\n{"_id": "a", "text": "one", "metadata": {}}\n{"qid": 2, "query": ""}\n'
        '{"query_id": "c", "question": "and then?", "history": ["first", "second"]}\n'
        '{"id": "d", "title": "t", "history": null}\n',
    )
    assert read_queries(path) == [
        query("a", "one"),
        query("2", ""),
        query("c", "and then?", "first", "second"),
        query("d", "t"),
    ]


def test_chosen_field_names(write: Write) -> None:
    path = write("q.jsonl", '{"_id": "a", "number": 1, "text": "x", "narrative": "y"}')
    assert read_queries(path, fields=FieldNames(id="number", text="narrative")) == [query("1", "y")]


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ('{"text": "x"}', "no id field; the other keys: 'text'", "'_id' or 'id' or 'qid' or 'query_id'"),
        ('{"qid": "a"}', "no text field; the other keys: none", "'text' or 'query' or 'title' or 'question'"),
        ('{"qid": "b", "text": "", "history": "h"}', "the string 'h' as 'history'", "a list of strings, oldest first"),
        ('{"qid": "b", "text": "", "history": ["h", 1]}', "the number 1 in 'history'", "strings only"),
    ],
)
def test_jsonl_lines_that_are_refused(write: Write, line: str, found: str, expected: str) -> None:
    path = write("q.jsonl", f'{{"qid": "0", "text": ""}}\n{line}\n')
    error = refused(path)
    assert (error.where, error.found, error.expected) == (f"{path}:2", found, expected)


def test_tsv_csv_and_plain_lines(write: Write) -> None:
    assert read_queries(write("q.tsv", "1\tone\r\n2\t\n")) == [query("1", "one"), query("2", "")]
    assert read_queries(write("q.csv", 'qid,query,x\n1,"one, two",y\n')) == [query("1", "one, two")]
    assert read_queries(write("q.txt", "one\n\n  three \r\n")) == [query("1", "one"), query("3", "three")]


def test_lines_of_a_csv_file_are_counted_from_its_start(write: Write) -> None:
    path = write("q.csv", "\n\nqid,query\n1,a\n\n2\n")
    assert refused(path).where == f"{path}:6"


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ("1\ta\tb\n", 1, "3 columns separated by tabs"),
        ("1\ta\nno tab\n", 2, "1 column separated by tabs: 'no tab'"),
        ("\ta\n", 1, "the id is empty"),
        ("qid\tquery\n", 1, "a header: 'qid\\tquery'"),
    ],
)
def test_tsv_lines_that_are_refused(write: Write, content: str, line: int, found: str) -> None:
    path = write("q.tsv", content)
    error = refused(path)
    assert error.where == f"{path}:{line}"
    assert error.found.startswith(found)


def test_an_id_that_comes_twice(write: Write) -> None:
    path = write("q.tsv", "1\ta\n2\tb\n\n1\tc\n")
    error = refused(path)
    assert error.where == f"{path}:4"
    assert error.found == f"the query id '1' a second time; the first is at {path}:1"
    assert error.next_step == "Remove or rename one of the two"


@pytest.mark.parametrize("name", ["queries.jsonl", "queries.jsonl.gz"])
def test_a_beir_folder(write: Write, tmp_path: Path, name: str) -> None:
    line = b'{"_id": "a", "text": "x"}\n'
    write(name, gzip.compress(line) if name.endswith("gz") else line)
    assert read_queries(tmp_path) == read_queries(tmp_path, format="beir") == [query("a", "x")]


def test_a_folder_without_queries(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert (error.where, error.found) == (str(tmp_path), "no queries")
    assert error.expected == "a folder with queries.jsonl"


@pytest.mark.parametrize(
    ("content", "queries"),
    [
        (b'\n {"qid": "a", "text": "x"}\n', [query("a", "x")]),
        (b"\na\tx\n", [query("a", "x")]),
        (b"one\ntwo\tparts\n", [query("1", "one"), query("2", "two\tparts")]),
        (b"", []),
    ],
)
def test_standard_input_is_told_by_its_first_line(feed_stdin: FeedStdin, content: bytes, queries: list[Query]) -> None:
    feed_stdin(content)
    assert read_queries("-") == queries


def test_standard_input_of_a_given_format(feed_stdin: FeedStdin) -> None:
    feed_stdin(b"{curly\n")
    assert read_queries("-", format="text") == [query("1", "{curly")]


def test_an_unknown_ending(write: Write) -> None:
    error = refused(write("q.xml", ""))
    assert error.found == "the ending '.xml' says nothing about the form"
    assert ".jsonl, .ndjson, .json, .tsv, .csv, .txt" in error.expected
    assert error.next_step == "Say what it is with --query-format (jsonl, tsv, csv, text, beir)"
    assert refused(write("q", "")).found == "a name without ending"


def test_an_unknown_format() -> None:
    with pytest.raises(UsageError, match="the query format 'xml'; expected one of jsonl, tsv, csv, text, beir"):
        read_queries("-", format="xml")  # type: ignore[arg-type]


def test_a_missing_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "q.xyz").found == "there is no such file or folder"


@settings(deadline=None)  # each example writes a file
@given(st.one_of(st.binary(max_size=60), st.text('\t\r\n",{}[]:qid_1\\', max_size=40).map(str.encode)))
def test_arbitrary_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "q"
    path.write_bytes(content)
    for form in QUERY_FORMATS:
        try:
            queries = read_queries(path, format=form)
        except TiercelError:
            continue
        assert len({one.id for one in queries}) == len(queries)


def test_a_real_collection(scifact: Path) -> None:
    queries = read_queries(scifact)
    assert len(queries) == 1109
    assert queries[0] == query("0", "0-dimensional biomaterials lack inductive properties.")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    queries = [Query(QueryId("q 1"), 'with "quotes",\ttabs\nand ends'), Query(QueryId("q2"), "隼", ("who?", ""))]
    write_queries(queries, tmp_path / "q.jsonl.gz")
    assert read_queries(tmp_path / "q.jsonl.gz") == queries
