from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.conftest import FeedStdin, Write
from tiercel.data.candidates import groups_from_run, read_groups
from tiercel.data.corpus import read_documents
from tiercel.data.queries import read_queries
from tiercel.data.runs import read_run
from tiercel.errors import InputError
from tiercel.protocols import CandidateGroup
from tiercel.types import DocId, Document, Query, QueryId, Ranking


def document(name: str, text: str, title: str = "") -> Document:
    return Document(DocId(name), text, title)


def query(name: str, text: str, *history: str) -> Query:
    return Query(QueryId(name), text, history)


def ranking(name: str, *doc_ids: str, text: str = "") -> Ranking:
    """The documents in this order."""
    ids = [DocId(doc_id) for doc_id in doc_ids]
    return Ranking.from_scores(query(name, text), ids, range(len(ids), 0, -1), stage="bm25", keep=len(ids))


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        list(read_groups(path))
    return caught.value


def test_strings_and_objects(write: Write) -> None:
    path = write(
        "c.jsonl",
        '{"query": "fast birds", "documents": ["one", {"id": "x", "text": "two", "title": "T"}, {"text": ""}]}\n'
        '\n{"query_id": 7, "query": "", "documents": [], "history": ["and?"], "context": [1]}\r\n'
        '{"query_id": "k", "query": "u", "documents": [{"_id": 5, "text": "t", "title": null, "year": 2021}]}',
    )
    assert list(read_groups(path)) == [
        CandidateGroup(query("1", "fast birds"), [document("0", "one"), document("x", "two", "T"), document("2", "")]),
        CandidateGroup(query("7", "", "and?"), []),
        CandidateGroup(query("k", "u"), [Document(DocId("5"), "t", "", {"year": 2021})]),
    ]


def test_standard_input(feed_stdin: FeedStdin) -> None:
    feed_stdin(b'{"query": "q", "documents": ["a", "b"]}\n')
    assert list(read_groups("-")) == [CandidateGroup(query("1", "q"), [document("0", "a"), document("1", "b")])]


def test_an_empty_file(write: Write) -> None:
    assert list(read_groups(write("c.jsonl", ""))) == []
    assert list(read_groups(write("d.jsonl", "\n \n"))) == []


def test_lines_are_read_as_they_are_asked_for(write: Write) -> None:
    groups = read_groups(write("c.jsonl", '{"query": "q", "documents": ["a"]}\nnot JSON\n'))
    assert next(groups).query.text == "q"
    with pytest.raises(InputError, match="this is not JSON"):
        next(groups)


def test_a_file_that_is_not_there_is_noticed_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_groups(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("line", "found", "expected"),
    [
        ("[1]", "a line that holds a list of 1", "one JSON object per line"),
        ('{"documents": []}', "no 'query'", "a string"),
        ('{"query": 1, "documents": []}', "the number 1 as 'query'", "a string"),
        ('{"query": "q"}', "no 'documents'", "a list of strings and objects"),
        ('{"query": "q", "documents": "d"}', "the string 'd' as 'documents'", "a list of strings and objects"),
        ('{"query": "q", "query_id": "", "documents": []}', "the query id is empty", ""),
        ('{"query": "q", "query_id": 1.5, "documents": []}', "the number 1.5 as the query id", ""),
        ('{"query": "q", "documents": [], "history": "h"}', "the string 'h' as 'history'", ""),
        (
            '{"query": "q", "documents": ["a", null]}',
            "null at position 1 of 'documents'",
            'a string or an object with "text"',
        ),
        ('{"query": "q", "documents": [{"id": "a"}]}', "no 'text' of the document at position 0", "a string"),
        (
            '{"query": "q", "documents": [{"text": "a", "title": 3}]}',
            "the number 3 as 'title' of the document at position 0",
            "a string",
        ),
        (
            '{"query": "q", "documents": [{"id": true, "text": "a"}]}',
            "true as the id of the document at position 0",
            "a string or a whole number",
        ),
        (
            '{"query": "q", "documents": [{"id": 1, "text": "a"}, "b"]}',
            "document '1' a second time, at position 1",
            "each id once in 'documents'; a document without one goes by its position, 0 the first",
        ),
    ],
)
def test_lines_that_are_refused(write: Write, line: str, found: str, expected: str) -> None:
    path = write("c.jsonl", f'{{"query": "q", "documents": []}}\n{line}\n')
    error = refused(path)
    assert (error.where, error.found) == (f"{path}:2", found)
    assert error.expected.startswith(expected)


def test_a_missing_key_says_what_a_line_is(write: Write) -> None:
    path = write("c.jsonl", '{"query": "q"}\n')
    assert str(refused(path)) == (
        f"{path}:1: no 'documents'; expected a list of strings and objects. "
        'A line is {"query": …, "documents": ["text", {"id": …, "text": …, "title": …}, …]}'
    )


def test_each_query_once(write: Write) -> None:
    path = write("c.jsonl", '{"query": "q", "query_id": 2, "documents": []}\n{"query": "r", "documents": []}\n')
    error = refused(path)
    assert error.where == f"{path}:2"
    assert error.found == f"the query id '2' a second time; the first is at {path}:1"


def test_a_run_with_its_queries_and_a_corpus() -> None:
    read: list[str] = []

    def corpus() -> Iterator[Document]:
        for name in "abcde":
            read.append(name)
            yield document(name, f"text {name}")

    found = groups_from_run(
        [ranking("2", "d", "z", "a"), ranking("1", "b", "d", "y", "z"), ranking("3")],
        [query("1", "one"), query("2", "two", "before"), query("3", "three"), query("4", "not in the run")],
        corpus(),
    )
    a, b, d = document("a", "text a"), document("b", "text b"), document("d", "text d")
    assert found.groups == [
        CandidateGroup(query("2", "two", "before"), [d, a]),
        CandidateGroup(query("1", "one"), [b, d]),
        CandidateGroup(query("3", "three"), []),
    ]
    assert found.missing == ["z", "y"]
    assert read == list("abcde")


def test_a_query_comes_from_the_run_where_the_queries_lack_it() -> None:
    run = [ranking("1", "a", text="of the run"), ranking("2", "a", text="of the run")]
    found = groups_from_run(run, [query("2", "of the queries")], [document("a", "")])
    assert [group.query.text for group in found.groups] == ["of the run", "of the queries"]


def test_a_query_without_text_is_refused_before_the_corpus_is_read() -> None:
    read: list[str] = []

    def corpus() -> Iterator[Document]:
        read.append("a")
        yield document("a", "")

    with pytest.raises(InputError, match="no text for the query '1' of the run; expected each query of the run among"):
        groups_from_run([ranking("1", "a")], [query("2", "x")], corpus())
    assert read == []
    # One that is empty on purpose is as good as any.
    assert groups_from_run([ranking("1", "a")], [query("1", "")], []).missing == ["a"]


def test_a_document_of_the_run_that_comes_twice() -> None:
    corpus = [document("b", "x"), document("b", "y"), document("a", "x"), document("a", "y")]
    with pytest.raises(InputError, match="the document id 'a' a second time; expected each document of the run once"):
        groups_from_run([ranking("1", "a")], [query("1", "q")], corpus)


def test_files_of_the_usual_forms(write: Write) -> None:
    run = write("r.trec", "q1 Q0 d2 1 2 t\nq1 Q0 d1 2 1 t\n")
    queries = write("q.tsv", "q1\tfast birds\n")
    corpus = write("c.tsv", "d1\tone\nd2\ttwo\nd3\tthree\n")
    found = groups_from_run(read_run(run), read_queries(queries), read_documents([corpus]))
    assert found.groups == [CandidateGroup(query("q1", "fast birds"), [document("d2", "two"), document("d1", "one")])]
    assert found.missing == []


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), max_size=5), st.sets(st.sampled_from("abcdefgh")))
def test_groups_and_missing_documents_make_up_the_run(lists: list[list[str]], held: set[str]) -> None:
    run = [ranking(str(number), *doc_ids, text="q") for number, doc_ids in enumerate(lists)]
    found = groups_from_run(run, [], [document(name, name) for name in sorted(held)])
    for group, doc_ids in zip(found.groups, lists, strict=True):
        assert [candidate.id for candidate in group.documents] == [name for name in doc_ids if name in held]
    assert found.missing == list(dict.fromkeys(name for doc_ids in lists for name in doc_ids if name not in held))
