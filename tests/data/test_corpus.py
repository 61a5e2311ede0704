from __future__ import annotations

import gzip
import os
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.conftest import FeedStdin, Write
from tiercel.data.corpus import CORPUS_FORMATS, CorpusFormat, locate_document, read_documents
from tiercel.data.records import FieldNames
from tiercel.errors import InputError, TiercelError, UsageError
from tiercel.types import DocId, Document

IDS_AND_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def document(doc_id: str, text: str, title: str = "", /, **metadata: Any) -> Document:
    return Document(DocId(doc_id), text, title, metadata) if metadata else Document(DocId(doc_id), text, title)


def read(source: str | Path, **fields: str) -> list[Document]:
    return list(read_documents([source], fields=FieldNames(**fields)))


def refused(source: str | Path, **fields: str) -> InputError:
    with pytest.raises(InputError) as caught:
        read(source, **fields)
    return caught.value


def test_jsonl(write: Write) -> None:
    path = write(
        "a.jsonl",
        '{"_id": "d1", "title": "T", "text": "one\\u2028\\u0000"}\n'
        "\n \t\r\n"
        '{"docid": 7, "contents": "", "url": "u"}\r\n'
        '{"id": "d3", "body": "three", "title": null, "metadata": {"year": 2020, "url": "inner"}, "url": "outer"}',
    )
    assert read(path) == [
        document("d1", "one\u2028\0", "T"),
        document("7", "", url="u"),
        document("d3", "three", year=2020, url="outer"),
    ]


def test_the_preferred_field_name_wins_and_the_other_stays(write: Write) -> None:
    path = write("a.jsonl", '{"id": "other", "_id": "a", "contents": "long", "text": "short"}')
    assert read(path) == [document("a", "short", id="other", contents="long")]


def test_chosen_field_names_are_the_only_ones(write: Write) -> None:
    path = write("a.jsonl", '{"_id": "a", "key": "k", "abstract": "words", "text": "t", "name": "n"}')
    assert read(path, id="key", text="abstract", title="name") == [document("k", "words", "n", _id="a", text="t")]
    assert "no id field; the other keys: '_id', 'key'" in refused(path, id="nope").found


@pytest.mark.parametrize(
    ("value", "kept"), [("null", {}), ("{}", {}), ('"s"', {"metadata": "s"}), ("[1]", {"metadata": [1]})]
)
def test_metadata_that_is_no_object(write: Write, value: str, kept: dict[str, Any]) -> None:
    assert read(write("a.jsonl", f'{{"_id": "a", "text": "", "metadata": {value}}}')) == [document("a", "", **kept)]


@pytest.mark.parametrize(
    ("line", "found", "expected", "next_step"),
    [
        (
            '{"text": "x", "n": 1}',
            "no id field; the other keys: 'text', 'n'",
            "'_id' or 'id' or 'docid' or 'doc_id'",
            "Name the field with --id-field",
        ),
        (
            '{"_id": "a"}',
            "no text field; the other keys: none",
            "'text' or 'contents' or 'body'",
            "Name the field with --text-field",
        ),
        ('{"_id": "", "text": "x"}', "the id in '_id' is empty", "at least one character", ""),
        ('{"_id": "a\\u0000", "text": "x"}', "the id in '_id' is 'a\\x00', with a NUL in it", "without NUL", ""),
        ('{"_id": true, "text": "x"}', "true as the id in '_id'", "a string or a whole number", "--id-field"),
        ('{"_id": 1.5, "text": "x"}', "the number 1.5 as the id in '_id'", "a string or a whole number", "--id-field"),
        (
            '{"_id": 18446744073709551616, "text": "x"}',
            "the number 1.8446744073709552e+19 as the id",
            "whole",
            "--id-field",
        ),
        ('{"id": ["a"], "text": "x"}', "a list of 1 as the id in 'id'", "a string or a whole number", "--id-field"),
        ('{"_id": null, "text": "x"}', "null as the id in '_id'", "a string or a whole number", "--id-field"),
        ('{"_id": "a", "text": null}', "null as the text in 'text'", 'a string, "" if there is none', "--text-field"),
        ('{"_id": "a", "text": ["x"]}', "a list of 1 as the text in 'text'", "a string", "--text-field"),
        ('{"_id": "a", "text": "x", "title": 3}', "the number 3 as the title in 'title'", "a string", "--title-field"),
        ("[1, 2]", "a line that holds a list of 2", "one JSON object per line", "jq -c '.[]'"),
        ("3", "a line that holds the number 3", "one JSON object per line", "jq"),
        ('{"_id": "a", ', "this is not JSON (", "one JSON object per line", ""),
        ("[", "at column 2): '['", "one JSON object per line", "jq -c"),
        ("NaN", "this is not JSON (", "one JSON object per line", ""),
        (
            '{"_id": "a", "text": "\\ud800"}',
            "half a surrogate pair at column",
            "characters that UTF-8 can carry",
            "Write the whole pair",
        ),
    ],
)
def test_lines_that_are_refused(write: Write, line: str, found: str, expected: str, next_step: str) -> None:
    path = write("a.jsonl", f'{{"_id": "fine", "text": ""}}\n\n{line}\n')
    documents = read_documents([path])
    assert next(documents).id == "fine"
    with pytest.raises(InputError) as caught:
        next(documents)
    assert caught.value.where == f"{path}:3"
    assert found in caught.value.found
    assert expected in caught.value.expected
    assert next_step in caught.value.next_step


def test_jsonl_that_is_not_utf8(write: Write) -> None:
    path = write("a.jsonl", b'{"_id": "a", "text": "caf\xe9"}\n')
    assert str(refused(path)).startswith(f"{path}:1: byte 0xe9 is not UTF-8; expected UTF-8 text")


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        ("1\tone\r\n\n2\ttwo\n", [document("1", "one"), document("2", "two")]),
        ("1\tT\tone\n2\t\t\n", [document("1", "one", "T"), document("2", "")]),
        ("D1\thttp://a\tT\tbody\n", [document("D1", "body", "T", url="http://a")]),
        ('1\t"quoted" as it is\n', [document("1", '"quoted" as it is')]),
        ("", []),
    ],
)
def test_tsv(write: Write, content: str, documents: list[Document]) -> None:
    assert read(write("collection.tsv", content)) == documents


@pytest.mark.parametrize(
    ("content", "line", "found", "expected"),
    [
        (
            "one column\n",
            1,
            "1 column separated by tabs: 'one column'",
            "id, text or id, title, text or id, url, title, body",
        ),
        ("1\ta\n2\tb\tc\n", 2, "3 columns separated by tabs: '2\\tb\\tc'", "id, text, as in the lines before"),
        ("1\ta\tb\tc\td\n", 1, "5 columns", "id, url, title, body"),
        ("1\ta\n\tb\n", 2, "the id is empty", "at least one character"),
        ("docid\ttext\n1\ta\n", 1, "a header: 'docid\\ttext'", "documents from the first line on"),
    ],
)
def test_tsv_lines_that_are_refused(write: Write, content: str, line: int, found: str, expected: str) -> None:
    path = write("a.tsv", content)
    error = refused(path)
    assert error.where == f"{path}:{line}"
    assert found in error.found
    assert expected in error.expected


def test_csv(write: Write) -> None:
    path = write("a.csv", '\ufeffid,title,text,year\r\n1,T,"a, ""b""\r\nc\u2028d",2020\r\n\r\n2,,,\r\n')
    assert read(path) == [document("1", 'a, "b"\nc\u2028d', "T", year="2020"), document("2", "", year="")]


def test_a_long_csv_cell(write: Write) -> None:
    assert len(read(write("a.csv", f"id,text\n1,{'x' * 200_000}\n"))[0].text) == 200_000


@pytest.mark.parametrize("content", ["", "\n\n", "id,text\n"])
def test_csv_without_rows(write: Write, content: str) -> None:
    assert read(write("a.csv", content)) == []


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ('id,text\n1,"a\nb"\n2,b,c\n', 4, "a row of 3 cells: '2,b,c'"),
        ("id,id\n", 1, "the column name 'id' more than once"),
        ('id,text\n1,"open\n\n', 2, "a row that is not CSV (unexpected end of data)"),
        ("id,text\n1,a\rb\n", 2, "a row that is not CSV (new-line character"),
        ("id,text\n,a\n", 2, "the id in 'id' is empty"),
        ("key,text\n1,a\n", 2, "no id field; the other keys: 'key', 'text'"),
    ],
)
def test_csv_rows_that_are_refused(write: Write, content: str, line: int, found: str) -> None:
    path = write("a.csv", content)
    error = refused(path)
    assert error.where == f"{path}:{line}"
    assert found in error.found


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["one", "two"], "title": ["T", None], "n": [1.5, None]}), path)
    assert read(path) == [document("1", "one", "T", n=1.5), document("2", "two", n=None)]
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["one", None]}), path)
    error = refused(path)
    assert (error.where, error.found) == (f"{path} row 2", "null as the text in 'text'")


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_a_beir_folder(write: Write, tmp_path: Path, name: str) -> None:
    line = b'{"_id": "a", "title": "T", "text": "x", "metadata": {}}\n'
    path = write(name, gzip.compress(line) if name.endswith("gz") else line)
    write("readme.md", "# Not a document")
    assert read(tmp_path) == [document("a", "x", "T")]
    assert locate_document([tmp_path], "a") == [f"{path}:1"]


def test_a_folder_of_pages(write: Write, tmp_path: Path) -> None:
    write("b.txt", "plain\r\n")
    write("a/guide.md", "# Guide\nwords")
    write("a/page.html", "<title>Page</title><p>para</p>")
    write("table.csv", "id,text\n")
    assert read(tmp_path) == [
        document("a/guide.md", "# Guide\nwords", "Guide"),
        document("a/page.html", "para", "Page"),
        document("b.txt", "plain\r\n"),
    ]
    assert locate_document([tmp_path], "b.txt") == [str(tmp_path / "b.txt")]


def test_one_page(write: Write) -> None:
    assert read(write("notes.TXT", "words")) == [document("notes.TXT", "words")]


def test_an_empty_source_yields_nothing(write: Write, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert list(read_documents([tmp_path / "empty", write("a.jsonl", ""), write("b.jsonl", "\n\n")])) == []
    assert list(read_documents([])) == []


def test_sources_come_in_their_order(write: Write) -> None:
    first, second = write("b.tsv", "1\tx\n"), write("a.jsonl.gz", gzip.compress(b'{"id": 1, "text": "y"}'))
    assert list(read_documents([first, second])) == [document("1", "x"), document("1", "y")]


def test_standard_input(feed_stdin: FeedStdin) -> None:
    feed_stdin(b'{"_id": "a", "text": "x"}\n')
    assert read("-") == [document("a", "x")]
    feed_stdin(b"1\tx\n2")
    documents = read_documents(["-"], format="tsv")
    assert next(documents) == document("1", "x")
    with pytest.raises(InputError, match=r"^<stdin>:2: 1 column"):
        next(documents)
    feed_stdin(b"words")
    assert list(read_documents(["-"], format="text")) == [document("stdin", "words")]


def test_standard_input_twice() -> None:
    with pytest.raises(UsageError, match=r"standard input \(-\) named twice"):
        read_documents(["-", Path("-")])


def test_a_given_format_overrides_the_name(write: Write) -> None:
    path = write("a.data", "id,text\n1,x\n")
    assert list(read_documents([path], format="csv")) == [document("1", "x")]


@pytest.mark.parametrize(
    ("name", "found"), [("a.xyz", "the ending '.xyz' says nothing about the form"), ("data", "a name without ending")]
)
def test_an_unknown_ending_is_refused_at_the_call(write: Write, name: str, found: str) -> None:
    path = write(name, "")
    with pytest.raises(InputError) as caught:
        read_documents([path])
    assert (caught.value.where, caught.value.found) == (str(path), found)
    assert ".jsonl, .ndjson, .json, .tsv, .csv, .parquet, .txt, .md, .markdown, .html, .htm" in caught.value.expected
    assert caught.value.next_step.startswith("Say what it is with --format (jsonl, tsv, csv")


def test_a_missing_source_is_refused_at_the_call(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file or folder"):
        read_documents([write("a.jsonl", ""), tmp_path / "missing.xyz"])


def test_an_unknown_format() -> None:
    with pytest.raises(UsageError, match="the corpus format 'xml'; expected one of jsonl, tsv, csv"):
        read_documents([], format="xml")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "words"),
    [("jsonl", "this is a folder; expected a file"), ("beir", "no corpus; expected a folder with corpus.jsonl")],
)
def test_a_folder_that_is_not_what_the_format_says(tmp_path: Path, form: CorpusFormat, words: str) -> None:
    with pytest.raises(InputError, match=words):
        list(read_documents([tmp_path], format=form))


@pytest.mark.parametrize(
    ("form", "words"), [("folder", "this is no folder; expected a folder of pages"), ("beir", "no corpus")]
)
def test_a_file_where_a_folder_is_meant(write: Write, form: CorpusFormat, words: str) -> None:
    with pytest.raises(InputError, match=words):
        list(read_documents([write("a.txt", "")], format=form))


def test_where_an_id_occurs(write: Write, tmp_path: Path) -> None:
    table = tmp_path / "c.parquet"
    pq.write_table(pa.table({"id": ["b", "a"], "text": ["", ""]}), table)
    lines = write("a.jsonl", '{"id": "a", "text": ""}\n\n{"id": "b", "text": ""}\n{"id": "a", "text": ""}\n')
    rows = write("b.csv", 'id,text\nb,"1\n2"\na,x\n')
    sources: list[str | Path] = [lines, rows, table, "-"]
    assert locate_document(sources, "a") == [f"{lines}:1", f"{lines}:4", f"{rows}:4", f"{table} row 2", "<stdin>"]
    assert locate_document([lines], "none") == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_named_and_not_read_again(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert locate_document([tmp_path / "pipe.jsonl"], "a") == [str(tmp_path / "pipe.jsonl")]


def test_documents_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "a", "text": ""}\n' * 3 + b"broken\n")
    assert len(list(islice(read_documents([path]), 3))) == 3


@settings(deadline=None)  # each example writes a file
@given(st.lists(st.tuples(IDS_AND_TEXTS.filter(lambda s: s and "\0" not in s), IDS_AND_TEXTS, IDS_AND_TEXTS)))
def test_jsonl_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    lines = [orjson.dumps({"_id": i, "title": title, "text": text}) for i, title, text in rows]
    (folder / "a.jsonl").write_bytes(b"\n".join(lines))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"\r\n".join(lines)))
    expected = [document(i, text, title) for i, title, text in rows]
    assert read(folder / "a.jsonl") == expected
    assert read(folder / "b.jsonl.gz") == expected


@settings(deadline=None)  # each example writes a file
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text('\t\r\n",{}[]:aid_0\\u', max_size=40).map(str.encode),
        st.text(max_size=30).map(lambda s: s.encode("utf-8", "surrogatepass")),
    ),
    st.booleans(),
)
def test_arbitrary_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, compress: bool
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / ("a.gz" if compress else "a")
    path.write_bytes(content)
    for form in CORPUS_FORMATS:
        try:
            documents = list(read_documents([path], format=form))
        except TiercelError:
            continue
        for one in documents:
            assert one.id
            orjson.dumps([one.id, one.title, one.text, dict(one.metadata)])


def test_every_format_is_listed() -> None:
    assert get_args(CorpusFormat) == CORPUS_FORMATS


def test_a_real_collection(scifact: Path) -> None:
    documents = list(read_documents([scifact]))
    assert len(documents) == 5183
    assert len({one.id for one in documents}) == 5183
    assert (documents[0].id, documents[0].title[:14]) == ("4983", "Microstructura")
